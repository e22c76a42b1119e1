"""RIA: a weight counts by its share of its row and of its column, times the input's activity.

Score (|W_ij| / Σ_k |W_ik| + |W_ij| / Σ_k |W_kj|) * (‖X_j‖₂)^a with a = 0.5; unstructured sparsity compares
over the whole matrix. A row or column full of small weights is thereby not emptied. (Zhang et al. 2024,
"Plug-and-Play", ICLR, openreview Tr0lPx9woF, equations 3 and 5; without its channel permutation.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from kick_core.methods import CompressedMatrix, InputStats
from kick_core.methods.select import keep_mask, masked, zeros_first
from kick_core.spec import Target

CARD = {
    "title": "RIA",
    "order": 40,
    "colour": "#0e86a8",
    "symbol": "circle",
    "version": 1,
    "targets": ("ratio", "pattern"),
    "needs": "norms",
    "options": {"power": 0.5},
    "paper": "Zhang et al. 2024, ICLR, openreview Tr0lPx9woF",
}


def compress(weight: Tensor, stats: InputStats, target: Target, options: Mapping[str, Any]) -> CompressedMatrix:
    """Drop the relatively least important weights.

    Args:
        weight: [out, in].
        stats: With `sq_norms`, ‖X_j‖² [in].
        target: A ratio, reached over the whole matrix, or N:M.
        options: `power`, the exponent a of the activity.
    """
    assert stats.sq_norms is not None
    size = weight.float().abs()
    tiny = 1e-30  # an all-zero row or column has no shares, and nothing to lose
    relative = size / size.sum(1, keepdim=True).clamp(min=tiny) + size / size.sum(0, keepdim=True).clamp(min=tiny)
    scores = relative * stats.sq_norms.to(weight.device).sqrt().pow(options["power"])
    return masked(weight, keep_mask(zeros_first(weight, scores), target, per_row=False))
