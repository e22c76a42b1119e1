"""GPTQ: round column by column and let the columns to the right make up for it.

Scales are found per row, or per group of inputs when the sweep enters the group (or beforehand with
`static_groups`). `act_order` sweeps from the loudest input to the quietest; groups are then made of the
inputs in that order. (Frantar et al. 2022, arXiv 2210.17323, algorithm 1.) With a mask, or with a sparsity to
reach on the way, it is the joint procedure of SparseGPT (arXiv 2301.00774, section 3.5): what is pruned stays
zero, and both errors are made up for together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kick_core.errors import BadRequest
from kick_core.methods import CompressedMatrix, InputStats
from kick_core.methods.grid import fit, packaged
from kick_core.methods.solve import factor_of
from kick_core.methods.sparsegpt import require_blocks
from kick_core.methods.sweep import Pruner, Rounder, sweep
from kick_core.spec import IntGrid, KeepNofM, Target

CARD = {
    "title": "GPTQ",
    "order": 50,
    "colour": "#b0402f",
    "symbol": "x",
    "version": 2,
    "targets": ("bits",),
    "needs": "gram",
    "options": {"act_order": False, "block": 128, "damp": 0.01, "mse": False, "static_groups": False},
    "paper": "Frantar et al. 2022, arXiv 2210.17323",
    "joins": True,
}


def compress(
    weight: Tensor,
    stats: InputStats,
    target: Target,
    options: Mapping[str, Any],
    prune: Target | Tensor | None = None,
) -> CompressedMatrix:
    """Quantize a matrix column by column.

    Args:
        weight: [out, in].
        stats: With `gram`, X^T X [in, in].
        target: An IntGrid.
        options: `block`, `damp`, `act_order`, `static_groups` and `mse`, as the published code's.
        prune: A mask [out, in] to keep, or a sparsity to reach on the way.

    Raises:
        BadRequest: A pattern to reach does not fit the width or the block, or the order of the columns.
        KickError: The Gram matrix is singular.
    """
    assert stats.gram is not None and isinstance(target, IntGrid)
    cols, device = weight.shape[1], weight.device
    order = torch.arange(cols, device=device)
    if options["act_order"]:
        if isinstance(prune, KeepNofM):
            raise BadRequest(
                f"act_order=true sweeps out of order: a pattern ({prune.text}) cannot be chosen on the way"
            )
        order = stats.gram.diagonal().argsort(descending=True, stable=True)
    require_blocks(cols, prune, options["block"])
    working = weight.float().clone()
    rounder = _rounder(working, stats.gram.diagonal() == 0, order, target, options)
    factor = factor_of(stats, options["damp"], order if options["act_order"] else None)
    working = working[:, order]
    working.masked_fill_(factor.dead, 0)
    pruner = _pruner(prune, weight, order)
    sweep(working, factor.upper, options["block"], pruner, rounder)
    back = order.argsort()
    groups = torch.tensor(rounder.groups, dtype=torch.int32, device=device)[back]
    scales, zeros = torch.cat(rounder.scales, 1), torch.cat(rounder.zeros, 1)
    mask = None if pruner is None else pruner.keep[:, back]
    return packaged(weight, rounder.codes[:, back], scales, zeros, groups, target.bits, factor.note, mask)


def _pruner(prune: Target | Tensor | None, weight: Tensor, order: Tensor) -> Pruner | None:
    if prune is None:
        return None
    keep = prune if isinstance(prune, Tensor) else torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
    return Pruner(prune, keep[:, order].clone())


def _rounder(weight: Tensor, dead: Tensor, order: Tensor, grid: IntGrid, options: Mapping[str, Any]) -> Rounder:
    """The rounder for a sweep in `order`; scales of whole rows and static groups are found beforehand.

    As in the published code, a whole row's scale still looks at the weights of `dead` inputs, a group's does not.
    """
    cols = weight.shape[1]
    size = cols if grid.group in (-1, None) else int(grid.group)
    fixed = grid.group == -1 or options["static_groups"]
    # with scales fixed beforehand a column keeps the group of its own place, whenever it is visited
    places = order if fixed else torch.arange(cols)
    rounder = Rounder(grid, size, (places // size).tolist(), torch.zeros_like(weight), options["mse"], fixed)
    if fixed:
        values = weight if grid.group == -1 else weight.masked_fill(dead, 0)
        fits = [fit(part, grid, mse=options["mse"]) for part in values.split(size, dim=1)]
        rounder.scales, rounder.zeros = [scale for scale, _ in fits], [zero for _, zero in fits]
    return rounder
