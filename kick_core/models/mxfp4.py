"""Experts of MXFP4 folders, as GPT-OSS is published: 4-bit floating-point numbers of which 32 share a power of two.

    NAME_blocks   uint8 [experts, out, groups, 16], two numbers a byte, the lower half first
    NAME_scales   uint8 [experts, out, groups], the exponent of 2 plus 127

(OCP Microscaling Formats MX 1.0, 2023: E2M1 numbers with an E8M0 scale.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

MXFP4 = "mxfp4"
_POSITIVE = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_NUMBERS = torch.tensor([*_POSITIVE, *(-number for number in _POSITIVE)])
_BIAS = 127


def read_mxfp4(name: str, tensors: Mapping[str, Tensor], _settings: Mapping[str, Any], dtype: torch.dtype) -> Tensor:
    """The weights of all experts, as the library's models hold them.

    Args:
        name: Of the parameter, e.g. `model.layers.0.mlp.experts.down_proj`.
        tensors: The files' tensors by name.
        _settings: The folder's `quantization_config`, which says no more.
        dtype: Of the result.

    Returns:
        [experts, in, out].
    """
    blocks, scales = tensors[f"{name}_blocks"], tensors[f"{name}_scales"]
    return torch.stack([_expert(*one, dtype) for one in zip(blocks, scales, strict=True)])


def _expert(blocks: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    codes = torch.stack([blocks & 15, blocks >> 4], -1).flatten(-2)
    numbers = torch.ldexp(_NUMBERS[codes.int()], scales.int()[..., None] - _BIAS)
    return numbers.flatten(-2).T.to(dtype)
