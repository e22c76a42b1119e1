"""Write a compressed model for others: a folder in hub layout, reloaded and compared before it is published.

`dense` writes plain safetensors with the zeros in them, for any loader (and no `sparsity_config`, which newer
loaders refuse); `gptq` and `compressed-tensors` write packed integers. Every format's traps are silent, so
the folder appears under its name only after it was opened again and gave the same logits.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from kick_core import methods
from kick_core.artifacts import OpenModel
from kick_core.formats import GPTQ, PACKED, Grid, gptq_config, gptq_tensors, packed_config, packed_tensors
from kick_core.methods._grid import group_of
from kick_core.models.blocks import decoder_blocks, matrices
from kick_core.models.loading import open_model
from kick_core.models.source import find
from kick_core.spec import BadRequest, IntGrid, KickError, ModelRef, Recipe
from kick_core.store import artifacts
from kick_core.store.files import no_space_named, require_space
from kick_core.weights import unpack_bits
from kick_core.workshop import Workshop

FORMATS = ("dense", GPTQ, PACKED)
SHARD = 5_000_000_000
"""Bytes in one weight file at most."""

TOLERANCE = {"dense": 0.0, GPTQ: 0.05, PACKED: 0.05}
"""Largest difference of reloaded logits, relative to their spread. GPTQ files hold scales in float16."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: `difference` is the largest of the reloaded logits', relative to their spread."""

    folder: Path
    format: str
    bytes: int
    difference: float


def export(shop: Workshop, recipe: Recipe, folder: Path, form: str) -> Exported:
    """Write a made recipe to a new folder. Raises BadRequest for a format that cannot hold it."""
    if form not in FORMATS:
        raise BadRequest(f"unknown format {form!r}: {', '.join(FORMATS)}")
    if folder.exists() and any(folder.iterdir()):
        raise BadRequest(f"{folder} is there already and not empty: name a new folder")
    grid = _grid_of(recipe, form) if form != "dense" else None
    shop.put_on(recipe)
    model = shop.opened.model
    require_space(folder, sum(p.nbytes for p in model.parameters()))
    staged = folder.resolve().with_name(f".{folder.name}.{uuid.uuid4().hex}")
    staged.mkdir(parents=True)
    try:
        with no_space_named(folder, sum(p.nbytes for p in model.parameters())):
            _write(shop, recipe, staged, form, grid)
            difference = _checked(shop.opened, staged, TOLERANCE[form])
        if folder.exists():
            folder.rmdir()
        os.rename(staged, folder)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return Exported(folder, form, sum(p.stat().st_size for p in folder.iterdir()), difference)


def _grid_of(recipe: Recipe, form: str) -> tuple[IntGrid, dict[str, Any]]:
    full = methods.resolve(recipe)
    last = full.then or full
    if not isinstance(last.target, IntGrid):
        raise BadRequest(f"{recipe.text} has no integer grid: write it with --format dense")
    if last.method not in ("rtn", "gptq"):
        raise BadRequest(
            f"{last.method} keeps more than codes and scales, which {form} cannot hold: use --format dense"
        )
    if (how := methods.recovery(full)) and how.trains:
        raise BadRequest(
            f"recover={how.kind} keeps updates beside the codes, which {form} cannot hold: use --format dense"
        )
    options = dict(last.options)
    if form == GPTQ and last.target.bits not in (4, 8):
        raise BadRequest(
            f"GPTQ files are read by others at 4 and 8 bit, not at {last.target.bits}: use compressed-tensors"
        )
    if form == PACKED and not last.target.symmetric:
        raise BadRequest(
            "sym=false: transformers 5.23 refuses packed zero points of its own format; use sym=true or gptq"
        )
    if form == PACKED and options.get("act_order"):
        raise BadRequest("act_order=true permutes groups, which pack-quantized readers handle differently: use gptq")
    return last.target, options


def _write(
    shop: Workshop, recipe: Recipe, folder: Path, form: str, grid: tuple[IntGrid, dict[str, Any]] | None
) -> None:
    opened = shop.opened
    config = json.loads((opened.source.folder / "config.json").read_text())
    tensors = _plain_tensors(opened.model)
    if grid is not None:
        target, options = grid
        assert target.group is not None
        if form == GPTQ:
            settings = gptq_config(target.bits, target.group, target.symmetric, bool(options.get("act_order")))
            (folder / "quantize_config.json").write_text(json.dumps(settings, indent=2))
        else:
            settings = packed_config(target.bits, target.group, target.symmetric)
        config["quantization_config"] = settings
        tensors = _with_grids(shop, recipe, tensors, form, target)
    _save_shards(tensors, folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for path in opened.source.folder.iterdir():
        beside = path.is_file() and path.suffix in (".json", ".jinja", ".model", ".txt")
        if beside and path.name != "model.safetensors.index.json" and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    if recipe.target is not None:
        card = artifacts.card(shop.store, shop.key(recipe))
        (folder / "kick_compression.json").write_text(json.dumps(card.to_json(), indent=1))


def _plain_tensors(model: PreTrainedModel) -> dict[str, Tensor]:
    """The checkpoint's tensors by name; a tied head is left out, as loaders expect."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if model.config.get_text_config().tie_word_embeddings:
        embedding = model.get_input_embeddings().weight
        tied = {n for n, p in model.named_parameters(remove_duplicate=False) if p is embedding}
        for name in sorted(tied)[:-1]:
            state.pop(name, None)
    return state


def _with_grids(
    shop: Workshop, recipe: Recipe, tensors: dict[str, Tensor], form: str, target: IntGrid
) -> dict[str, Tensor]:
    """The same with every compressed linear's weight replaced by its packed form."""
    model, key = shop.opened.model, shop.key(recipe)
    write = gptq_tensors if form == GPTQ else packed_tensors
    paths = {id(module): name for name, module in model.named_modules()}
    for number, block in enumerate(decoder_blocks(model)):
        stored = load_file(artifacts.block_path(shop.store, key, number))
        linears = dict(block.named_modules())
        for matrix in matrices(block):
            module = linears.get(matrix.name)
            if not isinstance(module, nn.Linear):
                raise BadRequest(f"{matrix.name} of {type(model).__name__} is no plain linear: use --format dense")
            name = f"{paths[id(module)]}"
            found = _stored_grid(matrix.name, stored, matrix.read().shape[1], target)
            del tensors[f"{name}.weight"]
            tensors |= write(name, found, target.symmetric)
    return tensors


def _stored_grid(name: str, stored: dict[str, Tensor], cols: int, target: IntGrid) -> Grid:
    size = cols if target.group == -1 else target.group
    assert size is not None
    if cols % size:
        raise BadRequest(f"{name} has {cols} inputs, which groups of {size} do not divide: others cannot read the rest")
    groups = stored.get(f"{name}.groups", group_of(cols, target))
    codes = unpack_bits(stored[f"{name}.codes{target.bits}"], target.bits, cols)
    return Grid(codes, stored[f"{name}.scales"], stored[f"{name}.zeros"], groups, target.bits)


def _save_shards(tensors: dict[str, Tensor], folder: Path) -> None:
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if size + tensor.nbytes > SHARD and shards[-1]:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", metadata={"format": "pt"})
        return
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(shard, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


@torch.inference_mode()
def _checked(opened: OpenModel, folder: Path, tolerance: float) -> float:
    """Open what was written and compare logits. Raises KickError on anything but the same model."""
    again = open_model(find(ModelRef(str(folder))), opened.dtype, opened.model.device.type)
    vocabulary = opened.model.config.get_text_config().vocab_size
    probe = torch.randint(vocabulary, (2, min(64, opened.source.context)), generator=torch.Generator().manual_seed(0))
    wanted, found = (m(probe.to(m.device), use_cache=False).logits.float() for m in (opened.model, again))
    difference = float((wanted - found).abs().max() / wanted.std())
    if not difference <= tolerance:
        raise KickError(
            f"the exported model differs from the compressed one (logits by {difference:.3g} of their spread)"
        )
    return difference
