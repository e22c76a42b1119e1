"""Whole numbers of a few bits each, packed densely and little-endian, row by row: masks and integer codes on disk.

One definition for the pages (numpy alone) and for the core, which wraps it for tensors in `models.bit_tensors`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Bytes = np.ndarray[Any, np.dtype[np.uint8]]


def pack(codes: Bytes, bits: int) -> Bytes:
    """Pack codes below 2^bits.

    Args:
        codes: uint8 [rows, cols].
        bits: bits per code, 1 to 8.

    Returns:
        uint8 [rows, ceil(cols * bits / 8)]; the lowest bit of a code comes first, rows begin on a byte.
    """
    stream = (codes[:, :, None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(stream.reshape(len(codes), -1), axis=1, bitorder="little")


def unpack(packed: Bytes, bits: int, cols: int) -> Bytes:
    """The inverse of `pack`: uint8 [rows, cols]."""
    if bits == 1:
        return np.unpackbits(packed, axis=1, count=cols, bitorder="little")
    periods = -(-cols // 8)  # eight codes fill `bits` bytes
    whole = np.zeros((len(packed), periods, bits), dtype=np.uint8)
    stored = -(-cols * bits // 8)
    whole.reshape(len(packed), -1)[:, :stored] = packed[:, :stored]
    codes = np.empty((len(packed), periods, 8), dtype=np.uint8)
    for number in range(8):
        byte, start = divmod(number * bits, 8)
        np.right_shift(whole[:, :, byte], start, out=codes[:, :, number])
        if start + bits > 8:
            codes[:, :, number] |= whole[:, :, byte + 1] << (8 - start)
    codes &= 2**bits - 1
    return codes.reshape(len(packed), -1)[:, :cols]
