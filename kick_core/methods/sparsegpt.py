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
from kick_core.methods._select import drop_lowest, require_divisible, zeros_first
from kick_core.methods._solve import inverse_factor
from kick_core.spec import BadRequest, KeepNofM, Target, Unstructured

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
    assert seen.gram is not None
    size = options["block"]
    if isinstance(target, KeepNofM):
        require_divisible(weight.shape[1], target)
        if size % target.out_of:
            raise BadRequest(f"block={size}: groups of {target.out_of} must not straddle blocks, use a multiple")
    factor = inverse_factor(seen.gram, options["damp"])
    working = weight.float().clone()
    working[:, factor.dead] = 0
    mask = torch.ones(weight.shape, dtype=torch.bool, device=weight.device)
    for start in range(0, weight.shape[1], size):
        stop = min(start + size, weight.shape[1])
        block, upper = working[:, start:stop], factor.upper[start:stop, start:stop]
        keep = mask[:, start:stop]
        if isinstance(target, Unstructured):
            keep &= _choose_block(block, upper, _share(target, len(weight), start, stop))
        errors = _prune_block(block, upper, keep, target)
        working[:, stop:] -= errors @ factor.upper[start:stop, stop:]
    pruned = torch.where(mask, working, torch.zeros_like(working)).to(weight.dtype)
    return CompressedMatrix(pruned, mask=mask, updated=True, note=factor.note)


def _share(target: Unstructured, rows: int, start: int, stop: int) -> int:
    """This block's part of the matrix's exact count: the floors up to each border, subtracted."""
    return target.count(rows * stop) - target.count(rows * start)


def _choose_block(block: Tensor, upper: Tensor, count: int) -> Tensor:
    """The mask of a whole block [rows, columns], chosen over all its rows at once."""
    scores = zeros_first(block, (block / upper.diagonal()).square())
    return ~drop_lowest(scores.reshape(-1), count).reshape(block.shape)


def _prune_block(block: Tensor, upper: Tensor, keep: Tensor, target: Target) -> Tensor:
    """Prune one block in place, choosing N:M groups on the way; returns its scaled errors [rows, columns]."""
    errors = torch.zeros_like(block)
    diagonal = upper.diagonal()
    for column in range(block.shape[1]):
        if isinstance(target, KeepNofM) and column % target.out_of == 0:
            group = slice(column, column + target.out_of)
            scores = zeros_first(block[:, group], (block[:, group] / diagonal[group]).square())
            keep[:, group] = ~drop_lowest(scores, target.out_of - target.keep)
        values = block[:, column]
        errors[:, column] = values.masked_fill(keep[:, column], 0.0) / diagonal[column]
        block[:, column:].addr_(errors[:, column], upper[column, column:], alpha=-1)
    return errors
