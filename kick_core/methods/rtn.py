"""Round to nearest: every weight goes to the closest point of its group's integer grid. Looks at no data.

The baseline that GPTQ and AWQ are measured against (Frantar et al. 2022, arXiv 2210.17323, "RTN").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from kick_core.methods import CompressedMatrix, InputStats
from kick_core.methods.grid import encode, expand, fit, group_of, packaged
from kick_core.spec import IntGrid, Target

CARD = {
    "title": "Round to nearest",
    "order": 60,
    "colour": "#b05cc8",
    "symbol": "cross",
    "version": 1,
    "targets": ("bits",),
    "needs": "nothing",
    "options": {},
    "joins": True,
    "paper": "the baseline of Frantar et al. 2022, arXiv 2210.17323",
}


def compress(
    weight: Tensor, stats: InputStats, target: Target, options: Mapping[str, Any], prune: Tensor | None = None
) -> CompressedMatrix:
    """Round every weight to its group's grid.

    Args:
        weight: [out, in].
        stats: Not read.
        target: An IntGrid.
        options: None.
        prune: A mask [out, in] whose False weights become 0.
    """
    assert isinstance(target, IntGrid)
    values = weight.float() if prune is None else weight.float() * prune
    size = values.shape[1] if target.group == -1 else target.group
    fitted = [fit(part, target) for part in values.split(size, dim=1)]
    scales = torch.cat([scale for scale, _ in fitted], dim=1)
    zeros = torch.cat([zero for _, zero in fitted], dim=1)
    groups = group_of(values.shape[1], target).to(weight.device)
    codes = encode(values, expand(scales, groups), expand(zeros, groups), target.bits)
    return packaged(weight, codes, scales, zeros, groups, target.bits, mask=prune)
