"""Random pruning: which weights go is drawn, not chosen. The floor that every method must beat.

The draw depends on `seed` and on the matrix itself, so two layers of one shape get different masks and the
same layer always gets the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kick_core.methods import CompressedMatrix, InputStats
from kick_core.methods.select import keep_mask, masked, zeros_first
from kick_core.spec import Target

CARD = {
    "title": "Random",
    "order": 90,
    "colour": "#76808d",
    "symbol": "circle",
    "version": 1,
    "targets": ("ratio", "pattern"),
    "needs": "nothing",
    "options": {"seed": 0},
    "paper": "the baseline of Han et al. 2015, arXiv 1506.02626",
}


def compress(weight: Tensor, stats: InputStats, target: Target, options: Mapping[str, Any]) -> CompressedMatrix:
    """Drop weights that are drawn; existing zeros go first.

    Args:
        weight: [out, in].
        stats: Not read.
        target: A ratio, reached over the whole matrix, or N:M.
        options: `seed` of the draw.
    """
    corner = weight[:8, :8].float().cpu().contiguous().numpy().tobytes()
    digest = hashlib.sha256(f"{options['seed']} {tuple(weight.shape)}".encode() + corner).digest()
    # drawn on the CPU, so that every device drops the same weights
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    scores = torch.rand(weight.shape, generator=generator).to(weight.device)
    return masked(weight, keep_mask(zeros_first(weight, scores), target, per_row=False))
