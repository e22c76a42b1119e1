"""Magnitude pruning: the smallest weights of each matrix go.

Score |W_ij|. Unstructured: over the whole matrix, as in the Wanda and LLM-KICK code; N:M: within every M
consecutive inputs of a row. Looks at no data. (Han et al. 2015, arXiv 1506.02626; Zhu & Gupta 2017,
arXiv 1710.01878.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kick_core.methods import CompressedMatrix, InputStats
from kick_core.methods.select import keep_mask, masked, zeros_first
from kick_core.spec import Target

CARD = {
    "title": "Magnitude",
    "order": 20,
    "colour": "#cf7500",
    "symbol": "circle",
    "version": 1,
    "targets": ("ratio", "pattern"),
    "needs": "nothing",
    "options": {},
    "paper": "Han et al. 2015, arXiv 1506.02626",
}


def compress(weight: Tensor, stats: InputStats, target: Target, options: Mapping[str, Any]) -> CompressedMatrix:
    """Drop the smallest |W|; kept weights keep their bits.

    Args:
        weight: [out, in].
        stats: Not read.
        target: A ratio, reached over the whole matrix, or N:M.
        options: None.
    """
    scores = zeros_first(weight, weight.float().abs())
    return masked(weight, keep_mask(scores, target, per_row=False))
