"""One decoder block under a recipe: every matrix by its method, those that can be made together at once."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kick_core import methods, timing
from kick_core.compression import activations
from kick_core.errors import KickError
from kick_core.methods import CompressedMatrix, InputStats, moved
from kick_core.methods.select import masked
from kick_core.models.blocks import matrices
from kick_core.records import LayerReport, StructuredMask
from kick_core.spec import Recipe


def output_energy(weight: Tensor, gram: Tensor, cache: dict[Any, Any] | None = None) -> Tensor:
    """‖WX‖² = Σ (W G) ∘ W from the Gram matrix G = X X^T of the inputs, weight [out, in]: a float32 scalar.

    On a GPU the product is one of bfloat16 halves, two for each factor, which the tensor cores multiply at many times
    the speed and which leave a relative error of 2^-17: plenty for a loss that is only reported. `cache` takes the Gram
    matrix's halves for the next matrix that sees the same inputs.
    """
    if not weight.is_cuda:
        weight = weight.float()
        return (weight @ gram).mul_(weight).sum()
    cache = {} if cache is None else cache
    if "halves" not in cache:
        cache["halves"] = _halves(gram)
    (high, low), (top, rest) = _halves(weight), cache["halves"]
    product = torch.mm(high, top, out_dtype=torch.float32)
    torch.addmm(product, high, rest, out_dtype=torch.float32, out=product)
    if low is not None:
        torch.addmm(product, low, top, out_dtype=torch.float32, out=product)
    return product.mul_(weight).sum()


def _halves(matrix: Tensor) -> tuple[Tensor, Tensor | None]:
    """A matrix as the sum of two in bfloat16; of one, where it is that."""
    high = matrix.bfloat16()
    return high, None if high is matrix else (matrix - high).bfloat16()


Choose = Callable[[int, str], methods.ResolvedRecipe | StructuredMask]
"""What is to be done to a matrix, by the number of its block and its name."""


Ready = dict[str, tuple[CompressedMatrix, float]]
"""What was made of some matrices ahead of the rest, by their names, and the seconds it took."""


def with_ready(
    block: nn.Module, index: int, dense: activations.Dense, recipes: Sequence[Recipe], choosers: Sequence[Choose]
) -> Iterator[tuple[Recipe, Choose, Ready]]:
    """Every recipe with what was made for it together with others: of as many at a time as the device has room for."""
    weights = [matrix.read() for matrix in matrices(block)]
    size = sum(weight.numel() for weight in weights)
    # a sweep works in float32 on some of the matrices; weights and masks of all stay until their turn
    each = size * (weights[0].element_size() + 1 + 5)
    count = int(max(1, min(len(recipes), activations.room(weights[0].device) // each)))
    for at in range(0, len(recipes), count):
        some = slice(at, at + count)
        with timing.stage("method"):
            ready = made_together(block, index, dense, choosers[some])
        while ready:
            yield recipes[at], choosers[at], ready.pop(0)
            at += 1


def made_together(
    block: nn.Module, index: int, dense: activations.Dense | None, choosers: Sequence[Choose]
) -> list[Ready]:
    """For each chooser, the matrices whose method makes them at once: matrices of one shape that see the same inputs,
    and the same matrix for others. What fails is left out: made by itself it gets by, or says what is wrong."""
    ready: list[Ready] = [{} for _ in choosers]
    groups: dict[Any, list[tuple[int, str, methods.ResolvedRecipe, Tensor, InputStats]]] = {}
    for matrix in matrices(block) if dense else ():
        weight = matrix.read()
        stats = _seen(dense, matrix.name, weight)
        for number, choose in enumerate(choosers):
            goal = choose(index, matrix.name)
            if not isinstance(goal, StructuredMask) and goal.target and methods.stacks(goal, weight.device):
                kind = (id(stats), weight.shape, goal.method, goal.options)
                groups.setdefault(kind, []).append((number, matrix.name, goal, weight, stats))
    for group in (group for group in groups.values() if len(group) > 1):
        began = time.perf_counter()
        numbers, names, goals, weights, (stats, *_) = zip(*group, strict=True)
        try:
            results = methods.apply_stack(goals, weights, stats)
        except (KickError, torch.OutOfMemoryError):
            results = []
        if not results:
            activations.release()
            continue
        spent = (time.perf_counter() - began) / len(group)
        for number, name, result in zip(numbers, names, results, strict=True):
            ready[number][name] = result, spent
    return ready


def require_finite(block: nn.Module, index: int) -> None:
    for matrix in matrices(block):
        activations.require_finite(matrix.read(), f"block {index}: {matrix.name}")


def compress_block(
    block: nn.Module, index: int, dense: activations.Dense | None, choose: Choose, ready: Ready, *, once: bool
) -> tuple[dict[str, CompressedMatrix], list[LayerReport]]:
    """Compress a block in place, but for what is `ready`; `once` says that no other recipe will look at the same
    statistics."""
    results, layers = {}, []
    before = InputStats(0)
    for matrix in matrices(block):
        began = time.perf_counter()
        weight = matrix.read()
        stats = _seen(dense, matrix.name, weight)
        if once and stats is not before:
            before.factors.clear()
        before = stats
        try:
            result, spent = ready.get(matrix.name) or (_applied(choose(index, matrix.name), weight, stats), 0.0)
        except KickError as error:
            raise type(error)(f"block {index}, {matrix.name} {tuple(weight.shape)}: {error}") from error
        zeros = result.weight.numel() - result.weight.count_nonzero()
        loss = _relative_loss(dense, matrix.name, weight, result) if dense and stats.tokens else None
        matrix.write(result.weight)
        overflown = (~matrix.stored.isfinite()).sum()
        # one copy from the device for all numbers
        numbers = torch.stack([one.double() for one in (zeros, overflown, loss) if one is not None]).tolist()
        tokens = None if dense is None else dense.tokens.get(matrix.name, 0)
        seconds = time.perf_counter() - began + spent
        rows, cols = weight.shape
        relative = numbers[2] if numbers[2:] and math.isfinite(numbers[2]) else None
        note = _with_overflow(result.note, int(numbers[1]), weight.dtype)
        layers.append(LayerReport(matrix.name, rows, cols, int(numbers[0]), relative, seconds, note, tokens))
        results[matrix.name] = result
    return results, layers


def _with_overflow(note: str, weights: int, dtype: torch.dtype) -> str:
    """A matrix's note, with the number of its weights that are no numbers after compression, if there are any."""
    if not weights:
        return note
    kind = str(dtype).removeprefix("torch.")
    finding = f"not finite after compression: {weights:,} of its weights (NaN, or beyond what {kind} holds)"
    return f"{note}; {finding}" if note else finding


def _applied(recipe: methods.ResolvedRecipe | StructuredMask, weight: Tensor, stats: InputStats) -> CompressedMatrix:
    """One matrix by its method; on the CPU where the device has no room for it, which is noted."""
    if isinstance(recipe, StructuredMask) or recipe.target is None:
        return without_lines(weight, recipe if isinstance(recipe, StructuredMask) else StructuredMask())
    try:
        return methods.apply(recipe, weight, stats)
    except torch.OutOfMemoryError:
        if weight.device.type == "cpu":
            raise
    activations.release()
    there = methods.apply(recipe, weight.cpu(), replace(moved(stats, "cpu"), factors={}))
    note = f"{there.note}; " * bool(there.note) + "made on the CPU: the device had no room"
    return replace(moved(there, weight.device), note=note)


def without_lines(weight: Tensor, lines: StructuredMask) -> CompressedMatrix:
    """A matrix [out, in] without whole rows and columns; the rest keeps its bits."""
    mask = torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
    mask[list(lines.rows)] = False
    mask[:, list(lines.cols)] = False
    return masked(weight, mask)


def _relative_loss(dense: activations.Dense, name: str, weight: Tensor, compressed: CompressedMatrix) -> Tensor | None:
    """‖(W-Ŵ)X‖² / ‖WX‖² of one matrix, where its Gram matrix was made: a float32 scalar."""
    stats = dense.stats[name]
    if stats.gram is None:
        return None
    if name not in dense.energies:  # the same for every recipe
        dense.energies[name] = output_energy(weight, stats.gram, stats.factors).clamp(min=1e-30)
    # where nothing was updated, weights are what they were, or gone: the change is exact in their own dtype
    wide = torch.float32 if compressed.updated else weight.dtype
    lost = compressed.weight.to(wide) - weight.to(wide)
    return (output_energy(lost, stats.gram, stats.factors) / dense.energies[name]).clamp(min=0)


def _seen(dense: activations.Dense | None, name: str, weight: Tensor) -> InputStats:
    if dense is None:
        return InputStats(0)
    return dense.stats.get(name) or activations.unseen(weight.shape[1], weight.device)
