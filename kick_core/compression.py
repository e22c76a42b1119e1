"""The block walk: statistics, method, propagation, one decoder block after the other.

The walk is a generator: it yields a finished block and goes on when asked, so that the edges can show
progress, write files or stop. It knows no method and no architecture; methods are pure functions of one
matrix, and blocks say themselves which linears share an input.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kick_core import allocation, methods, statistics
from kick_core.methods import CompressedMatrix, Seen, moved
from kick_core.models.blocks import decoder_blocks, matrices
from kick_core.records import BlockReport, Card, LayerReport
from kick_core.recovery.blocks import reconstruct
from kick_core.spec import BadRequest, Calibration, KickError, Recipe, parse
from kick_core.statistics import Hold, all_in_place


def output_energy(weight: Tensor, gram: Tensor) -> Tensor:
    """‖WX‖² = Σ (W G) ∘ W from the Gram matrix G = X X^T of the inputs, weight [out, in]: a float32 scalar."""
    weight = weight.float()
    return _product(weight, gram).mul_(weight).sum()


def _product(left: Tensor, right: Tensor) -> Tensor:
    """The product of float32 matrices. On a GPU, of two bfloat16 halves each, which the tensor cores multiply at
    many times the speed and which leave a relative error of 2^-17: plenty for a loss that is only reported."""
    if not left.is_cuda:
        return left @ right
    (high, low), (top, rest) = _halves(left), _halves(right)
    product = torch.mm(high, top, out_dtype=torch.float32)
    product += torch.mm(high, rest, out_dtype=torch.float32)
    product += torch.mm(low, top, out_dtype=torch.float32)
    return product


def _halves(matrix: Tensor) -> tuple[Tensor, Tensor]:
    high = matrix.bfloat16()
    return high, (matrix - high).bfloat16()


def compress_matrix(weight: Tensor, inputs: Tensor, recipe: str | Recipe) -> CompressedMatrix:
    """Compress one matrix by a recipe, looking at its inputs.

    `weight` [out, in] floating point; `inputs` [samples, tokens, in]. Returns a new matrix, `weight` is not
    changed. Raises BadRequest for shapes that do not fit or a recipe that cannot be met.
    """
    asked = methods.resolve(parse(recipe))
    if asked.target is None:
        return CompressedMatrix(weight.detach().clone())
    if methods.recovery(asked):
        raise BadRequest(f"{asked.text}: a matrix alone cannot be recovered, which takes the blocks around it")
    if weight.dim() != 2 or inputs.dim() != 3 or inputs.shape[-1] != weight.shape[1]:
        raise BadRequest(
            f"weight {tuple(weight.shape)} and inputs {tuple(inputs.shape)} do not fit: "
            f"[out, in] and [samples, tokens, in] are expected"
        )
    tally = statistics.Tally(weight.shape[1], methods.needs(asked), weight.device)
    for sample in inputs:
        tally.add(sample)
    statistics.require_finite(weight, "the weight")
    statistics.require_finite(tally.norms, "the inputs")
    return methods.apply(asked, weight.detach(), tally.seen())


@dataclass(slots=True)
class Walked:
    """One finished block. `hidden` is the next block's input, None when the method looks at no data; `dense` what the
    dense model's next block would be given, where blocks are fitted to it.
    """

    report: BlockReport
    results: dict[str, CompressedMatrix]
    hidden: Tensor | None
    dense: Tensor | None = None


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
    dense: Tensor | None = None,
    hold: Hold = all_in_place,
) -> Iterator[Walked]:
    """Compress a model in place, block by block from `start` on.

    `ids` [windows, length] are calibration tokens, full windows without padding (None for methods that look
    at no data). `hidden` and `dense` are the saved inputs of block `start` (see `Walked`) when a stopped walk goes
    on. `hold` brings a block's weights where the model is not in memory as a whole.
    """
    asked = methods.resolve(recipe)
    if asked.target is None:
        return
    if (how := methods.recovery(asked)) and how.trains:
        raise BadRequest(
            f"{recipe.text} is trained from a finished artifact: make it in a cache, by kick compress or kick_core.load"
        )
    blocks = decoder_blocks(model)
    inputs = aim = None
    if needs_data(asked):
        if ids is None:
            raise BadRequest(f"{asked.text} looks at data: give calibration tokens")
        inputs = statistics.first(model, ids, hidden, hold)
        if fits_blocks(asked) and propagate == "compressed":  # else both see the dense model's activations
            aim = statistics.first(model, ids, dense, hold)
    targets = allocation.per_block(model, asked.target, methods.alloc(asked), ids, hold)
    for index in range(start, len(blocks)):
        with hold(index):
            walked = _walk_block(model, index, inputs, aim, replace(asked, target=targets[index]), propagate)
        yield walked


def fits_blocks(recipe: Recipe) -> bool:
    """Whether a recipe fits every block to the dense one's outputs after compressing it."""
    how = methods.recovery(recipe)
    return how is not None and not how.trains


def _walk_block(
    model: PreTrainedModel,
    index: int,
    inputs: statistics.Inputs | None,
    aim: statistics.Inputs | None,
    recipe: Recipe,
    propagate: str,
) -> Walked:
    began = time.perf_counter()
    blocks = decoder_blocks(model)
    block, need = blocks[index], methods.needs(recipe)
    dense, fit = None, None
    if inputs is not None:
        dense = statistics.dense_pass(model, block, index, inputs, need, keep=propagate == "dense")
    wanted = _through(block, index, aim) if aim else dense.outputs if dense else None
    results, layers = _compress_block(block, index, dense, recipe, once=True)
    if inputs and wanted is not None and (how := methods.recovery(recipe)) and not how.trains:
        fit = reconstruct(block, index, inputs, wanted, results, how)
        results = fit.results
    loss = _propagate(block, index, inputs, dense) if inputs and dense else None
    if aim and wanted is not None:
        aim.hidden = wanted
    note = "; ".join(noted for stream in (inputs, aim) if stream and (noted := stream.take_notes()))
    report = BlockReport(
        index, len(blocks), tuple(layers), time.perf_counter() - began, loss, note=note,
        fit=(fit.before, fit.after) if fit else None,
    )  # fmt: skip
    return Walked(report, results, inputs.hidden if inputs else None, aim.hidden if aim else None)


def _through(block: nn.Module, index: int, inputs: statistics.Inputs) -> Tensor:
    """A block's outputs for all windows [windows, length, width]."""
    made = torch.empty_like(inputs.hidden)
    for rows, output in inputs.outputs(block, index):
        made[rows] = output
    return made


@torch.no_grad()
def walk_many(
    model: PreTrainedModel, recipes: Sequence[Recipe], ids: Tensor, *, start: int = 0, hold: Hold = all_in_place
) -> Iterator[tuple[Recipe, Walked]]:
    """Many recipes from one calibration pass: every block sees the dense model's activations.

    Yields, for every block from `start` on, what each recipe makes of it, one after the other: the same as
    `walk` makes with `propagate="dense"`. The model is left dense.
    """
    asked = [methods.resolve(recipe) for recipe in recipes]
    need = max((methods.needs(recipe) for recipe in asked), key=methods.NEEDS.index)
    inputs = statistics.first(model, ids, hold=hold)
    targets = [allocation.per_block(model, r.target, methods.alloc(r), ids, hold) for r in asked if r.target]
    blocks = decoder_blocks(model)
    for index, block in enumerate(blocks):
        with hold(index):
            dense = statistics.dense_pass(model, block, index, inputs, need, keep=True)
            kept = [(matrix, matrix.read().clone()) for matrix in matrices(block)]
            for given, recipe, goals in zip(recipes, asked, targets, strict=True) if index >= start else ():
                began = time.perf_counter()
                goal = replace(recipe, target=goals[index])
                results, layers = _compress_block(block, index, dense, goal, once=False)
                loss = _first_loss(block, index, inputs, dense)
                for matrix, weight in kept:
                    matrix.write(weight)
                seconds, note = time.perf_counter() - began, inputs.take_notes()
                report = BlockReport(index, len(blocks), tuple(layers), seconds, loss, note=note)
                yield given, Walked(report, results, None)
            assert dense.outputs is not None
            inputs.hidden = dense.outputs


def _first_loss(block: nn.Module, index: int, inputs: statistics.Inputs, dense: statistics.Dense) -> float:
    """The block's relative output error on the first batch of windows."""
    _, output = next(inputs.outputs(block, index))
    return _relative(output, dense.first[: len(output)])


def _relative(changed: Tensor, output: Tensor) -> float:
    error, whole = (changed - output).float().square().sum(), output.float().square().sum()
    return float(error / whole.clamp(min=1e-30))


def _compress_block(
    block: nn.Module, index: int, dense: statistics.Dense | None, recipe: Recipe, *, once: bool
) -> tuple[dict[str, CompressedMatrix], list[LayerReport]]:
    """Compress a block in place; `once` says that no other recipe will look at the same statistics."""
    results, layers = {}, []
    before = Seen(0)
    for matrix in matrices(block):
        began = time.perf_counter()
        weight = matrix.read()
        statistics.require_finite(weight, f"block {index}: {matrix.name}")
        seen = _seen(dense, matrix.name, weight)
        if once and seen is not before:
            before.factors.clear()
        before = seen
        try:
            result = _applied(recipe, weight, seen)
        except KickError as error:
            raise type(error)(f"block {index}, {matrix.name} {tuple(weight.shape)}: {error}") from error
        loss = _relative_loss(dense, matrix.name, weight, result.weight) if dense and seen.tokens else None
        matrix.write(result.weight)
        zeros = result.weight.numel() - int(result.weight.count_nonzero())
        seconds = time.perf_counter() - began
        layers.append(LayerReport(matrix.name, weight.shape[0], weight.shape[1], zeros, loss, seconds, result.note))
        results[matrix.name] = result
    return results, layers


def _applied(recipe: Recipe, weight: Tensor, seen: Seen) -> CompressedMatrix:
    """One matrix by its method; on the CPU where the device has no room for it, which is noted."""
    try:
        return methods.apply(recipe, weight, seen)
    except torch.OutOfMemoryError:
        if weight.device.type == "cpu":
            raise
    statistics.release()
    there = methods.apply(recipe, weight.cpu(), replace(moved(seen, "cpu"), factors={}))
    note = f"{there.note}; " * bool(there.note) + "made on the CPU: the device had no room"
    return replace(moved(there, weight.device), note=note)


def _relative_loss(dense: statistics.Dense, name: str, weight: Tensor, compressed: Tensor) -> float | None:
    """‖(W-Ŵ)X‖² / ‖WX‖² of one matrix, where its Gram matrix was made."""
    gram = dense.seen[name].gram
    if gram is None:
        return None
    if name not in dense.energies:  # the same for every recipe
        dense.energies[name] = output_energy(weight, gram).clamp(min=1e-30)
    lost = output_energy(compressed.float() - weight.float(), gram)
    return float((lost / dense.energies[name]).clamp(min=0))


def _seen(dense: statistics.Dense | None, name: str, weight: Tensor) -> Seen:
    if dense is None:
        return Seen(0)
    return dense.seen.get(name) or statistics.unseen(weight.shape[1], weight.device)


def _propagate(block: nn.Module, index: int, inputs: statistics.Inputs, dense: statistics.Dense) -> float:
    """Put the next block's inputs in place; returns the block's relative output error on the first batch."""
    if dense.outputs is not None:
        loss = _first_loss(block, index, inputs, dense)
        inputs.hidden = dense.outputs
        return loss
    loss = 0.0
    for rows, output in inputs.outputs(block, index):
        if rows.start == 0:
            loss = _relative(output, dense.first[: len(output)])
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
        layers += [replace(x, name=f"{walked.report.block}.{x.name}") for x in walked.report.layers]
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
    decoder: str = "",
    recovery: dict[str, object] | None = None,
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
        decoder=decoder,
        recovery=recovery,
    )
