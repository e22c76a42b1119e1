"""Writing text: greedy or sampled continuations of padded batches, token by token."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kick_core import timing
from kick_core.engine import forms
from kick_core.engine.batching import (
    Batch,
    BatchPolicy,
    Ids,
    batches,
    cache_tokens,
    forward_rows,
    frugal,
    in_steps,
    least_rows,
    round_up,
    rows_matter,
)
from kick_core.engine.library_steps import LibrarySteps, PlainSteps
from kick_core.engine.pages import page_columns, page_rows, pool_pages, takes_pages
from kick_core.engine.prompt_packs import PromptPacks, takes_packs
from kick_core.engine.refilling import Generated, Refilled, Rules, Stopper
from kick_core.engine.steps import Chooser, SlotSteps, takes_slots
from kick_core.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn: from softmax(logits / temperature), cut to the `top_k` likeliest (0: all) and then to
    the fewest likeliest whose probabilities reach `top_p` (Holtzman et al. 2020, "nucleus sampling")."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and 0 < self.top_p <= 1 and self.top_k >= 0):
            raise BadRequest(f"{self}: temperature must be above 0, top_p in (0, 1], top_k 0 (all) or more")

    def choose(self, logits: Tensor, chance: Tensor) -> Tensor:
        """Token ids [rows] from float32 logits [rows, vocabulary] and one number in [0, 1) per row."""
        ordered, ids = (logits / self.temperature).softmax(-1).sort(stable=True, dim=-1, descending=True)
        upto = ordered.cumsum(-1)
        kept = upto - ordered < self.top_p
        if self.top_k:
            kept[:, self.top_k :] = False
        mass = (ordered * kept).cumsum(-1)
        place = torch.searchsorted(mass, (chance.to(mass.dtype)[:, None] * mass[:, -1:]), right=True)
        # rounding may put the number on the very end of the mass, behind the last token that is kept
        place = torch.minimum(place, kept.sum(-1, keepdim=True) - 1).clamp(min=0)
        return ids.gather(-1, place)[:, 0]


Steps = SlotSteps | LibrarySteps | PlainSteps

_PAGES, _PACKS, _SLOTS = "with a cache in pages", "in packs, with a cache in slots", "with a cache in slots"
_WINDOW = 8
"""A stop string is looked for in the text of so many last tokens."""


def stopper(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> Stopper:
    """Says of token ids so far whether one of the stop strings stands at their end, leading space aside.

    A stop string may be spread over tokens, so text is looked at; but only after a token that can be its end.
    """
    ends = {stop[-1] for stop in stops}
    can_end: dict[int, bool] = {}

    def stopped(ids: list[int]) -> bool:
        last = ids[-1]
        if last not in can_end:
            text = str(tokenizer.decode([last]))
            can_end[last] = bool(ends.intersection(text)) or "\ufffd" in text  # part of a character
        if not can_end[last]:
            return False
        text = str(tokenizer.decode(ids[-_WINDOW:])).lstrip()
        return any(stop in text for stop in stops)

    return stopped if stops else lambda _: False


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    *,
    new_tokens: int,
    ends: frozenset[int],
    stops: Stopper,
    plan: BatchPolicy,
    filler: int,
    sampling: Sampling | None = None,
    seeds: Sequence[int] | None = None,
    beginnings: Sequence[Ids] = (),
) -> Iterator[dict[int, Generated]]:
    """Continuations, the likeliest token each time or, with `sampling`, drawn. Yields {prompt number: Generated}; while
    a batch without refilling is written, an empty dict twice a second: `plan.underway` says how far that is.

    A row ends at a token of `ends`, when `stops(ids so far)` says so, or after `new_tokens`. Drawing takes one
    number per token from a generator of the row's own, made from `seeds[i]`: a text does not depend on its
    neighbours. Where prompts are read in packs, `beginnings` that many of them share are read once; they must follow
    from the whole task, so that a prompt is read alike whatever it is asked with. Raises BadRequest when sampling has
    no seed for every prompt.
    """
    if sampling is not None and (seeds is None or len(seeds) != len(prompts)):
        raise BadRequest(f"sampling needs one seed per prompt: {len(seeds or ())} seeds for {len(prompts)} prompts")
    fixed, plan = rows_matter(model), frugal(model, plan)
    choose, rules = sampling.choose if sampling else None, Rules(new_tokens, ends, stops)

    def uniforms(items: Sequence[int], rows: int) -> Tensor | None:
        return _chances([seeds[i] for i in items], rows, new_tokens) if seeds and sampling else None

    for steps, own in _right_steps(model, prompts, new_tokens, plan, filler, choose, fixed, beginnings):
        if fixed and isinstance(steps, SlotSteps):
            lengths = [len(prompts[i]) for i in own]
            by_room = _by_columns if steps.pages else _by_room
            for batch in by_room(lengths, new_tokens, plan, steps):
                slots = Refilled(steps, prompts, batch.length, rules, uniforms, plan)
                yield from slots.texts([own[n] for n in batch.items], batch.rows)
            continue
        for batch in _batches([len(prompts[i]) for i in own], new_tokens, plan, steps, fixed):

            def ask(
                items: Sequence[int], rows: int, room: int = batch.length, steps: Steps = steps
            ) -> Iterator[dict[int, Generated]]:
                count = rows if fixed else forward_rows(model, len(items), rows)
                some, news = [prompts[i] for i in items], _News(plan, [len(prompts[i]) for i in items], new_tokens)
                with timing.stage("prefill", tokens=news.tokens):
                    if isinstance(steps, SlotSteps):
                        for read in steps.reading(some, count, room, new_tokens, uniforms(items, count)):
                            yield from news.of(read, 0)
                    else:
                        steps.begin(some, count, room, new_tokens, uniforms(items, count))
                # where rows leave is proven for batches of several lengths; a batch of one length is few
                leave = not fixed and (isinstance(steps, PlainSteps) or not _one_length(steps))
                least = least_rows(model) if leave else count
                with timing.stage("decode", rows=count):
                    written = yield from _written(steps, len(items), count, rules, least, news)
                plan.underway.texts = 0.0
                yield dict(zip(items, written, strict=True))

            yield from in_steps([own[n] for n in batch.items], batch.rows, ask, plan)


def _right_steps(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    new_tokens: int,
    plan: BatchPolicy,
    filler: int,
    choose: Chooser | None,
    fixed: bool,
    beginnings: Sequence[Ids],
) -> Iterator[tuple[Steps, list[int]]]:
    """The fastest steps that are proven to give what plain forwards give, and the prompts that they are right for."""
    forms.require_embedded(model, prompts)

    def in_pages(plan: BatchPolicy, some: Sequence[Ids]) -> SlotSteps:
        rows = max(page_rows(model, plan), forms.SAMPLE)  # a form is tried on so many at once
        pages = pool_pages(model, [len(ids) + new_tokens for ids in some], rows, plan)
        return SlotSteps(model, plan, filler, choose, True, pages)

    def in_packs(plan: BatchPolicy, some: Sequence[Ids]) -> SlotSteps:
        return SlotSteps(model, plan, filler, choose, False, packs=PromptPacks(model, plan, filler, beginnings))

    ways: dict[str, Callable[[BatchPolicy, Sequence[Ids]], Steps]] = {
        _PAGES: in_pages,
        _PACKS: in_packs,
        _SLOTS: lambda plan, _: SlotSteps(model, plan, filler, choose, fixed),
        "in padded batches": lambda plan, _: LibrarySteps(model, plan, filler, choose),
        "in padded batches, masked while reading": lambda plan, _: LibrarySteps(
            model, plan, filler, choose, masked=False
        ),
        "in batches of one length": lambda plan, _: LibrarySteps(model, plan, filler, choose, padded=False),
        "without a cache": lambda plan, _: PlainSteps(model, choose),
    }
    by_pages = plan.paged and plan.kernels and fixed and takes_slots(model, 1) and takes_pages(model)
    kind = "long texts" if by_pages else "texts"
    by_size: dict[int, list[int]] = {}
    crossing = _crossing(model, [len(prompt) for prompt in prompts], new_tokens)
    passed = set(crossing)
    if crossing:
        plan.note(f"{len(crossing)} texts asked without a cache: while they are written the model's positions rescale")
        yield PlainSteps(model, choose), crossing
    for item, prompt in enumerate(prompts):
        if item in passed:
            continue
        by_size.setdefault(forms.bucket(len(prompt)), []).append(item)
    by_form: dict[str, list[int]] = {}
    for _, items in sorted(by_size.items(), reverse=True):  # what is right for the longest is right for all
        size = max(len(prompts[i]) for i in items)
        tried = forms.trial_length(model, size)
        some = [prompts[i][: -(-len(prompts[i]) * tried // size)] for i in items]  # lengths still differ
        longest = max(some, key=len)
        noise = forms.require_causal(model, longest)

        def right(form: str, some: Sequence[Ids] = some, longest: Ids = longest, noise: float = noise) -> bool | None:
            # two rows at least: whether rows may leave is part of what is proven
            few = some if len(some) > 1 else [longest[: -(-len(longest) // 2)], longest]
            steps = ways[form](forms.quiet(plan), few)
            if isinstance(steps, SlotSteps) and steps.packs:  # one of them behind a beginning
                steps.packs = PromptPacks(model, plan, filler, [longest[: len(longest) // 2]])
            few = [longest] if _one_length(steps) else few
            room = round_up(plan.length(len(longest)) + 8, plan.room)
            if isinstance(steps, SlotSteps):
                steps.records = False  # a recorded step shows its numbers once
                room = page_columns(model.config, room) if steps.pages else room
            return forms.right_texts(model, few, noise, steps, room, fixed)

        # a window is none for texts that it holds; on a CPU slots have no rooms that follow from a prompt alone
        slots = takes_slots(model, _room(size, new_tokens, plan) if fixed else 0)
        packs = slots and plan.packed and not fixed and takes_packs(model)
        here = {_PAGES: by_pages, _PACKS: packs, _SLOTS: slots}
        forms_here = tuple(name for name in ways if here.get(name, True))
        form = forms.chosen_form(model, kind, size, noise, forms_here, right, plan)
        by_form.setdefault(form, []).extend(items)
    for form, items in by_form.items():
        yield ways[form](plan, [prompts[i] for i in items]), sorted(items)


def _crossing(model: PreTrainedModel, lengths: Sequence[int], new_tokens: int) -> list[int]:
    """The prompts during whose answers the scaling of positions changes."""
    if not lengths or not forms.rescaled(model, min(lengths), max(lengths) + new_tokens):
        return []
    changes = {length: forms.rescaled(model, length, length + new_tokens) for length in set(lengths)}
    return [item for item, length in enumerate(lengths) if changes[length]]


def _one_length(steps: Steps) -> bool:
    """Whether the prompts of a batch must have one length."""
    return isinstance(steps, PlainSteps) or (isinstance(steps, LibrarySteps) and not steps.padded)


def _batches(lengths: Sequence[int], new_tokens: int, plan: BatchPolicy, steps: Steps, fixed: bool) -> list[Batch]:
    """Which prompts are decoded together. Where the shape matters it follows from a prompt alone."""
    if _one_length(steps):
        return _of_one_length(lengths, plan, fixed)
    if isinstance(steps, LibrarySteps):
        return batches(lengths, plan)
    order = sorted(range(len(lengths)), key=lambda item: (plan.length(lengths[item]), item))
    made: list[Batch] = []
    while order:
        rows = max(1, min(plan.rows, plan.tokens // (lengths[order[-1]] + new_tokens)))
        room = round_up(max(lengths[i] for i in order[-rows:]) + new_tokens, plan.room)
        made.append(Batch(tuple(order[-rows:]), rows, room))
        del order[-rows:]
    return made[::-1]


def _by_room(lengths: Sequence[int], new_tokens: int, plan: BatchPolicy, steps: SlotSteps) -> list[Batch]:
    """Prompts that are decoded in slots of one shape, which must follow from a prompt alone: rooms of 2^n columns let
    prompts of many lengths share one. A batch has any number of prompts, shortest first."""
    order = sorted(range(len(lengths)), key=lambda item: (lengths[item], item))
    rooms = {item: _room(lengths[item], new_tokens, plan) for item in order}
    tokens = cache_tokens(steps.model, plan)
    return [
        Batch(tuple(some), max(1, min(plan.rows, tokens // room)), room)
        for room, some in groupby(order, key=rooms.__getitem__)
    ]


def _by_columns(lengths: Sequence[int], new_tokens: int, plan: BatchPolicy, steps: SlotSteps) -> list[Batch]:
    """Prompts that are decoded in pages: together unless they are very long, longest first, which ends soonest."""
    order = sorted(range(len(lengths)), key=lambda item: (-lengths[item], item))
    rows = page_rows(steps.model, plan)
    columns = {item: page_columns(steps.model.config, lengths[item] + new_tokens) for item in order}
    return [Batch(tuple(some), rows, room) for room, some in groupby(order, key=columns.__getitem__)]


def _room(length: int, new_tokens: int, plan: BatchPolicy) -> int:
    """Columns of the slot of a prompt of so many tokens."""
    return max(plan.room, 1 << (length + new_tokens - 1).bit_length())


def _of_one_length(lengths: Sequence[int], plan: BatchPolicy, fixed: bool) -> list[Batch]:
    """Prompts of one length together; each alone where the number of rows matters."""
    made: list[Batch] = []
    order = sorted(range(len(lengths)), key=lambda item: (lengths[item], item))
    for length, some in groupby(order, key=lambda item: lengths[item]):
        items, rows = list(some), 1 if fixed else plan.batch_rows(length)
        made += [Batch(tuple(items[i : i + rows]), rows, length) for i in range(0, len(items), rows)]
    return made


def _chances(seeds: Sequence[int], rows: int, new_tokens: int) -> Tensor:
    """Numbers in [0, 1), float32 [rows, new_tokens], each row from its own seed."""
    drawn = [torch.rand(new_tokens, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack([drawn[min(row, len(drawn) - 1)] for row in range(rows)])


_TELL = 0.5
"""Seconds between two words of how far a batch is."""
_STEP = 12
"""A step reads all weights: on a CPU that takes about as long as computing so many tokens."""


class _News:
    """How far a batch of texts is.

    Args:
        plan: Whose `underway` is kept.
        lengths: Tokens of the prompts, in the order in which they are read.
        new_tokens: That each text has at most.
    """

    def __init__(self, plan: BatchPolicy, lengths: Sequence[int], new_tokens: int) -> None:
        self.tokens, self._plan, self._lengths, self._last = sum(lengths), plan, lengths, time.monotonic()
        self._step = len(lengths) + _STEP
        self._whole = self.tokens + new_tokens * self._step

    def of(self, read: int, steps: int) -> Iterator[dict[int, Generated]]:
        """After so many prompts and steps: an empty dict when it is time."""
        if time.monotonic() - self._last > _TELL:
            self._last = time.monotonic()
            done = sum(self._lengths[:read]) + steps * self._step
            self._plan.underway.texts = len(self._lengths) * done / self._whole
            yield {}


_LEAVE = 0.9
"""Finished rows are taken out when no more than this share of the rows still writes."""


def _written(
    steps: Steps, asked: int, count: int, rules: Rules, least: int, news: _News
) -> Generator[dict[int, Generated], None, list[Generated]]:
    """Run the steps of a batch of `count` rows until its first `asked` are done; the rest only keeps the shape, which
    has `least` rows at least."""
    ids: list[list[int]] = [[] for _ in range(asked)]
    ended = ["" for _ in range(asked)]
    rows = list(range(asked))  # which prompt stands in which row
    for number in range(rules.new_tokens):
        yield from news.of(asked, number)
        for row, token in zip(rows, steps.next(), strict=False):
            if not ended[row]:
                ended[row] = rules.ended(ids[row], token)
        still = [place for place, row in enumerate(rows) if not ended[row]]
        if not still:
            break
        if max(len(still), least) <= _LEAVE * count:
            ended_places = [place for place, row in enumerate(rows) if ended[row]]
            filling = ended_places[: max(0, least - len(still))]
            count = len(still) + len(filling)
            rows = [rows[place] for place in steps.keep(sorted(still + filling))]
    return [Generated(tuple(own), stop) for own, stop in zip(ids, ended, strict=True)]
