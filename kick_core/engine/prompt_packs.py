"""Reading prompts on a CPU before texts are written: the tokens of many prompts side by side in one row.

A product takes as long as it has rows, so no row is spent on padding, and what prompts share at their beginning is read
once. Attention is done prompt by prompt, those of one padded length side by side. What a prompt's numbers are follows
from its own tokens and the beginnings that the caller names, never from what it is read with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from kick_core.engine.batching import BatchPolicy, Ids, accepts, least_rows, logits_of
from kick_core.engine.forms import lengths_matter

_NAME = "kick_prompt_packs"


def takes_packs(model: PreTrainedModel) -> bool:
    """Whether prompts may be tried in packs: positions can be given, and attention is the library's own product."""
    text = model.config.get_text_config()
    known = accepts(model, "position_ids") and not getattr(text, "alibi", False)
    return known and model.config._attn_implementation == "sdpa" and not lengths_matter(model)


@dataclass(frozen=True, slots=True)
class _Group:
    """Prompts of one beginning and one padded length within a pack.

    Attributes:
        beginning: Number of the shared beginning; -1: none.
        index: Where their tokens stand in the pack, int64 [prompts, length]; behind a prompt its last token again.
        places: The slots that they are put into, int64 [prompts], or a slice of neighbours, which is quicker.
        mask: What a token sees of beginning and prompt, bool [length, beginning + length]; None: all before it.
    """

    beginning: int
    index: Tensor
    places: Tensor | slice
    mask: Tensor | None


class _PackLayer(DynamicLayer):
    """A cache layer that stands in while a pack is read: it puts keys and values into slots, and lends beginnings.

    Args:
        groups: Of the pack.
        order: Where each of the pack's tokens stands in all groups' `index`, one behind the other, int64 [tokens].
        beginnings: Keys and values of each shared beginning in this layer, [1, heads, length, width].
        slots: The layer of the cache that prompts are put into.
    """

    def __init__(
        self, groups: Sequence[_Group], order: Tensor, beginnings: Mapping[int, tuple[Tensor, Tensor]], slots: Any
    ) -> None:
        super().__init__()
        self.groups, self.order, self.beginnings, self.slots = groups, order, beginnings, slots

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        key_states.pack = self  # type: ignore[attr-defined]
        return key_states, value_states

    def attended(self, module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, **kwargs: Any) -> Tensor:
        """Attention [1, tokens, heads, width] of the pack's tokens [1, heads, tokens, width]."""
        found: list[Tensor] = []
        for group in self.groups:
            own, keys, values = (_of_prompts(states, group.index) for states in (query, key, value))
            if group.beginning >= 0:
                before = [kept.expand(len(own), -1, -1, -1) for kept in self.beginnings[group.beginning]]
                keys, values = torch.cat([before[0], keys], 2), torch.cat([before[1], values], 2)
            self.slots.put(group.places, keys, values)
            seen, _ = sdpa_attention_forward(module, own, keys, values, group.mask, **kwargs)
            found.append(seen.flatten(0, 1))
        return torch.cat(found).index_select(0, self.order)[None]


def _neighbours(places: Tensor) -> Tensor | slice:
    """Places as a slice where they follow one another."""
    first, count = int(places[0]), len(places)
    return slice(first, first + count) if torch.equal(places, torch.arange(first, first + count)) else places


def _of_prompts(states: Tensor, index: Tensor) -> Tensor:
    """States [1, heads, tokens, width] of a pack as those of its prompts [prompts, heads, length, width]."""
    return states[0].transpose(0, 1).index_select(0, index.flatten()).unflatten(0, index.shape).transpose(1, 2)


def _attention(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    layer: _PackLayer = key.pack  # type: ignore[attr-defined]
    return layer.attended(module, query, key, value, **kwargs), None


AttentionInterface.register(_NAME, _attention)


@contextmanager
def _last_mlp_at(model: PreTrainedModel, kept: Tensor) -> Iterator[None]:
    """Let the last block's MLP do nothing but what the logits at `kept` need: two thirds of that block's work.

    Tokens do not see one another in an MLP, and behind the last block nobody sees the others any more. Where a model
    has no such module, or one that gives something else than a row per token, it works as usual.
    """
    layers = getattr(model.get_decoder(), "layers", None) or [None]
    mlp = getattr(layers[-1], "mlp", None)
    if not isinstance(mlp, torch.nn.Module) or "forward" in vars(mlp):
        yield
        return
    whole: Any = mlp.forward

    def some(values: Tensor, *args: Any, **kwargs: Any) -> Any:
        found = whole(values[:, kept], *args, **kwargs)
        if not isinstance(found, Tensor) or found.shape != (len(values), len(kept), values.shape[-1]):
            return whole(values, *args, **kwargs)
        return found.new_zeros(values.shape).index_copy_(1, kept, found)

    mlp.forward = some
    try:
        yield
    finally:
        del mlp.forward


@contextmanager
def attention_named(model: PreTrainedModel, name: str) -> Iterator[None]:
    """A model's attention by another of the library's registered functions."""
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


class PromptPacks:
    """Reads prompts into slots, pack by pack.

    Args:
        model: On a CPU where a row's bits do not depend on how many rows there are.
        plan: Says how many tokens are read at a time, and the padded length of a prompt in attention.
        filler: Fills up a pack that is too short for a product.
        beginnings: Token ids that many prompts begin with; a prompt takes the longest that it continues.
    """

    def __init__(self, model: PreTrainedModel, plan: BatchPolicy, filler: int, beginnings: Sequence[Ids]) -> None:
        self.model, self.plan, self.filler = model, plan, filler
        self.beginnings = sorted(dict.fromkeys(map(tuple, beginnings)), key=len)
        self.kept: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def read(
        self, prompts: Sequence[Ids], places: Tensor, slots: DynamicCache
    ) -> Iterator[tuple[Sequence[int], Tensor]]:
        """Put prompts into slots; pack by pack their numbers and float32 logits of the tokens after them [n,
        vocabulary].

        Args:
            prompts: Of any lengths.
            places: As many slots, int64.
            slots: The cache, of `slots._SlotLayer`s.
        """
        beginnings = [self._beginning_of(prompt) for prompt in prompts]
        own = [list(p[len(self.beginnings[b]) if b >= 0 else 0 :]) for p, b in zip(prompts, beginnings, strict=True)]
        start = 0
        while start < len(prompts):
            stop, tokens = start + 1, len(own[start])
            while stop < len(prompts) and tokens + len(own[stop]) <= self.plan.prompt:
                tokens += len(own[stop])
                stop += 1
            logits = self._read_pack(own[start:stop], beginnings[start:stop], places[start:stop], slots)
            yield range(start, stop), logits
            start = stop

    def _beginning_of(self, prompt: Ids) -> int:
        fitting = (n for n, ids in enumerate(self.beginnings) if len(ids) < len(prompt))
        return max((n for n in fitting if tuple(prompt[: len(self.beginnings[n])]) == self.beginnings[n]), default=-1)

    def _read_pack(
        self, own: Sequence[list[int]], beginnings: Sequence[int], places: Tensor, slots: DynamicCache
    ) -> Tensor:
        for number in set(beginnings) - {-1}:
            self._keep(number)
        before = [len(self.beginnings[number]) if number >= 0 else 0 for number in beginnings]
        ids = [token for tokens in own for token in tokens]
        positions = [first + n for first, tokens in zip(before, own, strict=True) for n in range(len(tokens))]
        ends = torch.tensor([len(tokens) for tokens in own]).cumsum(0)
        missing = max(0, least_rows(self.model) - len(ids))
        last = torch.cat([ends - 1, ends[-1:].expand(max(0, least_rows(self.model) - len(own))) - 1])
        groups = self._groups(own, beginnings, ends, places)
        spots = torch.cat([group.index.flatten() for group in groups])
        order = torch.zeros(len(ids) + missing, dtype=torch.int64)
        # a prompt's last token comes again behind it, where it sees itself twice: its first place counts
        order.scatter_reduce_(0, spots, torch.arange(len(spots)), "amin", include_self=False)
        cache = DynamicCache(config=self.model.config)
        cache.layers = [
            _PackLayer(groups, order, {number: kept[n] for number, kept in self.kept.items()}, layer)
            for n, layer in enumerate(slots.layers)
        ]
        inputs = {
            "input_ids": torch.tensor([ids + [self.filler] * missing]),
            "position_ids": torch.tensor([positions + [0] * missing]),
            "past_key_values": cache,
            "use_cache": True,
        }
        with attention_named(self.model, _NAME), _last_mlp_at(self.model, last):
            return logits_of(self.model, inputs, last[None])[0, : len(own)]

    def _groups(
        self, own: Sequence[list[int]], beginnings: Sequence[int], ends: Tensor, places: Tensor
    ) -> list[_Group]:
        alike: dict[tuple[int, int], list[int]] = {}
        for number, tokens in enumerate(own):
            alike.setdefault((beginnings[number], self.plan.length(len(tokens))), []).append(number)
        groups = []
        for (beginning, length), members in alike.items():
            lengths, columns = torch.tensor([len(own[n]) for n in members])[:, None], torch.arange(length)
            index = ends[members][:, None] - lengths + torch.minimum(columns, lengths - 1)
            mask, before = None, len(self.beginnings[beginning]) if beginning >= 0 else 0
            if before:
                mask = torch.ones(length, before + length, dtype=torch.bool).tril(before)
            groups.append(_Group(beginning, index, _neighbours(places[members]), mask))
        return groups

    def _keep(self, number: int) -> None:
        """Read a beginning, once."""
        if number in self.kept:
            return
        ids = torch.tensor([self.beginnings[number]])
        cache = DynamicCache(config=self.model.config)
        fill = ids.new_full((1, max(0, least_rows(self.model) - ids.shape[1])), self.filler)
        logits_of(self.model, {"input_ids": torch.cat([ids, fill], 1), "past_key_values": cache, "use_cache": True}, 1)
        length = ids.shape[1]
        self.kept[number] = [(layer.keys[:, :, :length], layer.values[:, :, :length]) for layer in cache.layers]
