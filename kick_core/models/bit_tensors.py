"""`kick_core.bits` for tensors: on the CPU through numpy, on a GPU there, so that only the packed bits travel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kick_core import bits as packing

ROWS = 64
"""Rows handled at a time: the eightfold stream of single bits then stays in the CPU's cache."""


def pack_bits(codes: Tensor, bits: int) -> Tensor:
    """Pack codes below 2^bits.

    Args:
        codes: whole numbers [rows, cols], on any device.
        bits: bits per code, 1 to 8.

    Returns:
        uint8 [rows, ceil(cols * bits / 8)] on the codes' device, little-endian.
    """
    if codes.is_cuda:
        return _pack_on_device(codes, bits)
    parts = [packing.pack(part.numpy(), bits) for part in codes.to(torch.uint8).split(ROWS)]
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(parts)))


def unpack_bits(packed: Tensor, bits: int, cols: int) -> Tensor:
    """The inverse of `pack_bits`: uint8 [rows, cols] on the device of `packed`."""
    if packed.is_cuda:
        return _unpack_on_device(packed, bits, cols)
    return torch.from_numpy(np.concatenate([packing.unpack(part.numpy(), bits, cols) for part in packed.split(ROWS)]))


def _pack_on_device(codes: Tensor, bits: int) -> Tensor:
    codes = codes.to(torch.uint8)
    stream = (codes[:, :, None] >> _counting(bits, codes)) & 1 if bits > 1 else codes[:, :, None]
    flat = torch.nn.functional.pad(stream.flatten(1), (0, -codes.shape[1] * bits % 8))
    return (flat.unflatten(1, (-1, 8)) << _counting(8, codes)).sum(-1, dtype=torch.uint8)


def _unpack_on_device(packed: Tensor, bits: int, cols: int) -> Tensor:
    stream = ((packed[:, :, None] >> _counting(8, packed)) & 1).flatten(1)[:, : cols * bits]
    if bits == 1:
        return stream
    return (stream.unflatten(1, (cols, bits)) << _counting(bits, packed)).sum(-1, dtype=torch.uint8)


def _counting(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, dtype=torch.uint8, device=like.device)
