"""The left-to-right sweep over a matrix that SparseGPT, GPTQ and both together are made of.

Column after column is pruned, rounded or both, and the columns to its right make up for the error: after
column i every column j > i changes by -(w_i - ŵ_i) / U_ii * U_ij (see `_solve`). Within a block of columns
that happens at once, and for the columns behind the block in one product. (SparseGPT, arXiv 2301.00774,
algorithm 1; GPTQ, arXiv 2210.17323, algorithm 1; joint: SparseGPT section 3.5.)
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from kick_core.methods._grid import decode, encode, fit
from kick_core.methods._select import drop_lowest, zeros_first
from kick_core.spec import IntGrid, KeepNofM, Target, Unstructured


@dataclass(slots=True)
class Pruner:
    """Chooses what goes: by w² / U_ii² over a whole block (ratio) or M columns (pattern); or a fixed mask.

    `keep` [rows, cols] is the mask in the sweep's column order, True where a weight stays.
    """

    goal: Target | Tensor
    keep: Tensor

    def enter_block(self, block: Tensor, diagonal: Tensor, start: int) -> None:
        """Choose a block's mask over all its rows, for a ratio. The floors up to each border are subtracted,
        so that the blocks' counts add up to exactly floor(n * ratio)."""
        if not isinstance(self.goal, Unstructured):
            return
        rows, stop = len(block), start + block.shape[1]
        count = self.goal.count(rows * stop) - self.goal.count(rows * start)
        scores = zeros_first(block, (block / diagonal).square())
        self.keep[:, start:stop] = ~drop_lowest(scores.reshape(-1), count).reshape(block.shape)

    def enter_column(self, block: Tensor, diagonal: Tensor, start: int, column: int) -> None:
        """Choose the next M columns' mask, for a pattern, on weights that carry the updates so far."""
        if not isinstance(self.goal, KeepNofM) or column % self.goal.out_of:
            return
        group = slice(column, column + self.goal.out_of)
        scores = zeros_first(block[:, group], (block[:, group] / diagonal[group]).square())
        kept = ~drop_lowest(scores, self.goal.out_of - self.goal.keep)
        self.keep[:, start + group.start : start + group.stop] = kept


@dataclass(slots=True)
class Rounder:
    """Rounds columns to an integer grid; finds a group's scale when the sweep enters it, if none is fixed.

    `groups` [cols] is each sweep column's group, `fixed` the scales and zero points found beforehand.
    """

    grid: IntGrid
    size: int
    groups: list[int]
    codes: Tensor
    mse: bool = False
    fixed: bool = False
    scales: list[Tensor] = field(default_factory=list)
    zeros: list[Tensor] = field(default_factory=list)

    def enter_column(self, working: Tensor, keep: Tensor | None, column: int) -> None:
        """Find the scale of the group that begins here. As in the published code it is found on weights that
        lack the updates of the current block."""
        if self.fixed or column % self.size:
            return
        values = working[:, column : column + self.size]
        if keep is not None:
            values = values * keep[:, column : column + self.size]
        scale, zero = fit(values, self.grid, mse=self.mse)
        self.scales.append(scale)
        self.zeros.append(zero)

    def round(self, values: Tensor, column: int) -> Tensor:
        """The grid's nearest values to one column [rows], whose codes are kept."""
        scale, zero = (part[self.groups[column]][:, 0] for part in (self.scales, self.zeros))
        codes = encode(values, scale, zero, self.grid.bits)
        self.codes[:, column] = codes
        return decode(codes, scale, zero)


def sweep(working: Tensor, upper: Tensor, size: int, pruner: Pruner | None, rounder: Rounder | None) -> None:
    """Sweep over `working` [rows, cols] float32, in place: afterwards it holds the compressed weights.

    `upper` [cols, cols] is the factor of the damped inverse Gram matrix in the sweep's column order.
    """
    for start in range(0, working.shape[1], size):
        stop = min(start + size, working.shape[1])
        inner = upper[start:stop, start:stop]
        block, errors = _block(working, inner, start, pruner, rounder)
        working[:, start:stop] = block
        working[:, stop:] -= errors @ upper[start:stop, stop:]


def _block(
    working: Tensor, upper: Tensor, start: int, pruner: Pruner | None, rounder: Rounder | None
) -> tuple[Tensor, Tensor]:
    """One block's compressed columns and their scaled errors, each [rows, columns]."""
    # columns lie contiguously: every step reads one and writes those behind it
    turned = working[:, start : start + len(upper)].T.contiguous()
    block, errors, diagonal = turned.T, torch.zeros_like(turned), upper.diagonal()
    if pruner is not None:
        pruner.enter_block(block, diagonal, start)
    for column, values in enumerate(turned):
        wanted = values
        if pruner is not None:
            pruner.enter_column(block, diagonal, start, column)
            wanted = wanted * pruner.keep[:, start + column]
        if rounder is not None:
            rounder.enter_column(working, pruner.keep if pruner else None, start + column)
            wanted = rounder.round(wanted, start + column)
        torch.div(values - wanted, diagonal[column], out=errors[column])
        turned[column + 1 :].addr_(upper[column, column + 1 :], errors[column], alpha=-1)
        values.copy_(wanted)
    return block, errors.T
