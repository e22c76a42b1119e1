"""Kernels for a model's forward on a GPU, written in Triton: attention of one query over a cache, and small ones.

Imported only where there is a CUDA device. A step of decoding reads every weight and the whole cache once, so that is
what its time should be made of: attention reads no column that the mask hides behind the last visible one, one row is
multiplied without the tensor cores' padding, and what a module computes element by element is one kernel.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# --- attention of one query per row over a cache -------------------------------------------------------------

PROGRAMS = 256
"""Rows times heads are cut into parts along the cache until there are about so many programs: two a multiprocessor."""

MOST = 16
"""Parts that one program joins afterwards."""

COLUMNS = 64
"""Columns of the cache that a program reads at a time."""


@triton.jit
def _attend(
    query_ptr, key_ptr, value_ptr, mask_ptr, out_ptr, told_ptr, scale,
    query_row, query_head, key_row, key_head, key_column, value_row, value_head, value_column, mask_row,
    heads, width, COLUMNS: tl.constexpr, EACH: tl.constexpr,
    GROUP: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, SCAN: tl.constexpr,
    SPLITS: tl.constexpr,
):  # fmt: skip
    row, head, part = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    at = tl.arange(0, WIDTH)
    mine = tl.arange(0, PADDED)
    first = head * GROUP + mine
    inside = (mine < GROUP)[:, None] & (at < width)[None, :]
    query = tl.load(query_ptr + row * query_row + first[:, None] * query_head + at[None, :], mask=inside, other=0.0)
    # columns up to the last one that is seen at all
    upto = tl.full((), 0, tl.int32)
    for start in range(0, COLUMNS, SCAN):
        column = start + tl.arange(0, SCAN)
        hidden = tl.load(mask_ptr + row * mask_row + column, mask=column < COLUMNS, other=-1e30).to(tl.float32)
        upto = tl.maximum(upto, tl.max(tl.where(hidden > -1e4, column + 1, 0), axis=0))
    most = tl.full((PADDED,), -1e30, tl.float32)
    total = tl.zeros((PADDED,), tl.float32)
    found = tl.zeros((PADDED, WIDTH), tl.float32)
    keys = key_ptr + row * key_row + head.to(tl.int64) * key_head
    values = value_ptr + row * value_row + head.to(tl.int64) * value_head
    for start in range(0, EACH, BLOCK):  # what is loaded under a mask that hides it all is not read
        column = part * EACH + start + tl.arange(0, BLOCK)
        there = (column < upto)[:, None] & (at < width)[None, :]
        key = tl.load(keys + column[:, None] * key_column + at[None, :], mask=there, other=0.0)
        value = tl.load(values + column[:, None] * value_column + at[None, :], mask=there, other=0.0)
        bias = tl.load(mask_ptr + row * mask_row + column, mask=column < upto, other=-1e30).to(tl.float32)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale + bias[None, :]
        higher = tl.maximum(most, tl.max(score, axis=1))
        shrink = tl.exp(most - higher)
        weight = tl.exp(score - higher[:, None])
        total = total * shrink + tl.sum(weight, axis=1)
        seen = tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        found = found * shrink[:, None] + seen
        most = higher
    if SPLITS == 1:
        place = (row * heads + first[:, None]) * width + at[None, :]
        tl.store(out_ptr + place, found / total[:, None], mask=inside)
    else:
        place = (row * heads + first) * SPLITS + part
        tl.store(out_ptr + place[:, None] * width + at[None, :], found, mask=inside)
        tl.store(told_ptr + place * 2, most, mask=mine < GROUP)
        tl.store(told_ptr + place * 2 + 1, total, mask=mine < GROUP)


@triton.jit
def _joined(part_ptr, told_ptr, out_ptr, width, WIDTH: tl.constexpr, SPLITS: tl.constexpr, PARTS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at, part = tl.arange(0, WIDTH), tl.arange(0, PARTS)
    most = tl.load(told_ptr + (row * SPLITS + part) * 2, mask=part < SPLITS, other=-1e30)
    total = tl.load(told_ptr + (row * SPLITS + part) * 2 + 1, mask=part < SPLITS, other=0.0)
    inside = (total > 0.0)[:, None] & (at < width)[None, :]  # a part of which nothing is seen may not be written
    found = tl.load(part_ptr + (row * SPLITS + part)[:, None] * width + at[None, :], mask=inside, other=0.0)
    weight = tl.exp(most - tl.max(most, axis=0))
    whole = tl.sum(found * weight[:, None], axis=0) / tl.sum(total * weight, axis=0)
    tl.store(out_ptr + row * width + at, whole, mask=at < width)


def attend(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """softmax(q K^T * scale + mask) V for one query per row.

    `query` [rows, heads, 1, width], `keys` and `values` [rows, key heads, columns, width] of one dtype, `mask`
    additive [rows, 1, 1, columns]. Returns [rows, 1, heads, width]. Sums are float32, in an order that follows from
    the shape alone.
    """
    rows, heads, _, width = query.shape
    pairs, columns = keys.shape[1], keys.shape[2]
    group = heads // pairs
    steps = triton.cdiv(columns, COLUMNS)
    each = triton.cdiv(steps, max(1, min(steps, PROGRAMS // (rows * pairs), MOST))) * COLUMNS
    splits = triton.cdiv(columns, each)
    out = torch.empty(rows, 1, heads, width, dtype=query.dtype, device=query.device)
    told = found = out
    if splits > 1:
        found = torch.empty(rows, heads, splits, width, dtype=torch.float32, device=query.device)
        told = torch.empty(rows, heads, splits, 2, dtype=torch.float32, device=query.device)
    query, mask = query[:, :, 0], mask[:, 0, 0]
    with torch.cuda.device_of(query):
        _attend[(rows, pairs, splits)](
            query, keys, values, mask, found, told, scale,
            query.stride(0), query.stride(1), *keys.stride()[:3], *values.stride()[:3], mask.stride(0),
            heads, width, COLUMNS=columns, EACH=each,
            GROUP=group, PADDED=max(16, triton.next_power_of_2(group)),
            WIDTH=max(16, triton.next_power_of_2(width)), BLOCK=COLUMNS, SCAN=256, SPLITS=splits,
            num_warps=4, num_stages=2,
        )  # fmt: skip
    return joined(found, told, query.dtype) if splits > 1 else out


def joined(parts: Tensor, told: Tensor, dtype: torch.dtype) -> Tensor:
    """Attention [rows, 1, heads, width] of parts of the columns: their sums `parts` [rows, heads, parts, width] of
    values and `told` [rows, heads, parts, 2], the highest score and the sum of weights; float32."""
    rows, heads, count, width = parts.shape
    out = torch.empty(rows, 1, heads, width, dtype=dtype, device=parts.device)
    with torch.cuda.device_of(parts):
        _joined[(rows * heads,)](
            parts, told, out, width, WIDTH=max(16, triton.next_power_of_2(width)), SPLITS=count,
            PARTS=triton.next_power_of_2(count), num_warps=4,
        )  # fmt: skip
    return out


@triton.jit
def _put(key_ptr, value_ptr, all_keys_ptr, all_values_ptr, where_ptr, key_row, key_pair, value_row, value_pair,
         row_step, pair_step, column_step, width, WIDTH: tl.constexpr):  # fmt: skip
    row, pair = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    at = tl.arange(0, WIDTH)
    place = row * row_step + pair * pair_step + tl.load(where_ptr + row) * column_step + at
    key = tl.load(key_ptr + row * key_row + pair * key_pair + at, mask=at < width)
    value = tl.load(value_ptr + row * value_row + pair * value_pair + at, mask=at < width)
    tl.store(all_keys_ptr + place, key, mask=at < width)
    tl.store(all_values_ptr + place, value, mask=at < width)


def put(keys: Tensor, values: Tensor, all_keys: Tensor, all_values: Tensor, where: Tensor) -> None:
    """Write one token's keys and values [rows, key heads, 1, width] into a cache [rows, key heads, columns, width],
    each row at its column `where` [rows]."""
    rows, pairs, _, width = keys.shape
    with torch.cuda.device_of(keys):
        _put[(rows, pairs)](
            keys, values, all_keys, all_values, where, *keys.stride()[:2], *values.stride()[:2],
            *all_keys.stride()[:3], width, WIDTH=triton.next_power_of_2(width), num_warps=1,
        )  # fmt: skip


# --- one row times a matrix ----------------------------------------------------------------------------------

INPUTS, WARPS = 2048, 4
"""Inputs of one output that a program reads at a time, and its warps."""


@triton.jit
def _sum_of(row_ptr, weight_ptr, INPUTS: tl.constexpr, PART: tl.constexpr):
    column = tl.arange(0, PART)
    sums = tl.zeros((PART,), tl.float32)
    for start in range(0, INPUTS, PART):
        there = start + column < INPUTS
        value = tl.load(row_ptr + start + column, mask=there, other=0.0).to(tl.float32)
        sums += tl.load(weight_ptr + start + column, mask=there, other=0.0).to(tl.float32) * value
    return tl.sum(sums, axis=0)


@triton.jit
def _one_row(row_ptr, weight_ptr, bias_ptr, out_ptr, stride,
             INPUTS: tl.constexpr, PART: tl.constexpr, BIASED: tl.constexpr):  # fmt: skip
    output = tl.program_id(0).to(tl.int64)
    found = _sum_of(row_ptr, weight_ptr + output * stride, INPUTS, PART)
    if BIASED:
        found += tl.load(bias_ptr + output).to(tl.float32)
    tl.store(out_ptr + output, found)


@triton.jit
def _silu_times(gate, up, dtype: tl.constexpr):
    """silu(gate) * up, rounded to `dtype` after each step, as modules that do one after the other round."""
    gate = gate.to(dtype).to(tl.float32)
    return (gate / (1.0 + tl.exp(-gate))).to(dtype).to(tl.float32) * up.to(dtype).to(tl.float32)


@triton.jit
def _one_row_gated(row_ptr, gate_ptr, up_ptr, out_ptr, gate_stride, up_stride,
                   INPUTS: tl.constexpr, PART: tl.constexpr):  # fmt: skip
    output = tl.program_id(0).to(tl.int64)
    gate = _sum_of(row_ptr, gate_ptr + output * gate_stride, INPUTS, PART)
    up = _sum_of(row_ptr, up_ptr + output * up_stride, INPUTS, PART)
    tl.store(out_ptr + output, _silu_times(gate, up, out_ptr.dtype.element_ty))


def one_row(row: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`row` [..., inputs] (one row in all) times `weight` [outputs, inputs], as `F.linear`, summed up in float32."""
    outputs, inputs = weight.shape
    out = torch.empty(*row.shape[:-1], outputs, dtype=row.dtype, device=row.device)
    with torch.cuda.device_of(row):
        _one_row[(outputs,)](
            row.contiguous(), weight, weight if bias is None else bias, out, weight.stride(0),
            INPUTS=inputs, PART=min(INPUTS, triton.next_power_of_2(inputs)), BIASED=bias is not None, num_warps=WARPS,
        )  # fmt: skip
    return out


def one_row_gated(row: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """silu(row G^T) * (row U^T) for one row, `gate` and `up` [outputs, inputs]."""
    outputs, inputs = gate.shape
    out = torch.empty(*row.shape[:-1], outputs, dtype=row.dtype, device=row.device)
    with torch.cuda.device_of(row):
        _one_row_gated[(outputs,)](
            row.contiguous(), gate, up, out, gate.stride(0), up.stride(0),
            INPUTS=inputs, PART=min(INPUTS, triton.next_power_of_2(inputs)), num_warps=WARPS,
        )  # fmt: skip
    return out


# --- element by element --------------------------------------------------------------------------------------


BLOCK = 2048
"""Numbers that a program of an element-wise kernel takes."""


@triton.jit
def _gated(gate_ptr, up_ptr, out_ptr, count, BLOCK: tl.constexpr):
    start = tl.program_id(0).to(tl.int64) * BLOCK
    at = tl.arange(0, BLOCK)
    inside = at < count - start
    gate = tl.load(gate_ptr + start + at, mask=inside, other=0.0)
    up = tl.load(up_ptr + start + at, mask=inside, other=0.0)
    tl.store(out_ptr + start + at, _silu_times(gate, up, out_ptr.dtype.element_ty), mask=inside)


def gated(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) * up, of one shape."""
    gate, up = gate.contiguous(), up.contiguous()
    out = torch.empty_like(gate)
    with torch.cuda.device_of(gate):
        _gated[(triton.cdiv(gate.numel(), BLOCK),)](gate, up, out, gate.numel(), BLOCK=BLOCK, num_warps=8)
    return out


@triton.jit
def _normed(value_ptr, weight_ptr, out_ptr, width, epsilon, WIDTH: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * width
    at = tl.arange(0, WIDTH)
    value = tl.load(value_ptr + row + at, mask=at < width, other=0.0).to(tl.float32)
    weight = tl.load(weight_ptr + at, mask=at < width, other=0.0).to(tl.float32)
    scaled = value * tl.rsqrt(tl.sum(value * value, axis=0) / width + epsilon)
    tl.store(out_ptr + row + at, weight * scaled.to(out_ptr.dtype.element_ty).to(tl.float32), mask=at < width)


def normed(values: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """RMS normalisation over the last dimension (Zhang & Sennrich 2019, arXiv 1910.07467), as Llama rounds it."""
    values, width = values.contiguous(), values.shape[-1]
    out, padded = torch.empty_like(values), triton.next_power_of_2(width)
    with torch.cuda.device_of(values):
        _normed[(values.numel() // width,)](
            values, weight, out, width, epsilon, WIDTH=padded, num_warps=min(8, max(1, padded // 256))
        )
    return out


HEADS = 8
"""Heads that a program turns at a time: they lie side by side and share their angles."""


@triton.jit(do_not_specialize=["tokens"])  # else compiled apart for 1, for multiples of 16 and for the rest
def _turned(query_ptr, key_ptr, cos_ptr, sin_ptr, new_query_ptr, new_key_ptr,
            query_row, query_head, query_token, key_row, key_head, key_token, cos_row, cos_token, sin_row, sin_token,
            tokens, heads, pairs, half, HALF: tl.constexpr, HEADS: tl.constexpr):  # fmt: skip
    place, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    row, token = place // tokens, place % tokens
    parts = tl.cdiv(heads, HEADS)
    if part < parts:
        count, first = heads, part * HEADS
        given, step = query_ptr + row * query_row + token * query_token, query_head
        made = new_query_ptr + place * heads * half * 2
    else:
        count, first = pairs, (part - parts) * HEADS
        given, step = key_ptr + row * key_row + token * key_token, key_head
        made = new_key_ptr + place * pairs * half * 2
    head, at = first + tl.arange(0, HEADS)[:, None], tl.arange(0, HALF)[None, :]
    angle, inside = at < half, (head < count) & (at < half)
    cos, sin = cos_ptr + row * cos_row + token * cos_token + at, sin_ptr + row * sin_row + token * sin_token + at
    low = tl.load(given + head * step + at, mask=inside, other=0.0).to(tl.float32)
    high = tl.load(given + head * step + half + at, mask=inside, other=0.0).to(tl.float32)
    dtype = new_query_ptr.dtype.element_ty
    along = (low * tl.load(cos, mask=angle, other=0.0).to(tl.float32)).to(dtype).to(tl.float32)
    across = (-high * tl.load(sin, mask=angle, other=0.0).to(tl.float32)).to(dtype).to(tl.float32)
    tl.store(made + head * half * 2 + at, along + across, mask=inside)
    along = (high * tl.load(cos + half, mask=angle, other=0.0).to(tl.float32)).to(dtype).to(tl.float32)
    across = (low * tl.load(sin + half, mask=angle, other=0.0).to(tl.float32)).to(dtype).to(tl.float32)
    tl.store(made + head * half * 2 + half + at, along + across, mask=inside)


def turned(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864), a row's halves being the pairs: `query` and `key`
    [rows, heads, tokens, width], `cos` and `sin` [rows or 1, tokens, width]. The results lie token by token."""
    (rows, heads, tokens, width), pairs = query.shape, key.shape[1]
    new_query = torch.empty(rows, tokens, heads, width, dtype=query.dtype, device=query.device)
    new_key = torch.empty(rows, tokens, pairs, width, dtype=key.dtype, device=key.device)
    angles = [part for t in (cos, sin) for part in (t.stride(0) if len(t) > 1 else 0, t.stride(1))]
    parts = triton.cdiv(heads, HEADS) + triton.cdiv(pairs, HEADS)
    with torch.cuda.device_of(query):
        _turned[(rows * tokens, parts)](
            query, key, cos, sin, new_query, new_key, *query.stride()[:3], *key.stride()[:3], *angles,
            tokens, heads, pairs, width // 2, HALF=triton.next_power_of_2(width // 2), HEADS=HEADS, num_warps=2,
        )  # fmt: skip
    return new_query.transpose(1, 2), new_key.transpose(1, 2)
