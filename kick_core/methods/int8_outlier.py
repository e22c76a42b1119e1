"""Vector-wise 8 bit with outlier columns in full, after LLM.int8().

Columns whose input ever exceeds `threshold` in size (6 in the paper) stay as they are; every row of the rest
is rounded to -127 … 127 times its largest value / 127. The published method rounds the activations at run
time as well; here, as for all methods, the weights alone change. (Dettmers et al. 2022, arXiv 2208.07339,
section 3.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kick_core.errors import BadRequest
from kick_core.methods import CompressedMatrix, InputStats
from kick_core.methods.grid import decode, encode
from kick_core.spec import IntGrid, Target

CARD = {
    "title": "LLM.int8()",
    "order": 80,
    "colour": "#a0522d",
    "symbol": "circle",
    "version": 1,
    "targets": ("bits",),
    "needs": "norms",
    "options": {"threshold": 6.0},
    "grid": {"group": -1, "symmetric": True},
    "paper": "Dettmers et al. 2022, arXiv 2208.07339",
}


def compress(weight: Tensor, stats: InputStats, target: Target, options: Mapping[str, Any]) -> CompressedMatrix:
    """Round the rows to 8 bits, outlier columns apart.

    Args:
        weight: [out, in].
        stats: With `peaks`, max |x_j| [in].
        target: An IntGrid of 8 bits.
        options: `threshold` of |x_j| from which a column is an outlier.

    Raises:
        BadRequest: The grid has another number of bits.
    """
    assert isinstance(target, IntGrid) and stats.peaks is not None
    if target.bits != 8:
        raise BadRequest(f"int8_outlier@{target.text}: this method is 8 bit by its definition, use int8_outlier@8bit")
    outliers = stats.peaks.to(weight.device) >= options["threshold"]
    values = weight.float().masked_fill(outliers, 0.0)
    largest = values.abs().amax(1, keepdim=True)
    # by a tensor: CUDA divides by a plain number as a product with its reciprocal, which rounds otherwise
    scale = torch.where(largest == 0, torch.ones_like(largest), largest) / torch.full_like(largest, 127)
    zero = torch.full_like(scale, 128.0)
    codes = encode(values, scale, zero, 8)
    restored = torch.where(outliers, weight, decode(codes, scale, zero).to(weight.dtype))
    return CompressedMatrix(
        restored,
        codes=codes.to(torch.uint8),
        scales=scale,
        zeros=zero,
        groups=torch.zeros(weight.shape[1], dtype=torch.int32, device=weight.device),
        outliers=outliers.nonzero()[:, 0],
        bits=8,
        updated=True,
    )
