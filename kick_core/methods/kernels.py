"""The two inner loops of pruning and rounding on a GPU, written in Triton: a block's sweep, and exact selection.

Imported only where there is a CUDA device (see `select.kernels`); everything here has an eager counterpart that gives
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

TILE = {False: (16, 2), True: (8, 2)}
"""Rows of one program and the warps that share them, where a mask is given, and where a column takes more work."""

PART = 32
"""Columns that a program holds at a time: to pick a column out takes as long as they are many."""


@triton.jit(do_not_specialize=["rows", "groups", "top"])
def _sweep_tile(
    block_ptr, error_ptr, keep_ptr, code_ptr, upper_ptr, scale_ptr, zero_ptr, place_ptr,
    rows, columns, block_stride, upper_stride, keep_stride, code_stride, groups, top,
    ROWS: tl.constexpr, COLS: tl.constexpr, PART: tl.constexpr, BEGIN: tl.constexpr, END: tl.constexpr,
    PRUNES: tl.constexpr, DROP: tl.constexpr, M: tl.constexpr, ROUNDS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live_rows = row < rows
    row64 = row.to(tl.int64)  # offsets: rows times columns may exceed 32 bits
    for start in tl.static_range(0, COLS, PART):
        col = start + tl.arange(0, PART)
        inside = live_rows[:, None] & (col < columns)[None, :]
        place = row64[:, None] * block_stride + col[None, :]
        block = tl.load(block_ptr + place, mask=inside, other=0.0)
        # the parts before left their errors: every weight takes them in the order of columns
        for column in range(0, start):
            error = tl.load(error_ptr + row64 * columns + column, mask=live_rows & (start < columns), other=0.0)
            factors = tl.load(upper_ptr + column * upper_stride + col, mask=col < columns, other=0.0)
            block = tl.fma(-tl.broadcast_to(error[:, None], (ROWS, PART)), factors[None, :], block)
        errors = tl.zeros((ROWS, PART), tl.float32)
        codes = tl.zeros((ROWS, PART), tl.float32)
        keep = tl.full((ROWS, PART), 1, tl.int32)
        keep_place = keep_ptr + row64[:, None] * keep_stride + col[None, :]
        if PRUNES:
            keep = tl.load(keep_place, mask=inside, other=1).to(tl.int32)
        diagonal = tl.load(upper_ptr + col * (upper_stride + 1), mask=col < columns, other=1.0)
        for first in range(BEGIN if start < BEGIN else start, END if start + PART > END else start + PART, M):
            if DROP > 0:
                # the rank of every weight within its group of M, on weights that carry the updates so far
                score = tl.math.div_rn(block, tl.broadcast_to(diagonal[None, :], (ROWS, PART)))
                score = tl.where(block == 0.0, -1.0, score * score)
                rank = tl.zeros((ROWS, PART), tl.int32)
                for other in tl.static_range(M):
                    rival = tl.sum(tl.where((col == first + other)[None, :], score, 0.0), axis=1)[:, None]
                    before = (first + other < col)[None, :]
                    rank += ((rival < score) | ((rival == score) & before)).to(tl.int32)
                group = ((col >= first) & (col < first + M))[None, :]
                keep = tl.where(group, (rank >= DROP).to(tl.int32), keep)
            for column in range(first, first + M):
                mine = (col == column)[None, :]
                values = tl.sum(tl.where(mine, block, 0.0), axis=1)
                result = values
                if PRUNES:
                    result = tl.where(tl.sum(tl.where(mine, keep, 0), axis=1) > 0, values, 0.0)
                if ROUNDS:
                    spot = row64 * groups + tl.load(place_ptr + column)
                    scale = tl.load(scale_ptr + spot, mask=live_rows, other=1.0)
                    zero = tl.load(zero_ptr + spot, mask=live_rows, other=0.0)
                    # bounds first: then adding and taking away 1.5 * 2^23 rounds to the nearest even whole number
                    code = tl.minimum(tl.maximum(tl.math.div_rn(result, scale), -1024.0), 1024.0)
                    code = (code + 12582912.0) - 12582912.0
                    code = tl.minimum(tl.maximum(code + zero, 0.0), top)
                    codes = tl.where(mine, code[:, None], codes)
                    result = (code - zero) * scale
                pivot = tl.load(upper_ptr + column * (upper_stride + 1))
                error = tl.math.div_rn(values - result, tl.zeros((ROWS,), tl.float32) + pivot)
                errors = tl.where(mine, error[:, None], errors)
                later = (col > column) & (col < columns)
                factors = tl.load(upper_ptr + column * upper_stride + col, mask=later, other=0.0)
                block = tl.fma(-tl.broadcast_to(error[:, None], (ROWS, PART)), factors[None, :], block)
                block = tl.where(mine, result[:, None], block)
        done = inside & ((col >= BEGIN) & (col < END))[None, :]
        tl.store(block_ptr + place, block, mask=inside)
        tl.store(error_ptr + row64[:, None] * columns + col[None, :], errors, mask=done)
        if DROP > 0:
            tl.store(keep_place, keep.to(tl.uint8), mask=done)
        if ROUNDS:
            tl.store(code_ptr + row64[:, None] * code_stride + col[None, :], codes, mask=done)
        tl.debug_barrier()  # the next part reads the errors that other threads wrote


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
    tile: tuple[int, int] | None = None,
) -> None:
    """Sweep over some columns of one block, in place.

    Args:
        block: [rows, columns] float32, columns side by side.
        errors: [rows, columns] float32, contiguous; takes (w - ŵ) / U_ii.
        upper: The factor's part of the block [columns, columns] float32, columns side by side.
        span: The first column and the one after the last.
        keep: The mask, bool [rows, columns].
        pattern: (N, M) of a mask that is chosen on the way and written to `keep`.
        codes: Takes the codes, float32 [rows, columns].
        grid: Scales [rows, groups], zero points, the group of each column int32 [columns], the largest code.
        tile: Rows of one program and its warps; None is the measured best, `TILE`.

    Raises:
        ValueError: The columns of `block` or `upper` are not side by side.
    """
    if upper.stride(1) != 1 or block.stride(1) != 1:
        raise ValueError("the sweep's kernel reads along rows: columns must lie side by side")
    count, columns = block.shape
    none = block  # stands for a pointer that is not used
    keep_bytes = none if keep is None else keep.view(torch.uint8)
    scales, zeros, places, top = grid or (none, none, none, 0)
    of = pattern[1] if pattern else 1
    rows, warps = tile or TILE[pattern is not None or grid is not None]
    wide = max(16, triton.next_power_of_2(columns))
    # a part of a block is swept with all columns at hand, for what is found on it on the way
    part = min(PART, wide) if span == (0, columns) and PART % of == 0 else wide
    with torch.cuda.device_of(block):  # Triton launches on the current device
        _sweep_tile[(triton.cdiv(count, rows),)](
            block, errors, keep_bytes, none if codes is None else codes, upper, scales, zeros, places,
            count, columns, block.stride(0), upper.stride(0), keep_bytes.stride(0),
            0 if codes is None else codes.stride(0), scales.shape[1], float(top),
            ROWS=rows, COLS=wide, PART=part, BEGIN=span[0], END=span[1],
            PRUNES=keep is not None, DROP=of - pattern[0] if pattern else 0, M=of, ROUNDS=grid is not None,
            num_warps=warps, enable_fp_fusion=False,
        )  # fmt: skip


# --- exact selection of the lowest scores ------------------------------------------------------------------

ROW = 16384
"""Scores that one program ranks by itself; longer rows are counted digit by digit by many programs."""

CHUNK = 4096


@triton.jit
def _key(score, live):
    """Whole numbers in the order of the scores; what is not `live` comes last.

    The bits of positive floats are in the order of their values; those of negative ones in the reverse order, which
    flipping all but the sign mends.
    """
    bits = (score + 0.0).to(tl.int32, bitcast=True)  # no -0.0
    return tl.where(live, tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits), 0x7FFFFFFF)


@triton.jit
def _place(at, stride, COLUMNS: tl.constexpr):
    """Where the scores `at` of a row lie: side by side, or as parts of COLUMNS that are `stride` apart."""
    if COLUMNS > 0:  # noqa: SIM108
        place = (at // COLUMNS).to(tl.int64) * stride + at % COLUMNS
    else:
        place = at
    return place


@triton.jit
def _keys(score_ptr, pivot_ptr, at, n, stride, COLUMNS: tl.constexpr):
    """The keys of scores, or of SparseGPT's scores (w / U_ii)² of weights, existing zeros first."""
    score = tl.load(score_ptr + _place(at, stride, COLUMNS), mask=at < n, other=0.0)
    if COLUMNS > 0:
        share = tl.math.div_rn(score, tl.load(pivot_ptr + at % COLUMNS, mask=at < n, other=1.0))
        score = tl.where(score == 0.0, -1.0, share * share)
    return _key(score, at < n)


@triton.jit(do_not_specialize=["count"])
def _drop_in_row(score_ptr, drop_ptr, n, count, N: tl.constexpr):
    row = tl.program_id(0).to(tl.int64) * n
    at = tl.arange(0, N)
    keys = _key(tl.load(score_ptr + row + at, mask=at < n, other=0.0), at < n)
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
        histogram = tl.load(digit_ptr + number * 256 + bins)
        digit = tl.sum((tl.cumsum(histogram, axis=0) < left).to(tl.int32), axis=0)
        left -= tl.sum(tl.where(bins < digit, histogram, 0), axis=0)
        prefix = (prefix << 8) | digit
    return prefix, left


@triton.jit(do_not_specialize=["step", "stride"])
def _count_digits(score_ptr, pivot_ptr, digit_ptr, count_ptr, n, step, stride,
                  PASS: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    digits = digit_ptr + row * 1024
    prefix, _ = _picked(digits, tl.load(count_ptr + row), PASS)
    at = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    keys = _keys(score_ptr + row * step, pivot_ptr, at, n, stride, COLUMNS) ^ (-2147483648)
    live = at < n
    if PASS > 0:
        live = live & (((keys >> (32 - 8 * PASS)) & ((1 << (8 * PASS)) - 1)) == prefix)
    histogram = tl.histogram((keys >> (24 - 8 * PASS)) & 255, 256, mask=live)
    tl.atomic_add(digits + PASS * 256 + tl.arange(0, 256), histogram, mask=histogram > 0)


@triton.jit(do_not_specialize=["step", "stride", "chunks"])
def _count_level(score_ptr, pivot_ptr, digit_ptr, count_ptr, level_ptr, n, step, stride, chunks,
                 CHUNK: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    bound, _ = _picked(digit_ptr + row * 1024, tl.load(count_ptr + row), 4)
    at = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    keys = _keys(score_ptr + row * step, pivot_ptr, at, n, stride, COLUMNS)
    level = (keys == (bound ^ (-2147483648))) & (at < n)
    tl.store(level_ptr + row * chunks + tl.program_id(0), tl.sum(level.to(tl.int32), axis=0))


@triton.jit(do_not_specialize=["step", "stride", "chunks"])
def _mark_chunk(score_ptr, pivot_ptr, mark_ptr, digit_ptr, count_ptr, level_ptr, upto_ptr, n, step, stride, chunks,
                MARK: tl.constexpr, CHUNK: tl.constexpr, COLUMNS: tl.constexpr):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    bound, room = _picked(digit_ptr + row * 1024, tl.load(count_ptr + row), 4)
    bound = bound ^ (-2147483648)
    at = tl.program_id(0) * CHUNK + tl.arange(0, CHUNK)
    keys = _keys(score_ptr + row * step, pivot_ptr, at, n, stride, COLUMNS)
    chunk = row * chunks + tl.program_id(0)
    before = tl.load(upto_ptr + chunk) - tl.load(level_ptr + chunk)
    level = (keys == bound) & (at < n)
    ties = level & (before + tl.cumsum(level.to(tl.int32), axis=0) <= room)
    drop = ((keys < bound) | ties).to(tl.uint8)
    tl.store(mark_ptr + row * step + _place(at, stride, COLUMNS), drop if MARK else 1 - drop, mask=at < n)


def drop_lowest(scores: Tensor, count: int) -> Tensor:
    """`select.drop_lowest` for rows of scores, one kernel launch for short rows, a few for long ones.

    Args:
        scores: [rows, n] float32.
        count: From 1 to n.

    Returns:
        bool [rows, n], True at what goes.
    """
    scores = scores.contiguous()
    rows, n = scores.shape
    drop = torch.empty(scores.shape, dtype=torch.bool, device=scores.device)
    with torch.cuda.device_of(scores):
        if n <= ROW:
            width = triton.next_power_of_2(n)
            _drop_in_row[(rows,)](
                scores, drop.view(torch.uint8), n, count, N=width, num_warps=min(8, max(1, width // 512))
            )
        else:
            counts = torch.full((rows,), count, dtype=torch.int32, device=scores.device)
            _mark(scores[:, None], None, drop[:, None], counts, blank_digits(rows, scores.device), lowest=True)
    return drop


def keep_highest(block: Tensor, pivots: Tensor, keep: Tensor, counts: Tensor, digits: Tensor) -> None:
    """Choose which weights of some matrices stay, by SparseGPT's scores (w / U_ii)², ties by position.

    Args:
        block: [jobs, rows, columns] float32.
        pivots: U_ii [columns].
        keep: Takes the masks; bool, of the same layout as `block`.
        counts: How many weights of each matrix go, int32 [jobs].
        digits: Counters, see `blank_digits`; used up by the call.
    """
    with torch.cuda.device_of(block):
        _mark(block, pivots, keep, counts, digits, lowest=False)


def blank_digits(rows: int, device: torch.device) -> Tensor:
    """Counters of key digits, zeros [rows, 4, 256] int32: one for every row, pass and value of 8 bits.

    Args:
        rows: How many selections are counted.
        device: Where.
    """
    return torch.zeros(rows, 4, 256, dtype=torch.int32, device=device)


def _mark(
    scores: Tensor, pivots: Tensor | None, marks: Tensor, counts: Tensor, digits: Tensor, *, lowest: bool
) -> None:
    """Mark the lowest of `scores` [rows, parts, columns], or all others."""
    rows, parts, columns = scores.shape
    n, chunks = parts * columns, triton.cdiv(parts * columns, CHUNK)
    # radix select: four passes count the keys by their next 8 bits, most significant first, among those that share the
    # digits of the count-th smallest so far; then every chunk knows from the ties before it how many of its own go
    levels = torch.empty(rows, chunks, dtype=torch.int32, device=scores.device)
    pivot_data = scores if pivots is None else pivots  # stands for a pointer that is not used
    grid, strides = (chunks, rows), (n, scores.stride(0), scores.stride(1))
    constants = {"CHUNK": CHUNK, "COLUMNS": 0 if pivots is None else columns}
    for number in range(4):
        _count_digits[grid](scores, pivot_data, digits, counts, *strides, PASS=number, **constants)
    _count_level[grid](scores, pivot_data, digits, counts, levels, *strides, chunks, **constants)
    upto = levels.cumsum(-1, dtype=torch.int32)
    _mark_chunk[grid](
        scores,
        pivot_data,
        marks.view(torch.uint8),
        digits,
        counts,
        levels,
        upto,
        *strides,
        chunks,
        MARK=lowest,
        **constants,
    )
