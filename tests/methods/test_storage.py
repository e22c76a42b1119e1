"""One fact, one formula: plan, page, card and disk agree on what compressed weights weigh."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from kick_core import methods, views
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import open_for
from kick_core.methods import storage
from kick_core.records import Card
from kick_core.spec import BitBudget, Calibration, IntGrid, KeepNofM, ModelRef, Recipe, Unstructured, parse
from kick_core.store import Store, weight_artifacts
from kick_core.sweeps import cost, sweep_keys
from kick_core.sweeps.sweep_keys import ModelSizes
from tests.tiny import save_tiny

HEADER = 176
"""Bytes that a tensor's entry in its file's header takes at most, for names and shapes as small as these; the formula
counts tensors alone."""

TRAINED = "recover_tokens=1024"
GROUPS = ("", ",group=32", ",group=48", ",group=-1")  # the default, one that divides, one that does not, whole rows
EXACT = (
    *(f"{method}@0.5" for method in ("magnitude", "random", "ria", "sparsegpt", "wanda")),
    *(f"{method}@2:4" for method in ("magnitude", "random", "ria", "sparsegpt", "wanda")),
    *(f"{method}@{bits}bit{group}" for method in ("rtn", "gptq", "awq") for bits in (3, 4) for group in GROUPS),
    *(f"gptq@4bit,act_order=true,group={group}" for group in (-1, 32)),
    "gptq@4bit,act_order=true,static_groups=true,group=32",
    "int8_outlier@8bit,threshold=2.5",
    *(
        f"{pruner}@{target}+{rounder}@4bit{group}"
        for rounder, group in (("gptq", ""), ("gptq", ",group=48"), ("rtn", ",group=32"))
        for pruner in ("magnitude", "random", "ria", "sparsegpt", "wanda")
        for target in ("0.5", "2:4")
    ),
    f"wanda@0.5,recover=blocks,{TRAINED}",
    f"gptq@3bit,group=32,recover=blocks,{TRAINED}",
    f"sparsegpt@2:4+gptq@4bit,recover=blocks,{TRAINED}",
    f"wanda@0.5,recover=lora,recover_rank=4,{TRAINED}",
    f"gptq@3bit,group=32,recover=lora,recover_rank=4,{TRAINED}",
    f"sparsegpt@2:4+gptq@4bit,group=48,recover=lora,recover_rank=4,{TRAINED}",
)  # fmt: skip
"""Recipes whose plan knows every byte but for the rounding of how many weights go."""

PLANNED = (
    "wanda@0.5,alloc=owl",
    "sparsegpt@0.5,alloc=owl",
    "wanda@0.5,alloc=search",
    "width@0.25",
    "depth@0.5",
    "mop@0.25",
    "mix@4.5bpw",
    "mix@6bpw,choices=gptq@8bit/sparsegpt@2:4+gptq@4bit/rtn@3bit/wanda@0.5/dense",
    f"mix@5bpw,recover=lora,recover_rank=4,{TRAINED}",
)
"""Recipes that share out what goes by looking at the model: the plan knows the target, the card what came of it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny(tmp_path_factory.mktemp("tiny"))


def sealed(store: Store, folder, recipe: Recipe) -> tuple[Card, ModelSizes]:
    """The card of an artifact made now, and what a plan knows of its model."""
    calibration = Calibration("pocket", windows=8, length=32)
    builder = ArtifactBuilder(store, open_for(ModelRef(str(folder)), store, "cpu"), calibration)
    for _ in builder.make(recipe):
        pass
    return weight_artifacts.card(store, builder.key(recipe)), sweep_keys.sizes(builder.opened.model)


def on_disk(store: Store, card: Card) -> list[dict[str, np.ndarray]]:
    return [load_file(weight_artifacts.block_path(store, card.key, block)) for block in range(card.blocks)]


def test_every_method_is_among_these() -> None:
    tried = {part.method for text in EXACT + PLANNED for part in (parse(text), parse(text).then) if part}
    assert tried == set(methods.names())
    joining = {name for name in methods.names() if methods.card(name).joins}
    assert {then.method for text in EXACT if (then := parse(text).then)} == joining


@pytest.mark.parametrize("text", EXACT + PLANNED)
def test_plan_page_card_and_disk_agree(store: Store, folder, text: str) -> None:
    if "lora" in text:
        pytest.importorskip("peft")
    recipe = parse(text)
    card, known = sealed(store, folder, recipe)
    blocks = on_disk(store, card)
    tensors = [(name, tensor) for block in blocks for name, tensor in block.items()]
    measured = sum(tensor.nbytes for _, tensor in tensors)
    outliers = sum(tensor.size for name, tensor in tensors if name.endswith(".outliers"))
    if recipe.method == "int8_outlier":
        assert outliers > 0

    # card and disk: what was sealed is what lies there, tensors and headers
    files = sum(weight_artifacts.block_path(store, card.key, block).stat().st_size for block in range(card.blocks))
    assert card.bytes == files and measured < files <= measured + HEADER * len(tensors)
    # the formula, to the byte; only outlier columns, which calibration finds, are no part of a recipe
    size = storage.card_size(card)
    assert size.stored + storage.INDEX * outliers == measured
    if text in EXACT:
        shapes = {one.name.partition(".")[2]: (one.rows, one.cols) for one in card.layers}
        alone = sum(_alone(_own(block, name), recipe, shape) for block in blocks for name, shape in shapes.items())
        assert size.alone == pytest.approx(alone)
    # the page
    row = views.weights(store).set_index("key").loc[card.key]
    assert row["bytes"] == files and row["alone"] == size.alone
    assert row["bits_per_weight"] == pytest.approx(8 * size.alone / card.weights)
    preview = views.preview(store, card.fingerprint, text)
    assert (preview.bytes, preview.stored) == (pytest.approx(size.alone), files)
    # the plan
    planned = cost.artifact_bytes(recipe, known)
    if text in EXACT:
        assert planned == pytest.approx(size.stored, rel=0.01)
        bits = storage.bits_per_weight(recipe, 32, [storage.Shape(*shape) for shape in known.matrices])
        assert bits == pytest.approx(row["bits_per_weight"], rel=0.01)
    elif isinstance(recipe.target, BitBudget):
        assert methods.recovery(recipe) or size.alone <= planned * 1.001
    else:
        assert planned == pytest.approx(size.stored, rel=0.25)


def _own(block: Mapping[str, np.ndarray], layer: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{layer}."): t for name, t in block.items() if name.startswith(f"{layer}.")}


def _alone(tensors: Mapping[str, np.ndarray], recipe: Recipe, shape: tuple[int, int]) -> float:
    """Bytes of one float32 matrix without the dense model, counted from what lies on disk."""
    codes = next((tensor for name, tensor in tensors.items() if name.startswith("codes")), None)
    if codes is None:
        kept = np.unpackbits(tensors["mask"], axis=1, count=shape[1], bitorder="little").sum()
        return float(tensors["mask"].nbytes + 4 * kept)
    total = sum(tensor.nbytes for name, tensor in tensors.items() if name != "outliers")
    if not isinstance(recipe.target, Unstructured | KeepNofM):
        return float(total)
    places = 0 if "mask" in tensors else shape[0] * -(-shape[1] // 8)
    return total - codes.nbytes * recipe.target.sparsity + places


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_halves_the_values_alone(store: Store, tmp_path, dtype) -> None:
    card, _ = sealed(store, save_tiny(tmp_path / "model", dtype=dtype), parse("sparsegpt@2:4"))
    masks, values = card.weights / 8, card.weights / 2 * dtype.itemsize
    assert storage.card_size(card) == storage.Size(masks + values, masks + values)


def test_bits_of_large_matrices() -> None:
    for text, bits in {
        "wanda@0.5": 9, "sparsegpt@2:4": 9, "depth@0.25": 12, "gptq@4bit": 4 + 40 / 128, "rtn@3bit,group=-1": 3,
        "sparsegpt@2:4+gptq@4bit": 2 + 40 / 128 + 1, "mix@4.5bpw": 4.5, "dense": 16, "of_old@4bit": 4 + 40 / 128,
        "gptq@4bit,recover=lora": float("nan"), "wanda@0.5,recover=lora": 9,
    }.items():  # fmt: skip
        assert storage.bits_per_weight(parse(text)) == pytest.approx(bits, abs=1e-4, nan_ok=True), text
    assert isinstance(parse("rtn@3bit").target, IntGrid)
