"""Compressed matrices to tensors on disk and back, bit for bit.

    mask      methods that only drop weights: one bit a weight, applied to the fingerprinted base model
    values    methods that also change the kept weights: the mask, and the kept values in the model's dtype
    grid      quantized: codes as a dense bit stream along each row, scales and zero points per group; a weight
              that was pruned too has its zero point's code, which stands for exactly 0
    update    a low-rank update beside a grid (`lora_b` [rows, rank] times `lora_a` [rank, cols]) is added to what
              the codes stand for; where the matrix was pruned too a mask says which places it leaves alone

The base weight is needed for the first form, and for outlier columns that stayed as they were. Decoding
gives exactly the weight that was compressed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kick_core.compression.stored_matrix import StoredMatrix
from kick_core.methods import CompressedMatrix
from kick_core.methods.grid import dequantize, group_of
from kick_core.models.bit_tensors import ROWS, pack_bits, unpack_bits
from kick_core.spec import IntGrid


def apply_mask(weight: Tensor, packed: Tensor, out: Tensor | None = None) -> Tensor:
    """`weight` [rows, cols] with dropped weights +0.0 and kept ones untouched to the bit, in `out` or a new tensor.

    `out` lies on the weight's device and may be a view of any strides.
    """
    weight = weight.detach()
    out = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device) if out is None else out
    whole = {2: torch.int16, 4: torch.int32}[weight.element_size()]
    if weight.is_cuda:
        bits = unpack_bits(packed.to(weight.device), 1, weight.shape[1])
        torch.mul(weight.view(whole), bits, out=out.view(whole))
        return out
    # numpy, a few rows at a time: what is read, unpacked and written stays in the cache, and nothing is set up twice
    source, target, mask = weight.view(whole).numpy(), out.view(whole).numpy(), packed.numpy()
    for start in range(0, len(source), ROWS):
        rows = slice(start, start + ROWS)
        kept_bits = np.unpackbits(mask[rows], axis=1, count=source.shape[1], bitorder="little")
        np.multiply(source[rows], kept_bits, out=target[rows], dtype=source.dtype)
    return out


def encode(name: str, result: CompressedMatrix) -> dict[str, Tensor]:
    """The tensors that keep one compressed matrix, under `name`."""
    return stored(result).to_tensors(name)


def encode_block(results: Mapping[str, CompressedMatrix]) -> dict[str, Tensor]:
    """The tensors that keep the compressed matrices of a block, by their names."""
    return {part: tensor for name, result in results.items() for part, tensor in encode(name, result).items()}


def stored(result: CompressedMatrix) -> StoredMatrix:
    """The smallest form from which `decode` gives `result.weight` back, where the result is."""
    if result.codes is not None:
        return _stored_grid(result)
    if result.mask is None:
        return StoredMatrix(dense=result.weight.detach().contiguous())
    values = result.weight.detach()[result.mask] if result.updated else None
    return StoredMatrix(mask=pack_bits(result.mask, 1), values=values)


def _stored_grid(result: CompressedMatrix) -> StoredMatrix:
    assert result.codes is not None and result.scales is not None and result.zeros is not None
    assert result.groups is not None and result.bits is not None
    groups = result.groups.detach().cpu().to(torch.int32)
    size = int((groups == groups[0]).sum())
    consecutive = torch.equal(groups, group_of(len(groups), IntGrid(4, group=size)))
    columns, outliers = result.columns, result.outliers
    return StoredMatrix(
        codes=pack_bits(result.codes, result.bits),
        bits=result.bits,
        scales=result.scales.detach().contiguous(),
        zeros=result.zeros.detach().to(torch.uint8).contiguous(),
        groups=None if consecutive else groups.contiguous(),
        group_size=size if consecutive else 0,
        columns=None if columns is None else columns.detach().float().contiguous(),
        outliers=None if outliers is None else outliers.detach().to(torch.int32).contiguous(),
    )


def updated(
    name: str, weight: Tensor, tensors: Mapping[str, Tensor], left: Tensor, right: Tensor, mask: Tensor | None
) -> dict[str, Tensor]:
    """The tensors that keep a matrix after a low-rank update.

    Kept values take the update in; codes stay, and the update's factors are stored beside them.

    Args:
        name: The matrix's name inside its block.
        weight: [rows, cols], the matrix before the update.
        tensors: What keeps it.
        left: [rows, rank].
        right: [rank, cols].
        mask: bool [rows, cols], the places that the update may change; None: all.
    """
    before = StoredMatrix.from_tensors(name, tensors)
    if before.codes is None:
        mask = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
        return encode(name, CompressedMatrix(_with_update(weight, left, right, mask), mask=mask, updated=True))
    packed = before.mask if mask is None else pack_bits(mask, 1).cpu()
    after = replace(before, lora_b=left.cpu().contiguous(), lora_a=right.cpu().contiguous(), mask=packed)
    return after.to_tensors(name)


def _with_update(weight: Tensor, left: Tensor, right: Tensor, mask: Tensor | None) -> Tensor:
    # products of two 24-bit fractions and their few sums are all but exact in float64, so that every device, which sums
    # in an order of its own, comes to the same rounded weight
    update = left.double() @ right.double()
    return (weight.double() + (update if mask is None else update * mask)).to(weight.dtype)


def decode_into(out: Tensor, name: str, base: Tensor, tensors: Mapping[str, Tensor]) -> None:
    """Put the compressed weight into `out` [rows, cols], which has the base's dtype.

    The work is done where the base is: with a base on the GPU only bits and codes go over the link.
    """
    matrix = StoredMatrix.from_tensors(name, tensors, base.device)
    if out.device == base.device and matrix.mask is not None and matrix.only_mask:
        apply_mask(base, matrix.mask, out)
    else:
        out.copy_(_decoded(matrix, base))


def decode(name: str, base: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """The compressed weight [rows, cols], in the base's dtype and on its device, where the tensors are too."""
    return _decoded(StoredMatrix.from_tensors(name, tensors), base)


def _decoded(matrix: StoredMatrix, base: Tensor) -> Tensor:
    if matrix.dense is not None:
        return matrix.dense
    if matrix.codes is not None:
        return _decoded_grid(matrix, matrix.codes, base)
    assert matrix.mask is not None
    if matrix.values is None:
        return apply_mask(base, matrix.mask)
    out = torch.zeros(base.shape, dtype=matrix.values.dtype, device=matrix.values.device)
    out[unpack_bits(matrix.mask, 1, base.shape[1]).bool()] = matrix.values
    return out


def _decoded_grid(matrix: StoredMatrix, packed: Tensor, base: Tensor) -> Tensor:
    assert matrix.scales is not None and matrix.zeros is not None
    cols, groups = base.shape[1], matrix.groups
    if groups is None:
        groups = group_of(cols, IntGrid(4, group=matrix.group_size))
    codes = unpack_bits(packed, matrix.bits, cols)
    weight = dequantize(codes, matrix.scales, matrix.zeros.float(), groups, base.dtype, matrix.columns)
    if matrix.outliers is not None:
        weight[:, matrix.outliers.long()] = base[:, matrix.outliers.long()]
    if matrix.lora_b is None or matrix.lora_a is None:
        return weight
    mask = None if matrix.mask is None else unpack_bits(matrix.mask, 1, cols).bool()
    return _with_update(weight, matrix.lora_b, matrix.lora_a, mask)
