"""The two quantized file formats that others read, as facts about tensors: GPTQ and pack-quantized.

    GPTQ v1 (AutoGPTQ)      qweight int32 [in*bits/32, out], codes packed along in; qzeros int32
                            [groups, out*bits/32] holding zero - 1; scales float16 [groups, out]; g_idx [in]
    GPTQ v2 (GPTQModel)     the same with qzeros holding the zero itself
    pack-quantized          weight_packed int32 [out, ceil(in*bits/32)], codes packed along in;
    (compressed-tensors)    weight_scale [out, groups]; weight_zero_point int32 [out*bits/32, groups] packed
                            along out, asymmetric only; weight_shape int64 [2]; weight_g_idx where not plain

All pack codes as a dense little-endian bit stream. Learnt from files that GPTQModel 7.6 and llm-compressor
0.14 write (`tests/oracles`). Symmetric grids are written as v1, which every reader takes; others as v2, because
v1 cannot hold a zero point of 0 and GPTQModel opens no asymmetric v1 but its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kick_core.errors import BadRequest, KickError
from kick_core.methods.grid import dequantize
from kick_core.models.bit_tensors import pack_bits, unpack_bits

GPTQ, PACKED = "gptq", "compressed-tensors"
V1, V2 = "gptq", "gptq_v2"
GPTQ_BITS = (2, 3, 4, 8)
"""Bits at which GPTQ files hold a dense stream; GPTQModel lays 5 to 7 bits out in planes."""


@dataclass(frozen=True, slots=True)
class Grid:
    """One quantized matrix: codes [out, in] uint8, scales and zeros [out, groups], groups [in]."""

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    groups: Tensor
    bits: int

    def weight(self, dtype: torch.dtype) -> Tensor:
        return dequantize(self.codes, self.scales.float(), self.zeros.float(), self.groups, dtype)


def described(config: Mapping[str, Any]) -> str:
    """A folder's `quantization_config` in words: the format, bits and group. Raises KickError for one not read."""
    if config["quant_method"] == "mxfp4":
        return "MXFP4, 4 bit, groups of 32"
    if config["quant_method"] == GPTQ:
        bits, version = _gptq_layout(config)
        form, group = "GPTQ v1" if version == V1 else "GPTQ v2", config.get("group_size")
    else:
        scheme = _scheme(config)
        form, bits, group = "pack-quantized", scheme["num_bits"], scheme.get("group_size")
    return f"{form}, {bits} bit, {'one group a row' if group in (None, -1) else f'groups of {group}'}"


def pack_words(codes: Tensor, bits: int) -> Tensor:
    """uint8 [rows, n] -> int32 [rows, ceil(n * bits / 32)], little-endian bit stream along each row."""
    packed = pack_bits(codes, bits).cpu().numpy()
    missing = -packed.shape[1] % 4
    padded = np.pad(packed, ((0, 0), (0, missing)))
    return torch.from_numpy(np.ascontiguousarray(padded).view("<i4").copy())


def unpack_words(words: Tensor, bits: int, count: int) -> Tensor:
    """The inverse of `pack_words`: uint8 [rows, count]."""
    data = words.contiguous().numpy().astype("<i4", copy=False).view(np.uint8)
    return unpack_bits(torch.from_numpy(data.copy()), bits, count)


# --- GPTQ --------------------------------------------------------------------------------------------------


def require_words(name: str, rows: int, cols: int, bits: int) -> None:
    """Raises BadRequest for a linear whose widths do not fill words."""
    if rows * bits % 32 or cols * bits % 32:
        raise BadRequest(f"{name} [{rows}, {cols}]: GPTQ files need widths that fill 32-bit words at {bits} bit")


def gptq_tensors(name: str, grid: Grid, symmetric: bool) -> dict[str, Tensor]:
    """The tensors of one linear, v1 where the grid is symmetric, else v2. Raises BadRequest for widths that do
    not fill words."""
    rows, cols = grid.codes.shape
    require_words(name, rows, cols, grid.bits)
    zeros = (grid.zeros.to(torch.int16) - int(symmetric)).to(torch.uint8)
    return {
        f"{name}.qweight": pack_words(grid.codes, grid.bits).T.contiguous(),
        f"{name}.qzeros": pack_words(zeros.T.contiguous(), grid.bits),
        f"{name}.scales": grid.scales.T.to(torch.float16).contiguous(),
        f"{name}.g_idx": grid.groups.to(torch.int32).contiguous(),
    }


def read_gptq(name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Grid:
    """One linear of a GPTQ checkpoint, v1 or v2. Raises KickError for a layout that is not read."""
    bits, version = _gptq_layout(config)
    qweight, scales, qzeros = (tensors[f"{name}.{part}"] for part in ("qweight", "scales", "qzeros"))
    cols, rows = qweight.shape[0] * 32 // bits, qweight.shape[1]
    codes = unpack_words(qweight.T, bits, cols)
    zeros = unpack_words(_whole_zeros(qzeros, bits) if version == V1 else qzeros, bits, rows).T.to(torch.int16)
    if version == V1 and 32 % bits:
        zeros = (zeros + 1) % 2**bits
    groups = tensors.get(f"{name}.g_idx")
    if groups is None:
        groups = torch.arange(cols, dtype=torch.int32) // max(1, -(-cols // len(scales)))
    return Grid(codes, scales.T, zeros, groups, bits)


def _whole_zeros(qzeros: Tensor, bits: int) -> Tensor:
    """The words of v1 with the 1 given back that was taken from every zero point. Writers take it from whole
    words, where a zero point of 0 borrows from its neighbour: adding to whole words returns what was borrowed.
    Where points straddle words they are taken from one by one, and nothing is done here."""
    return qzeros if 32 % bits else qzeros + sum(1 << place for place in range(0, 32, bits))


def _gptq_layout(config: Mapping[str, Any]) -> tuple[int, str]:
    """Bits and version of a GPTQ folder, every setting that changes the meaning of its tensors being known."""
    bits, version = config.get("bits"), config.get("checkpoint_format") or config.get("format") or V1
    if version not in (V1, V2):
        raise KickError(f"GPTQ checkpoint format {version!r}: {V1} and {V2} are read")
    if bits not in GPTQ_BITS:
        raise KickError(f"GPTQ at {bits} bit: {', '.join(map(str, GPTQ_BITS))} bit are read")
    if (words := config.get("pack_dtype") or "int32") != "int32":
        raise KickError(f"GPTQ packed in {words}: int32 is read")
    if mixed := [part for part, own in (config.get("dynamic") or {}).items() if (own or {}).get("bits", bits) != bits]:
        raise KickError(f"GPTQ with bits of its own for {mixed[0]!r} (dynamic): one number of bits a model is read")
    return int(bits), str(version)


def gptq_config(bits: int, group: int, symmetric: bool, act_order: bool) -> dict[str, Any]:
    """`quantization_config`, and `quantize_config.json`, of a GPTQ folder."""
    return {
        "quant_method": GPTQ,
        "bits": bits,
        "group_size": group,
        "desc_act": act_order,
        "sym": symmetric,
        "lm_head": False,
        "pack_dtype": "int32",
        "format": V1 if symmetric else V2,
        "checkpoint_format": V1 if symmetric else V2,
    }


# --- pack-quantized ----------------------------------------------------------------------------------------


def packed_tensors(name: str, grid: Grid, symmetric: bool) -> dict[str, Tensor]:
    """The tensors of one linear in compressed-tensors' pack-quantized."""
    rows, cols = grid.codes.shape
    tensors = {
        f"{name}.weight_packed": pack_words(grid.codes, grid.bits),
        f"{name}.weight_scale": grid.scales.contiguous(),
        f"{name}.weight_shape": torch.tensor([rows, cols], dtype=torch.int64),
    }
    if not symmetric:
        zeros = grid.zeros.to(torch.uint8)
        tensors[f"{name}.weight_zero_point"] = pack_words(zeros.T.contiguous(), grid.bits).T.contiguous()
    return tensors


def read_packed(name: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Grid:
    """One linear of a pack-quantized checkpoint."""
    weights = _scheme(config)
    bits = int(weights["num_bits"])
    rows, cols = tensors[f"{name}.weight_shape"].tolist()
    scales = tensors[f"{name}.weight_scale"]
    codes = unpack_words(tensors[f"{name}.weight_packed"], bits, cols)
    point = tensors.get(f"{name}.weight_zero_point")
    if point is None:
        zeros = torch.full(scales.shape, 2 ** (bits - 1))
    else:
        zeros = unpack_words(point.T, bits, rows).T.to(torch.int16)
    groups = tensors.get(f"{name}.weight_g_idx")
    if groups is None:
        size = weights.get("group_size") or -1
        groups = torch.arange(cols, dtype=torch.int32) // (cols if size == -1 else int(size))
    return Grid(codes, scales, zeros, groups, bits)


def _scheme(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """How all weights are quantized. Raises KickError for anything that codes and scales alone do not tell."""
    groups = list(config.get("config_groups", {}).values())
    if config.get("format") != "pack-quantized" or len(groups) != 1:
        raise KickError(
            f"compressed-tensors format {config.get('format')!r} with {len(groups)} groups: "
            f"only pack-quantized with one group is read"
        )
    scheme: Mapping[str, Any] = groups[0]["weights"]
    if scheme.get("type", "int") != "int" or scheme.get("strategy") not in ("group", "channel"):
        raise KickError(
            f"pack-quantized {scheme.get('type')} by {scheme.get('strategy')}: integers by group or channel are read"
        )
    others = {"transforms": config.get("transform_config"), "a quantized KV cache": config.get("kv_cache_scheme")}
    others |= {"quantized activations": groups[0].get("input_activations") or groups[0].get("output_activations")}
    for what, found in others.items():
        if found:
            raise KickError(f"pack-quantized with {what}: only weights are decoded, which would be another model")
    return scheme


def packed_config(bits: int, group: int, symmetric: bool) -> dict[str, Any]:
    """`quantization_config` of a pack-quantized folder."""
    weights = {
        "num_bits": bits,
        "type": "int",
        "symmetric": symmetric,
        "strategy": "channel" if group == -1 else "group",
        "group_size": None if group == -1 else group,
        "dynamic": False,
        "actorder": None,
        "observer": "minmax",
    }
    return {
        "quant_method": PACKED,
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "global_compression_ratio": None,
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": weights,
                "input_activations": None,
                "output_activations": None,
            }
        },
    }
