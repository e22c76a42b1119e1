"""Weights and masks read without torch are those that torch reads."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from safetensors.torch import load_file, save_file

from kick_core import methods, views
from kick_core.errors import KickError
from kick_core.methods import InputStats
from kick_core.pocket import POCKET_MODELS
from kick_core.spec import parse
from kick_core.store import Store
from kick_core.views import matrices
from tests import synthetic

NAME, MODEL = "self_attn.q_proj", "pocket-4m"


def model_folder(folder: Path, tensors: dict[str, torch.Tensor]) -> str:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    save_file(tensors, folder / "model.safetensors")
    return str(folder)


def test_dense_weights_are_the_files() -> None:
    stored = load_file(POCKET_MODELS[MODEL] / "model.safetensors")[f"model.layers.3.{NAME}.weight"]
    assert stored.dtype == torch.bfloat16
    found = matrices.dense(MODEL, 3, NAME, tuple(stored.shape))
    assert found is not None and np.array_equal(found, stored.float().numpy())
    assert np.array_equal(matrices.dense(MODEL, 3, NAME, tuple(stored.shape), step=5), found[::5])
    assert matrices.dense(MODEL, 99, NAME) is None and matrices.dense("nowhere/model", 0, NAME) is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_transposed_matrix_is_turned(tmp_path: Path, dtype: torch.dtype) -> None:
    weight = torch.randn(6, 4).to(dtype)  # GPT-2 keeps [in, out]
    place = model_folder(tmp_path / "gpt", {"h.0.attn.c_attn.weight": weight, "h.10.attn.c_attn.weight": weight + 1})
    found = matrices.dense(place, 0, "attn.c_attn", (4, 6))
    assert found is not None and np.array_equal(found, weight.T.float().numpy())
    assert matrices.dense(place, 0, "attn.c_attn", (5, 6)) is None, "another shape is another matrix"


def test_linears_leave_embeddings_and_norms_out() -> None:
    found = matrices.linears(MODEL)
    assert {linear.block for linear in found} == set(range(8)) and len(found) == 8 * 7
    assert not any("norm" in linear.name or "embed" in linear.name for linear in found)
    assert matrices.linears("nowhere/model") == []


@settings(max_examples=40, deadline=None)
@given(
    some.sampled_from(["0.3", "0.5", "0.85", "2:4", "4:8", "1:4"]),
    some.integers(0, 2**31),
    some.booleans(),
)
def test_magnitude_is_foretold_exactly(target: str, seed: int, ties: bool) -> None:
    """Also with equal sizes and with zeros that are there already."""
    chance = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 16, generator=chance)
    if ties:
        weight = weight.round()
    recipe = parse(f"magnitude@{target}")
    made = methods.apply(methods.resolve(recipe), weight, InputStats(0))
    assert recipe.target is not None and made.mask is not None
    assert np.array_equal(matrices.smallest_dropped(weight.numpy(), recipe.target), made.mask.numpy())


def test_masks_are_the_artifacts(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense", "magnitude@0.3", "rtn@4bit"), task_names=("factoid_qa",), n=4)
    keys = views.weights(store).set_index("recipe")["key"]
    found = matrices.kept(store, keys["magnitude@0.3"], 2, "mlp.down_proj", 896)
    packed = load_file(store.folder("weights", keys["magnitude@0.3"]) / "block-0002.safetensors")["mlp.down_proj.mask"]
    assert found is not None and np.array_equal(
        found, np.unpackbits(packed.numpy(), axis=1, count=896, bitorder="little").astype(bool)
    )
    assert matrices.kept(store, keys["rtn@4bit"], 2, "mlp.down_proj", 896) is None, "nothing was pruned"
    assert matrices.kept(store, keys["magnitude@0.3"], 77, "mlp.down_proj", 896) is None


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"\xff" * 40)
    with pytest.raises(KickError, match=r"x\.safetensors is no whole safetensors file"):
        matrices.places(path)


def test_a_histogram_counts_every_weight() -> None:
    weight = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    mask = np.abs(weight) > 0.6
    bars = matrices.histogram(weight, mask)
    assert sum(bars["kept"]) == mask.sum() and sum(bars["dropped"]) == (~mask).sum()
    assert math.isclose(bars["threshold"][0], 0.6, abs_tol=0.01)
    assert matrices.histogram(weight, None)["threshold"] == [0.0]


@pytest.mark.parametrize("shape", [(3, 5), (160, 160), (161, 400), (1000, 7)])
def test_density_keeps_the_share(shape: tuple[int, int]) -> None:
    mask = np.random.default_rng(1).random(shape) < 0.4
    fields = matrices.density(mask)
    assert fields.shape == (min(160, shape[0]), min(160, shape[1])) and 0 <= fields.min() <= fields.max() <= 1
    assert abs(fields.mean() - mask.mean()) < 0.05
    assert matrices.density(np.ones(shape, bool)).min() == 1


def test_pictures_are_of_two_colours() -> None:
    pixels = matrices.picture(np.array([[True, False]]), side=8)
    assert pixels.shape == (4, 8, 3)
    assert tuple(pixels[0, 0]) == matrices.KEPT and tuple(pixels[0, -1]) == matrices.DROPPED


def look(store: Store, recipe: str, key: str = "") -> matrices.Look | None:
    return matrices.look(store, matrices.Asked(MODEL, recipe, key, 0, NAME, 192, 192))


def test_before_it_is_made_only_magnitude_is_foretold(tmp_path: Path) -> None:
    store = views.open_store(tmp_path)
    magnitude, wanda, rounded = (look(store, text) for text in ("magnitude@0.5", "wanda@0.5", "rtn@4bit"))
    assert magnitude and magnitude.foretold and magnitude.fields is not None
    assert sum(magnitude.bars["dropped"]) == 192 * 192 // 2  # type: ignore[index]
    for other in (wanda, rounded):
        assert other and not other.foretold and other.corner is None and other.bars is not None


def test_a_large_matrix_is_sampled() -> None:
    assert matrices.step_for(100, 100) == 1
    step = matrices.step_for(4096, 14336)
    assert 4096 / step * 14336 <= matrices.MOST * 1.01 and step > 1
