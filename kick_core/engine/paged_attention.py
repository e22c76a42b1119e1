"""Kernels for a cache in pages (see `pages`), written in Triton; imported only where they are used."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from kick_core.engine.kernels import joined

PART, MOST = 1024, 8
"""A text is cut every so many columns, so that programs share its work; into so many parts at most, longer then."""


@triton.jit
def _attend(
    query_ptr, key_ptr, value_ptr, table_ptr, where_ptr, found_ptr, told_ptr, scale,
    query_row, query_head, page_step, head_step, column_step, table_row, heads, width, window,
    EACH: tl.constexpr, GROUP: tl.constexpr, PADDED: tl.constexpr, WIDTH: tl.constexpr, PAGE: tl.constexpr,
    PARTS: tl.constexpr,
):  # fmt: skip
    row, head, part = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2)
    at, mine, line = tl.arange(0, WIDTH), tl.arange(0, PADDED), tl.arange(0, PAGE)
    own = head * GROUP + mine
    inside = (mine < GROUP)[:, None] & (at < width)[None, :]
    query = tl.load(query_ptr + row * query_row + own[:, None] * query_head + at[None, :], mask=inside, other=0.0)
    upto = tl.load(where_ptr + row).to(tl.int32) + 1
    first = tl.maximum(upto - window, 0)
    most = tl.full((PADDED,), -1e30, tl.float32)
    total = tl.zeros((PADDED,), tl.float32)
    found = tl.zeros((PADDED, WIDTH), tl.float32)
    begin, end = tl.maximum(part * EACH, first // PAGE * PAGE), tl.minimum((part + 1) * EACH, upto)
    for start in range(begin, end, PAGE):
        column = start + line
        seen = (column >= first) & (column < upto)
        page = tl.load(table_ptr + row * table_row + start // PAGE).to(tl.int64)
        address = page * page_step + head * head_step + line[:, None] * column_step + at[None, :]
        there = seen[:, None] & (at < width)[None, :]
        key = tl.load(key_ptr + address, mask=there, other=0.0)
        value = tl.load(value_ptr + address, mask=there, other=0.0)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        score = tl.where(seen[None, :], score, -1e30)
        higher = tl.maximum(most, tl.max(score, axis=1))
        shrink = tl.exp(most - higher)
        weight = tl.exp(score - higher[:, None])
        total = total * shrink + tl.sum(weight, axis=1)
        found = found * shrink[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        most = higher
    place = (row * heads + own) * PARTS + part
    tl.store(found_ptr + place[:, None] * width + at[None, :], found, mask=inside & (begin < end))
    tl.store(told_ptr + place * 2, most, mask=mine < GROUP)
    tl.store(told_ptr + place * 2 + 1, total, mask=mine < GROUP)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, table: Tensor, where: Tensor, scale: float, window: int = 0
) -> Tensor:
    """softmax(q K^T * scale) V for one query per row, over the columns up to `where` of the row's pages.

    Args:
        query: [rows, heads, 1, width].
        keys: [pages, key heads, columns of a page, width], of the query's dtype.
        values: As `keys`.
        table: int32 [rows, n], the pages of each row in the order of its columns.
        where: int64 [rows], the last column that a row sees.
        scale: What products are multiplied with.
        window: So many columns are seen at most; 0: all.

    Returns:
        [rows, 1, heads, width]. Sums are float32, in an order that follows from the row's own columns and from the
        width of the table.
    """
    (rows, heads, _, width), (_, pairs, page, _) = query.shape, keys.shape
    columns = table.shape[1] * page
    each = min(columns, max(PART, columns // MOST))
    parts, padded = triton.cdiv(columns, each), max(16, triton.next_power_of_2(width))
    found = torch.empty(rows, heads, parts, width, dtype=torch.float32, device=query.device)
    told = torch.empty(rows, heads, parts, 2, dtype=torch.float32, device=query.device)
    query, group = query[:, :, 0], heads // pairs
    with torch.cuda.device_of(query):
        _attend[(rows, pairs, parts)](
            query, keys, values, table, where, found, told, scale,
            query.stride(0), query.stride(1), *keys.stride()[:3], table.stride(0), heads, width, window or 1 << 30,
            EACH=each, GROUP=group, PADDED=max(16, triton.next_power_of_2(group)), WIDTH=padded, PAGE=page,
            PARTS=parts, num_warps=4, num_stages=2,
        )  # fmt: skip
    return joined(found, told, query.dtype)


@triton.jit
def _put(key_ptr, value_ptr, keys_ptr, values_ptr, table_ptr, where_ptr, key_row, key_head, value_row, value_head,
         page_step, head_step, column_step, table_row, width, WIDTH: tl.constexpr, PAGE: tl.constexpr):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    at = tl.arange(0, WIDTH)
    where = tl.load(where_ptr + row)
    page = tl.load(table_ptr + row * table_row + where // PAGE).to(tl.int64)
    place = page * page_step + head * head_step + where % PAGE * column_step + at
    key = tl.load(key_ptr + row * key_row + head * key_head + at, mask=at < width)
    tl.store(keys_ptr + place, key, mask=at < width)
    value = tl.load(value_ptr + row * value_row + head * value_head + at, mask=at < width)
    tl.store(values_ptr + place, value, mask=at < width)


def put(new_keys: Tensor, new_values: Tensor, keys: Tensor, values: Tensor, table: Tensor, where: Tensor) -> None:
    """Write one token's keys and values [rows, key heads, 1, width] into pages, each row's at its column `where`; all
    else as in `attend`. The last dimension of each has stride 1."""
    rows, pairs, _, width = new_keys.shape
    with torch.cuda.device_of(keys):
        _put[(rows, pairs)](
            new_keys, new_values, keys, values, table, where, *new_keys.stride()[:2], *new_values.stride()[:2],
            *keys.stride()[:3], table.stride(0), width, WIDTH=triton.next_power_of_2(width), PAGE=keys.shape[2],
            num_warps=1,
        )  # fmt: skip


@triton.jit(do_not_specialize=["length"])
def _put_prompts(key_ptr, value_ptr, keys_ptr, values_ptr, table_ptr, places_ptr, length,
                 key_row, key_head, key_column, value_row, value_head, value_column, page_step, head_step, column_step,
                 table_row, table_width, width, WIDTH: tl.constexpr, PAGE: tl.constexpr):  # fmt: skip
    row, head, number = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    at, line = tl.arange(0, WIDTH), tl.arange(0, PAGE)
    place = tl.load(places_ptr + row)
    page = tl.load(table_ptr + place * table_row + number, mask=number < table_width, other=0).to(tl.int64)
    column = number * PAGE + line
    there = ((column < length) & (page > 0))[:, None] & (at < width)[None, :]
    address = page * page_step + head * head_step + line[:, None] * column_step + at[None, :]
    key = tl.load(key_ptr + row * key_row + head * key_head + column[:, None] * key_column + at[None, :], mask=there)
    tl.store(keys_ptr + address, key, mask=there)
    value = tl.load(
        value_ptr + row * value_row + head * value_head + column[:, None] * value_column + at[None, :], mask=there
    )
    tl.store(values_ptr + address, value, mask=there)


def put_prompts(
    new_keys: Tensor, new_values: Tensor, keys: Tensor, values: Tensor, table: Tensor, places: Tensor
) -> None:
    """Write the keys and values of whole prompts, [n, key heads, length, width], into the pages of the rows `places`
    (int64 [n]) of the table; all else as in `put`. Columns that a row has no page for are left out."""
    count, pairs, length, width = new_keys.shape
    with torch.cuda.device_of(keys):
        _put_prompts[(count, pairs, triton.cdiv(length, keys.shape[2]))](
            new_keys, new_values, keys, values, table, places, length, *new_keys.stride()[:3], *new_values.stride()[:3],
            *keys.stride()[:3], table.stride(0), table.shape[1], width, WIDTH=triton.next_power_of_2(width),
            PAGE=keys.shape[2], num_warps=4,
        )  # fmt: skip
