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
    """Prune `weight` [out, in] and update what is kept; `seen.gram` is X^T X [in, in].

    Raises BadRequest when the pattern does not fit the width or the block, KickError for a singular matrix.
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
    """Whether matrices that see the same inputs are swept together on a device (see `compress_stack`)."""
    return fused(device, options["block"], target)


def compress_stack(
    weights: Sequence[Tensor], stats: InputStats, targets: Sequence[Target], options: Mapping[str, Any]
) -> list[CompressedMatrix]:
    """Prune matrices of one shape that see the same inputs, one target each: what `compress` makes of each of them."""
    for target in set(targets):
        require_blocks(weights[0].shape[1], target, options["block"])
    factor = factor_of(stats, options["damp"])
    order = sorted(range(len(targets)), key=lambda i: (isinstance(targets[i], KeepNofM), targets[i].text))
    working = torch.empty(len(order), *weights[0].shape, device=factor.upper.device)
    for place, i in enumerate(order):
        working[place].copy_(weights[i])
    working.masked_fill_(factor.dead, 0)
    keep = sweep_stack(working, factor.upper, options["block"], [targets[i] for i in order])
    made = {i: _pruned(weights[i], working[n], keep[n], factor) for n, i in enumerate(order)}
    return [made[i] for i in range(len(targets))]


def _pruned(weight: Tensor, working: Tensor, keep: Tensor, factor: Factor) -> CompressedMatrix:
    pruned = torch.where(keep, working, 0.0).to(weight.dtype)
    return CompressedMatrix(pruned, mask=keep, updated=True, note=factor.note)


def require_blocks(cols: int, target: object, block: int) -> None:
    """A pattern must fit the width, and its groups must not straddle the sweep's blocks."""
    if isinstance(target, KeepNofM):
        require_divisible(cols, target)
        if block % target.out_of:
            raise BadRequest(f"block={block}: groups of {target.out_of} must not straddle blocks, use a multiple")
