"""AWQ: before rounding, loud inputs' columns are scaled up, so that they lose less; the rest pays for it.

Every column j is multiplied by s_j = a_j^α, rounded group by group, and divided again; α is the one of 0,
0.05 … 0.95 with the least output error tr((W-Ŵ) X^T X (W-Ŵ)^T). a_j is the root mean square of input j (the
authors' code takes the mean absolute value). The published method folds 1/s into the layer before, and so
shares one s among the matrices of one input; here s is kept beside the codes, and every matrix finds its own.
(Lin et al. 2023, arXiv 2306.00978, section 3.2, equations 4 and 5.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kick_core.methods import CompressedMatrix, InputStats
from kick_core.methods.grid import dequantize
from kick_core.methods.rtn import compress as round_to_nearest
from kick_core.spec import Target

CARD = {
    "title": "AWQ",
    "order": 70,
    "colour": "#2f9e44",
    "symbol": "circle",
    "version": 1,
    "targets": ("bits",),
    "needs": "gram",
    "options": {"steps": 20},
    "scales_columns": True,
    "paper": "Lin et al. 2023, arXiv 2306.00978",
}


def compress(weight: Tensor, stats: InputStats, target: Target, options: Mapping[str, Any]) -> CompressedMatrix:
    """Quantize with the column scales that lose least.

    Args:
        weight: [out, in].
        stats: With `sq_norms` [in] and `gram` [in, in].
        target: An IntGrid.
        options: `steps`, how many exponents of the activity are tried.
    """
    assert stats.sq_norms is not None and stats.gram is not None
    activity = (stats.sq_norms / max(stats.tokens, 1)).sqrt().clamp(min=1e-4)
    best, least = None, torch.inf
    for step in range(options["steps"]):
        scale = activity.pow(step / options["steps"])
        scale = scale / (scale.max() * scale.min()).sqrt()
        candidate = _scaled(weight, scale, target)
        change = candidate.weight.float() - weight.float()
        loss = float(((change @ stats.gram) * change).sum())
        if best is None or loss < least:
            best, least = candidate, loss
    assert best is not None
    return best


def _scaled(weight: Tensor, scale: Tensor, target: Target) -> CompressedMatrix:
    rounded = round_to_nearest(weight.float() * scale, InputStats(0), target, {})
    assert rounded.codes is not None and rounded.scales is not None and rounded.zeros is not None
    assert rounded.groups is not None
    columns = 1 / scale
    restored = dequantize(rounded.codes, rounded.scales, rounded.zeros, rounded.groups, weight.dtype, columns)
    return replace(rounded, weight=restored, columns=columns)
