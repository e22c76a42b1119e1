"""Wanda: weights are ranked, within each output row, by |W_ij| * ‖X_j‖₂.

‖X_j‖₂ is the norm of input feature j over the calibration tokens. Unstructured sparsity compares within a
row, N:M within every M consecutive inputs; nothing is updated. (Sun et al. 2023, arXiv 2306.11695, eq. 1;
the papers' procedure prunes block after block with activations of the pruned blocks before.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kick_core.methods import CompressedMatrix, InputStats
from kick_core.methods.select import keep_mask, masked, zeros_first
from kick_core.spec import Target

CARD = {
    "title": "Wanda",
    "order": 10,
    "colour": "#3a6fe0",
    "symbol": "diamond",
    "version": 1,
    "targets": ("ratio", "pattern"),
    "needs": "norms",
    "options": {},
    "paper": "Sun et al. 2023, arXiv 2306.11695",
}


def compress(weight: Tensor, stats: InputStats, target: Target, options: Mapping[str, Any]) -> CompressedMatrix:
    """Drop the lowest |W_ij| * ‖X_j‖₂ of every row.

    Args:
        weight: [out, in].
        stats: With `sq_norms`, ‖X_j‖² [in].
        target: A ratio, reached in every row, or N:M.
        options: None.
    """
    if stats.sq_norms is None:
        raise TypeError("wanda needs the squared norms of the inputs")
    scores = weight.float().abs() * stats.sq_norms.to(weight.device).sqrt()
    return masked(weight, keep_mask(zeros_first(weight, scores), target, per_row=True))
