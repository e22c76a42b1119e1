"""Who shares a prefix with whom, and which question stands where: the layout of packed scoring.

Everything here is arithmetic on token ids, and follows from the whole list of prompts in its order.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kick_core.engine.batching import BatchPolicy, Ids, round_up
from kick_core.stats import common_prefix

_OPEN = 16
"""A question goes into the first of so many rows, those begun last, that has room for it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a pack: its questions, where each begins, and the shared prefix that all of them see.

    `prefix` counts tokens and `room` is the prefix padded; `length` is the padded length of the row itself.
    """

    group: int
    prefix: int
    room: int
    length: int
    items: tuple[int, ...]
    starts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """All rows, and how many positions of each row have their logits read (the same number for every row)."""

    rows: tuple[Row, ...]
    kept: int

    def described(self) -> list[Any]:
        """What fixes every shape and place, as plain JSON."""
        return [self.kept, [[r.group, r.prefix, r.room, r.length, r.items, r.starts] for r in self.rows]]


def digest(described: Any) -> str:
    """A short name for a layout or any plain JSON."""
    return hashlib.sha256(json.dumps(described, separators=(",", ":")).encode()).hexdigest()[:16]


def branches(options: Sequence[Ids]) -> list[int]:
    """Tokens that each option adds to a row: all but its last, whose logits nobody asks for."""
    return [len(ids) - 1 for ids in options]


def pack_layout(prompts: Sequence[Ids], options: Sequence[Sequence[Ids]], plan: BatchPolicy) -> Layout:
    """Put all prompts of a task, in order, into rows behind shared prefixes.

    Within a group questions are placed in their order, so the layout of the first n never depends on the rest.
    """
    rows: list[Row] = []
    for number, (prefix, items) in enumerate(shared_prefixes(prompts, plan.row // 2)):
        rows += _rows_of(number, prefix, items, prompts, options, plan)
    rows.sort(key=lambda row: (row.room, row.length, row.group, row.items))
    kept = max((sum(1 + sum(branches(options[i])) for i in row.items) for row in rows), default=0)
    return Layout(tuple(rows), kept)


def _rows_of(
    group: int,
    prefix: int,
    items: Sequence[int],
    prompts: Sequence[Ids],
    options: Sequence[Sequence[Ids]],
    plan: BatchPolicy,
) -> list[Row]:
    room = round_up(prefix, plan.room)
    closed: list[Row] = []
    begun: list[tuple[int, list[int], list[int]]] = []  # used tokens, items, starts
    for item in items:
        need = len(prompts[item]) - prefix + sum(branches(options[item]))
        if need > plan.row:
            closed.append(Row(group, prefix, room, round_up(need, plan.step), (item,), (0,)))
            continue
        at = next((n for n, (used, _, _) in enumerate(begun[-_OPEN:]) if used + need <= plan.row), None)
        if at is None:
            begun.append((need, [item], [0]))
            continue
        at += max(0, len(begun) - _OPEN)
        used, inside, starts = begun[at]
        begun[at] = (used + need, [*inside, item], [*starts, used])
    return closed + [Row(group, prefix, room, plan.row, tuple(i), tuple(s)) for _, i, s in begun]


def side_by_side(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Texts of so many tokens, `size` at most, put into as few rows of `size` tokens as is easily had: each into the
    first row that has room for it, longest first (Johnson 1974, first-fit decreasing)."""
    rows: list[list[int]] = []
    room: list[int] = []
    for item in sorted(range(len(lengths)), key=lambda item: (-lengths[item], item)):
        at = next((n for n, left in enumerate(room) if lengths[item] <= left), len(rows))
        if at == len(rows):
            rows.append([])
            room.append(size)
        rows[at].append(item)
        room[at] -= lengths[item]
    return rows


def shared_prefixes(prompts: Sequence[Ids], toll: int) -> list[tuple[int, list[int]]]:
    """Groups of prompts and the length of the token prefix that each group shares, found by looking.

    The prefix tree is cut where it saves most: a group of n prompts with a common prefix of P tokens saves
    (n - 1) x P, and has to save more than the `toll`: what a forward for the prefix and a row that is not full cost.
    The last token of a prompt is never part of its prefix. Prompts that share nothing worth it come together in one
    group without prefix. Groups are in the order of their first prompt, and so are the prompts of a group.
    """
    order = sorted(range(len(prompts)), key=lambda i: tuple(prompts[i]))
    found: list[_Node] = []
    open_ones: list[_Node] = []
    for place, item in enumerate(order):
        shared = common_prefix(prompts[order[place - 1]][:-1], prompts[item][:-1]) if place else 0
        leaf = _Node(len(prompts[item]) - 1, 0, [(0, [item])])
        while open_ones and open_ones[-1].depth > shared:
            closed = open_ones.pop().settled(toll)
            if open_ones and open_ones[-1].depth >= shared:
                open_ones[-1].take(closed)
            else:
                open_ones.append(_Node(shared, 0, []))
                open_ones[-1].take(closed)
        open_ones.append(leaf)
    while open_ones:
        closed = open_ones.pop().settled(toll)
        (open_ones[-1].take(closed) if open_ones else found.append(closed))
    groups = [group for node in found for group in node.groups]
    alone = sorted(i for prefix, items in groups if not prefix for i in items)
    kept = [(prefix, sorted(items)) for prefix, items in groups if prefix]
    return sorted(kept + ([(0, alone)] if alone else []), key=lambda group: group[1][0])


@dataclass(slots=True)
class _Node:
    """A node of the prefix tree: prompts that agree up to `depth`, how they are grouped, and what that saves."""

    depth: int
    saved: int
    groups: list[tuple[int, list[int]]]

    def take(self, below: _Node) -> None:
        self.saved += below.saved
        self.groups += below.groups

    def settled(self, toll: int) -> _Node:
        """Nothing more comes below this node: leave what was found, or put together all prompts, or those that
        share nothing yet."""
        every = [i for _, items in self.groups for i in items]
        alone = [i for prefix, items in self.groups if not prefix for i in items]
        rest = [group for group in self.groups if group[0]]
        together, joined = (len(every) - 1) * self.depth - toll, self.saved + (len(alone) - 1) * self.depth - toll
        if self.depth and together > self.saved and together >= joined:
            self.saved, self.groups = together, [(self.depth, every)]
        elif self.depth and joined > self.saved:
            self.saved, self.groups = joined, [*rest, (self.depth, alone)]
        return self
