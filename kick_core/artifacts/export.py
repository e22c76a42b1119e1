"""Write a compressed model for others: a folder in hub layout, reloaded and compared before it is published.

`dense` writes plain safetensors with the zeros in them, for any loader (and no `sparsity_config`, which newer
loaders refuse); `gptq` and `compressed-tensors` write packed integers. Every format's traps are silent, so
the folder appears under its name only after it was opened again and gave the same logits.

Blocks are written one after the other. `checkpoint` writes a model whose blocks are on disk only, too: what is
asked by others than this process, or over several devices, is asked as such a folder.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from kick_core import methods
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import OpenModel
from kick_core.artifacts.written_tensors import Checkpoint, left_linears, with_recipe, written_tensors
from kick_core.errors import BadRequest, KickError
from kick_core.models.blocks import decoder_blocks, first_inputs, matrices, run_block
from kick_core.models.file_formats import GPTQ, PACKED, gptq_config, packed_config, require_words
from kick_core.models.loading import open_model
from kick_core.models.quantized import plain_names, quantization
from kick_core.models.shards import Shards, open_streamed, resident
from kick_core.models.source import Source, find
from kick_core.spec import DENSE, IntGrid, ModelRef, Recipe
from kick_core.store import checkpoints, weight_artifacts
from kick_core.store.files import no_space_named, require_space

FORMATS = ("dense", GPTQ, PACKED)
SHARD = 1_000_000_000
"""Bytes in one weight file, about: so much is held in memory until it is written."""

TOLERANCE = {"dense": 0.0, GPTQ: 2**-7, PACKED: 2**-7}
"""Largest difference of a reloaded weight, relative to its tensor's largest. GPTQ files hold scales in float16, and the
product is rounded to bfloat16 once more; logits would not do: on random tokens a bfloat16 model differs from itself in
float32 by four tenths of their spread."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: `difference` is the largest of the reloaded logits', relative to their spread."""

    folder: Path
    format: str
    bytes: int
    difference: float


def refuse_unexportable(builder: ArtifactBuilder, recipe: Recipe, folder: Path, form: str) -> None:
    """Refuse what cannot be written, before anything is compressed for it.

    Raises:
        BadRequest: an unknown format, a folder that is not empty, a recipe that the format cannot hold, or groups that
            do not divide a matrix's inputs.
    """
    if form not in FORMATS:
        raise BadRequest(f"unknown format {form!r}: {', '.join(FORMATS)}")
    if folder.exists() and any(folder.iterdir()):
        raise BadRequest(f"{folder} is there already and not empty: name a new folder")
    if form == "dense":
        return
    target, checkpoint = _grid_of(recipe, form)[0], Checkpoint(builder.opened)
    for number, block in enumerate(builder.opened.blocks()):
        for matrix in matrices(block):
            name, (rows, cols) = checkpoint.module_in_folder(number, matrix), matrix.read().shape
            if target.group not in (None, -1) and cols % target.group:
                fits = next(size for size in (64, 32, 16, 8, 4, 2, 1) if cols % size == 0)
                raise BadRequest(
                    f"{name} has {cols} inputs, which groups of {target.group} do not divide, and others read whole "
                    f"groups only: use group={fits} or group=-1"
                )
            if form == GPTQ:
                require_words(name, rows, cols, target.bits)


def export(builder: ArtifactBuilder, recipe: Recipe, folder: Path, form: str) -> Exported:
    """Write a made recipe to a new folder. Raises BadRequest as `refuse_unexportable` does."""
    refuse_unexportable(builder, recipe, folder, form)
    grid = _grid_of(recipe, form) if form != "dense" else None
    builder.apply_recipe(recipe)
    model = builder.opened.model
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise KickError(f"{name} is not finite under {recipe.text}, see its card: such a model is not exported")
    require_space(folder, sum(p.nbytes for p in model.parameters()))
    staged = folder.resolve().with_name(f".{folder.name}.{uuid.uuid4().hex}")
    staged.mkdir(parents=True)
    try:
        with no_space_named(folder, sum(p.nbytes for p in model.parameters())):
            _write(builder, recipe, staged, form, grid)
            difference = _checked(builder.opened, staged, TOLERANCE[form])
        if folder.exists():
            folder.rmdir()
        os.rename(staged, folder)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return Exported(folder, form, sum(p.stat().st_size for p in folder.iterdir()), difference)


@contextmanager
def checkpoint(builder: ArtifactBuilder, recipe: Recipe) -> Iterator[Source]:
    """A made recipe as a plain folder, there as long as the context; block by block, so never whole in memory.

    The dense model's own folder is one already, unless it is quantized. Raises KickError when what was written is
    not the same model.
    """
    opened, source = builder.opened, builder.opened.source
    if recipe == DENSE and quantization(source) is None:
        yield source
        return
    if not opened.streamed:
        builder.apply_recipe(recipe)
    elif faults := weight_artifacts.verify(builder.store, builder.key(recipe), deep=False):
        raise KickError(f"{faults[0]}: `kick verify` sets it aside, then it is made again")
    size = sum(parameter.nbytes for parameter in opened.model.parameters())
    with ExitStack() as held, checkpoints.room(builder.store, builder.key(recipe)) as folder:
        if (handle := weight_artifacts.hold(builder.store, builder.key(recipe))) is not None:
            held.callback(os.close, handle)
        require_space(folder, size)
        with no_space_named(folder, size):
            _write(builder, recipe, folder, "dense", None)
        written = Source(source.name, folder, tuple(sorted(folder.glob("*.safetensors"))), builder.key(recipe))
        if opened.streamed:
            _same_states(builder, recipe, written)
        else:
            _checked(opened, folder, TOLERANCE["dense"])
        yield written


def _grid_of(recipe: Recipe, form: str) -> tuple[IntGrid, dict[str, Any]]:
    full = methods.resolve(recipe)
    last = full.then or full
    if not isinstance(last.target, IntGrid):
        raise BadRequest(f"{recipe.text} has no integer grid: write it with --format dense")
    if last.method not in ("rtn", "gptq"):
        raise BadRequest(
            f"{last.method} keeps more than codes and scales, which {form} cannot hold: use --format dense"
        )
    if (recovery := methods.recovery(full)) and recovery.trains:
        raise BadRequest(
            f"recover={recovery.kind} keeps updates beside the codes, which {form} cannot hold: use --format dense"
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
    builder: ArtifactBuilder, recipe: Recipe, folder: Path, form: str, grid: tuple[IntGrid, dict[str, Any]] | None
) -> None:
    """Weights, config, and what lies beside them in the model's own folder."""
    opened = builder.opened
    config = json.loads((opened.source.folder / "config.json").read_text())
    config.pop("quantization_config", None)  # of a folder that was quantized already: what is written is not
    if grid is not None:
        target, options = grid
        assert target.group is not None
        left = left_linears(opened)
        if form == GPTQ:
            settings = gptq_config(target.bits, target.group, target.symmetric, bool(options.get("act_order")))
            settings |= _gptq_left(builder, left)
            (folder / "quantize_config.json").write_text(json.dumps(settings, indent=2))
        else:
            settings = packed_config(target.bits, target.group, target.symmetric) | {"ignore": left}
        config["quantization_config"] = settings
    _set_dtype(config, opened.dtype)
    _save_shards(written_tensors(builder, recipe, form, grid[0] if grid else None), folder)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    for path in opened.source.folder.iterdir():
        is_companion = path.is_file() and path.suffix in (".json", ".jinja", ".model", ".txt")
        if is_companion and path.name not in _OF_WEIGHTS and not (folder / path.name).exists():
            shutil.copyfile(path, folder / path.name)
    if recipe.target is not None:
        card = weight_artifacts.card(builder.store, builder.key(recipe))
        (folder / "kick_compression.json").write_text(json.dumps(card.to_json(), indent=1))


def _set_dtype(config: dict[str, Any], dtype: str) -> None:
    """The dtype of what is written, in a config and in those inside it that name one."""
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = dtype
    for own in (value for value in config.values() if isinstance(value, dict)):
        for name in ("dtype", "torch_dtype"):
            if own.get(name) is not None:
                own[name] = dtype


def _gptq_left(builder: ArtifactBuilder, left: list[str]) -> dict[str, Any]:
    """How GPTQ's readers are told of linears inside the blocks that are left as they are (routers, say)."""
    path = f"{Checkpoint(builder.opened).blocks_path}."
    inside = sorted({name.removeprefix(path).partition(".")[2] for name in left if name.startswith(path)})
    if not inside:
        return {}
    quantized = {m.name for block in builder.opened.blocks() for m in matrices(block)}
    return {
        "modules_in_block_to_quantize": [sorted(quantized)],
        "dynamic": {rf"-:.*\.{re.escape(name)}$": {} for name in inside},
    }


_OF_WEIGHTS = ("model.safetensors.index.json", "quantize_config.json")
"""Files that describe the weights beside them, not the model."""


def _save_shards(tensors: Iterable[tuple[str, Tensor]], folder: Path) -> None:
    """Write tensors as they come, a file whenever `SHARD` bytes are together; files are named when all are there."""
    shards: list[list[str]] = []
    total = held = 0
    some: dict[str, Tensor] = {}

    def save() -> None:
        save_file(some, folder / f"part-{len(shards)}.safetensors", metadata={"format": "pt"})
        shards.append(list(some))
        some.clear()

    for name, tensor in tensors:
        if some and held + tensor.nbytes > SHARD:
            save()
            held = 0
        some[name] = tensor
        held += tensor.nbytes
        total += tensor.nbytes
    save()
    names = [f"model-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
    for number, name in enumerate(names if len(shards) > 1 else ["model.safetensors"]):
        os.rename(folder / f"part-{number}.safetensors", folder / name)
    if len(shards) > 1:
        places = {tensor: name for name, held_ in zip(names, shards, strict=True) for tensor in held_}
        index = {"metadata": {"total_size": total}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1))


@torch.inference_mode()
def _checked(opened: OpenModel, folder: Path, tolerance: float) -> float:
    """Open what was written and compare logits. Raises KickError on anything but the same model."""
    written = find(ModelRef(str(folder)))
    names = set(plain_names(opened.source)) ^ set(plain_names(written))
    if names:
        raise KickError(f"the exported folder and the model's own do not hold the same tensors: {min(names)!r}")
    again = open_model(written, opened.dtype, opened.model.device.type)
    probe = _probe(opened)
    for (name, weight), (_, other) in zip(opened.model.named_parameters(), again.named_parameters(), strict=True):
        apart = float((weight.float() - other.float()).abs().max() / weight.abs().max().clamp_min(1e-30))
        if not apart <= tolerance:
            raise KickError(
                f"the exported model differs from the compressed one: {name} by {apart:.3g} of its largest weight"
            )
    logits, reopened = (m(probe.to(m.device), use_cache=False).logits.float() for m in (opened.model, again))
    equal = (logits == reopened) | (logits.isnan() & reopened.isnan())
    difference = 0.0 if equal.all() else float((logits - reopened).abs().max() / logits.std())
    if tolerance == 0 and difference:
        raise KickError(
            f"the exported model differs from the compressed one (logits by {difference:.3g} of their spread)"
        )
    return difference


def _probe(opened: OpenModel) -> Tensor:
    """Token ids [2, n] that two models are compared on."""
    vocabulary = opened.model.config.get_text_config().vocab_size
    return torch.randint(vocabulary, (2, min(64, opened.source.context)), generator=torch.Generator().manual_seed(0))


def _same_states(builder: ArtifactBuilder, recipe: Recipe, written: Source) -> None:
    """As `_checked` for a model that is larger than memory: hidden states behind its last block, and its head.

    Raises KickError unless they are the same bits.
    """
    opened, device = builder.opened, builder.opened.model.device
    again = open_streamed(written, opened.model.dtype, device)
    shards = None if again is None else Shards(written, again)
    probe = _probe(opened)
    same = again is not None and torch.equal(
        _states(opened.model, probe, lambda block: with_recipe(builder, recipe, block)),
        _states(again, probe, lambda block: resident(again, shards, block, device)),
    )
    heads = [m.get_output_embeddings().weight for m in (opened.model, again) if m is not None]
    if not same or not torch.equal(*heads):
        raise KickError(f"{written.folder} is not the model that was written there")


@torch.no_grad()
def _states(
    model: PreTrainedModel, probe: Tensor, apply_recipe: Callable[[int], AbstractContextManager[Any]]
) -> Tensor:
    with apply_recipe(0):
        hidden, calls = first_inputs(model, probe)
    for number, block in enumerate(decoder_blocks(model)):
        with apply_recipe(number):
            hidden = run_block(block, hidden, calls[number])
    return hidden
