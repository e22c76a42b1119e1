"""The two inner loops of pruning and rounding on a GPU, written in Triton: a block's sweep, and exact selection.

Imported only where there is a CUDA device (see `_select.kernels`); everything here has an eager twin that gives
the same bits on the same inputs: division is rounded as IEEE says, and a product is fused with a sum just where
torch does it too (`addr_`).
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

# --- the sweep over one block of columns -------------------------------------------------------------------

WIDEST = 256
"""Columns of the widest block that is kept in registers."""

LARGEST_PATTERN = 32
"""The largest M of an N:M pattern that is chosen inside the kernel (it compares all pairs of a group)."""

TILE_ROWS, TILE_WARPS = 16, 4
"""Rows of one program and the warps that share them."""


@triton.jit(do_not_specialize=["rows", "groups", "top"])
def _sweep_tile(
    block_ptr, error_ptr, keep_ptr, code_ptr, upper_ptr, scale_ptr, zero_ptr, place_ptr,
    rows, columns, keep_stride, code_stride, groups, top,
    ROWS: tl.constexpr, COLS: tl.constexpr, BEGIN: tl.constexpr, END: tl.constexpr, PRUNES: tl.constexpr,
    DROP: tl.constexpr, M: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    col = tl.arange(0, COLS)
    here = row < rows
    inside = here[:, None] & (col < columns)[None, :]
    place = row.to(tl.int64)[:, None] * columns + col[None, :]
    block = tl.load(block_ptr + place, mask=inside, other=0.0)
    errors = tl.zeros((ROWS, COLS), tl.float32)
    codes = tl.zeros((ROWS, COLS), tl.float32)
    keep = tl.full((ROWS, COLS), 1, tl.int32)
    kept_at = keep_ptr + row.to(tl.int64)[:, None] * keep_stride + col[None, :]
    if PRUNES:
        keep = tl.load(kept_at, mask=inside, other=1).to(tl.int32)
    diagonal = tl.load(upper_ptr + col * (columns + 1), mask=col < columns, other=1.0)
    for first in range(BEGIN, END, M):
        if DROP > 0:
            # the rank of every weight within its group of M, on weights that carry the updates so far
            score = tl.math.div_rn(block, tl.broadcast_to(diagonal[None, :], (ROWS, COLS)))
            score = tl.where(block == 0.0, -1.0, score * score)
            rank = tl.zeros((ROWS, COLS), tl.int32)
            for other in tl.static_range(M):
                rival = tl.sum(tl.where((col == first + other)[None, :], score, 0.0), axis=1)[:, None]
                before = (first + other < col)[None, :]
                rank += ((rival < score) | ((rival == score) & before)).to(tl.int32)
            group = ((col >= first) & (col < first + M))[None, :]
            keep = tl.where(group, (rank >= DROP).to(tl.int32), keep)
        for column in range(first, first + M):
            mine = (col == column)[None, :]
            values = tl.sum(tl.where(mine, block, 0.0), axis=1)
            wanted = values
            if PRUNES:
                wanted = tl.where(tl.sum(tl.where(mine, keep, 0), axis=1) > 0, values, 0.0)
            if ROUNDS:
                spot = row.to(tl.int64) * groups + tl.load(place_ptr + column)
                scale = tl.load(scale_ptr + spot, mask=here, other=1.0)
                zero = tl.load(zero_ptr + spot, mask=here, other=0.0)
                # bounds first: then adding and taking away 1.5 * 2^23 rounds to the nearest even whole number
                code = tl.minimum(tl.maximum(tl.math.div_rn(wanted, scale), -1024.0), 1024.0)
                code = (code + 12582912.0) - 12582912.0
                code = tl.minimum(tl.maximum(code + zero, 0.0), top)
                codes = tl.where(mine, code[:, None], codes)
                wanted = (code - zero) * scale
            pivot = tl.load(upper_ptr + column * (columns + 1))
            error = tl.math.div_rn(values - wanted, tl.zeros((ROWS,), tl.float32) + pivot)
            errors = tl.where(mine, error[:, None], errors)
            later = (col > column) & (col < columns)
            factors = tl.load(upper_ptr + column * columns + col, mask=later, other=0.0)
            block = tl.fma(-tl.broadcast_to(error[:, None], (ROWS, COLS)), factors[None, :], block)
            block = tl.where(mine, wanted[:, None], block)
    done = inside & ((col >= BEGIN) & (col < END))[None, :]
    tl.store(block_ptr + place, block, mask=inside)
    tl.store(error_ptr + place, errors, mask=done)
    if DROP > 0:
        tl.store(kept_at, keep.to(tl.uint8), mask=done)
    if ROUNDS:
        tl.store(code_ptr + row.to(tl.int64)[:, None] * code_stride + col[None, :], codes, mask=done)


def sweep_tile(
    block: Tensor,
    errors: Tensor,
    upper: Tensor,
    span: tuple[int, int],
    *,
    keep: Tensor | None = None,
    pattern: tuple[int, int] | None = None,
    codes: Tensor | None = None,
    grid: tuple[Tensor, Tensor, Tensor, int] | None = None,
    rows: int = TILE_ROWS,
    warps: int = TILE_WARPS,
) -> None:
    """Sweep over the columns `span` = (begin, end) of one block, in place.

    `block` and `errors` [rows, columns] and `upper` [columns, columns] are float32 and contiguous. `keep`
    [rows, columns] bool is the mask, which `pattern` = (N, M) chooses on the way. `codes` [rows, columns] float32
    takes the codes of `grid` = (scales [rows, groups], zeros, each column's group int32 [columns], the largest
    code).
    """
    count, columns = block.shape
    none = block  # stands for a pointer that is not used
    kept = none if keep is None else keep.view(torch.uint8)
    scales, zeros, places, top = grid or (none, none, none, 0)
    of = pattern[1] if pattern else 1
    with torch.cuda.device_of(block):  # Triton launches on the current device
        _sweep_tile[(triton.cdiv(count, rows),)](
            block, errors, kept, none if codes is None else codes, upper, scales, zeros, places,
            count, columns, kept.stride(0), 0 if codes is None else codes.stride(0),
            scales.shape[1], float(top),
            ROWS=rows, COLS=max(16, triton.next_power_of_2(columns)), BEGIN=span[0], END=span[1],
            PRUNES=keep is not None, DROP=of - pattern[0] if pattern else 0, M=of, ROUNDS=grid is not None,
            num_warps=warps, enable_fp_fusion=False,
        )  # fmt: skip


# --- exact selection of the lowest scores ------------------------------------------------------------------

ROW = 16384
"""Scores that one program ranks by itself; longer rows are counted digit by digit by many programs."""

CHUNK = 4096


@triton.jit
def _keys(score_ptr, at, n):
    """Whole numbers in the order of the scores; what lies behind the row comes last."""
    score = tl.load(score_ptr + at, mask=at < n, other=0.0) + 0.0  # no -0.0
    bits = score.to(tl.int32, bitcast=True)
    return tl.where(at < n, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits), 0x7FFFFFFF)


@triton.jit(do_not_specialize=["count"])
def _drop_in_row(score_ptr, drop_ptr, n, count, N: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * n
    at = tl.arange(0, N)
    keys = _keys(score_ptr + row, at, n)
    # the largest bound with fewer than `count` keys below it is the count-th smallest key; bit by bit
    bound = tl.min(keys, axis=0) * 0 + (-2147483648)
    for step in range(32):
        tried = bound ^ (tl.full((), 1, tl.int32) << (31 - step))
        bound = tl.where(tl.sum((keys < tried).to(tl.int32), axis=0) < count, tried, bound)
    below = (keys < bound) & (at < n)
    level = (keys == bound) & (at < n)
    room = count - tl.sum(below.to(tl.int32), axis=0)
    drop = below | (level & (tl.cumsum(level.to(tl.int32), axis=0) <= room))
    tl.store(drop_ptr + row + at, drop.to(tl.uint8), mask=at < n)


@triton.jit
def _picked(digit_ptr, count, PASSES: tl.constexpr):
    """The leading digits (of 8 bits) of the count-th smallest key, and its number among keys that share them."""
    bins = tl.arange(0, 256)
    prefix = tl.full((), 0, tl.int32)
    left = tl.full((), 0, tl.int32) + count
    for number in tl.static_range(PASSES):
        found = tl.load(digit_ptr + number * 256 + bins)
        digit = tl.sum((tl.cumsum(found, axis=0) < left).to(tl.int32), axis=0)
        left -= tl.sum(tl.where(bins < digit, found, 0), axis=0)
        prefix = (prefix << 8) | digit
    return prefix, left


@triton.jit(do_not_specialize=["count"])
def _count_digits(score_ptr, digit_ptr, n, count, PASS: tl.constexpr, CHUNK: tl.constexpr):
    row = tl.program_id(1).to(tl.int64)
    digits = digit_ptr + row * 1024
    prefix, _ = _picked(digits, count, PASS)
    at = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    keys = _keys(score_ptr + row * n, at, n) ^ (-2147483648)
    live = at < n
    if PASS > 0:
        live = live & (((keys >> (32 - 8 * PASS)) & ((1 << (8 * PASS)) - 1)) == prefix)
    found = tl.histogram((keys >> (24 - 8 * PASS)) & 255, 256, mask=live)
    tl.atomic_add(digits + PASS * 256 + tl.arange(0, 256), found, mask=found > 0)


@triton.jit(do_not_specialize=["count", "chunks"])
def _count_level(score_ptr, digit_ptr, level_ptr, n, count, chunks, CHUNK: tl.constexpr):
    row = tl.program_id(1).to(tl.int64)
    bound, _ = _picked(digit_ptr + row * 1024, count, 4)
    at = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    level = (_keys(score_ptr + row * n, at, n) == (bound ^ (-2147483648))) & (at < n)
    tl.store(level_ptr + row * chunks + tl.program_id(0), tl.sum(level.to(tl.int32), axis=0))


@triton.jit(do_not_specialize=["count", "chunks"])
def _drop_in_chunk(score_ptr, drop_ptr, digit_ptr, level_ptr, upto_ptr, n, count, chunks, CHUNK: tl.constexpr):
    row = tl.program_id(1).to(tl.int64)
    bound, room = _picked(digit_ptr + row * 1024, count, 4)
    bound = bound ^ (-2147483648)
    at = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    keys = _keys(score_ptr + row * n, at, n)
    chunk = row * chunks + tl.program_id(0)
    before = tl.load(upto_ptr + chunk) - tl.load(level_ptr + chunk)
    level = (keys == bound) & (at < n)
    taken = level & (before + tl.cumsum(level.to(tl.int32), axis=0) <= room)
    tl.store(drop_ptr + row * n + at, ((keys < bound) | taken).to(tl.uint8), mask=at < n)


def drop_lowest(scores: Tensor, count: int) -> Tensor:
    """True at the `count` (1 … n) lowest of each row of `scores` [rows, n] float32, ties by position."""
    scores = scores.contiguous()
    drop = torch.empty(scores.shape, dtype=torch.uint8, device=scores.device)
    with torch.cuda.device_of(scores):
        (_drop_short if scores.shape[1] <= ROW else _drop_long)(scores, drop, count)
    return drop.view(torch.bool)


def _drop_short(scores: Tensor, drop: Tensor, count: int) -> None:
    rows, n = scores.shape
    width = triton.next_power_of_2(n)
    _drop_in_row[(rows,)](scores, drop, n, count, N=width, num_warps=min(8, max(1, width // 512)))


def _drop_long(scores: Tensor, drop: Tensor, count: int) -> None:
    rows, n = scores.shape
    chunks = triton.cdiv(n, CHUNK)
    digits = torch.zeros(rows, 4, 256, dtype=torch.int32, device=scores.device)
    levels = torch.empty(rows, chunks, dtype=torch.int32, device=scores.device)
    for number in range(4):
        _count_digits[(chunks, rows)](scores, digits, n, count, PASS=number, CHUNK=CHUNK)
    _count_level[(chunks, rows)](scores, digits, levels, n, count, chunks, CHUNK=CHUNK)
    upto = levels.cumsum(-1, dtype=torch.int32)
    _drop_in_chunk[(chunks, rows)](scores, drop, digits, levels, upto, n, count, chunks, CHUNK=CHUNK)
