"""GPTQ: round column by column and let the columns to the right make up for it.

Scales are found per row, or per group of inputs when the walk enters the group (or beforehand with
`static_groups`). `act_order` walks from the loudest input to the quietest; groups are then made of the inputs
in that order. As in the published code, a group inside a block of 128 columns takes its scale from weights
that lack the updates of that same block. (Frantar et al. 2022, arXiv 2210.17323, algorithm 1.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kick_core.methods import CompressedMatrix, Seen
from kick_core.methods._grid import decode, encode, fit, packaged
from kick_core.methods._solve import inverse_factor
from kick_core.spec import IntGrid, Target

CARD = {
    "title": "GPTQ",
    "version": 1,
    "targets": ("bits",),
    "needs": "gram",
    "options": {"act_order": False, "block": 128, "damp": 0.01, "mse": False, "static_groups": False},
    "paper": "Frantar et al. 2022, arXiv 2210.17323",
}


def compress(weight: Tensor, seen: Seen, target: Target, options: Mapping[str, Any]) -> CompressedMatrix:
    """Quantize `weight` [out, in] to `target`, an IntGrid; `seen.gram` is X^T X [in, in]."""
    assert seen.gram is not None and isinstance(target, IntGrid)
    cols = weight.shape[1]
    size = cols if target.group == -1 else target.group
    order = torch.arange(cols, device=weight.device)
    gram = seen.gram
    if options["act_order"]:
        order = gram.diagonal().argsort(descending=True, stable=True)
        gram = gram[order][:, order]
    working = weight.float().clone()
    fixed = _static(working, target, size, options["mse"]) if target.group == -1 or options["static_groups"] else None
    factor = inverse_factor(gram, options["damp"])
    working = working[:, order]
    working[:, factor.dead] = 0
    # with scales fixed beforehand a column keeps the group of its own place, whenever it is visited
    groups = (order if fixed is not None else torch.arange(cols, device=weight.device)) // size
    walk = _Walk(working, factor.upper, groups, size, target, options["mse"], fixed)
    for start in range(0, cols, options["block"]):
        walk.block(start, min(start + options["block"], cols))
    back = order.argsort()
    codes, own_groups = walk.codes[:, back], groups[back].to(torch.int32)
    scales, zeros = torch.cat(walk.scales, 1), torch.cat(walk.zeros, 1)
    return packaged(weight, codes, scales, zeros, own_groups, target.bits, factor.note)


def _static(weight: Tensor, grid: IntGrid, size: int, mse: bool) -> list[tuple[Tensor, Tensor]]:
    return [fit(part, grid, mse=mse) for part in weight.split(size, dim=1)]


class _Walk:
    """The left-to-right walk over one matrix: its working copy, codes, and the scales found so far."""

    def __init__(
        self,
        working: Tensor,
        upper: Tensor,
        groups: Tensor,
        size: int,
        grid: IntGrid,
        mse: bool,
        fixed: list[tuple[Tensor, Tensor]] | None,
    ) -> None:
        self.working, self.upper, self.groups, self.size, self.grid, self.mse = working, upper, groups, size, grid, mse
        self.fixed = fixed
        self.codes = torch.zeros_like(working)
        self.scales = [scale for scale, _ in fixed or ()]
        self.zeros = [zero for _, zero in fixed or ()]

    def _grid_of(self, column: int) -> tuple[Tensor, Tensor]:
        if self.fixed is None and column % self.size == 0:
            scale, zero = fit(self.working[:, column : column + self.size], self.grid, mse=self.mse)
            self.scales.append(scale)
            self.zeros.append(zero)
        group = int(self.groups[column])
        return self.scales[group], self.zeros[group]

    def block(self, start: int, stop: int) -> None:
        """Round columns start … stop-1, then hand their errors to the columns behind."""
        block, upper = self.working[:, start:stop].clone(), self.upper[start:stop, start:stop]
        errors = torch.zeros_like(block)
        for column in range(stop - start):
            scale, zero = self._grid_of(start + column)
            values = block[:, column : column + 1]
            codes = encode(values, scale, zero, self.grid.bits)
            self.codes[:, start + column] = codes[:, 0]
            errors[:, column] = ((values - decode(codes, scale, zero)) / upper[column, column])[:, 0]
            block[:, column:].addr_(errors[:, column], upper[column, column:], alpha=-1)
        self.working[:, stop:] -= errors @ self.upper[start:stop, stop:]
