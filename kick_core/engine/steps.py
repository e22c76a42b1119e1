"""The steps of decoding: a cache with room from the start, one forward per token, CUDA graphs where there is CUDA.

On an accelerator a step of a batch always has the same shape: attention is handed the cache in its whole length and a
mask that hides what is not written yet, so that one recorded graph serves every step. On a CPU only what is written is
read, and finished rows leave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import accumulate, groupby, pairwise
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from kick_core.engine import forms, fused
from kick_core.engine.batching import BatchPolicy, Ids, attention_for, head_sizes, logits_of, positions
from kick_core.engine.packing import side_by_side
from kick_core.engine.pages import PageCache, count_of, fitting
from kick_core.engine.prompt_packs import PromptPacks, attention_named
from kick_core.engine.slots import SlotCache
from kick_core.engine.step_attention import PRODUCTS, WIDE, keeps_bits
from kick_core.models import device_map

Chooser = Callable[[Tensor, Tensor], Tensor]


def _attention_of(model: PreTrainedModel) -> str:
    """The attention of a step by its registered name. On a CPU one that keeps keys and values in float32: attention of
    one query in half precision takes six times as long there."""
    usual = str(model.config._attn_implementation)
    if model.device.type != "cpu" or model.dtype == torch.float64 or usual != "sdpa" or not plain_cache(model):
        return usual
    heads, groups, width = head_sizes(model.config.get_text_config())
    return PRODUCTS if heads % groups == 0 and keeps_bits(heads, groups, width) else WIDE


def plain_cache(model: PreTrainedModel, room: int = 0) -> bool:
    """Whether all layers keep everything (no sliding windows, no states of other kinds).

    With `room`: of texts of so many columns, which no longer window cuts.
    """
    return all(
        type(layer) is DynamicLayer
        or (room and type(layer) is DynamicSlidingWindowLayer and room < layer.sliding_window)
        for layer in DynamicCache(config=model.config).layers
    )


NOT_FINITE = -1


def in_order(parts: Sequence[tuple[Sequence[int], Tensor]]) -> Tensor:
    """Rows [n, ...] of several parts, each with the numbers of its rows, in the order of the numbers."""
    items = torch.tensor([item for some, _ in parts for item in some])
    rows = torch.cat([rows for _, rows in parts])
    return rows[items.argsort().to(rows.device)]


def chosen(logits: Tensor, choose: Chooser | None, uniforms: Tensor) -> Tensor:
    """The next tokens [rows] from float32 logits [rows, vocabulary]."""
    tokens = logits.argmax(-1) if choose is None else choose(logits, uniforms)
    return tokens.masked_fill(~logits.amax(-1).isfinite(), NOT_FINITE)


class SlotSteps:
    """The steps of one batch after another: `begin`, then `next` once for every token that is wanted.

    For models whose layers keep all of a text. Prompts are read padded on the right, a few of one length at a
    time, and put into the slots of a cache; then every row writes at its own place. `choose(logits, chance)` picks
    the tokens; without it the likeliest are taken. With `whole` a step is handed all columns of the cache, so that all
    steps are one shape: then a CUDA graph is recorded, and the next step begins before the last one's tokens are
    looked at. Where no graph can be recorded, the plan notes it and steps are taken one operation after the other.
    With `pages` keys and values lie in so many pages instead of slots (see `pages`); steps are `whole` then. With
    `packs` prompts are read by them; steps are not `whole` then.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        plan: BatchPolicy,
        filler: int,
        choose: Chooser | None,
        whole: bool,
        pages: int = 0,
        packs: PromptPacks | None = None,
    ) -> None:
        self.model, self.plan, self.filler, self.choose, self.whole = model, plan, filler, choose, whole
        self.pages, self.packs = pages, packs
        self.kernels = plan.kernels and whole and not plan.compiled
        usual = str(model.config._attn_implementation)
        by_kernels = fused.ATTENTION if usual == "sdpa" else usual
        self.attention = by_kernels if self.kernels else _attention_of(model)
        self.wide = self.attention in (WIDE, PRODUCTS)
        self.stand_ins: fused.FusedPatches | None = None
        self.records = True
        self.on_cuda = model.device.type == "cuda"
        self.forward: Any = torch.compile(model.forward, dynamic=False) if plan.compiled and self.on_cuda else model
        self.shape = (0, 0)
        self.spoiled = False

    def begin(self, prompts: Sequence[Ids], rows: int, room: int, new_tokens: int, uniforms: Tensor | None) -> None:
        """Read the prompts of a batch, those of one length side by side, into the first of `rows` rows with `room`
        columns; rows beyond the prompts are there for the shape, and see one column. `uniforms` is float32 [rows,
        new_tokens]."""
        for _ in self.reading(prompts, rows, room, new_tokens, uniforms):
            pass

    def reading(
        self, prompts: Sequence[Ids], rows: int, room: int, new_tokens: int, uniforms: Tensor | None
    ) -> Iterator[int]:
        """As `begin`; yields how many prompts are read, forward by forward."""
        device = self.model.device
        if self.spoiled or self.shape != (rows, room):
            self._make_room(rows, room)
        lengths = torch.tensor([len(prompt) for prompt in prompts] + [1] * (rows - len(prompts))).to(device)
        self.ids, self.tokens, self.where, self.number = self.all_ids, self.all_tokens, self.all_where, self.all_number
        self.uniforms = self.all_chances
        self.memory.begin(lengths, [len(prompt) + new_tokens for prompt in prompts], self.where)
        self.where.copy_(lengths)
        self.number.zero_()
        if uniforms is not None:
            self.uniforms[:, :new_tokens] = uniforms.to(device)
        self.left = self.new_tokens = new_tokens
        self.waiting: tuple[Tensor, torch.cuda.Event] | None = None
        parts: list[tuple[Sequence[int], Tensor]] = []
        for part in self._read(prompts, torch.arange(len(prompts), device=device)):
            parts.append(part)
            yield sum(len(items) for items, _ in parts)
        logits = in_order(parts)
        self.first: Tensor | None = torch.cat([logits, logits[-1:].expand(rows - len(prompts), -1)])

    @property
    def ahead(self) -> int:
        """Steps that have begun already beside the one whose tokens `next` gave last."""
        return int(self.waiting is not None)

    def first_of(self, prompts: Sequence[Ids], new_tokens: int) -> int:
        """How many of the prompts a batch can begin with."""
        return fitting([len(ids) + new_tokens for ids in prompts], self.pages - 1) if self.pages else len(prompts)

    def next_of(self, prompts: Sequence[Ids]) -> int:
        """How many of the prompts `admit` has memory for now."""
        return self.memory.fitting([len(ids) + self.new_tokens for ids in prompts])

    def release(self, places: Sequence[int]) -> None:
        """The texts in these slots have ended."""
        self.memory.release(places)

    def fewer_pages(self, prompts: Sequence[Ids], new_tokens: int) -> bool:
        """Begin the next time with half as many pages, but enough for each of the prompts; whether these are fewer."""
        before, self.shape = self.pages, (0, 0)
        self.pages = max(before // 2, 1 + max(count_of(len(ids) + new_tokens) for ids in prompts))
        return self.pages < before

    def admit(self, places: Sequence[int], prompts: Sequence[Ids], uniforms: Tensor | None) -> list[int]:
        """Read prompts, those of one length side by side, into slots whose texts have ended, while the others go on.

        Steps must be of one shape (`whole`). The next `ahead` tokens of these slots belong to the texts before.

        Args:
            places: The slots.
            prompts: As many.
            uniforms: As in `begin`, a row per prompt.

        Returns:
            The first token of each; `next` gives the others.
        """
        device = self.model.device
        where, lengths = torch.tensor(places, device=device), torch.tensor([len(ids) for ids in prompts], device=device)
        totals = [len(ids) + self.new_tokens for ids in prompts]
        self.memory.admit(places, lengths, totals, clean=self.spoiled)
        logits = in_order(list(self._read(prompts, where)))
        if uniforms is not None:
            self.uniforms[where, : uniforms.shape[1]] = uniforms.to(device)
        tokens = chosen(logits, self.choose, self.uniforms[where, 0])
        self.ids[where] = tokens.clamp(min=0)[:, None]
        self.where[where], self.number[where] = lengths, 1
        self.left = self.shape[1]
        begun: list[int] = tokens.tolist()
        self.spoiled |= NOT_FINITE in begun
        return begun

    def _make_room(self, rows: int, room: int) -> None:
        """Buffers of a new shape. What was recorded for the old one is forgotten."""
        device, kept_dtype = self.model.device, torch.float32 if self.wide else None
        self.shape, self.spoiled = (rows, room), False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm = False
        self.stand_ins = fused.FusedPatches(self.model, rows) if self.kernels else None
        self.memory: SlotCache | PageCache = (
            PageCache(self.model, rows, room, self.pages)
            if self.pages
            else SlotCache(self.model, rows, room, kept_dtype, kernels=self.kernels, grows=not self.whole)
        )
        self.all_ids = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self.all_tokens = torch.zeros(rows, dtype=torch.int64, device=device)
        self.all_where = torch.zeros(rows, dtype=torch.int64, device=device)
        self.all_number = torch.zeros(rows, dtype=torch.int64, device=device)
        self.all_chances = torch.zeros(rows, room, device=device)

    def _read(self, prompts: Sequence[Ids], places: Tensor) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Put all prompts into slots; the numbers of some of them and float32 logits of the tokens after these [n,
        vocabulary], forward by forward."""
        if self.packs:
            yield from self.packs.read(prompts, places, self.memory.cache)
            return
        beside = self.plan.alone and self.pages and not forms.lengths_matter(self.model)
        long = [n for n, ids in enumerate(prompts) if beside and self.plan.alone < len(ids) <= self.plan.prompt]
        for items in side_by_side([len(prompts[n]) for n in long], self.plan.prompt):
            some = [long[item] for item in items]
            yield some, self._read_row([prompts[n] for n in some], places[some])
        rest = sorted(set(range(len(prompts))).difference(long))
        for length, same in groupby(rest, key=lambda n: self.plan.length(len(prompts[n]))):
            some, count = list(same), self.plan.read_rows(length)
            for start in range(0, len(some), count):
                part = some[start : start + count]
                rows = min(count, self.shape[0]) if self.whole else len(part)
                yield part, self._read_part([prompts[n] for n in part], rows, length, places[part])

    def _read_row(self, prompts: Sequence[Ids], places: Tensor) -> Tensor:
        """Read prompts that stand one behind the other in a row of `plan.prompt` tokens, each as if it were alone."""
        assert isinstance(self.memory, PageCache)
        ends = list(accumulate(map(len, prompts)))
        segments = list(pairwise([0, *ends]))
        ids, where = torch.full((1, self.plan.prompt), self.filler), torch.zeros(1, self.plan.prompt, dtype=torch.int64)
        for prompt, (first, end) in zip(prompts, segments, strict=True):
            ids[0, first:end], where[0, first:end] = torch.tensor(prompt), torch.arange(len(prompt))
        # the last product has as many rows as there may be prompts
        last = torch.tensor([[*ends, *ends[-1:] * (self.plan.prompt // self.plan.alone - len(ends))]]) - 1
        device, cache = self.model.device, self.memory.reading_in_segments(segments)
        inputs = {
            "input_ids": ids.to(device),
            "attention_mask": self.memory.nothing[:1],
            "position_ids": where.to(device),
            "past_key_values": cache,
            "use_cache": True,
        }
        with attention_named(self.model, self.attention), self._fused(), attention_for(self.plan):
            logits = logits_of(self.model, inputs, last.to(device))[0, : len(prompts)]
        for pages, read in zip(self.memory.cache.layers, cache.layers, strict=True):
            for n, (first, end) in enumerate(segments):
                pages.put(places[n : n + 1], read.keys[:, :, first:end], read.values[:, :, first:end])
        return logits

    def _read_part(self, prompts: Sequence[Ids], rows: int, length: int, places: Tensor) -> Tensor:
        """Read prompts padded on the right: what stands behind a prompt is seen by nothing before it."""
        ids = torch.full((rows, length), self.filler)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        last = torch.tensor([len(prompts[min(row, len(prompts) - 1)]) - 1 for row in range(rows)])[:, None]
        last = last.expand(-1, positions(self.model, rows))
        cache = self.memory.reading()
        inputs = {"input_ids": ids.to(self.model.device), "past_key_values": cache, "use_cache": True}
        with self._fused() if self.pages else nullcontext(), attention_for(self.plan):
            logits = logits_of(self.model, inputs, last.to(self.model.device))[: len(prompts), 0]
        for slots, read in zip(self.memory.cache.layers, cache.layers, strict=True):
            slots.put(places, read.keys[: len(prompts)], read.values[: len(prompts)])
        return logits

    def next(self) -> list[int]:
        """The next token of every row; `NOT_FINITE` for a row whose logits hold NaN or no finite maximum."""
        if self.on_cuda:
            tokens, ready = self.waiting or self._sent()
            self.waiting = self._sent() if self.left else None
            ready.synchronize()
        else:
            self._advance()
            tokens = self.tokens
        found: list[int] = tokens.tolist()
        # NaN left behind in the cache would reach the next batch through its mask: 0 x NaN is NaN
        self.spoiled |= NOT_FINITE in found
        return found

    def _sent(self) -> tuple[Tensor, torch.cuda.Event]:
        """Take a step, and begin to bring its tokens over."""
        self._advance()
        tokens = torch.empty(len(self.tokens), dtype=torch.int64, pin_memory=True)
        tokens.copy_(self.tokens, non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        return tokens, ready

    def _advance(self) -> None:
        self.left -= 1
        if self.first is not None:
            self._take(self.first)
            self.first = None
        elif self.graph is not None:
            self.graph.replay()
        elif self.warm and self.on_cuda and self.whole and self.records and self._recorded():
            assert self.graph is not None
            self.graph.replay()
        else:
            self._step()
            self.warm = True

    def _recorded(self) -> bool:
        """Record a step, which takes none; whether that worked."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self.records = False
            self.plan.note(f"decoding without a recorded graph ({str(error).splitlines()[0][:200]})")
            return False
        self.graph = graph
        return True

    def _step(self) -> None:
        """One token for every row. Where steps are one shape nothing but tensors changes here."""
        inputs = {
            "input_ids": self.ids,
            "attention_mask": self.memory.seen(self.where),
            "position_ids": self.where[:, None],
            "past_key_values": self.memory.cache,
            "use_cache": True,
        }
        with attention_named(self.model, self.attention), self._fused():
            logits = logits_of(self.forward, inputs, 1)[:, 0]
        self.memory.advance(self.where)
        self._take(logits)

    def _fused(self) -> AbstractContextManager[None]:
        return self.stand_ins.in_place() if self.stand_ins else nullcontext()

    def _take(self, logits: Tensor) -> None:
        tokens = chosen(logits, self.choose, self.uniforms.gather(1, self.number[:, None])[:, 0])
        self.tokens.copy_(tokens)
        self.ids.copy_(tokens.clamp(min=0)[:, None])
        self.number.add_(1).clamp_(max=self.shape[1] - 1)

    def keep(self, rows: Sequence[int]) -> list[int]:
        """Go on with these rows alone; returns which of them stands in each of the first places now."""
        count, kept = len(rows), set(rows)
        sources = [row for row in rows if row >= count]
        places = [row for row in range(count) if row not in kept]
        order = list(range(count))
        for source, place in zip(sources, places, strict=True):
            order[place] = source
        index, source_at, place_at = (
            torch.tensor(which, dtype=torch.int64, device=self.model.device) for which in (order, sources, places)
        )
        self.ids, self.tokens, self.where = self.ids[index], self.tokens[index], self.where[index]
        self.uniforms, self.number = self.uniforms[index], self.number[index]
        self.memory.keep(index, source_at, place_at, self.where)
        return order


def takes_slots(model: PreTrainedModel, room: int = 0) -> bool:
    """Whether texts can be written in slots: all texts, or those of at most `room` columns.

    The library's cache follows layers that lie on several devices; slots, and graphs of a step, do not.
    """
    apart = device_map.spread(getattr(model, "hf_device_map", {}))
    return not apart and plain_cache(model, room) and model.config._attn_implementation in ("sdpa", "eager")
