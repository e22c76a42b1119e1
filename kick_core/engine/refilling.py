"""Writing many texts in slots of one shape: slots whose texts have ended take the next prompts.

A step always has the same rows, and a prompt is read in a shape that follows from its own length, so what a text says
does not depend on its slot, on its neighbours or on when it began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kick_core import timing
from kick_core.engine.batching import BatchPolicy, Ids, fewer_rows
from kick_core.engine.steps import NOT_FINITE, SlotSteps

Stopper = Callable[[list[int]], bool]

_FREE = 4
"""Slots are filled again when one in so many is free: prompts are read a few at a time."""


@dataclass(frozen=True, slots=True)
class Generated:
    """One continuation: its token ids (without the end token) and why it ended.

    "eos", "stop" or "limit"; "not finite" when its logits held NaN or no finite maximum.
    """

    ids: tuple[int, ...]
    stop: str


@dataclass(frozen=True, slots=True)
class Rules:
    """When a text ends: at one of `ends`, when `stops` says so of its ids so far, or after `new_tokens`."""

    new_tokens: int
    ends: frozenset[int]
    stops: Stopper

    def ended(self, ids: list[int], token: int) -> str:
        """Append a text's next token, unless it is no part of it; says why the text ends with it, or nothing."""
        if token in self.ends or token == NOT_FINITE:
            return "not finite" if token == NOT_FINITE else "eos"
        ids.append(token)
        if self.stops(ids):
            return "stop"
        return "limit" if len(ids) == self.new_tokens else ""


@dataclass(slots=True)
class Refilled:
    """Texts of one shape.

    Attributes:
        steps: Of the model; every step has all rows.
        prompts: All prompts, by number.
        room: Columns of a slot.
        rules: When a text ends.
        uniforms: Prompt numbers and rows -> what their tokens are drawn with, float32 [rows, new tokens]; None: greedy.
        plan: Where running out of memory is noted.
    """

    steps: SlotSteps
    prompts: Sequence[Ids]
    room: int
    rules: Rules
    uniforms: Callable[[Sequence[int], int], Tensor | None]
    plan: BatchPolicy

    def texts(self, items: Sequence[int], rows: int) -> Iterator[dict[int, Generated]]:
        """Continue the prompts `items`, in this order, in `rows` slots; when memory runs out, in half as many, or with
        half as many pages.

        Yields:
            The texts that have ended, for a quarter of the slots or more at a time.

        Raises:
            torch.OutOfMemoryError: When one row, or the pages of the longest text, do not fit either.
        """
        waiting = list(items)
        while waiting:
            written: set[int] = set()
            try:
                for ended in self._in_rows(waiting, rows):
                    written |= ended.keys()
                    yield ended
                return
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
            # out of the handler, whose traceback would keep the tensors alive
            waiting = [item for item in waiting if item not in written]
            rows = self._fewer(rows, waiting)

    def _fewer(self, rows: int, waiting: Sequence[int]) -> int:
        if not self.steps.pages:
            return fewer_rows(rows, self.plan)
        if not self.steps.fewer_pages([self.prompts[i] for i in waiting], self.rules.new_tokens):
            raise torch.OutOfMemoryError("the keys and values of the longest text do not fit into memory")
        return rows

    def _in_rows(self, items: Sequence[int], rows: int) -> Iterator[dict[int, Generated]]:
        count = self.steps.first_of([self.prompts[i] for i in items[:rows]], self.rules.new_tokens)
        first, waiting = list(items[:count]), list(items[count:])
        with timing.stage("prefill", tokens=sum(len(self.prompts[i]) for i in first)):
            self.steps.begin(
                [self.prompts[i] for i in first], rows, self.room, self.rules.new_tokens, self.uniforms(first, rows)
            )
        texts: dict[int, list[int]] = {item: [] for item in items}
        holders: list[int | None] = [*first, *[None] * (rows - len(first))]
        late = [0] * rows  # steps that were on their way when a slot changed hands
        ended: dict[int, Generated] = {}

        def take(place: int, item: int, token: int) -> None:
            if stop := self.rules.ended(texts[item], token):
                ended[item] = Generated(tuple(texts.pop(item)), stop)
                holders[place] = None
                self.steps.release([place])

        while waiting or any(holder is not None for holder in holders):
            with timing.stage("decode", rows=rows):
                tokens = self.steps.next()
            for place, (holder, token) in enumerate(zip(holders, tokens, strict=True)):
                if late[place]:
                    late[place] -= 1
                elif holder is not None:
                    take(place, holder, token)
            free = [place for place, holder in enumerate(holders) if holder is None]
            full = not waiting or len(free) * _FREE < rows
            count = 0 if full else self.steps.next_of([self.prompts[i] for i in waiting[: len(free)]])
            if count:
                some, waiting = waiting[:count], waiting[count:]
                places = free[:count]
                with timing.stage("prefill", tokens=sum(len(self.prompts[i]) for i in some)):
                    begun = self.steps.admit(places, [self.prompts[i] for i in some], self.uniforms(some, count))
                for place, item, token in zip(places, some, begun, strict=True):
                    holders[place], late[place] = item, self.steps.ahead
                    take(place, item, token)
            if len(ended) * _FREE >= rows:  # a few at a time: whoever keeps them waits for the disk
                yield dict(ended)
                ended.clear()
        if ended:
            yield ended
