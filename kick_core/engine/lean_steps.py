"""Decoding by the lean forward: distinct tokens of the prompts, a cache with room from the start, one token a step.

Rows of like length stand together and read as many columns as the longest of them has: attention of one query is as
slow as memory is, so what is not read is won. Finished rows leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from kick_core.engine.batching import BatchPolicy, Ids, round_up
from kick_core.engine.lean import DedupForward, attention, causal, flat
from kick_core.engine.steps import COLUMNS, NOT_FINITE, Chooser, chosen

_ALIKE = 2 * COLUMNS
"""Rows stand together whose prompts are padded to the same multiple of this."""


@dataclass(slots=True)
class _Part:
    """Rows that read the same columns. `first` is its first row among all rows and `count` its rows now; `longest`
    its longest prompt. `keys` and `values` [slots, heads, room, width] float32 of every layer share memory with what
    steps write to, where `cells` [slots, 2 x heads] are the first column of each; `mask` [count, 1, 1, room]."""

    first: int
    count: int
    longest: int
    keys: list[Tensor]
    values: list[Tensor]
    cells: Tensor
    mask: Tensor

    @property
    def rows(self) -> slice:
        return slice(self.first, self.first + self.count)


class DedupSteps:
    """The steps of one batch after another; used as `SlotSteps` are, where rows do not matter."""

    def __init__(self, lean: DedupForward, plan: BatchPolicy, choose: Chooser | None) -> None:
        self.lean, self.plan, self.choose = lean, plan, choose
        self.memory: list[Tensor] = []
        self.spoiled = False

    def begin(self, prompts: Sequence[Ids], rows: int, room: int, new_tokens: int, uniforms: Tensor | None) -> None:
        """Read the prompts of a batch, in ascending order of padded length. `chances` is float32 [rows, new_tokens]."""
        lengths = [self.plan.length(len(ids)) for ids in prompts]
        self.parts = list(self._parts(prompts, lengths, new_tokens))
        self.cells = torch.cat([part.cells for part in self.parts])
        self.where = torch.tensor([len(ids) for ids in prompts])
        self.uniforms = torch.zeros(rows, new_tokens) if uniforms is None else uniforms
        self.number = 0
        self.first: Tensor | None = self._read(prompts, lengths)

    def _parts(self, prompts: Sequence[Ids], lengths: Sequence[int], new_tokens: int) -> Iterator[_Part]:
        """Share memory out among rows of like length."""
        lean, shares, first = self.lean, [], 0
        for _, some in groupby(prompts, key=lambda ids: round_up(self.plan.length(len(ids)), _ALIKE)):
            own = list(some)
            longest = max(map(len, own))
            shares.append((own, longest, round_up(longest + new_tokens, COLUMNS)))
        needed = 2 * lean.keys * sum(len(own) * room for own, _, room in shares)
        if self.spoiled or not self.memory or len(self.memory[0]) < needed:
            # NaN left behind would reach the next batch through its mask: 0 x NaN is NaN
            self.memory = [torch.zeros(needed, lean.width) for _ in lean.layers]
            self.spoiled = False
        begin = 0
        for own, longest, room in shares:
            size = len(own) * lean.keys * room
            end = begin + 2 * size
            both = [m[begin:end].view(2, len(own), lean.keys, room, lean.width) for m in self.memory]
            cells = torch.arange(begin, end, room).view(2, len(own), lean.keys).transpose(0, 1).flatten(1)
            hidden = torch.arange(room) >= torch.tensor([len(ids) for ids in own])[:, None]
            mask = torch.zeros(len(own), 1, 1, room).masked_fill_(hidden[:, None, None], torch.finfo().min)
            yield _Part(first, len(own), longest, [b[0] for b in both], [b[1] for b in both], cells, mask)
            first, begin = first + len(own), end

    def _read(self, prompts: Sequence[Ids], lengths: Sequence[int]) -> Tensor:
        """Put all prompts into the cache; float32 logits of the tokens after them [rows, vocabulary]."""
        logits, start = [], 0
        while start < len(prompts):
            stop, tokens = start, 0
            while stop < len(prompts) and (stop == start or tokens + lengths[stop] <= self.plan.prompt):
                tokens += lengths[stop]
                stop += 1
            laid = flat(prompts[start:stop], lengths[start:stop])

            def keep(layer: int, first: int, keys: Tensor, values: Tensor, start: int = start) -> None:
                self._put(layer, start + first, keys, values)

            attend = causal(self.lean, laid, keep)
            logits.append(self.lean.logits(self.lean.states(laid.ids, laid.positions, attend, laid.last)))
            start = stop
        return torch.cat(logits)

    def _put(self, layer: int, first: int, keys: Tensor, values: Tensor) -> None:
        """Keys and values of rows `first` …, all of one part: [rows, heads, length, width] each."""
        part = next(part for part in self.parts if part.first <= first < part.first + part.count)
        at = slice(first - part.first, first - part.first + len(keys))
        length = min(keys.shape[2], part.keys[layer].shape[2])
        part.keys[layer][at, :, :length] = keys[:, :, :length]
        part.values[layer][at, :, :length] = values[:, :, :length]

    def next(self) -> list[int]:
        """The next token of every row; `NOT_FINITE` for a row whose logits hold NaN or no finite maximum."""
        logits, self.first = self._step() if self.first is None else self.first, None
        tokens = chosen(logits, self.choose, self.uniforms[:, self.number])
        self.ids = tokens.clamp(min=0)
        self.number += 1
        found: list[int] = tokens.tolist()
        self.spoiled |= NOT_FINITE in found
        return found

    def _step(self) -> Tensor:
        """Float32 logits [rows, vocabulary] after one more token for every row."""
        for part in self.parts:
            part.mask.view(part.count, -1).scatter_(1, self.where[part.rows, None], 0)
        cells = (self.cells + self.where[:, None]).view(-1)

        def attend(layer: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            both = torch.cat([keys, values], 1).float()
            self.memory[layer].index_copy_(0, cells, both.view(-1, self.lean.width))
            wide = queries[:, :, None].float()
            found = []
            for part in self.parts:
                read = round_up(part.longest + self.number, COLUMNS)
                seen, told = (side[layer][: part.count, :, :read] for side in (part.keys, part.values))
                found.append(attention(self.lean, layer, wide[part.rows], seen, told, part.mask[..., :read]))
            return torch.cat(found).to(queries.dtype).flatten(1)

        states = self.lean.states(self.ids, self.where, attend)
        self.where = self.where + 1
        return self.lean.logits(states)

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Go on with these rows alone; returns which of them stands in each of the first places now."""
        order: list[int] = []
        kept, parts = set(rows), []
        for part in self.parts:
            own = [row for row in range(part.count) if part.first + row in kept]
            if not own:
                continue
            count, old = len(own), part.first
            sources, places = [row for row in own if row >= count], sorted(set(range(count)) - set(own))
            moved = list(range(count))
            for source, place in zip(sources, places, strict=True):
                moved[place] = source
            for side in (*part.keys, *part.values) if sources else ():
                side[places] = side[sources]
            part.mask = part.mask[moved]
            part.first, part.count = len(order), count
            order += [old + row for row in moved]
            parts.append(part)
        self.parts = parts
        index = torch.tensor(order)
        self.ids, self.where, self.uniforms = self.ids[index], self.where[index], self.uniforms[index]
        self.cells = torch.cat([part.cells[: part.count] for part in parts])
        return order
