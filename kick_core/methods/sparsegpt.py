"""SparseGPT: prune column by column and let the columns to the right make up for it.

Weights are removed where w² / U_ii² is lowest, U being the upper Cholesky factor of the damped inverse Gram
matrix: within every block of 128 columns over all rows (unstructured), or within every M consecutive inputs
of a row, on weights that already carry the updates of the columns before (N:M). (Frantar & Alistarh 2023,
arXiv 2301.00774, algorithm 1.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kick_core.methods import CompressedMatrix, Seen
from kick_core.methods._select import require_divisible
from kick_core.methods._solve import factor_of
from kick_core.methods._sweep import Pruner, sweep
from kick_core.spec import BadRequest, KeepNofM, Target

CARD = {
    "title": "SparseGPT",
    "version": 1,
    "targets": ("ratio", "pattern"),
    "needs": "gram",
    "options": {"block": 128, "damp": 0.01},
    "paper": "Frantar & Alistarh 2023, arXiv 2301.00774",
}


def compress(weight: Tensor, seen: Seen, target: Target, options: Mapping[str, Any]) -> CompressedMatrix:
    """Prune `weight` [out, in] and update what is kept; `seen.gram` is X^T X [in, in].

    Raises BadRequest when the pattern does not fit the width or the block, KickError for a singular matrix.
    """
    require_blocks(weight.shape[1], target, options["block"])
    factor = factor_of(seen, options["damp"])
    working = weight.float().clone()
    working.masked_fill_(factor.dead, 0)
    pruner = Pruner(target, torch.ones(weight.shape, dtype=torch.bool, device=weight.device))
    sweep(working, factor.upper, options["block"], pruner, None)
    pruned = torch.where(pruner.keep, working, 0.0).to(weight.dtype)
    return CompressedMatrix(pruned, mask=pruner.keep, updated=True, note=factor.note)


def require_blocks(cols: int, target: object, block: int) -> None:
    """A pattern must fit the width, and its groups must not straddle the sweep's blocks."""
    if isinstance(target, KeepNofM):
        require_divisible(cols, target)
        if block % target.out_of:
            raise BadRequest(f"block={block}: groups of {target.out_of} must not straddle blocks, use a multiple")
