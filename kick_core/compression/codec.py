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

import numpy as np
import torch
from torch import Tensor

from kick_core.errors import KickError
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
        kept = np.unpackbits(mask[rows], axis=1, count=source.shape[1], bitorder="little")
        np.multiply(source[rows], kept, out=target[rows], dtype=source.dtype)
    return out


def encode(name: str, result: CompressedMatrix) -> dict[str, Tensor]:
    """The tensors that keep one compressed matrix, under `name`."""
    if result.codes is not None:
        return _encode_grid(name, result)
    if result.mask is None:
        return {f"{name}.dense": result.weight.detach().cpu().contiguous()}
    tensors = {f"{name}.mask": pack_bits(result.mask, 1)}
    if result.updated:
        tensors[f"{name}.values"] = result.weight.detach()[result.mask].cpu().contiguous()
    return tensors


def encode_block(results: Mapping[str, CompressedMatrix]) -> dict[str, Tensor]:
    """The tensors that keep the compressed matrices of a block, by their names."""
    return {part: tensor for name, result in results.items() for part, tensor in encode(name, result).items()}


def _encode_grid(name: str, result: CompressedMatrix) -> dict[str, Tensor]:
    assert result.codes is not None and result.scales is not None and result.zeros is not None
    assert result.groups is not None and result.bits is not None
    groups = result.groups.detach().cpu().to(torch.int32)
    size = int((groups == groups[0]).sum())
    tensors = {
        f"{name}.codes{result.bits}": pack_bits(result.codes, result.bits),
        f"{name}.scales": result.scales.detach().cpu().contiguous(),
        f"{name}.zeros": result.zeros.detach().cpu().to(torch.uint8).contiguous(),
    }
    if result.columns is not None:
        tensors[f"{name}.columns"] = result.columns.detach().cpu().float().contiguous()
    if result.outliers is not None:
        tensors[f"{name}.outliers"] = result.outliers.detach().cpu().to(torch.int32).contiguous()
    if torch.equal(groups, group_of(len(groups), IntGrid(4, group=size))):
        tensors[f"{name}.group_size"] = torch.tensor([size], dtype=torch.int32)
    else:
        tensors[f"{name}.groups"] = groups.contiguous()
    return tensors


def updated(
    name: str, worn: Tensor, tensors: Mapping[str, Tensor], left: Tensor, right: Tensor, mask: Tensor | None
) -> dict[str, Tensor]:
    """The tensors that keep a matrix [rows, cols] after an update `left` [rows, rank] times `right` [rank, cols].

    `worn` is the matrix before, `tensors` keep it; `mask` (True: kept) says which places the update may touch. Kept
    values take the update in; codes stay and the update's factors stand beside them.
    """
    mine = {key: tensor for key, tensor in tensors.items() if key.startswith(f"{name}.")}
    if not any(key.startswith(f"{name}.codes") for key in mine):
        mask = torch.ones_like(worn, dtype=torch.bool) if mask is None else mask
        return encode(name, CompressedMatrix(_with_update(worn, left, right, mask), mask=mask, updated=True))
    mine |= {f"{name}.lora_b": left.cpu().contiguous(), f"{name}.lora_a": right.cpu().contiguous()}
    return mine if mask is None else mine | {f"{name}.mask": pack_bits(mask, 1)}


def _with_update(weight: Tensor, left: Tensor, right: Tensor, mask: Tensor | None) -> Tensor:
    # products of two 24-bit fractions and their few sums are all but exact in float64, so that every device, which sums
    # in an order of its own, comes to the same rounded weight
    update = left.double() @ right.double()
    return (weight.double() + (update if mask is None else update * mask)).to(weight.dtype)


def decode_into(out: Tensor, name: str, base: Tensor, tensors: Mapping[str, Tensor]) -> None:
    """Put the compressed weight into `out` [rows, cols], which has the base's dtype.

    The work is done where the base is: with a base on the GPU only bits and codes go over the link.
    """
    mine = {key: tensor.to(base.device) for key, tensor in tensors.items() if key.startswith(f"{name}.")}
    if out.device == base.device and f"{name}.mask" in mine and mine.keys() == {f"{name}.mask"}:
        apply_mask(base, mine[f"{name}.mask"], out)
    else:
        out.copy_(decode(name, base, mine))


def decode(name: str, base: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """The compressed weight [rows, cols], in the base's dtype and on its device, where the tensors are too."""
    if f"{name}.dense" in tensors:
        return tensors[f"{name}.dense"]
    for bits in range(2, 9):
        if (packed := tensors.get(f"{name}.codes{bits}")) is not None:
            return _decode_updated(name, _decode_grid(name, base, tensors, packed, bits), tensors)
    packed_mask = tensors.get(f"{name}.mask")
    if packed_mask is None:
        raise KickError(f"the artifact holds nothing for {name}: `kick verify --deep` sets it aside")
    if (values := tensors.get(f"{name}.values")) is None:
        return apply_mask(base, packed_mask)
    out = torch.zeros(base.shape, dtype=values.dtype, device=values.device)
    out[unpack_bits(packed_mask, 1, base.shape[1]).bool()] = values
    return out


def _decode_updated(name: str, weight: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    if (left := tensors.get(f"{name}.lora_b")) is None:
        return weight
    packed = tensors.get(f"{name}.mask")
    mask = None if packed is None else unpack_bits(packed, 1, weight.shape[1]).bool()
    return _with_update(weight, left, tensors[f"{name}.lora_a"], mask)


def _decode_grid(name: str, base: Tensor, tensors: Mapping[str, Tensor], packed: Tensor, bits: int) -> Tensor:
    cols = base.shape[1]
    scales, zeros = tensors[f"{name}.scales"], tensors[f"{name}.zeros"].float()
    groups = tensors.get(f"{name}.groups")
    if groups is None:
        groups = group_of(cols, IntGrid(4, group=int(tensors[f"{name}.group_size"])))
    columns, outliers = tensors.get(f"{name}.columns"), tensors.get(f"{name}.outliers")
    weight = dequantize(unpack_bits(packed, bits, cols), scales, zeros, groups, base.dtype, columns)
    if outliers is not None:
        weight[:, outliers.long()] = base[:, outliers.long()]
    return weight
