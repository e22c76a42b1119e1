"""Kernels for a step of decoding on a GPU, written in Triton: attention of one query over a cache, and small ones.

Imported only where there is a CUDA device. A step reads every weight and the whole cache once, so that is what its
time should be made of: attention reads no column that the mask hides behind the last visible one, one row is multiplied
without the tensor cores' padding, and what the model computes element by element is one kernel.
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

DOT, WARPS, STAGES = False, 4, 3
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
    query = tl.load(
        query_ptr + row * query_row + first[:, None] * query_head + at[None, :], mask=inside, other=0.0
    )
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
        if PADDED == 1:
            score = tl.sum(key.to(tl.float32) * query.to(tl.float32), axis=1)[None, :]
        else:
            score = tl.dot(query, tl.trans(key), input_precision="ieee")
        score = score * scale + bias[None, :]
        higher = tl.maximum(most, tl.max(score, axis=1))
        shrink = tl.exp(most - higher)
        weight = tl.exp(score - higher[:, None])
        total = total * shrink + tl.sum(weight, axis=1)
        if PADDED == 1:
            seen = tl.sum(tl.trans(weight) * value.to(tl.float32), axis=0)[None, :]
        else:
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
    inside = (part < SPLITS)[:, None] & (at < width)[None, :]
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
    splits = max(1, min(-(-columns // COLUMNS), PROGRAMS // (rows * pairs), 16))
    each = -(-(-(-columns // COLUMNS)) // splits) * COLUMNS
    splits = -(-columns // each)
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
            GROUP=group, PADDED=1 if group == 1 and not DOT else max(16, triton.next_power_of_2(group)),
            WIDTH=max(16, triton.next_power_of_2(width)), BLOCK=COLUMNS, SCAN=256, SPLITS=splits, num_warps=WARPS, num_stages=STAGES,
        )  # fmt: skip
        if splits > 1:
            _joined[(rows * heads,)](
                found, told, out, width, WIDTH=max(16, triton.next_power_of_2(width)), SPLITS=splits,
                PARTS=triton.next_power_of_2(splits), num_warps=4,
            )  # fmt: skip
    return out


# --- one row times a matrix ----------------------------------------------------------------------------------


@triton.jit
def _one_row(row_ptr, weight_ptr, bias_ptr, out_ptr, outputs, stride,
             INPUTS: tl.constexpr, OUT: tl.constexpr, IN: tl.constexpr, BIASED: tl.constexpr):  # fmt: skip
    output = tl.program_id(0) * OUT + tl.arange(0, OUT)
    column = tl.arange(0, IN)
    sums = tl.zeros((OUT, IN), tl.float32)
    places = weight_ptr + output.to(tl.int64)[:, None] * stride + column[None, :]
    for start in range(0, INPUTS, IN):
        there = start + column < INPUTS
        row = tl.load(row_ptr + start + column, mask=there, other=0.0).to(tl.float32)
        part = tl.load(places + start, mask=(output < outputs)[:, None] & there[None, :], other=0.0)
        sums += part.to(tl.float32) * row[None, :]
    found = tl.sum(sums, axis=1)
    if BIASED:
        found += tl.load(bias_ptr + output, mask=output < outputs, other=0.0).to(tl.float32)
    tl.store(out_ptr + output, found, mask=output < outputs)


def one_row(row: Tensor, weight: Tensor, bias: Tensor | None = None, tile: tuple[int, int, int] = (4, 1024, 4)) -> Tensor:
    """`row` [..., inputs] (one row in all) times `weight` [outputs, inputs], as `F.linear`, summed up in float32."""
    outputs, inputs = weight.shape
    out = torch.empty(*row.shape[:-1], outputs, dtype=row.dtype, device=row.device)
    with torch.cuda.device_of(row):
        _one_row[(triton.cdiv(outputs, tile[0]),)](
            row.contiguous(), weight, weight if bias is None else bias, out, outputs, weight.stride(0),
            INPUTS=inputs, OUT=tile[0], IN=tile[1], BIASED=bias is not None, num_warps=tile[2],
        )  # fmt: skip
    return out
