"""Sweeps leave nested masks in shared files, and a model wears them as it wears masks of their own."""

import json

import pytest
import torch

from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.export import export
from kick_core.artifacts.loaded_model import open_for
from kick_core.cli import main
from kick_core.errors import KickError
from kick_core.models.blocks import decoder_blocks, matrices
from kick_core.spec import Calibration, ModelRef, parse
from kick_core.store import open_store, weight_artifacts
from kick_core.store.nested_masks import bit_planes, sharing
from kick_core.sweeps.driver import run
from kick_core.sweeps.request import SweepJob
from kick_core.views import matrices as looks

RATIOS = ("0.2", "0.35", "0.5", "0.65")
MAGNITUDE, WANDA = (tuple(f"{method}@{ratio}" for ratio in RATIOS) for method in ("magnitude", "wanda"))


def sweep(folder, store, recipes, propagate="compressed"):
    calibration = Calibration("pocket", 10, 32, propagate=propagate)
    steps = list(run(SweepJob(str(folder), recipes, calibration=calibration), store, 1))
    return ArtifactBuilder(store, open_for(ModelRef(str(folder)), store, "cpu"), calibration), steps


def files(store, key):
    return [weight_artifacts.block_path(store, key, block).stat().st_ino for block in range(2)]


def linears(model):
    return [m.read().clone() for block in decoder_blocks(model) for m in matrices(block)]


@pytest.mark.parametrize(("recipes", "propagate"), [(MAGNITUDE, "compressed"), (WANDA, "dense")])
def test_a_series_shares_its_files_and_is_worn_the_same(store, tmp_path, tiny_folder, recipes, propagate):
    builder, steps = sweep(tiny_folder, store, (*recipes, f"{recipes[0].split('@')[0]}@2:4"), propagate)
    assert "files shared by 4 nested masks" in {step.message for step in steps}
    keys = [builder.key(parse(text)) for text in recipes]
    assert len({tuple(files(store, key)) for key in keys}) == 1
    apart = open_store(tmp_path / "apart")
    for text, key in zip(recipes, keys, strict=True):
        alone, _ = sweep(tiny_folder, apart, (text,), propagate)
        assert alone.key(parse(text)) == key, "a key does not depend on how masks are kept"
        builder.apply_recipe(parse(text))
        alone.apply_recipe(parse(text))
        assert all(map(torch.equal, linears(builder.opened.model), linears(alone.opened.model)))
        manifests = [json.loads((s.folder("weights", key) / "manifest.json").read_text()) for s in (store, apart)]
        for block in range(2):
            name = f"block-{block:04d}.safetensors"
            assert manifests[0]["files"][name] == manifests[1]["files"][name], "the same sealed bytes"
            with weight_artifacts.block_path(store, key, block).open("rb") as file:
                assert bit_planes.size(file, key) is not None
        card = weight_artifacts.card(store, key)
        for layer in card.layers:
            block, _, name = layer.name.partition(".")
            seen = [looks.kept(s, key, int(block), name, layer.cols) for s in (store, apart)]
            assert seen[0].shape == (layer.rows, layer.cols) and (seen[0] == seen[1]).all()
    again = list(run(SweepJob(str(tiny_folder), recipes, calibration=builder.calibration), store, 1))
    assert again[-1].message == "done" and len({tuple(files(store, key)) for key in keys}) == 1


def test_a_series_from_pruned_activations_keeps_its_masks(store, tiny_folder):
    """Block after block every ratio sees other activations: some weights come back. Never a candidate, and no proof."""
    builder, _ = sweep(tiny_folder, store, WANDA)
    keys = [builder.key(parse(text)) for text in WANDA]
    assert sharing.find(store) == [] and len({tuple(files(store, key)) for key in keys}) == 4
    assert bit_planes.pack({key: weight_artifacts.as_made(store, key, 0) for key in keys}) is not None, (
        "the first sees the same"
    )
    assert bit_planes.pack({key: weight_artifacts.as_made(store, key, 1) for key in keys}) is None


def test_a_block_that_is_not_nested_keeps_masks_of_its_own(store, tiny_folder, monkeypatch):
    builder, _ = sweep(tiny_folder, store, WANDA)
    keys = sorted(builder.key(parse(text)) for text in WANDA)
    before = [weight_artifacts.as_made(store, key, block) for key in keys for block in range(2)]
    monkeypatch.setattr(sharing, "find", lambda _: [keys])
    assert len(list(sharing.share(store))) == 2
    found = [files(store, key) for key in keys]
    assert len({one[0] for one in found}) == 1 and len({one[1] for one in found}) == 4
    assert [weight_artifacts.as_made(store, key, block) for key in keys for block in range(2)] == before
    assert all(weight_artifacts.verify(store, key, deep=True) == [] for key in keys)


def test_series_of_other_models_and_calibrations_stay_apart(store, tmp_path, tiny_folder):
    from tests.tiny import save_tiny

    other = save_tiny(tmp_path / "other", seed=7)
    builder, _ = sweep(tiny_folder, store, MAGNITUDE)
    strange, _ = sweep(other, store, MAGNITUDE)
    keys = [[one.key(parse(text)) for text in MAGNITUDE] for one in (builder, strange)]
    assert sorted(map(sorted, keys)) == sorted(sharing.find(store))
    assert [len({tuple(files(store, key)) for key in mine}) for mine in keys] == [1, 1]
    with pytest.raises(KickError, match="made from another model"):
        builder.opened.apply_weights(store, keys[1][0])
    with pytest.raises(KickError, match="does not tell which"):
        bit_planes.tensors(weight_artifacts.block_path(store, keys[0][0], 0), keys[1][0], "pt")


def test_what_shares_files_is_exported_and_listed(store, tmp_path, tiny_folder, capsys):
    assert main(["compress", str(tiny_folder), *MAGNITUDE, "--cache", str(store.root)]) == 0
    said = capsys.readouterr().out
    assert main(["list", "--json", "--cache", str(store.root)]) == 0
    rows = json.loads(capsys.readouterr().out)["artifacts"]
    assert len(rows) == 4 and {round(row["bits_per_weight"], 2) for row in rows} <= {
        float(w) for w in said.split() if w[0] in "01"
    }
    builder = ArtifactBuilder(store, open_for(ModelRef(str(tiny_folder)), store, "cpu"), Calibration())
    assert export(builder, parse(MAGNITUDE[2]), tmp_path / "out", "dense").difference == 0.0


def test_a_mask_beside_bfloat16_values_is_shown(store, tmp_path):
    from tests.tiny import save_tiny

    folder = save_tiny(tmp_path / "half", dtype=torch.bfloat16)
    builder, _ = sweep(folder, store, ("sparsegpt@0.5",))
    builder.apply_recipe(parse("sparsegpt@0.5"))
    for matrix in matrices(decoder_blocks(builder.opened.model)[1]):
        kept = looks.kept(store, builder.key(parse("sparsegpt@0.5")), 1, matrix.name, matrix.read().shape[1])
        assert kept is not None and not matrix.read()[~torch.from_numpy(kept)].any()


def test_weights_that_are_not_numbers_are_refused_before_anything_is_shared(store, tiny_folder):
    builder, _ = sweep(tiny_folder, store, ("dense",))
    builder.opened.remember_dense()
    next(iter(matrices(decoder_blocks(builder.opened.model)[1]))).read()[0, 0] = float("nan")
    with pytest.raises(KickError, match="block 1"):
        for _ in builder.make(parse(MAGNITUDE[0])):
            pass
    assert weight_artifacts.cards(store) == [] and list(sharing.share(store)) == []
