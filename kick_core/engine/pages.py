"""Pages: keys and values of texts of any length in one step, as many columns as each of them needs.

A step of decoding reads all weights for every batch, so texts of all lengths should be in one. In slots each of them
would take as many columns as the longest. Here a layer has pages of `PAGE` columns, and a table says which of them are
a text's, in their order (Kwon et al. 2023, arXiv 2309.06180). Attention of a row is cut where its own columns are, not
where others' lengths want it, so a text is the same in any company; and since no shape follows from how many pages
there are, memory may decide how many texts are under way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from kick_core.engine.batching import BatchPolicy, token_bytes
from kick_core.engine.caches import window_of, windows_of
from kick_core.models.source import context_of

PAGE = 64
"""Columns of a page: those that a program of attention reads at a time."""

COLUMNS = 8192
"""Columns that the table has room for, where no text is longer."""

_ROWS_BYTES = 64 << 30
"""Rows of a step, where texts have a thousand columns and all rows write, should fit into so much memory."""


def takes_pages(model: PreTrainedModel) -> bool:
    """Whether all layers keep keys and values of all tokens, or of those in a window behind the present one."""
    return bool(windows_of(model)) and model.config._attn_implementation == "sdpa"


def page_rows(model: PreTrainedModel, plan: BatchPolicy) -> int:
    """Rows of a step, the same for every text of a model: what a text says follows from their number."""
    rows = plan.rows
    while rows > 1 and rows * 1024 * token_bytes(model) > _ROWS_BYTES:
        rows //= 2
    return rows


def page_columns(config: PreTrainedConfig, length: int) -> int:
    """Columns that the table of a model of this config has for a text of so many tokens in all."""
    least = min(COLUMNS, 1 << (context_of(config) - 1).bit_length())
    return max(least, PAGE, 1 << (length - 1).bit_length())


def count_of(length: int) -> int:
    """Pages that so many columns take."""
    return -(-length // PAGE)


def fitting(totals: Sequence[int], pages: int) -> int:
    """How many of the first texts, of so many tokens in all, fit into so many pages."""
    return sum(needed <= pages for needed in accumulate(map(count_of, totals)))


def pool_pages(model: PreTrainedModel, lengths: Sequence[int], rows: int, plan: BatchPolicy) -> int:
    """How many pages to have for texts of so many tokens in all, `rows` of them at a time.

    As many as they need, where that is no more than `plan.cache` bytes or three quarters of the memory that is free
    now, less what is kept of the prompts in a forward; as many as the longest needs in any case. One more takes what
    rows without a text write.
    """
    needed = sorted((count_of(length) for length in lengths), reverse=True)
    most = sum(needed[:rows])
    if model.device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(model.device)
        free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
        token = token_bytes(model)
        most = min(most, max(plan.cache, free * 3 // 4 - plan.prompt * token) // (PAGE * token))
    return max(most, needed[0]) + 1


def lent(keys: Tensor, layer: Any) -> Tensor:
    """Keys that say which cache layer's `attend` is the attention over them (see `fused.ATTENTION`)."""
    keys = keys.view_as(keys)  # a tensor of its own
    keys.cache_layer = layer  # type: ignore[attr-defined]
    return keys


class _PageLayer(DynamicLayer):
    """A cache layer in pages [pages, heads, PAGE, width]; `window` columns of a text are seen at most (0: all).
    Steps write every row at its column `where` [rows]."""

    where: Tensor

    def __init__(self, pages: int, table: Tensor, window: int) -> None:
        super().__init__()
        self.pages, self.table, self.window = pages, table, window

    def put(self, places: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write prompts [n, heads, length, width] into the pages of the rows `places` [n]; what the padding behind a
        prompt needs more is left out."""
        from kick_core.engine import paged_attention

        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            shape = self.pages, keys.shape[1], PAGE
            self.keys, self.values = (t.new_zeros(*shape, t.shape[-1]) for t in (keys, values))
        paged_attention.put_prompts(keys, values, self.keys, self.values, self.table, places)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        from kick_core.engine import paged_attention

        if key_states.shape != value_states.shape or key_states.stride(-1) != 1 or value_states.stride(-1) != 1:
            raise NotImplementedError("keys and values that lie otherwise")  # the form is not taken then
        paged_attention.put(key_states, value_states, self.keys, self.values, self.table, self.where)
        return lent(self.keys, self), self.values

    def attend(self, module: Any, query: Tensor, keys: Tensor, values: Tensor, **kwargs: Any) -> Tensor:
        """Attention of one token a row over its own columns, [rows, 1, heads, width]."""
        from kick_core.engine import paged_attention

        if query.shape[-1] != keys.shape[-1] or keys.shape != values.shape or keys.shape[-1] > 256:
            raise NotImplementedError("attention of another kind over a cache in pages")  # the form is not taken then
        scale = float(kwargs.get("scaling") or query.shape[-1] ** -0.5)
        return paged_attention.attend(query, keys, values, self.table, self.where, scale, self.window)


class _ReadLayer(DynamicLayer):
    """A cache layer that keeps what the one forward over a prompt gives, as it is."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        self.keys, self.values, self.is_initialized = key_states, value_states, True
        return key_states, value_states


class _SegmentLayer(_ReadLayer):
    """As `_ReadLayer` for prompts that lie one behind the other in a row: each of the `segments` (first column, the one
    after its last) sees itself alone, and of that `window` columns behind at most (0: all)."""

    def __init__(self, segments: Sequence[tuple[int, int]], window: int) -> None:
        super().__init__()
        self.segments, self.window = segments, window

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        super().update(key_states, value_states)
        return lent(key_states, self), value_states

    def attend(self, module: Any, query: Tensor, keys: Tensor, values: Tensor, **kwargs: Any) -> Tensor:
        """Attention of every segment, by the library's kernels, [1, columns, heads, width]; 0 behind the last one."""
        parts = []
        for first, end in self.segments:
            own = (states[:, :, first:end] for states in (query, keys, values))
            parts.append(sdpa_attention_forward(module, *own, self._mask(end - first, query), **kwargs)[0])
        rest = query.shape[2] - self.segments[-1][1]
        return torch.cat([*parts, parts[0].new_zeros(1, rest, *parts[0].shape[2:])], 1)

    def _mask(self, length: int, like: Tensor) -> Tensor | None:
        """None where nothing but the order hides columns."""
        if not 0 < self.window < length:
            return None
        seen = torch.ones(length, length, dtype=torch.bool, device=like.device).tril_().triu_(1 - self.window)
        return torch.zeros_like(seen, dtype=like.dtype).masked_fill_(~seen, torch.finfo(like.dtype).min)[None, None]


class PageCache:
    """What `steps.SlotSteps` keeps of texts in pages. Methods as those of `slots.SlotCache`.

    Args:
        model: Whose texts.
        rows: Of a step.
        columns: That a text may have.
        pages: In all.
    """

    def __init__(self, model: PreTrainedModel, rows: int, columns: int, pages: int) -> None:
        self.table = torch.zeros(rows, columns // PAGE, dtype=torch.int32, device=model.device)
        self.nothing = torch.zeros(rows, 1, 1, 1, dtype=model.dtype, device=model.device)
        self.free, self.owned = list(range(1, pages)), dict[int, list[int]]()
        self.cache = DynamicCache(config=model.config)
        self.windows = [window_of(layer) for layer in self.cache.layers]
        self.cache.layers = [_PageLayer(pages, self.table, window) for window in self.windows]

    def begin(self, lengths: Tensor, totals: Sequence[int], where: Tensor) -> None:
        """Take all pages back, and give them to the first texts."""
        self.where = where
        self.release(tuple(self.owned))
        for layer in self.cache.layers:
            layer.where = where
        self._give(range(len(totals)), totals)

    def fitting(self, totals: Sequence[int]) -> int:
        """How many of the next texts there are pages for, beside those that are being written."""
        return fitting(totals, len(self.free))

    def release(self, places: Sequence[int]) -> None:
        """Take back the pages of texts that have ended: what their rows still write goes to the page of nobody."""
        for place in places:
            self.free += self.owned.pop(place, ())
        if places:
            rows = torch.tensor(places, device=self.table.device)
            self.table[rows], self.where[rows] = 0, 0

    def admit(self, places: Sequence[int], lengths: Tensor, totals: Sequence[int], *, clean: bool) -> None:
        """Give pages to the next texts, in rows that were released. There is nothing to clean: no column is read that
        the present text has not written."""
        self._give(places, totals)

    def reading(self) -> DynamicCache:
        """An empty cache to read prompts with: all of them is kept, also what lies behind a window's end."""
        cache = DynamicCache()
        cache.layers = [_ReadLayer() for _ in self.cache.layers]
        return cache

    def reading_in_segments(self, segments: Sequence[tuple[int, int]]) -> DynamicCache:
        """As `reading`, for one row in which several prompts stand."""
        cache = DynamicCache()
        cache.layers = [_SegmentLayer(segments, window) for window in self.windows]
        return cache

    def seen(self, where: Tensor) -> Tensor:
        """In place of a mask, which the table makes needless: [rows, 1, 1, 1]."""
        return self.nothing

    def advance(self, where: Tensor) -> None:
        """Go on to the next column; rows without a text stay."""
        where.add_((self.table[:, 0] > 0).to(where.dtype)).clamp_(max=self.table.shape[1] * PAGE - 1)

    def keep(self, index: Tensor, sources: Tensor, places: Tensor, where: Tensor) -> None:
        """Rows do not leave: every step has the same."""
        raise NotImplementedError("texts in pages are written in steps of one shape")

    def _give(self, places: Sequence[int], totals: Sequence[int]) -> None:
        rows = torch.zeros(len(places), self.table.shape[1], dtype=torch.int32)
        for row, (place, total) in enumerate(zip(places, totals, strict=True)):
            count = count_of(total)
            self.owned[place], self.free = self.free[:count], self.free[count:]
            rows[row, :count] = torch.tensor(self.owned[place], dtype=torch.int32)
        self.table[torch.tensor(list(places), device=self.table.device)] = rows.to(self.table.device)
