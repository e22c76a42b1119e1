"""Integer grids: scale and zero point per group of inputs, rounding, and back.

The grid is the one of GPTQ's file format (Frantar et al. 2022, arXiv 2210.17323, and its public code):
weight ~ (code - zero) * scale with codes 0 … 2^bits - 1; symmetric grids put zero at 2^(bits-1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from kick_core.methods import CompressedMatrix
from kick_core.spec import IntGrid

_SHRINKS = tuple(1 - step / 100 for step in range(80))
"""Ranges tried by `mse`: the full one, then smaller by hundredths, as in GPTQ's code (grid 100, maxshrink 0.8)."""


def fit(values: Tensor, grid: IntGrid, *, mse: bool = False) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each row, whose range covers every value.

    Args:
        values: [rows, n] float32.
        grid: Bits and symmetry of the codes.
        mse: Take the shrunken range with the least Σ |error|^2.4 instead, as GPTQ's code does.

    Returns:
        Scales and zero points, each [rows, 1] float32.
    """
    low = values.amin(-1, keepdim=True).clamp(max=0)
    high = values.amax(-1, keepdim=True).clamp(min=0)
    if grid.symmetric:
        high = torch.maximum(high, -low)
        low = -high
    empty = (low == 0) & (high == 0)
    low, high = low.masked_fill(empty, -1.0), high.masked_fill(empty, 1.0)
    best = _spaced(low, high, grid)
    if not mse:
        return best
    least = torch.full_like(low, torch.inf)
    for shrink in _SHRINKS:
        scale, zero = _spaced(shrink * low, shrink * high, grid)
        error = (decode(encode(values, scale, zero, grid.bits), scale, zero) - values).abs().pow(2.4)
        total = error.sum(-1, keepdim=True)
        better = total < least
        least = torch.where(better, total, least)
        best = torch.where(better, scale, best[0]), torch.where(better, zero, best[1])
    return best


def _spaced(low: Tensor, high: Tensor, grid: IntGrid) -> tuple[Tensor, Tensor]:
    # by a tensor: CUDA divides by a plain number as a product with its reciprocal, which rounds otherwise
    scale = (high - low) / torch.full_like(high, 2**grid.bits - 1)
    zero = torch.full_like(scale, 2 ** (grid.bits - 1)) if grid.symmetric else torch.round(-low / scale)
    return scale, zero


def encode(values: Tensor, scale: Tensor, zero: Tensor, bits: int) -> Tensor:
    """The nearest codes.

    Args:
        values: [rows, n] float32.
        scale: Per row [rows, 1], or per value.
        zero: Likewise, the code that means 0.
        bits: Of the codes.

    Returns:
        Whole numbers in 0 … 2^bits - 1, as float32 [rows, n].
    """
    return torch.clamp(torch.round(values / scale) + zero, 0, 2**bits - 1)


def decode(codes: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """The values of codes, (code - zero) * scale.

    Args:
        codes: [rows, n] float32.
        scale: Per row [rows, 1], or per value.
        zero: Likewise.

    Returns:
        float32 [rows, n].
    """
    return (codes - zero) * scale


def group_of(cols: int, grid: IntGrid) -> Tensor:
    """The group of every input. The last group is shorter where the size does not divide.

    Args:
        cols: How many inputs there are.
        grid: Its `group` is the size; -1 is one group for the whole row.

    Returns:
        int32 [cols].
    """
    size = cols if grid.group == -1 else grid.group
    return torch.arange(cols, dtype=torch.int32) // size


def expand(parts: Tensor, groups: Tensor) -> Tensor:
    """Values per group spread over the inputs.

    Args:
        parts: [rows, groups].
        groups: The group of every input [cols].

    Returns:
        [rows, cols].
    """
    return parts.index_select(1, groups.to(parts.device, torch.int64))


def packaged(
    weight: Tensor,
    codes: Tensor,
    scales: Tensor,
    zeros: Tensor,
    groups: Tensor,
    bits: int,
    note: str = "",
    mask: Tensor | None = None,
) -> CompressedMatrix:
    """A quantized matrix whose `weight` is exactly the value of its codes, in the weight's own dtype.

    Args:
        weight: The original [out, in]; only its dtype is used.
        codes: [out, in] whole numbers.
        scales: [out, groups] float32.
        zeros: [out, groups] float32.
        groups: The group of every input [in].
        bits: Of the codes.
        note: Departures from the plain procedure.
        mask: True where a weight is kept [out, in], where the matrix is pruned too.
    """
    return CompressedMatrix(
        dequantize(codes, scales, zeros, groups, weight.dtype),
        mask=mask,
        codes=codes.to(torch.uint8),
        scales=scales,
        zeros=zeros,
        groups=groups,
        bits=bits,
        updated=True,
        note=note,
    )


def dequantize(
    codes: Tensor,
    scales: Tensor,
    zeros: Tensor,
    groups: Tensor,
    dtype: torch.dtype,
    columns: Tensor | None = None,
) -> Tensor:
    """The weights that codes stand for.

    Args:
        codes: [rows, cols], of any integer dtype or float32.
        scales: [rows, groups] float32.
        zeros: [rows, groups].
        groups: The group of every column [cols].
        dtype: Of the result.
        columns: A factor per column [cols], where the method scaled columns before rounding.

    Returns:
        [rows, cols] in `dtype`.
    """
    values = decode(codes.float(), expand(scales, groups), expand(zeros, groups))
    return (values if columns is None else values * columns).to(dtype)
