"""What compressed weights weigh: the one place where bytes and bits per weight are worked out.

Two sizes answer two questions, and every number that the plan, the pages, the cards and the planners show is one of
them:

    stored  bytes of an artifact's tensors in the cache, which has the dense model at hand: a pruned matrix whose kept
            weights are the dense ones needs its mask alone; codes are kept for every weight, pruned ones too
            (`compression.codec` writes exactly this, plus each file's header; nested masks may share a file)
    alone   bytes of a copy that needs no dense model: the kept values or codes, one bit per weight that says where
            they are, scales and zero points

They are equal wherever an artifact leans on nothing: quantized matrices, and pruned ones with updated weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from kick_core import methods
from kick_core.methods.recovery_options import Recovery
from kick_core.records import Card, LayerReport
from kick_core.spec import BitBudget, IntGrid, KeepNofM, Recipe, Unstructured, parse

SCALE, ZERO, INDEX = 4, 1, 4
"""Bytes of a scale (float32), of a zero point (uint8) and of an index or a group's number (int32)."""

LIMIT = 1 << 20
"""Rows and columns of the matrix that stands for matrices of unknown shape: what is paid per matrix vanishes in it."""


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes of compressed weights in the cache (`stored`) and without the dense model at hand (`alone`)."""

    stored: float
    alone: float

    def __add__(self, other: Size) -> Size:
        return Size(self.stored + other.stored, self.alone + other.alone)


@dataclass(frozen=True, slots=True)
class Shape:
    """A matrix [rows, cols] of a block.

    Attributes:
        name: "block.matrix", by which a plan knows it; may be empty.
        zeros: how many of its weights are zero after compression; None before it was compressed.
    """

    rows: int
    cols: int
    name: str = ""
    zeros: int | None = None

    @property
    def weights(self) -> int:
        return self.rows * self.cols


def matrix_size(
    recipe: Recipe, shape: Shape, itemsize: float, *, recovery: Recovery | None = None, outliers: int = 0
) -> Size:
    """Bytes of one compressed matrix.

    Args:
        recipe: what compresses it, resolved or not; a dense one is kept as a mask that drops nothing.
        shape: the matrix. Its `zeros`, where known, say how many values a pruned matrix keeps, else the target does.
        itemsize: bytes of a dense weight.
        recovery: how the recipe that this one is a part of recovers.
        outliers: input columns that stay in the model's own dtype. Only calibration tells how many; a size
            worked out before that counts none.
    """
    mask = _mask(shape)
    pruning = next((p for p in _parts(recipe) if isinstance(p.target, Unstructured | KeepNofM)), None)
    rounding = next((p for p in _parts(recipe) if isinstance(p.target, IntGrid)), None)
    if rounding is not None:
        total = _rounded(rounding, pruning, shape, itemsize, outliers) + _update(shape, itemsize, recovery)
        # where an update must leave pruned weights alone, codes alone do not say which those are
        return total + Size(mask if pruning and recovery and recovery.trains else 0.0, 0.0)
    if pruning is None or pruning.target is None:
        values = shape.weights * itemsize
        return Size(mask + values * (recovery is not None), values)
    nonzeros = shape.weights * (1 - pruning.target.sparsity) if shape.zeros is None else shape.weights - shape.zeros
    values, known = nonzeros * itemsize, _known(pruning)
    # methods that read the Gram matrix move the weights that stay; without that the dense model has them already
    updated = recovery is not None or (known is not None and known.needs == "gram")
    return Size(mask + values * updated, values + (0 if known and known.lines else mask))


def _rounded(rounding: Recipe, pruning: Recipe | None, shape: Shape, itemsize: float, outliers: int) -> Size:
    target, options, known = rounding.target, dict(rounding.options), _known(rounding)
    assert isinstance(target, IntGrid)
    group = target.group or (known.grid.get("group", methods.GROUP) if known else methods.GROUP)
    width = shape.cols if group == -1 else min(group, shape.cols)
    # columns that were visited out of order have the group of their visit, so that each one's is written down
    permuted = options.get("act_order", False) and not options.get("static_groups", False) and width < shape.cols
    grid = shape.rows * -(-shape.cols // width) * (SCALE + ZERO) + INDEX * (shape.cols if permuted else 1)
    grid += INDEX * outliers + (SCALE * shape.cols if known and known.scales_columns else 0)
    codes = shape.rows * -(-shape.cols * target.bits // 8)
    stored = alone = float(codes + grid)
    if pruning is not None and pruning.target is not None:
        alone += _mask(shape) - codes * pruning.target.sparsity
    return Size(stored, alone + itemsize * shape.rows * outliers)


def size(recipe: Recipe, shapes: Iterable[Shape], itemsize: float, plan: Mapping[str, str] | None = None) -> Size:
    """Bytes of all matrices of a model under one recipe.

    Args:
        recipe: resolved or not.
        shapes: the matrices of all blocks.
        itemsize: bytes of a dense weight.
        plan: what compresses each matrix by its name, where the recipe found that out. Without it a mixture takes
            its whole budget.
    """
    recovery, total = methods.recovery(recipe), Size(0.0, 0.0)
    for shape in shapes:
        total += _budgeted(recipe, shape, itemsize, recovery, plan or {})
    return total


def _budgeted(
    recipe: Recipe, shape: Shape, itemsize: float, recovery: Recovery | None, plan: Mapping[str, str]
) -> Size:
    if not isinstance(recipe.target, BitBudget):
        return matrix_size(recipe, shape, itemsize, recovery=recovery)
    if shape.name not in plan:
        budget = recipe.target.bits * shape.weights / 8
        return Size(budget, budget) + _update(shape, itemsize, recovery)
    choice = parse(plan[shape.name])
    total = matrix_size(choice, shape, itemsize, recovery=recovery)
    if recovery is not None and recovery.trains and isinstance(choice.target, IntGrid):
        # a training of a mixture leaves every zero alone, those that rounding made too, and writes down where they are
        total += Size(_mask(shape), _mask(shape))
    return total


def _mask(shape: Shape) -> float:
    """One bit per weight; rows begin on a byte."""
    return float(shape.rows * -(-shape.cols // 8))


def _update(shape: Shape, itemsize: float, recovery: Recovery | None) -> Size:
    """The two factors of a trained low-rank update, which stay beside codes."""
    factors = itemsize * recovery.rank * (shape.rows + shape.cols) if recovery and recovery.trains else 0.0
    return Size(factors, factors)


def card_size(card: Card) -> Size:
    """Bytes of an artifact by its card: from its recipe, its matrices' shapes and zeros, and its plan.

    Args:
        card: Of the artifact.
    """
    plan = (card.plan or {}).get("recipes", {})
    return size(parse(card.recipe), shapes_of(card.layers), card.dense_bytes / (card.weights or 1), plan)


def shapes_of(layers: Iterable[LayerReport]) -> list[Shape]:
    """The shapes and zeros of matrices that a card reports.

    Args:
        layers: The reports.
    """
    return [Shape(layer.rows, layer.cols, layer.name, layer.zeros) for layer in layers]


def bits_per_weight(recipe: Recipe, dense: float = 16, shapes: Sequence[Shape] = ()) -> float:
    """Bits per weight in a copy that stands alone.

    Args:
        recipe: resolved or not; a card may name a method that is gone.
        dense: bits of a dense weight.
        shapes: the matrices. Without them what is paid per matrix counts as nothing, as in very large ones.

    Returns:
        Bits; nan for low-rank updates beside codes, whose share depends on shapes that were not given.
    """
    if recipe.target is None:
        return dense
    recovery = methods.recovery(recipe)
    if not shapes and recovery is not None and recovery.trains and any(_rounds(part) for part in _parts(recipe)):
        return math.nan
    shapes = shapes or [Shape(LIMIT, LIMIT)]
    return 8 * size(recipe, shapes, dense / 8).alone / sum(shape.weights for shape in shapes)


def _rounds(recipe: Recipe) -> bool:
    return isinstance(recipe.target, IntGrid | BitBudget)


def _parts(recipe: Recipe) -> list[Recipe]:
    return [recipe, *([recipe.then] if recipe.then else [])]


def _known(recipe: Recipe) -> methods.MethodCard | None:
    """The card of a part's method; None where an old artifact names one that is gone."""
    return methods.card(recipe.method) if recipe.method in methods.names() else None
