"""The block walk: statistics, method, propagation, one decoder block after the other.

The walk is a generator: it yields a finished block and goes on when asked, so that the edges can show
progress, write files or stop. It knows no method and no architecture; methods are pure functions of one
matrix, and blocks say themselves which linears share an input.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kick_core import methods, timing
from kick_core.compression import activations, allocation
from kick_core.compression.block import Choose, compress_block, made_together, require_finite, with_ready
from kick_core.compression.cards import few_tokens, make_card
from kick_core.compression.recovery.blocks import reconstruct
from kick_core.compression.resume import InputsDiffer, Resume, advance_dense, catch_up, digest_of
from kick_core.errors import BadRequest
from kick_core.methods import CompressedMatrix
from kick_core.models.block_calls import Hold, all_in_place
from kick_core.models.blocks import decoder_blocks, matrices, understood
from kick_core.records import BlockReport, Card, LayerPlan, LayerReport, StructuredMask
from kick_core.spec import Calibration, Recipe, parse


def compress_matrix(weight: Tensor, inputs: Tensor, recipe: str | Recipe) -> CompressedMatrix:
    """Compress one weight matrix by a recipe.

    Args:
        weight: [out, in], floating point; it is not changed.
        inputs: [samples, tokens, in], the calibration activations that the matrix is multiplied with.
        recipe: its text form, e.g. `wanda@0.5`, or a Recipe.

    Returns:
        The compressed weight, with the mask or the integer codes behind it.

    Raises:
        BadRequest: shapes do not fit, values are not finite, or the recipe does not apply to a single matrix.
    """
    resolved = methods.resolve(parse(recipe))
    if methods.plans(resolved):
        raise BadRequest(f"{resolved.text} looks at the whole model: `kick compress` or kick_core.load make it")
    if resolved.target is None:
        return CompressedMatrix(weight.detach().clone())
    if methods.recovery(resolved):
        raise BadRequest(f"{resolved.text}: a matrix alone cannot be recovered, which takes the blocks around it")
    if weight.dim() != 2 or inputs.dim() != 3 or inputs.shape[-1] != weight.shape[1]:
        raise BadRequest(
            f"weight {tuple(weight.shape)} and inputs {tuple(inputs.shape)} do not fit: "
            f"[out, in] and [samples, tokens, in] are expected"
        )
    accumulator = activations.StatsAccumulator(weight.shape[1], methods.needs(resolved), weight.device)
    for sample in inputs:
        accumulator.add(sample)
    activations.require_finite(weight, "the weight")
    activations.require_finite(accumulator.sq_norms, "the inputs")
    return methods.apply(resolved, weight.detach(), accumulator.stats())


@dataclass(slots=True)
class Walked:
    """One finished block.

    `hidden` is the next block's input; None behind the last block, and when the method looks at no data. `dense` is
    what the dense model's next block would be given, where blocks are fitted to it. `alone` says that a stopped walk
    can go on from these; a model whose blocks are handed more than hidden states needs those of all blocks.
    `digest` is that of both, `batches` the windows in one forward of each.
    """

    report: BlockReport
    results: dict[str, CompressedMatrix]
    hidden: Tensor | None
    dense: Tensor | None = None
    alone: bool = True
    digest: str = ""
    batches: tuple[int, ...] = ()


def _nothing() -> None:
    pass


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
    resume: Resume | None = None,
    hold: Hold = all_in_place,
    plan: LayerPlan | None = None,
    min_tokens: int = 1,
    before_method: Callable[[], None] = _nothing,
) -> Iterator[Walked]:
    """Compress a dense model in place, block by block; with a `plan`, every matrix as it says.

    `ids` [windows, length] are calibration tokens, full windows without padding (None for methods that look
    at no data). `resume` says where a stopped walk goes on: its windows go through the finished blocks again. `hold`
    brings a block's weights where the model is not in memory as a whole. Matrices that fewer than `min_tokens` tokens
    reach are compressed on flat statistics. `before_method` is called when a block's statistics are there and it is
    about to change.

    Raises:
        BadRequest: When data is needed and not given, or the recipe is made elsewhere.
        InputsDiffer: When finished blocks do not give the activations that they gave.
        KickError: For a model that is not understood, or numbers that are not finite.
    """
    resolved = methods.resolve(recipe)
    if resolved.target is None:
        return
    if (how := methods.recovery(resolved)) and how.trains:
        raise BadRequest(
            f"{recipe.text} is trained from a finished artifact: make it in a cache, by kick compress or kick_core.load"
        )
    blocks, resume = understood(model, hold), resume or Resume()
    inputs = aim = None
    if needs_data(resolved):
        if ids is None:
            raise BadRequest(f"{resolved.text} looks at data: give calibration tokens")
        inputs = activations.first(model, ids, resume.hidden, hold, min_tokens=min_tokens)
        if fits_blocks(resolved) and propagate == "compressed":  # else both see the dense model's activations
            aim = activations.first(model, ids, resume.dense, hold)
    choose = _chooser(
        model, resolved, ids, hold, plan
    )  # before any block is changed: an allocation looks at all of them
    catch_up(model, resume, [stream for stream in (inputs, aim) if stream], propagate, hold)
    for index in range(resume.start, len(blocks)):
        with hold(index):
            walked = _walk_block(model, index, inputs, aim, resolved, choose, propagate, before_method)
        yield walked


def fits_blocks(recipe: Recipe) -> bool:
    """Whether a recipe fits every block to the dense one's outputs after compressing it."""
    how = methods.recovery(recipe)
    return how is not None and not how.trains


def _chooser(
    model: PreTrainedModel, recipe: methods.ResolvedRecipe, ids: Tensor | None, hold: Hold, plan: LayerPlan | None
) -> Choose:
    """What a resolved recipe does to every matrix. Raises BadRequest when it needs a plan and there is none."""
    if plan is not None:
        planned = {name: methods.resolve(parse(text)) for name, text in plan.recipes.items()}
        return lambda block, name: planned.get(f"{block}.{name}") or plan.lines.get(f"{block}.{name}", StructuredMask())
    if methods.plans(recipe):
        raise BadRequest(f"{recipe.text} looks at the whole model first: make it by `kick compress` or kick_core.load")
    assert recipe.target is not None
    targets = allocation.per_block(model, recipe.target, methods.alloc(recipe), ids, hold)
    goals = [replace(recipe, target=target) for target in targets]
    return lambda block, _name: goals[block]


def _walk_block(
    model: PreTrainedModel,
    index: int,
    inputs: activations.Inputs | None,
    aim: activations.Inputs | None,
    recipe: Recipe,
    choose: Choose,
    propagate: str,
    before_method: Callable[[], None],
) -> Walked:
    began = time.perf_counter()
    blocks = decoder_blocks(model)
    block, need = blocks[index], methods.needs(recipe)
    dense, fit = None, None
    if inputs is not None:
        dense = activations.dense_pass(model, block, index, inputs, need, keep=propagate == "dense")
    batches = tuple(stream.batch for stream in (inputs, aim) if stream)
    require_finite(block, index)
    before_method()
    with timing.stage("method"):
        (ready,) = made_together(block, index, dense, [choose])
        wanted = _through(block, index, aim) if aim else dense.outputs if dense else None
        results, layers = compress_block(block, index, dense, choose, ready, once=True)
    if inputs and wanted is not None and (how := methods.recovery(recipe)) and not how.trains:
        fit = reconstruct(block, index, inputs, wanted, results, how)
        results = fit.results
    last, digest = index + 1 == len(blocks), ""
    with timing.stage("propagate"):
        loss = _propagate(block, index, inputs, dense, last=last) if inputs and dense else None
        if aim and wanted is not None:
            aim.hidden = wanted
        if inputs and not last:
            digest = digest_of([stream for stream in (inputs, aim) if stream])
    if propagate == "compressed":  # what comes next was made now, not when statistics were taken
        batches = tuple(stream.batch for stream in (inputs, aim) if stream)
    note = "; ".join(noted for stream in (inputs, aim) if stream and (noted := stream.take_notes()))
    loss, note = _finding(loss, note)
    report = BlockReport(
        index, len(blocks), tuple(layers), time.perf_counter() - began, loss, note=note,
        fit=(fit.before, fit.after) if fit else None,
    )  # fmt: skip
    if last:
        return Walked(report, results, None)
    alone = not (inputs and inputs.replay.carried)
    hidden, dense_hidden = inputs.hidden if inputs else None, aim.hidden if aim else None
    return Walked(report, results, hidden, dense_hidden, alone, digest, batches)


def _through(block: nn.Module, index: int, inputs: activations.Inputs) -> Tensor:
    """A block's outputs for all windows [windows, length, width]."""
    outputs = torch.empty_like(inputs.hidden)
    for rows, output in inputs.outputs(block, index):
        outputs[rows] = output
    return outputs


@torch.no_grad()
def walk_many(
    model: PreTrainedModel,
    recipes: Sequence[Recipe],
    ids: Tensor,
    *,
    resume: Mapping[Recipe, Resume] | None = None,
    hold: Hold = all_in_place,
    plans: Mapping[Recipe, LayerPlan] | None = None,
    need: methods.Need = "nothing",
    min_tokens: int = 1,
    before_method: Callable[[], None] = _nothing,
) -> Iterator[tuple[Recipe, Walked]]:
    """Many recipes from one calibration pass: every block sees the dense model's activations.

    Yields, for every block, what each recipe that has not finished it makes of it, one after the other: the same as
    `walk` makes with `propagate="dense"`. The model is left dense. `plans` are those of recipes that need one; `need`
    asks for more statistics than the recipes do (with "gram" every matrix's loss is told). `resume` and
    `before_method` are those of `walk`; blocks that all recipes have finished are only gone through.

    Raises:
        InputsDiffer: When finished blocks do not give the activations that they gave.
    """
    resolved = [methods.resolve(recipe) for recipe in recipes]
    deepest = max((need, *(methods.needs(recipe) for recipe in resolved)), key=methods.NEEDS.index)
    inputs = activations.first(model, ids, hold=hold, min_tokens=min_tokens)
    choosers = [
        _chooser(model, recipe, ids, hold, (plans or {}).get(given))
        for given, recipe in zip(recipes, resolved, strict=True)
    ]
    resume = dict.fromkeys(recipes, Resume()) | dict(resume or {})
    for index, block in enumerate(understood(model, hold)):
        left = [pair for pair in zip(recipes, choosers, strict=True) if resume[pair[0]].start <= index]
        batches = {one.batches[index] for one in resume.values() if len(one.batches) > index}
        if len(batches) > 1:
            raise InputsDiffer(f"block {index} was made with {sorted(batches)} windows in one forward")
        inputs.batch = batches.pop()[0] if batches else inputs.batch
        if not left and index + 1 == len(decoder_blocks(model)):
            return
        with hold(index):
            if left:
                digest = yield from _block_for_many(model, index, inputs, deepest, left, before_method)
            else:
                advance_dense(model, block, index, inputs)
                digest = digest_of([inputs])
        if any(one.start == index + 1 and one.digest not in ("", digest) for one in resume.values()):
            raise InputsDiffer(f"blocks up to {index} give other activations than when they were made")


def _block_for_many(
    model: PreTrainedModel,
    index: int,
    inputs: activations.Inputs,
    need: methods.Need,
    left: Sequence[tuple[Recipe, Choose]],
    before_method: Callable[[], None],
) -> Generator[tuple[Recipe, Walked], None, str]:
    """One block under many recipes, which leaves the next one's inputs and returns their digest."""
    blocks = decoder_blocks(model)
    block = blocks[index]
    dense = activations.dense_pass(model, block, index, inputs, need, keep=True)
    batches, count = (inputs.batch,), len(blocks)
    assert dense.outputs is not None
    digest = activations.digest([dense.outputs], inputs.device) if index + 1 < count else ""
    dense_weights = [(matrix, matrix.read().clone()) for matrix in matrices(block)]
    require_finite(block, index)
    before_method()
    recipes, choosers = zip(*left, strict=True)
    for recipe, choose, ready in with_ready(block, index, dense, recipes, choosers):
        began = time.perf_counter()
        with timing.stage("method"):
            results, layers = compress_block(block, index, dense, choose, ready, once=False)
            loss = _first_loss(block, index, inputs, dense)
            for matrix, weight in dense_weights:
                matrix.write(weight)
        seconds, note = time.perf_counter() - began, inputs.take_notes()
        seconds += sum(spent for _, spent in ready.values())
        message, note = _finding(loss, note)
        report = BlockReport(index, count, tuple(layers), seconds, message, note=note)
        yield recipe, Walked(report, results, None, digest=digest, batches=batches)
    inputs.hidden = dense.outputs
    return digest


def _first_loss(block: nn.Module, index: int, inputs: activations.Inputs, dense: activations.Dense) -> float:
    """The block's relative output error on the first few windows."""
    _, output = next(inputs.outputs(block, index, most=inputs.few))
    return _relative(output, dense.first[: len(output)])


def _relative(changed: Tensor, output: Tensor) -> float:
    """‖changed - output‖² / ‖output‖²; NaN where either overflows."""
    error, whole = (changed - output).float().square().sum(), output.float().square().sum()
    return float(error / whole.clamp(min=1e-30))


def _finding(loss: float | None, note: str) -> tuple[float | None, str]:
    """A block's loss and its note: a loss that is no number is a finding, and told in words."""
    if loss is None or math.isfinite(loss):
        return loss, note
    return None, "; ".join(filter(None, (note, "its outputs are not finite: NaN or beyond what the dtype holds")))


def _propagate(
    block: nn.Module, index: int, inputs: activations.Inputs, dense: activations.Dense, *, last: bool
) -> float:
    """Put the next block's inputs in place, if there is one; returns the block's relative output error on the first
    batch."""
    if dense.outputs is not None or last:
        loss = _first_loss(block, index, inputs, dense)
        inputs.hidden = inputs.hidden if dense.outputs is None else dense.outputs
        return loss
    output = inputs.advance(block, index)
    few = min(inputs.few, len(output))
    return _relative(output[:few], dense.first[:few])


def compress(
    model: PreTrainedModel, recipe: str | Recipe, calibration: Tensor | Calibration | None = None
) -> Iterator[BlockReport | Card]:
    """Compress a loaded model in place, decoder block by decoder block. Nothing is stored.

    Args:
        model: a decoder-only transformers model on any device.
        recipe: its text form, e.g. `sparsegpt@2:4`, or a Recipe.
        calibration: token ids [windows, length] (int64), or a Calibration, whose text is read with the model's own
            tokenizer. Methods that look at no data need none.

    Yields:
        One BlockReport per decoder block; last the Card, with an empty key and fingerprint.

    Raises:
        BadRequest: the recipe, the calibration or the model's shape does not fit.
        KickError: the computation failed, e.g. activations are not finite.
    """
    from kick_core.compression.calibration import windows_for

    parsed = parse(recipe)
    ids = windows_for(model, calibration) if isinstance(calibration, Calibration) else calibration
    how = calibration if isinstance(calibration, Calibration) else Calibration()
    layers: list[LayerReport] = []
    began = time.perf_counter()
    for walked in walk(model, parsed, ids, propagate=how.propagate, min_tokens=how.min_tokens):
        layers += [replace(x, name=f"{walked.report.block}.{x.name}") for x in walked.report.layers]
        yield walked.report
    warnings = few_tokens(layers, how.min_tokens)
    yield make_card(model, parsed, layers, seconds=time.perf_counter() - began, warnings=warnings)
