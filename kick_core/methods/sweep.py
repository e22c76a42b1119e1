"""The left-to-right sweep over a matrix that SparseGPT, GPTQ and both together are made of.

Column after column is pruned, rounded or both, and the columns to its right make up for the error: after
column i every column j > i changes by -(w_i - ŵ_i) / U_ii * U_ij (see `solve`). Within a block of columns
that happens at once, and for the columns after the block in one product. (SparseGPT, arXiv 2301.00774,
algorithm 1; GPTQ, arXiv 2210.17323, algorithm 1; joint: SparseGPT section 3.5.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import torch
from torch import Tensor

from kick_core.methods.grid import decode, encode, fit
from kick_core.methods.select import drop_lowest, kernels, zeros_first
from kick_core.methods.solve import one_thread
from kick_core.spec import IntGrid, KeepNofM, Target, Unstructured


@dataclass(slots=True)
class Pruner:
    """Chooses what goes: by w² / U_ii² over a whole block (ratio) or M columns (pattern); or a fixed mask.

    Attributes:
        goal: The target, or a mask [rows, cols] that is decided already.
        keep: The mask in the sweep's column order, bool [rows, cols], True where a weight stays.
    """

    goal: Target | Tensor
    keep: Tensor

    def enter_block(self, block: Tensor, diagonal: Tensor, start: int) -> None:
        """Choose a block's mask over all its rows, for a ratio.

        The floors up to each border are subtracted, so that the blocks' counts add up to exactly floor(n * ratio).

        Args:
            block: The block's weights with all updates so far [rows, columns].
            diagonal: U_ii of its columns [columns].
            start: Its first column.
        """
        if not isinstance(self.goal, Unstructured):
            return
        rows, stop = len(block), start + block.shape[1]
        count = self.goal.count(rows * stop) - self.goal.count(rows * start)
        scores = zeros_first(block, (block / diagonal).square())
        self.keep[:, start:stop] = ~drop_lowest(scores.reshape(-1), count).reshape(block.shape)

    def enter_column(self, block: Tensor, diagonal: Tensor, start: int, column: int) -> None:
        """Choose the mask of the next M columns, for a pattern, on weights that carry the updates so far.

        Args:
            block: The block's weights [rows, columns].
            diagonal: U_ii of its columns [columns].
            start: The block's first column.
            column: The current column, counted from `start`.
        """
        if not isinstance(self.goal, KeepNofM) or column % self.goal.out_of:
            return
        group = slice(column, column + self.goal.out_of)
        scores = zeros_first(block[:, group], (block[:, group] / diagonal[group]).square())
        keep = ~drop_lowest(scores, self.goal.out_of - self.goal.keep)
        self.keep[:, start + group.start : start + group.stop] = keep


@dataclass(slots=True)
class Rounder:
    """Rounds columns to an integer grid; fits a group's scale when the sweep enters it, unless all are fixed.

    Attributes:
        grid: Bits, group and symmetry.
        size: Inputs of a group.
        groups: The group of each column, in the sweep's order [cols].
        codes: Takes the codes, float32 [rows, cols].
        mse: Whether the range is searched, see `grid.fit`.
        fixed: Whether `scales` and `zeros` were fitted before the sweep.
        scales: One [rows, 1] per group.
        zeros: Likewise.
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
        """Fit the scale of the group that begins at a column, if one does.

        As in the published code it is fitted to weights that lack the updates of the current block.

        Args:
            working: The matrix [rows, cols].
            keep: True where a weight stays [rows, cols], where the matrix is pruned too.
            column: The current column.
        """
        if self.fixed or column % self.size:
            return
        values = working[:, column : column + self.size]
        if keep is not None:
            values = values * keep[:, column : column + self.size]
        scale, zero = fit(values, self.grid, mse=self.mse)
        self.scales.append(scale)
        self.zeros.append(zero)

    def round(self, values: Tensor, column: int) -> Tensor:
        """Round one column and keep its codes.

        Args:
            values: [rows] float32.
            column: Which one it is.

        Returns:
            The grid's nearest values [rows].
        """
        scale, zero = (part[self.groups[column]][:, 0] for part in (self.scales, self.zeros))
        codes = encode(values, scale, zero, self.grid.bits)
        self.codes[:, column] = codes
        return decode(codes, scale, zero)


def sweep(working: Tensor, upper: Tensor, size: int, pruner: Pruner | None, rounder: Rounder | None) -> None:
    """Compress a matrix from left to right, in place.

    Args:
        working: [rows, cols] float32; afterwards it holds the compressed weights.
        upper: The factor of the damped inverse Gram matrix in the sweep's column order [cols, cols].
        size: Columns of a block.
        pruner: Chooses what goes; None where nothing is pruned.
        rounder: Rounds what stays; None where nothing is rounded.
    """
    by_kernel = fused(working.device, size, pruner.goal if pruner else None)
    places = torch.tensor(rounder.groups, dtype=torch.int32, device=working.device) if by_kernel and rounder else None
    upper = upper.contiguous() if by_kernel else upper  # the kernels read along rows
    for start in range(0, working.shape[1], size):
        stop = min(start + size, working.shape[1])
        inner = upper[start:stop, start:stop]
        if by_kernel:
            block, errors = _fused_block(working, inner, start, pruner, rounder, places)
            working[:, stop:].addmm_(errors, upper[start:stop, stop:], alpha=-1)
        else:
            with one_thread():  # where threads share a tensor out, the ends of their parts round in another way
                block, errors = _block(working, inner, start, pruner, rounder)
                working[:, stop:] -= errors @ upper[start:stop, stop:]
        working[:, start:stop] = block


def sweep_stack(working: Tensor, upper: Tensor, size: int, goals: Sequence[Target]) -> Tensor:
    """SparseGPT's sweep by the kernels over matrices that share a factor, in place: the bits that `sweep` gives each.

    All rows go through a kernel together, so that many recipes of one matrix, or matrices of one shape, cost few
    launches. Only the products stay one per matrix: the order of their sums, and so their last bits, follows from their
    shape.

    Args:
        working: [matrices, rows, cols] float32; afterwards it holds the compressed weights.
        upper: The factor [cols, cols].
        size: Columns of a block.
        goals: The target of each matrix: equal ones side by side, ratios first.

    Returns:
        The masks, bool [matrices, rows, cols], True where a weight stays.
    """
    from kick_core.methods import kernels as _triton

    count, rows, cols = working.shape
    upper = upper.contiguous()  # the kernels read along rows
    keep = torch.ones(working.shape, dtype=torch.bool, device=working.device)
    ratios = [goal for goal in goals if isinstance(goal, Unstructured)]
    counts = _counts(ratios, rows, cols, size).to(working.device)
    digits = _triton.blank_digits(counts.numel(), working.device).unflatten(0, counts.shape)
    pivots = upper.diagonal().contiguous()
    room = torch.empty(count * rows * min(size, cols), device=working.device)
    for number, start in enumerate(range(0, cols, size)):
        stop = min(start + size, cols)
        block, keep_block = working[..., start:stop], keep[..., start:stop]
        errors = room[: count * rows * (stop - start)].view(count, rows, stop - start)
        if ratios:
            first = slice(0, len(ratios))
            _triton.keep_highest(block[first], pivots[start:stop], keep_block[first], counts[number], digits[number])
        for group, goal in _runs(goals):
            _triton.sweep_tile(
                block[group].flatten(0, 1), errors[group].flatten(0, 1), upper[start:stop, start:stop],
                (0, stop - start), keep=keep_block[group].flatten(0, 1),
                pattern=(goal.keep, goal.out_of) if goal else None,
            )  # fmt: skip
        for matrix, error in zip(working, errors, strict=True) if stop < cols else ():
            matrix[:, stop:].addmm_(error, upper[start:stop, stop:], alpha=-1)
    return keep


def _counts(ratios: Sequence[Unstructured], rows: int, cols: int, size: int) -> Tensor:
    """How many weights go in every block, int32 [blocks, ratios]; see `Pruner.enter_block`."""
    borders = [*range(0, cols, size), cols]
    upto = torch.tensor([[goal.count(rows * border) for goal in ratios] for border in borders])
    return upto.diff(dim=0).to(torch.int32).reshape(len(borders) - 1, len(ratios))


def _runs(goals: Sequence[Target]) -> Iterator[tuple[slice, KeepNofM | None]]:
    """Which matrices go through the kernel in one launch: all with ratios, then all of each pattern."""
    at = 0
    for goal, group in groupby(goal if isinstance(goal, KeepNofM) else None for goal in goals):
        length = len(list(group))
        yield slice(at, at + length), goal
        at += length


def _block(
    working: Tensor, upper: Tensor, start: int, pruner: Pruner | None, rounder: Rounder | None
) -> tuple[Tensor, Tensor]:
    """One block's compressed columns and their scaled errors, each [rows, columns]."""
    # columns lie contiguously: every step reads one and writes those after it
    turned = working[:, start : start + len(upper)].T.contiguous()
    block, errors, diagonal = turned.T, torch.zeros_like(turned), upper.diagonal()
    if pruner is not None:
        pruner.enter_block(block, diagonal, start)
    for column, values in enumerate(turned):
        result = values
        if pruner is not None:
            pruner.enter_column(block, diagonal, start, column)
            result = result * pruner.keep[:, start + column]
        if rounder is not None:
            rounder.enter_column(working, pruner.keep if pruner else None, start + column)
            result = rounder.round(result, start + column)
        torch.div(values - result, diagonal[column], out=errors[column])
        turned[column + 1 :].addr_(upper[column, column + 1 :], errors[column], alpha=-1)
        values.copy_(result)
    return block, errors.T


def fused(device: torch.device, size: int, goal: object) -> bool:
    """Whether a sweep runs in the kernel.

    Args:
        device: Of the weights.
        size: Columns of a block, which must fit into the kernel's registers.
        goal: The pruning target or mask; the groups of a pattern must fit too.
    """
    if kernels(device) is None:
        return False
    from kick_core.methods import kernels as _triton

    group = goal.out_of if isinstance(goal, KeepNofM) else 1
    return size <= _triton.WIDEST and group <= _triton.LARGEST_PATTERN


def _fused_block(
    working: Tensor,
    upper: Tensor,
    start: int,
    pruner: Pruner | None,
    rounder: Rounder | None,
    places: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`_block` by the kernel, which goes over the columns without leaving the registers: the same bits.

    `places` [cols] int32: `rounder.groups` on the device.
    """
    from kick_core.methods import kernels as _triton

    columns = len(upper)
    block = working[:, start : start + columns].clone(memory_format=torch.contiguous_format)
    errors, diagonal = torch.empty_like(block), upper.diagonal()
    keep = None
    if pruner is not None:
        pruner.enter_block(block, diagonal, start)
        keep = pruner.keep[:, start : start + columns]
    pattern = pruner.goal if pruner and isinstance(pruner.goal, KeepNofM) else None
    for begin, end in _spans(start, columns, pattern, rounder):
        if pattern and rounder:  # a group's scale looks at the mask as it is when the sweep enters the group
            assert pruner is not None
            pruner.enter_column(block, diagonal, start, begin)
        if rounder:
            for column in range(start + begin, start + end):
                rounder.enter_column(working, pruner.keep if pruner else None, column)
        _triton.sweep_tile(
            block, errors, upper, (begin, end), keep=keep,
            pattern=(pattern.keep, pattern.out_of) if pattern else None,
            codes=rounder.codes[:, start : start + columns] if rounder else None,
            grid=_scales(rounder, start, start + end, places),
        )  # fmt: skip
    return block, errors


def _spans(start: int, columns: int, pattern: KeepNofM | None, rounder: Rounder | None) -> list[tuple[int, int]]:
    """The stretches of a block between which the host must act: where the scale that is found when a group
    begins depends on a pattern that is chosen on the way."""
    cuts = [0]
    if pattern and rounder and not rounder.fixed:
        cuts += [column for column in range(1, columns) if (start + column) % rounder.size == 0]
    return list(zip(cuts, [*cuts[1:], columns], strict=True))


def _scales(
    rounder: Rounder | None, start: int, stop: int, places: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, int] | None:
    """The grid of columns start … stop - 1 as the kernel takes it."""
    if rounder is None or places is None:
        return None
    first = 0 if rounder.fixed else rounder.groups[start]
    tables = (torch.cat(parts[first:], 1) for parts in (rounder.scales, rounder.zeros))
    return *tables, places[start:] - first, 2**rounder.grid.bits - 1
