"""Scoring options: log-probabilities of given continuations, many questions in one forward.

Questions that share a token prefix are asked behind one reading of it. Their remaining tokens stand side by side
in the rows of a pack, and an additive mask lets each see the prefix and itself alone; options of several tokens
follow their question as branches that see the question but not one another. Where a model cannot be asked that
way, prompts are padded and asked one a row; `why_padded` gives the reason, and `Plan.notes` keeps it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from kick_core import timing
from kick_core.engine import forms, fused
from kick_core.engine.batching import (
    BatchPolicy,
    Ids,
    attention_for,
    batches,
    frugal,
    in_parts,
    least_rows,
    logits_of,
    rows_matter,
)
from kick_core.engine.caches import windows_of
from kick_core.engine.packing import Layout, Row, digest, pack_layout
from kick_core.engine.padded import Options, OptionScores, in_batches, one_by_one, scored


def why_padded(model: PreTrainedModel) -> str:
    """Why this model's options are not scored in packs; empty when they are.

    A fact of the architecture, never of the weights: dense and every variant are asked alike.
    """
    if model.config._attn_implementation not in ("sdpa", "eager"):
        return f"{model.config._attn_implementation} attention takes no additive mask"
    takes = inspect.signature(model.forward).parameters
    if missing := [name for name in ("position_ids", "logits_to_keep") if name not in takes]:
        return f"{type(model).__name__} takes no {' and no '.join(missing)}"
    if getattr(model.config.get_text_config(), "alibi", False):
        return "ALiBi positions cannot be given"
    if not windows_of(model):
        kinds = sorted({type(layer).__name__ for layer in DynamicCache(config=model.config).layers})
        return f"the cache cannot be shared: {', '.join(kinds)}"
    return ""


def sees_windows(model: PreTrainedModel) -> bool:
    """Whether options are scored in packs under the masks of sliding windows."""
    return not why_padded(model) and any(windows_of(model).values())


def plan_hash(model: PreTrainedModel, prompts: Sequence[Ids], options: Sequence[Options], plan: BatchPolicy) -> str:
    """The name of how these prompts are asked: layout, budget, attention and dtype. Equal for dense and variants."""
    reason = why_padded(model)
    described: Any = (
        [[b.items, b.rows, b.length] for b in batches([len(p) for p in prompts], plan)]
        if reason
        else pack_layout(prompts, options, plan).described()
    )
    return digest([plan.text, reason, model.config._attn_implementation, str(model.dtype), described])


@torch.inference_mode()
def score_options(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    options: Sequence[Options],
    *,
    plan: BatchPolicy,
    filler: int,
    wanted: Collection[int] | None = None,
) -> Iterator[dict[int, OptionScores]]:
    """Score `options[i]` (token ids, at least one each) after `prompts[i]`; yields {prompt number: Scored} per pack.

    `prompts` should be all the task's prompts in their order and `wanted` those to answer now: the layout follows
    from the whole list, so that an answer does not depend on what else is wanted.
    """
    asked = set(range(len(prompts)) if wanted is None else wanted)
    if not asked:
        return
    reason = why_padded(model)
    if reason:
        plan.note(f"options scored in padded batches: {reason}")
    # a form is tried on what is asked, unless it may be right for short prompts only: then on all, whatever is asked
    tried = range(len(prompts)) if reason or forms.lengths_matter(model) else sorted(asked)
    size = max(len(prompts[i]) for i in tried)
    length = min(size, max(_TRIED, forms.trial_length(model, size)))
    some = [prompts[i][: -(-len(prompts[i]) * length // max(1, size))] for i in tried]  # lengths still differ
    own = [options[i] for i in tried]
    longest = max(some, key=len)
    forms.require_embedded(model, [*prompts, *(ids for own in options for ids in own)])
    noise = forms.require_causal(model, longest)
    ways = {
        "in packs": lambda p, o, a, plan: _in_packs(model, p, o, set(a), plan, filler),
        "in padded batches": lambda p, o, a, plan: in_batches(model, p, o, a, plan, filler),
        "in padded batches, token by token": lambda p, o, a, plan: in_batches(
            model, p, o, a, plan, filler, singly=True
        ),
        "one by one": lambda p, o, a, plan: one_by_one(model, p, o, a),
    }
    if reason:
        del ways["in packs"]

    def right(form: str) -> bool | None:
        return forms.right_options(
            model, some, own, noise, lambda p, o: ways[form](p, o, range(len(p)), forms.quiet(plan))
        )

    form = forms.chosen_form(model, "options", size, noise, tuple(ways), right, plan)
    yield from ways[form](prompts, options, sorted(asked), plan)


def _in_packs(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    options: Sequence[Options],
    asked: set[int],
    plan: BatchPolicy,
    filler: int,
) -> Iterator[dict[int, OptionScores]]:
    plan = frugal(model, plan)
    layout = _layout(model, prompts, options, plan)
    stand_ins = fused.FusedPatches(model, plan.step) if plan.kernels else None
    packer = _Packer(model, prompts, options, layout, filler, {}, stand_ins, plan, windows_of(model))
    packs = packer.packs(_shapes(layout, plan), asked)
    for found in _one_ahead(packs) if model.device.type == "cuda" else (read() for read in packs):
        if sound := {item: score for item, score in found.items() if item in asked and score.finite}:
            yield sound
        # one question's NaN reaches its neighbours through the mask (0 x NaN is NaN): these are asked alone
        spoiled = [item for item, score in found.items() if item in asked and not score.finite]
        yield from in_batches(model, prompts, options, spoiled, plan, filler)


Scores = dict[int, OptionScores]


def _one_ahead(packs: Iterator[Callable[[], Scores]]) -> Iterator[Scores]:
    """What packs that were asked give, each when the next one has been asked too: a GPU need not wait for the host."""
    before: Callable[[], Scores] | None = None
    for pack in packs:
        if before:
            yield before()
        before = pack
    if before:
        yield before()


_TRIED = 256
"""Tokens of a prompt that a form of options is tried on, where no more can matter: more than a pack's row."""

_PREFIXES = 4
"""Prefixes of many lengths that are read together: a launch of a forward's operations takes as long as a 7B's work on
a thousand tokens."""

_LAYOUTS = "_kick_layouts"


def _layout(model: PreTrainedModel, prompts: Sequence[Ids], options: Sequence[Options], plan: BatchPolicy) -> Layout:
    """The layout of these very lists: a sweep hands over the same ones under every recipe."""
    known: dict[tuple[int, int], tuple[Any, Any, str, Layout]] = model.__dict__.setdefault(_LAYOUTS, {})
    place = id(prompts), id(options)  # both are kept with the layout, so nobody else gets their ids
    if place not in known or known[place][2] != plan.text:
        if len(known) >= 16:
            known.clear()
        with timing.stage("layout"):
            known[place] = prompts, options, plan.text, pack_layout(prompts, options, plan)
    return known[place][3]


def _shapes(layout: Layout, plan: BatchPolicy) -> Iterator[tuple[list[Row], int]]:
    """Rows that may be asked together, and how many of them a forward has.

    What is left over of a kind has a shape of its own, so that a whole task needs no copies to fill a pack.
    """
    for (room, length), same in groupby(layout.rows, key=lambda row: (row.room, row.length)):
        rows = list(same)
        count = max(1, min(plan.pack // length, plan.tokens // (room + length)))
        full = len(rows) // count * count
        if full:
            yield rows[:full], count
        if full < len(rows):
            yield rows[full:], len(rows) - full


@dataclass(frozen=True, slots=True)
class _Places:
    """A pack as tensors on the CPU, int64: ids, positions, and per token the number of its question (-1 for filling)
    and of its option's branch (0 for the question itself), [rows, length] each; `kept` [rows, kept] are the positions
    whose logits are read. `first` says where the token after a question is read: {item: (row, place in kept)}; the
    places that follow are those of its branches' tokens.
    """

    ids: Tensor
    positions: Tensor
    question: Tensor
    branch: Tensor
    kept: Tensor
    first: dict[int, tuple[int, int]]


@dataclass(slots=True)
class _Packer:
    model: PreTrainedModel
    prompts: Sequence[Ids]
    options: Sequence[Options]
    layout: Layout
    filler: int
    prefixes: dict[int, list[tuple[Tensor, Tensor]]]
    stand_ins: fused.FusedPatches | None
    plan: BatchPolicy
    windows: Mapping[str, int]

    def packs(self, shapes: Iterator[tuple[list[Row], int]], asked: set[int]) -> Iterator[Callable[[], Scores]]:
        """Ask all packs with a question of `asked` in them; each gives what reads its scores."""
        for rows, count in shapes:
            some = [row for row in rows if asked.intersection(row.items)]
            for start in range(0, len(some), count):
                yield from in_parts(some[start : start + count], count, self.ask, self.plan)

    @timing.stage("options")
    def ask(self, part: Sequence[Row], count: int) -> Callable[[], Scores]:
        """Ask all questions of these rows in one forward of `count` rows, or of as many as there are."""
        places, device = self._places(part), self.model.device
        ids, positions, kept, masks = places.ids, places.positions, places.kept, self._masks(part, places)
        if rows_matter(self.model):
            copies = torch.arange(count).clamp(max=len(part) - 1)
            ids, positions, kept = ids[copies], positions[copies], kept[copies]
            masks = {kind: mask[copies.to(device)] for kind, mask in masks.items()}
        inputs: dict[str, Any] = {
            "input_ids": ids.to(device),
            "position_ids": positions.to(device),
            "attention_mask": masks if len(masks) > 1 else next(iter(masks.values())),
            "use_cache": bool(part[0].room),
        }
        with (
            self.stand_ins.in_place() if self.stand_ins else nullcontext(),
            attention_for(self.plan),
        ):
            if part[0].room:
                inputs["past_key_values"] = self._cache([*part, *[part[-1]] * (len(kept) - len(part))])
            logits = logits_of(self.model, inputs, kept.to(device))
        return partial(self._read, logits.log_softmax(-1), places.first)

    def _places(self, rows: Sequence[Row]) -> _Places:
        shape = (len(rows), rows[0].length)
        ids, positions = torch.full(shape, self.filler), torch.zeros(shape, dtype=torch.int64)
        question, branch = torch.full(shape, -1), torch.zeros(shape, dtype=torch.int64)
        kept = torch.zeros(len(rows), max(self.layout.kept, least_rows(self.model)), dtype=torch.int64)
        first: dict[int, tuple[int, int]] = {}
        for number, row in enumerate(rows):
            read = 0
            for item, start in zip(row.items, row.starts, strict=True):
                own, options = list(self.prompts[item][row.prefix :]), self.options[item]
                asked = start + len(own) - 1
                after = row.prefix + len(own)
                own_at = list(range(row.prefix, after)) + [after + n for o in options for n in range(len(o) - 1)]
                own_branch = [0] * len(own) + [b for b, o in enumerate(options, start=1) for _ in o[1:]]
                own += [token for o in options for token in o[:-1]]
                end = start + len(own)
                ids[number, start:end], positions[number, start:end] = torch.tensor(own), torch.tensor(own_at)
                question[number, start:end], branch[number, start:end] = item, torch.tensor(own_branch)
                kept[number, read : read + end - asked] = torch.arange(asked, end)
                first[item] = (number, read)
                read += end - asked
        return _Places(ids, positions, question, branch, kept, first)

    def _masks(self, rows: Sequence[Row], places: _Places) -> dict[str, Tensor]:
        """Additive masks [rows, 1, length, room + length] in the model's dtype, by the kind of layer.

        Additive because eager attention takes a boolean one without complaint and computes something else.
        """
        device = self.model.device
        question, branch = places.question.to(device), places.branch.to(device)
        length, room = rows[0].length, rows[0].room
        sees = question[:, :, None] == question[:, None, :]
        sees &= (branch[:, None, :] == 0) | (branch[:, :, None] == branch[:, None, :])
        sees &= torch.ones(length, length, dtype=torch.bool, device=device).tril()
        if room:
            prefix = torch.tensor([row.prefix for row in rows], device=device)
            before = torch.arange(room, device=device) < prefix[:, None]
            sees = torch.cat([before[:, None, :].expand(-1, length, -1), sees], -1)
        masks = {}
        for kind, window in self.windows.items():
            hidden = ~(sees & (_distances(places.positions.to(device), room) < window)) if window else ~sees
            mask = torch.zeros(sees.shape, dtype=self.model.dtype, device=device)
            masks[kind] = mask.masked_fill_(hidden, torch.finfo(self.model.dtype).min)[:, None]
        return masks

    def _cache(self, rows: Sequence[Row]) -> DynamicCache:
        """The rows' prefixes, each padded to the common room."""
        needed = {row.group: row for row in rows}
        self.prefixes = {group: kept for group, kept in self.prefixes.items() if group in needed}
        missing = [row for group, row in needed.items() if group not in self.prefixes]
        for start in range(0, len(missing), self.together):
            self._read_prefixes(missing[start : start + self.together])
        runs = [(self.prefixes[group], len(list(same))) for group, same in groupby(rows, key=lambda row: row.group)]
        cache, buffers = DynamicCache(config=self.model.config), dict[Any, Tensor]()
        cache.layers = [
            _SharedLayer([(kept[n], count) for kept, count in runs], buffers) for n in range(len(cache.layers))
        ]
        return cache

    @property
    def together(self) -> int:
        """Prefixes that a forward reads."""
        return _PREFIXES if self.plan.varied else 1

    def _read_prefixes(self, rows: Sequence[Row]) -> None:
        """Keep keys and values of the rows' prefixes per layer, [1, heads, room, width]; no row sees what is behind its
        prefix. A forward always has `together` rows; one that has several has the length of their common room."""
        length = rows[0].prefix if self.together == 1 else rows[0].room
        ids = torch.full((self.together, length), self.filler)
        for number in range(self.together):
            row = rows[min(number, len(rows) - 1)]
            ids[number, : row.prefix] = torch.tensor(self.prompts[row.items[0]][: row.prefix])
        positions = torch.arange(length, device=self.model.device).expand(self.together, -1)
        cache = DynamicCache()  # keeps what lies before a window too: other questions see that
        inputs = {"input_ids": ids.to(self.model.device), "position_ids": positions, "past_key_values": cache}
        self.model(**inputs, use_cache=True, logits_to_keep=1)
        empty = (0, 0, 0, rows[0].room - length)
        layers = [[torch.nn.functional.pad(t, empty) for t in (layer.keys, layer.values)] for layer in cache.layers]
        for number, row in enumerate(rows):
            self.prefixes[row.group] = [
                (keys[number : number + 1], values[number : number + 1]) for keys, values in layers
            ]

    @timing.stage("options")
    def _read(self, logprobs: Tensor, first: dict[int, tuple[int, int]]) -> Scores:
        """From float32 log-probabilities [rows, kept, vocabulary] to scores."""
        options = [self.options[item] for item in first]
        sums = [[0.0] * len(asked) for asked in options]
        later = [
            (number, option, row, place + 1 + n, token)
            for number, (row, place) in enumerate(first.values())
            for n, (option, token) in enumerate((o, t) for o, ids in enumerate(options[number]) for t in ids[1:])
        ]
        if later:
            _, _, rows, places, tokens = torch.tensor(later).T.to(logprobs.device)
            for (number, option, *_), value in zip(later, logprobs[rows, places, tokens].tolist(), strict=True):
                sums[number][option] += value
        rows, places = torch.tensor(list(first.values())).T.to(logprobs.device)
        return dict(zip(first, scored(logprobs[rows, places], options, sums), strict=True))


def _distances(positions: Tensor, room: int) -> Tensor:
    """How far behind each token of rows [rows, length] those of a prefix and of its row stand, [rows, length, room +
    length]."""
    before = torch.arange(room, device=positions.device).expand(len(positions), -1)
    return positions[:, :, None] - torch.cat([before, positions], 1)[:, None, :]


class _SharedLayer(DynamicLayer):
    """A cache layer that lends keys and values of prefixes [1, heads, room, width], each to so many rows, and keeps
    nothing: a forward's own stand behind them in `buffers`, which serve one layer after the other."""

    def __init__(self, runs: Sequence[tuple[tuple[Tensor, Tensor], int]], buffers: dict[Any, Tensor]) -> None:
        super().__init__()
        self.runs, self.buffers = runs, buffers
        self.lazy_initialization(*runs[0][0])
        self.keys, self.values = runs[0][0]  # tell how much is there

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        return self._behind(0, key_states), self._behind(1, value_states)

    def _behind(self, side: int, states: Tensor) -> Tensor:
        rows, heads, length, width = states.shape
        room = self.keys.shape[-2]
        name = side, heads, width, states.dtype
        if name not in self.buffers:
            self.buffers[name] = states.new_empty(rows, heads, room + length, width)
        whole, at = self.buffers[name], 0
        for kept, count in self.runs:
            whole[at : at + count, :, :room] = kept[side]
            at += count
        whole[:, :, room:] = states
        return whole
