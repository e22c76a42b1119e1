"""The block walk: statistics, method, propagation, one decoder block after the other.

The walk is a generator: it yields a finished block and goes on when asked, so that the edges can show
progress, write files or stop. It knows no method and no architecture; methods are pure functions of one
matrix, and blocks say themselves which linears share an input.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kick_core import methods
from kick_core.methods import CompressedMatrix, Need, Seen
from kick_core.models.blocks import (
    Call,
    decoder_blocks,
    eager_experts,
    first_inputs,
    matrices,
    run_block,
    watched_inputs,
)
from kick_core.records import BlockReport, Card, LayerReport
from kick_core.spec import BadRequest, Calibration, KickError, Recipe, parse

BATCH = 8
"""Windows in one forward. Sums are made in this order, so it is part of what an artifact's key names."""


@dataclass(slots=True)
class _Tally:
    """Running statistics of one input, float32; `width` features."""

    width: int
    need: Need
    device: torch.device
    tokens: int = 0
    norms: Tensor = field(init=False)
    peaks: Tensor = field(init=False)
    gram: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        self.norms = torch.zeros(self.width, device=self.device)
        self.peaks = torch.zeros(self.width, device=self.device)
        self.gram = torch.zeros(self.width, self.width, device=self.device) if self.need == "gram" else None

    def add(self, inputs: Tensor) -> None:
        rows = inputs.reshape(-1, self.width).float()
        self.tokens += len(rows)
        self.norms += rows.square().sum(0)
        if len(rows):
            self.peaks = torch.maximum(self.peaks, rows.abs().amax(0))
        if self.gram is not None:
            self.gram.addmm_(rows.T, rows)

    def seen(self) -> Seen:
        return Seen(self.tokens, self.norms, self.gram, self.peaks)


def relative_loss(weight: Tensor, compressed: Tensor, gram: Tensor) -> float:
    """‖(W-Ŵ)X‖² / ‖WX‖² from the Gram matrix X X^T of the inputs, weights [out, in] float32."""
    change = compressed.float() - weight.float()
    whole = (weight.float() @ gram).mul_(weight.float()).sum()
    return float(((change @ gram).mul_(change).sum() / whole.clamp(min=1e-30)).clamp(min=0))


def compress_matrix(weight: Tensor, inputs: Tensor, recipe: str | Recipe) -> CompressedMatrix:
    """Compress one matrix by a recipe, looking at its inputs.

    `weight` [out, in] floating point; `inputs` [samples, tokens, in]. Returns a new matrix, `weight` is not
    changed. Raises BadRequest for shapes that do not fit or a recipe that cannot be met.
    """
    asked = methods.resolve(parse(recipe))
    if asked.target is None:
        return CompressedMatrix(weight.detach().clone())
    if weight.dim() != 2 or inputs.dim() != 3 or inputs.shape[-1] != weight.shape[1]:
        raise BadRequest(
            f"weight {tuple(weight.shape)} and inputs {tuple(inputs.shape)} do not fit: "
            f"[out, in] and [samples, tokens, in] are expected"
        )
    tally = _Tally(weight.shape[1], methods.needs(asked), weight.device)
    for sample in inputs:
        tally.add(sample)
    _require_finite(weight, "the weight")
    _require_finite(tally.norms, "the inputs")
    return methods.apply(asked, weight.detach(), tally.seen())


def _require_finite(tensor: Tensor, what: str) -> None:
    if not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise KickError(f"{what} holds {bad} NaN or infinite values: nothing can be compressed on them")


@dataclass(slots=True)
class Walked:
    """One finished block. `hidden` is the next block's input, None when the method looks at no data."""

    report: BlockReport
    results: dict[str, CompressedMatrix]
    hidden: Tensor | None


@dataclass(slots=True)
class _Inputs:
    """Calibration activations [windows, length, width] and each block's call for every batch size."""

    hidden: Tensor
    calls: dict[int, list[Call]]

    def batches(self, block: int) -> Iterator[tuple[slice, Tensor, Call]]:
        for start in range(0, len(self.hidden), BATCH):
            part = self.hidden[start : start + BATCH]
            yield slice(start, start + len(part)), part, self.calls[len(part)][block]


def _inputs(model: PreTrainedModel, ids: Tensor, hidden: Tensor | None) -> _Inputs:
    found, calls = [], {}
    for part in ids.split(BATCH):
        if hidden is not None and len(part) in calls:
            continue
        states, calls[len(part)] = first_inputs(model, part)
        found.append(states)
    return _Inputs(torch.cat(found) if hidden is None else hidden.to(model.device), calls)


def needs_data(recipe: Recipe) -> bool:
    """Whether a recipe looks at calibration data at all."""
    return methods.needs(recipe) != "nothing"


@torch.no_grad()
def walk(
    model: PreTrainedModel,
    recipe: Recipe,
    ids: Tensor | None,
    *,
    propagate: str = "compressed",
    start: int = 0,
    hidden: Tensor | None = None,
) -> Iterator[Walked]:
    """Compress a model in place, block by block from `start` on.

    `ids` [windows, length] are calibration tokens, full windows without padding (None for methods that look
    at no data). `hidden` are the saved inputs of block `start` when a stopped walk goes on.
    """
    asked = methods.resolve(recipe)
    if asked.target is None:
        return
    blocks = decoder_blocks(model)
    inputs = None
    if needs_data(asked):
        if ids is None:
            raise BadRequest(f"{asked.text} looks at data: give calibration tokens")
        inputs = _inputs(model, ids, hidden)
    for index in range(start, len(blocks)):
        began = time.perf_counter()
        with eager_experts(model):
            dense = _dense_pass(blocks[index], index, inputs, asked) if inputs else None
        results, layers = _compress_block(blocks[index], index, dense, asked)
        loss = _propagate(blocks[index], index, inputs, dense, propagate) if inputs and dense else None
        report = BlockReport(index, len(blocks), tuple(layers), time.perf_counter() - began, loss)
        yield Walked(report, results, inputs.hidden if inputs else None)


@dataclass(slots=True)
class _Dense:
    """What one pass through a block with its own weights told: statistics by linear, and its outputs."""

    seen: dict[str, Seen]
    outputs: list[Tensor]


def _dense_pass(block: nn.Module, index: int, inputs: _Inputs, recipe: Recipe) -> _Dense:
    need = methods.needs(recipe)
    tallies: dict[str, _Tally] = {}

    def see(names: tuple[str, ...], tensor: Tensor) -> None:
        leader = names[0]
        if leader not in tallies:
            tally = _Tally(tensor.shape[-1], need, tensor.device)
            tallies.update(dict.fromkeys(names, tally))
        tallies[leader].add(tensor)

    outputs = []
    with watched_inputs(block, see):
        for _, part, call in inputs.batches(index):
            outputs.append(run_block(block, part, call))
    for name, tally in tallies.items():
        _require_finite(tally.norms, f"block {index}: the input of {name}")
    return _Dense({name: tally.seen() for name, tally in tallies.items()}, outputs)


def _compress_block(
    block: nn.Module, index: int, dense: _Dense | None, recipe: Recipe
) -> tuple[dict[str, CompressedMatrix], list[LayerReport]]:
    results, layers = {}, []
    for matrix in matrices(block):
        began = time.perf_counter()
        weight = matrix.read()
        _require_finite(weight, f"block {index}: {matrix.name}")
        seen = dense.seen.get(matrix.name, _unseen(weight)) if dense else Seen(0)
        try:
            result = methods.apply(recipe, weight, seen)
        except BadRequest as error:
            raise BadRequest(f"block {index}, {matrix.name} {tuple(weight.shape)}: {error}") from error
        loss = relative_loss(weight, result.weight, seen.gram) if seen.gram is not None and seen.tokens else None
        matrix.write(result.weight)
        zeros = int((result.weight == 0).sum())
        seconds = time.perf_counter() - began
        layers.append(LayerReport(matrix.name, weight.shape[0], weight.shape[1], zeros, loss, seconds, result.note))
        results[matrix.name] = result
    return results, layers


def _unseen(weight: Tensor) -> Seen:
    """Statistics of a linear that no calibration token reached (an expert that was never chosen)."""
    width = weight.shape[1]
    ones = torch.ones(width, device=weight.device)
    return Seen(0, ones, torch.diag(ones), ones)


def _propagate(block: nn.Module, index: int, inputs: _Inputs, dense: _Dense, propagate: str) -> float:
    """Put the next block's inputs in place; returns the block's relative output error on the first batch."""
    loss = 0.0
    for number, (rows, part, call) in enumerate(inputs.batches(index)):
        output = dense.outputs[number]
        if number == 0 or propagate == "compressed":
            changed = run_block(block, part, call)
            if number == 0:
                error, whole = (changed - output).float().square().sum(), output.float().square().sum()
                loss = float(error / whole.clamp(min=1e-30))
            output = changed if propagate == "compressed" else output
        inputs.hidden[rows] = output
    return loss


def compress(
    model: PreTrainedModel, recipe: str | Recipe, calibration: Tensor | Calibration | None = None
) -> Iterator[BlockReport | Card]:
    """Compress an open model in place: yields a report per block, last the card.

    `calibration`: token ids [windows, length], or a Calibration (read with the model's own tokenizer).
    Nothing is stored; the card's key and fingerprint are empty. Raises BadRequest or KickError.
    """
    from kick_core.calibration import windows_for

    asked = parse(recipe)
    ids = windows_for(model, calibration) if isinstance(calibration, Calibration) else calibration
    propagate = calibration.propagate if isinstance(calibration, Calibration) else "compressed"
    layers: list[LayerReport] = []
    began = time.perf_counter()
    for walked in walk(model, asked, ids, propagate=propagate):
        layers += [dataclasses.replace(x, name=f"{walked.report.block}.{x.name}") for x in walked.report.layers]
        yield walked.report
    yield make_card(model, asked, layers, seconds=time.perf_counter() - began)


def make_card(
    model: PreTrainedModel,
    recipe: Recipe,
    layers: list[LayerReport],
    *,
    seconds: float,
    key: str = "",
    name: str = "",
    fingerprint: str = "",
    calibration: dict[str, object] | None = None,
    size: int = 0,
    warnings: tuple[str, ...] = (),
) -> Card:
    """The card of what a walk did. `layers` carry their block's number in front of their name."""
    from kick_core.provenance import now, versions

    weights = sum(layer.rows * layer.cols for layer in layers)
    return Card(
        key=key,
        model=name or model.config.name_or_path,
        fingerprint=fingerprint,
        recipe=recipe.text,
        resolved=methods.payload(recipe),
        calibration=calibration,
        dtype=str(model.dtype).removeprefix("torch."),
        device=model.device.type,
        blocks=len(decoder_blocks(model)),
        weights=weights,
        zeros=sum(layer.zeros for layer in layers),
        bytes=size,
        dense_bytes=weights * model.dtype.itemsize,
        seconds=seconds,
        created=now(),
        versions=versions(),
        layers=tuple(layers),
        warnings=warnings,
    )
