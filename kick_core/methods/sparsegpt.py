"""SparseGPT: prune column by column and let the columns to the right make up for it.

Weights are removed where w² / U_ii² is lowest, U being the upper Cholesky factor of the damped inverse Gram
matrix: within every block of 128 columns over all rows (unstructured), or within every M consecutive inputs
of a row, on weights that already carry the updates of the columns before (N:M). (Frantar & Alistarh 2023,
arXiv 2301.00774, algorithm 1.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from kick_core.errors import BadRequest
from kick_core.methods import CompressedMatrix, InputStats
from kick_core.methods.select import require_divisible
from kick_core.methods.solve import Factor, factor_of
from kick_core.methods.sweep import Pruner, fused, sweep, sweep_stack
from kick_core.spec import KeepNofM, Target

CARD = {
    "title": "SparseGPT",
    "order": 30,
    "colour": "#0b8a70",
    "symbol": "square",
    "version": 1,
    "targets": ("ratio", "pattern"),
    "needs": "gram",
    "options": {"block": 128, "damp": 0.01},
    "paper": "Frantar & Alistarh 2023, arXiv 2301.00774",
}


def compress(weight: Tensor, stats: InputStats, target: Target, options: Mapping[str, Any]) -> CompressedMatrix:
    """Prune a matrix and update the weights that stay.

    Args:
        weight: [out, in].
        stats: With `gram`, X^T X [in, in].
        target: A ratio or N:M.
        options: `block` (columns) and `damp` (share of the mean diagonal).

    Raises:
        BadRequest: The pattern does not fit the width or the block.
        KickError: The Gram matrix is singular.
    """
    require_blocks(weight.shape[1], target, options["block"])
    if stacks(weight.device, target, options):
        return compress_stack([weight], stats, [target], options)[0]
    factor = factor_of(stats, options["damp"])
    working = weight.float().clone()
    working.masked_fill_(factor.dead, 0)
    pruner = Pruner(target, torch.ones(weight.shape, dtype=torch.bool, device=weight.device))
    sweep(working, factor.upper, options["block"], pruner, None)
    return _pruned(weight, working, pruner.keep, factor)


def stacks(device: torch.device, target: Target, options: Mapping[str, Any]) -> bool:
    """Whether matrices that read the same inputs are swept together (see `compress_stack`).

    Args:
        device: Of the weights.
        target: Of one of them.
        options: As for `compress`.
    """
    return fused(device, options["block"], target)


def compress_stack(
    weights: Sequence[Tensor], stats: InputStats, targets: Sequence[Target], options: Mapping[str, Any]
) -> list[CompressedMatrix]:
    """Prune matrices of one shape that read the same inputs: the result of `compress` for each.

    Args:
        weights: [out, in] each.
        stats: With `gram`, as for `compress`.
        targets: One per matrix.
        options: As for `compress`, the same for all.

    Returns:
        One result per matrix, in the same order.
    """
    for target in set(targets):
        require_blocks(weights[0].shape[1], target, options["block"])
    factor = factor_of(stats, options["damp"])
    order = sorted(range(len(targets)), key=lambda i: (isinstance(targets[i], KeepNofM), targets[i].text))
    working = torch.empty(len(order), *weights[0].shape, device=factor.upper.device)
    for place, i in enumerate(order):
        working[place].copy_(weights[i])
    working.masked_fill_(factor.dead, 0)
    keep = sweep_stack(working, factor.upper, options["block"], [targets[i] for i in order])
    matrices = {i: _pruned(weights[i], working[n], keep[n], factor) for n, i in enumerate(order)}
    return [matrices[i] for i in range(len(targets))]


def _pruned(weight: Tensor, working: Tensor, keep: Tensor, factor: Factor) -> CompressedMatrix:
    pruned = torch.where(keep, working, 0.0).to(weight.dtype)
    return CompressedMatrix(pruned, mask=keep, updated=True, note=factor.note)


def require_blocks(cols: int, target: object, block: int) -> None:
    """Refuse a pattern that does not fit the width, or whose groups would straddle the sweep's blocks.

    Args:
        cols: Inputs of the matrix.
        target: Anything but N:M fits.
        block: Columns of a block.

    Raises:
        BadRequest: The pattern does not fit.
    """
    if isinstance(target, KeepNofM):
        require_divisible(cols, target)
        if block % target.out_of:
            raise BadRequest(f"block={block}: groups of {target.out_of} must not straddle blocks, use a multiple")
