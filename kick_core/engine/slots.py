"""Slots: a cache with the same number of columns for every row, and the mask that hides what is not written yet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from kick_core.engine.batching import round_up

COLUMNS = 32
"""Slots that grow have a multiple of so many columns: one that is read whole is read twice as fast as a part of it."""


class _SlotLayer(DynamicLayer):
    """A cache layer with a slot of `columns` for every row, from the start; the library's own layer copies all
    that it holds at every step. Prompts are put in with `put`; a step writes every row at its place `where` [rows].
    """

    is_initialized: bool
    all_keys: Tensor
    all_values: Tensor

    def __init__(self, rows: int, columns: int, dtype: torch.dtype | None, where: Tensor, kernels: bool) -> None:
        super().__init__()
        self.rows, self.kept_dtype, self.kernels = rows, dtype, kernels
        self.begin(rows, where, columns)

    def begin(self, rows: int, where: Tensor, columns: int) -> None:
        """Start again with so many rows; in the same memory, unless the number of columns is another."""
        self.where, self.columns = where, columns
        if self.is_initialized and self.all_keys.shape[:3:2] == (self.rows, columns):
            self.keys, self.values = self.all_keys[:rows], self.all_values[:rows]
        else:
            self.is_initialized = False

    def widen(self, columns: int) -> None:
        """Go on with so many columns: what is kept is copied."""
        self.columns, more = columns, (0, 0, 0, columns - self.columns)
        self.all_keys, self.all_values = (torch.nn.functional.pad(kept, more) for kept in (self.keys, self.values))
        self.keys, self.values = self.all_keys, self.all_values

    def put(self, places: Tensor | slice, keys: Tensor, values: Tensor) -> None:
        """Write prompts [n, heads, length, width] into the slots `places` (int64 [n], or a slice)."""
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            self.every = torch.arange(self.rows * keys.shape[1], device=self.where.device)
            dtype = self.kept_dtype or keys.dtype
            self.all_keys = keys.new_zeros(self.rows, keys.shape[1], self.columns, keys.shape[-1], dtype=dtype)
            self.all_values = values.new_zeros(self.rows, values.shape[1], self.columns, values.shape[-1], dtype=dtype)
            self.begin(len(self.where), self.where, self.columns)
        length = min(keys.shape[2], self.columns)
        self.keys[places, :, :length] = keys[:, :, :length].to(self.keys.dtype)
        self.values[places, :, :length] = values[:, :, :length].to(self.values.dtype)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        alike = key_states.dtype == self.keys.dtype and key_states.stride(-1) == value_states.stride(-1) == 1
        if self.kernels and alike and key_states.shape == value_states.shape:
            from kick_core.engine import kernels as _triton

            _triton.put(key_states, value_states, self.keys, self.values, self.where)
            return self.keys, self.values
        for kept, states in ((self.keys, key_states), (self.values, value_states)):
            heads, columns, width = kept.shape[1:]
            first = self.every[: len(self.where) * heads] * columns  # of every row and head
            places = first + self.where.repeat_interleave(heads)
            kept.view(-1, width).index_copy_(0, places, states.reshape(-1, width).to(kept.dtype))
        return self.keys, self.values

    def move(self, sources: Tensor, places: Tensor, rows: int) -> None:
        """Copy some rows to other places, and go on with the first `rows`."""
        self.keys[places], self.values[places] = self.keys[sources], self.values[sources]
        self.keys, self.values = self.keys[:rows], self.values[:rows]


class SlotCache:
    """What `steps.SlotSteps` keeps of texts where every slot has the same columns.

    Args:
        model: Whose texts.
        rows: How many slots.
        room: Columns of a slot.
        dtype: Of keys and values; None: the model's.
        kernels: Whether steps write and read by our kernels.
        grows: Whether slots have no more columns than are written, up to `room`; else all from the start.
    """

    def __init__(
        self, model: PreTrainedModel, rows: int, room: int, dtype: torch.dtype | None, *, kernels: bool, grows: bool
    ) -> None:
        where = torch.zeros(rows, dtype=torch.int64, device=model.device)
        self.room, self.config, self.grows = room, model.config, grows
        self.all_mask = self.mask = torch.zeros(rows, 1, 1, room, dtype=dtype or model.dtype, device=model.device)
        self.cache = DynamicCache(config=model.config)
        self.cache.layers = [_SlotLayer(rows, room, dtype, where, kernels) for _ in self.cache.layers]

    def begin(self, lengths: Tensor, totals: Sequence[int], where: Tensor) -> None:
        """Empty all slots for a new batch.

        Args:
            lengths: Of the prompts that will be put in, int64 [rows].
            totals: Tokens that their texts may have in all, without rows that only fill.
            where: Where steps will write, int64 [rows].
        """
        self.mask = self.all_mask
        self._hide(slice(None), lengths)
        self.longest = int(lengths.max())
        for layer in self.cache.layers:
            layer.begin(len(lengths), where, self._columns(self.longest + 1))

    def _columns(self, written: int) -> int:
        return min(round_up(written, COLUMNS), self.room) if self.grows else self.room

    def fitting(self, totals: Sequence[int]) -> int:
        """How many of the next texts there is memory for, beside those that are being written."""
        return len(totals)

    def release(self, places: Sequence[int]) -> None:
        """The texts in these slots have ended."""

    def admit(self, places: Sequence[int], lengths: Tensor, totals: Sequence[int], *, clean: bool) -> None:
        """Make place for the next prompts. `clean`: some text had numbers that are not finite: NaN that it left
        reaches the next one through its mask, for 0 x NaN is NaN."""
        rows = torch.tensor(places, device=self.mask.device)
        if clean:
            for layer in self.cache.layers:
                layer.keys[rows], layer.values[rows] = 0, 0
        self._hide(rows, lengths)

    def _hide(self, rows: Tensor | slice, lengths: Tensor) -> None:
        mask = torch.zeros_like(self.mask[rows])
        hidden = torch.arange(self.room, device=mask.device) >= lengths[:, None]
        self.mask[rows] = mask.masked_fill_(hidden[:, None, None], torch.finfo(mask.dtype).min)

    def reading(self) -> DynamicCache:
        """An empty cache to read prompts with."""
        return DynamicCache(config=self.config)

    def advance(self, where: Tensor) -> None:
        """Go on to the next column; a text that has ended may go on until its slot is filled again."""
        where.add_(1).clamp_(max=self.room - 1)

    def seen(self, where: Tensor) -> Tensor:
        """The mask [rows, 1, 1, columns] for a step that writes at `where` [rows]."""
        columns = self.room
        if self.grows:
            self.longest += 1
            columns = self._columns(self.longest)
            for layer in self.cache.layers if columns > self.cache.layers[0].columns else ():
                layer.widen(columns)
        self.mask.view(len(where), -1).scatter_(1, where[:, None], 0)
        return self.mask[..., :columns]

    def keep(self, index: Tensor, sources: Tensor, places: Tensor, where: Tensor) -> None:
        """Go on with the rows `index`: those at `sources` are moved to `places`."""
        self.mask = self.mask[index]
        for layer in self.cache.layers:
            layer.move(sources, places, len(index))
            layer.where = where
