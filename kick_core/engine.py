"""The scorer and generator: token ids in, log-probabilities or token ids out.

Every forward has one of few shapes: prompts are padded on the left to a fixed length, and a batch has a
fixed number of rows (the last one is filled up with copies). In half precision the last bits depend on the
shape but, for one shape, not on the neighbours; so an example's output is the same whichever examples it is
asked with, in whatever order, before or after a resume, and dense and compressed models are asked alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

Ids = Sequence[int]


@dataclass(frozen=True, slots=True)
class Plan:
    """The shape policy. `tokens` bounds rows x length of one forward, `rows` the rows of one batch."""

    tokens: int
    rows: int
    step: int = 64
    shortest: int = 32

    @property
    def text(self) -> str:
        """What keys and pages say of it."""
        return f"left-padded to {self.shortest} or multiples of {self.step}, {self.rows} rows, {self.tokens} tokens"

    def length(self, tokens: int) -> int:
        """The padded length for a prompt of so many tokens."""
        return self.shortest if tokens <= self.shortest else -(-tokens // self.step) * self.step

    def batch_rows(self, length: int) -> int:
        """Rows of every batch of prompts padded to `length`."""
        return max(1, min(self.rows, self.tokens // length))


def plan_for(device: torch.device) -> Plan:
    """The shape policy of a kind of device."""
    return Plan(tokens=16384, rows=24) if device.type == "cpu" else Plan(tokens=131072, rows=256)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are asked together: `items` are positions in the list of prompts, without the filling."""

    items: tuple[int, ...]
    rows: int
    length: int


def batches(lengths: Sequence[int], plan: Plan) -> list[Batch]:
    """Put prompts of these lengths into batches: by padded length, within it in their own order."""
    by_length: dict[int, list[int]] = {}
    for item, tokens in enumerate(lengths):
        by_length.setdefault(plan.length(tokens), []).append(item)
    made = []
    for length in sorted(by_length):
        rows, items = plan.batch_rows(length), by_length[length]
        made += [Batch(tuple(items[i : i + rows]), rows, length) for i in range(0, len(items), rows)]
    return made


@dataclass(frozen=True, slots=True)
class _Padded:
    ids: Tensor
    mask: Tensor
    positions: Tensor


def _pad(prompts: Sequence[Ids], batch: Batch, filler: int, device: torch.device) -> _Padded:
    """Left-padded ids, attention mask and positions, each int64 [rows, length]."""
    ids = torch.full((batch.rows, batch.length), filler)
    mask = torch.zeros(batch.rows, batch.length, dtype=torch.int64)
    for row in range(batch.rows):
        prompt = prompts[batch.items[min(row, len(batch.items) - 1)]]
        ids[row, batch.length - len(prompt) :] = torch.tensor(prompt)
        mask[row, batch.length - len(prompt) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return _Padded(ids.to(device), mask.to(device), positions.to(device))


def _logits(model: PreTrainedModel, inputs: dict[str, Any], keep: int) -> Tensor:
    """Logits of the last `keep` positions, float32 [rows, keep, vocabulary]."""
    logits: Tensor = model(**inputs, logits_to_keep=keep).logits
    return logits[:, -keep:].float()


@torch.inference_mode()
def next_logprobs(
    model: PreTrainedModel, prompts: Sequence[Ids], wanted: Sequence[Ids], *, plan: Plan, filler: int
) -> Iterator[dict[int, list[float]]]:
    """Log-probabilities of single tokens right after each prompt; `wanted[i]` are the token ids for prompt i.

    Yields one {prompt number: log-probabilities} per batch. NaN logits come back as NaN.
    """
    for batch in batches([len(p) for p in prompts], plan):
        padded = _pad(prompts, batch, filler, model.device)
        inputs = {"input_ids": padded.ids, "attention_mask": padded.mask, "position_ids": padded.positions}
        logprobs = _logits(model, inputs | {"use_cache": False}, 1)[:, 0].log_softmax(-1).cpu()
        yield {item: logprobs[row, list(wanted[item])].tolist() for row, item in enumerate(batch.items)}


@dataclass(frozen=True, slots=True)
class Scored:
    """Options after one prompt: their summed log-probabilities, in order, and what the model would write itself.

    `argmax` is the likeliest of all next tokens, `top` its log-probability, `entropy` that of the next token's
    distribution in nats. `finite` is False when NaN or infinity came out: nothing of it may be scored then.
    """

    logprobs: tuple[float, ...]
    argmax: int
    top: float
    entropy: float
    finite: bool


@torch.inference_mode()
def score_options(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    options: Sequence[Sequence[Ids]],
    *,
    plan: Plan,
    filler: int,
    wanted: Collection[int] | None = None,
) -> Iterator[dict[int, Scored]]:
    """Summed log-probability of every option's tokens after its prompt; `options[i]` are the options of prompt i.

    A prompt is read once, and its cache is shared by its options. Yields one {prompt number: Scored} per batch, of
    the `wanted` prompts (default: all).
    """
    now = range(len(prompts)) if wanted is None else sorted(wanted)
    for part in batches([len(prompts[i]) for i in now], plan):
        batch = replace(part, items=tuple(now[i] for i in part.items))
        padded = _pad(prompts, batch, filler, model.device)
        cache = DynamicCache(config=model.config)
        inputs = {"input_ids": padded.ids, "attention_mask": padded.mask, "position_ids": padded.positions}
        first = _logits(model, inputs | {"past_key_values": cache, "use_cache": True}, 1)[:, 0].log_softmax(-1).cpu()
        asked = [options[batch.items[min(row, len(batch.items) - 1)]] for row in range(batch.rows)]
        rest = _rest_logprobs(model, padded, cache, asked, filler)
        each = len(asked[0])
        top, argmax = first.max(-1)
        entropy = torch.special.entr(first.exp()).sum(-1)
        yield {
            item: _scored(
                [float(first[row, ids[0]]) + rest[row * each + n] for n, ids in enumerate(asked[row])],
                int(argmax[row]),
                float(top[row]),
                float(entropy[row]),
            )
            for row, item in enumerate(batch.items)
        }


def _scored(sums: Sequence[float], argmax: int, top: float, entropy: float) -> Scored:
    return Scored(tuple(sums), argmax, top, entropy, all(map(math.isfinite, (*sums, top, entropy))))


def option_logprobs(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    options: Sequence[Sequence[Ids]],
    *,
    plan: Plan,
    filler: int,
) -> Iterator[dict[int, list[float]]]:
    """`score_options` without the rest: {prompt number: summed log-probabilities} per batch."""
    for batch in score_options(model, prompts, options, plan=plan, filler=filler):
        yield {item: list(scored.logprobs) for item, scored in batch.items()}


def _rest_logprobs(
    model: PreTrainedModel, padded: _Padded, cache: DynamicCache, asked: Sequence[Sequence[Ids]], filler: int
) -> list[float]:
    """For every option in order, the summed log-probability of its second token and on."""
    each, flat = len(asked[0]), [ids for options in asked for ids in options]
    longest = max(len(ids) for ids in flat) - 1
    if not longest:
        return [0.0] * len(flat)
    width = -(-longest // _OPTION_STEP) * _OPTION_STEP
    tokens = torch.full((len(flat), width + 1), filler)
    for row, ids in enumerate(flat):
        tokens[row, : len(ids)] = torch.tensor(ids)
    tokens = tokens.to(model.device)
    cache.batch_repeat_interleave(each)
    seen = torch.cat([padded.mask.repeat_interleave(each, 0), torch.ones_like(tokens[:, :width])], 1)
    after = padded.positions[:, -1:].repeat_interleave(each, 0) + 1 + torch.arange(width, device=model.device)
    inputs = {"input_ids": tokens[:, :width], "attention_mask": seen, "position_ids": after, "past_key_values": cache}
    logprobs = _logits(model, inputs | {"use_cache": True}, width).log_softmax(-1)
    taken = logprobs.gather(-1, tokens[:, 1:, None])[..., 0].cpu()
    return [float(taken[row, : len(ids) - 1].sum()) for row, ids in enumerate(flat)]


_OPTION_STEP = 4
"""Options are padded on the right to a multiple of this many tokens, so that shapes stay few."""


@torch.inference_mode()
def window_logprobs(model: PreTrainedModel, windows: Tensor, *, rows: int) -> Iterator[tuple[int, list[float]]]:
    """Summed log-probability of tokens 1 … length-1 of each window [windows, length]; yields (first, sums)."""
    for start in range(0, len(windows), rows):
        part = windows[start : start + rows]
        filled = torch.cat([part, part[-1:].expand(rows - len(part), -1)]).to(model.device)
        logits = model(input_ids=filled, use_cache=False).logits[:, :-1]
        losses = [
            torch.nn.functional.cross_entropy(row.float(), ids[1:], reduction="sum")
            for row, ids in zip(logits, filled, strict=True)
        ]
        yield start, (-torch.stack(losses)[: len(part)]).tolist()


@dataclass(frozen=True, slots=True)
class TextScore:
    """The log-probability of a given text after its prompt: `total`, and per token."""

    total: float
    tokens: tuple[float, ...]


@torch.inference_mode()
def text_logprobs(
    model: PreTrainedModel, prompts: Sequence[Ids], continuations: Sequence[Ids], *, plan: Plan, filler: int
) -> Iterator[dict[int, TextScore]]:
    """The log-probability of `continuations[i]` after `prompts[i]`, one by one; the last token is never read."""
    for item, (prompt, text) in enumerate(zip(prompts, continuations, strict=True)):
        ids = torch.tensor([[*prompt, *text]], device=model.device)
        logits = _logits(model, {"input_ids": ids[:, :-1], "use_cache": False}, len(text))[0]
        values = (-torch.nn.functional.cross_entropy(logits, ids[0, -len(text) :], reduction="none")).tolist()
        yield {item: TextScore(sum(values), tuple(values))}


@dataclass(frozen=True, slots=True)
class Generated:
    """One continuation: its token ids (without the end token) and why it ended.

    "eos", "stop" or "limit"; "not finite" when its logits held NaN or no finite maximum.
    """

    ids: tuple[int, ...]
    stop: str


Stopper = Callable[[list[int]], bool]
Chooser = Callable[[Tensor], Tensor]


def stopper(tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]) -> Stopper:
    """Says of token ids so far whether a stop string stands at their end, leading space aside.

    A stop string may be spread over tokens, so the end of the text is looked at, not the token.
    """

    def stopped(ids: list[int]) -> bool:
        text = str(tokenizer.decode(ids[-8:])).lstrip()
        return any(stop in text for stop in stops)

    return stopped if stops else lambda _: False


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn: softmax of logits / temperature, cut to the `top_k` likeliest (0: all) and of
    those to the fewest that hold `top_p` of the probability."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    *,
    new_tokens: int,
    ends: frozenset[int],
    stops: Stopper,
    plan: Plan,
    filler: int,
    sampling: Sampling | None = None,
    seeds: Sequence[int] = (),
) -> Iterator[dict[int, Generated]]:
    """Continuations, greedy or drawn. Yields one {prompt number: Generated} per batch.

    A row ends at a token of `ends`, when `stops(ids so far)` says so, or after `new_tokens`. `seeds[i]` starts the
    draws of prompt i, which therefore depend on no other prompt.
    """
    for batch in batches([len(p) for p in prompts], plan):
        padded = _pad(prompts, batch, filler, model.device)
        chooser = _sampler(sampling, [seeds[i] for i in batch.items], batch.rows) if sampling else _likeliest
        rows = _decode(model, padded, len(batch.items), new_tokens, ends, stops, chooser)
        yield dict(zip(batch.items, rows, strict=True))


def greedy(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    *,
    new_tokens: int,
    ends: frozenset[int],
    stops: Stopper,
    plan: Plan,
    filler: int,
) -> Iterator[dict[int, Generated]]:
    """Greedy continuations: `generate` without sampling."""
    return generate(model, prompts, new_tokens=new_tokens, ends=ends, stops=stops, plan=plan, filler=filler)


def _likeliest(logits: Tensor) -> Tensor:
    return logits.argmax(-1)


def _sampler(sampling: Sampling, seeds: Sequence[int], rows: int) -> Chooser:
    """Draw by inverting the cumulative distribution at one uniform number a row and step."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def choose(logits: Tensor) -> Tensor:
        kept = min(sampling.top_k or logits.shape[-1], logits.shape[-1])
        values, tokens = (logits / sampling.temperature).topk(kept, -1)
        probabilities = values.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        probabilities = probabilities.masked_fill(before >= sampling.top_p, 0)
        summed = probabilities.cumsum(-1)
        draws = [float(torch.rand((), generator=generator)) for generator in generators]
        draws += [0.0] * (rows - len(draws))
        at = torch.tensor(draws, device=logits.device)[:, None] * summed[:, -1:]
        place = torch.searchsorted(summed, at, right=True).clamp(max=kept - 1)
        return tokens.gather(-1, place)[:, 0]

    return choose


class _RoomyLayer(DynamicLayer):
    """A cache layer with room for all tokens from the start.

    The library's own layer copies everything it holds at every step; on a CPU that is a third of decoding.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.used = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            rows, heads, _, width = key_states.shape
            self.all_keys = key_states.new_empty(rows, heads, self.room, width)
            self.all_values = value_states.new_empty(*value_states.shape[:2], self.room, value_states.shape[-1])
        start, self.used = self.used, self.used + key_states.shape[-2]
        self.all_keys[:, :, start : self.used] = key_states
        self.all_values[:, :, start : self.used] = value_states
        self.keys, self.values = self.all_keys[:, :, : self.used], self.all_values[:, :, : self.used]
        return self.keys, self.values


def _cache(model: PreTrainedModel, room: int) -> DynamicCache:
    """An empty cache; plain growing layers get their room at once, others (sliding windows) stay as they are."""
    cache = DynamicCache(config=model.config)
    cache.layers = [_RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class _StepMasks:
    """The attention mask of every step. Where all layers look at everything, the additive mask of single steps is
    made once and cut to length; the library would build it anew from the padding at each step."""

    def __init__(self, model: PreTrainedModel, cache: DynamicCache, padding: Tensor, new_tokens: int) -> None:
        self.length = padding.shape[1]
        self.padding = torch.nn.functional.pad(padding, (0, new_tokens), value=1)
        plain = all(type(layer) is _RoomyLayer for layer in cache.layers)
        self.additive = None
        if plain and model.config._attn_implementation == "sdpa":
            lowest = torch.finfo(model.dtype).min
            self.additive = torch.zeros(self.padding.shape, dtype=model.dtype, device=padding.device)
            self.additive = self.additive.masked_fill(self.padding == 0, lowest)[:, None, None]

    def at(self, step: int) -> Tensor:
        """For step 0 (the whole prompt) the padding; afterwards for one query over all tokens so far."""
        if step == 0 or self.additive is None:
            return self.padding[:, : self.length + step]
        return self.additive[..., : self.length + step]


def _decode(
    model: PreTrainedModel,
    padded: _Padded,
    asked: int,
    new_tokens: int,
    ends: frozenset[int],
    stops: Stopper,
    choose: Chooser,
) -> list[Generated]:
    """Decode the first `asked` rows of one padded batch; the rest only keeps the shape."""
    cache = _cache(model, padded.ids.shape[1] + new_tokens)
    ids, positions = padded.ids, padded.positions
    masks = _StepMasks(model, cache, padded.mask, new_tokens)
    written: list[list[int]] = [[] for _ in range(asked)]
    ended: list[str] = ["" for _ in range(asked)]
    for step in range(new_tokens):
        inputs = {
            "input_ids": ids,
            "attention_mask": masks.at(step),
            "position_ids": positions,
            "past_key_values": cache,
        }
        logits = _logits(model, inputs | {"use_cache": True}, 1)[:, 0]
        chosen, sound = choose(logits), logits.amax(-1).isfinite().tolist()
        for row, token in enumerate(chosen[:asked].tolist()):
            if ended[row]:
                continue
            if not sound[row]:
                ended[row] = "not finite"
                continue
            if token in ends:
                ended[row] = "eos"
                continue
            written[row].append(token)
            if stops(written[row]):
                ended[row] = "stop"
            elif step + 1 == new_tokens:
                ended[row] = "limit"
        if all(ended):
            break
        ids, positions = chosen[:, None], positions[:, -1:] + 1
    return [Generated(tuple(ids), stop) for ids, stop in zip(written, ended, strict=True)]
