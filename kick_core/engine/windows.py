"""Scoring running text: windows of a corpus for perplexity and divergence, and given continuations of prompts.

Logits are turned to float32 a few positions at a time, so that memory does not grow with the vocabulary twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kick_core import timing
from kick_core.engine.batching import BatchPolicy, Ids, answer, batches, frugal, in_parts, padded, round_up, rows_matter
from kick_core.engine.forms import agree, chosen_form, quiet, require_causal, require_embedded, sample, trial_length
from kick_core.engine.fused import FusedPatches
from kick_core.engine.padded import plain_logprobs

_CHUNK = 1 << 26
"""Logits that are float32 at the same time: 268 MB."""


class WindowScores(NamedTuple):
    """What a model finds likely at each position 1 … length-1 of n windows; on the CPU, natural logarithms, float32.

    `tokens` [n, length-1]: log-probabilities of the tokens that stand there. `ids` (int32) and `logprobs`
    [n, length-1, k]: the likeliest tokens and theirs, likeliest first. `rest` [n, length-1]: log of the probability
    that all other tokens share.
    """

    tokens: Tensor
    ids: Tensor
    logprobs: Tensor
    rest: Tensor


class GivenScores(NamedTuple):
    """What another model finds of the same tokens: as `WindowScores`, at given tokens instead of its own likeliest.

    `same` [n, length-1]: whether it finds the first given token likeliest too. A tie is the same: in half precision
    there are some, and a model has to agree with itself.
    """

    tokens: Tensor
    same: Tensor
    logprobs: Tensor
    rest: Tensor


class TextScore(NamedTuple):
    """The log-probability of a given text after its prompt: `total`, and per token.

    `until`: how many of its tokens come before the model's first choice is another (all of them when it never is);
    a tie with the first choice counts as it.
    """

    total: float
    tokens: tuple[float, ...]
    until: int


def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Logits [rows, length, vocabulary], in the model's dtype, of windows [rows, length], by a plain forward."""
    logits: Tensor = answer(model, {"input_ids": ids, "use_cache": False}, 0).logits
    return logits


def _filled(model: PreTrainedModel, part: Tensor, rows: int) -> Tensor:
    """A last batch of windows filled up with copies, where the number of rows matters."""
    count = rows if rows_matter(model) else len(part)
    return part[torch.arange(count).clamp(max=len(part) - 1)].to(model.device)


@torch.inference_mode()
def window_logprobs(
    model: PreTrainedModel, windows: Tensor, *, rows: int, plan: BatchPolicy | None = None
) -> Iterator[tuple[int, list[float]]]:
    """Summed log-probability of tokens 1 … length-1 of each window [windows, length]; yields (first, sums)."""
    if not len(windows):
        return
    require_embedded(model, [[int(windows.max())]])
    text = windows[0, : trial_length(model, windows.shape[1])].tolist()
    noise = require_causal(model, text)
    fused = _fused_forward(model, text, noise, plan) if plan and plan.windows else nullcontext

    @timing.stage("windows")
    def ask(part: Sequence[int], count: int) -> list[float]:
        ids = _filled(model, windows[part[0] : part[-1] + 1], count)
        with fused():
            logits = _logits(model, ids)[: len(part), :-1]
        sums = [_taken(row, tokens[1:]).sum() for row, tokens in zip(logits, ids, strict=False)]
        values: list[float] = torch.stack(sums).tolist()
        return values

    first = 0
    for found in in_parts(range(len(windows)), rows, ask, plan or BatchPolicy(0, rows)):
        yield first, found
        first += len(found)


def _fused_forward(
    model: PreTrainedModel, text: Ids, noise: float, plan: BatchPolicy
) -> Callable[[], AbstractContextManager[None]]:
    """What makes forwards shorter where that is proven to give what plain ones give; else nothing."""
    stand_ins = FusedPatches(model, len(text))

    def right(_form: str) -> bool | None:
        plain = plain_logprobs(model, text, len(text))
        with stand_ins.in_place():
            errors = (plain_logprobs(model, text, len(text)) - plain).gather(-1, plain.argmax(-1, keepdim=True))
        return agree(model, noise, errors.flatten().tolist()) if plain.isfinite().all() else None

    ways = ("by kernels", "by the model's own operations")
    form = chosen_form(model, "windows", len(text), noise, ways, right, plan)
    return stand_ins.in_place if form == ways[0] else nullcontext


def _taken(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities of tokens [n] under logits [n, vocabulary], float32."""
    count = _positions_at_once(logits)
    parts = zip(logits.split(count), tokens.split(count), strict=True)
    return -torch.cat([torch.nn.functional.cross_entropy(some.float(), ids, reduction="none") for some, ids in parts])


def _positions_at_once(logits: Tensor) -> int:
    return max(1, _CHUNK // logits.shape[-1])


Scores = TypeVar("Scores", WindowScores, GivenScores)


def window_scores(
    model: PreTrainedModel, windows: Tensor, *, rows: int, top: int = 64, plan: BatchPolicy | None = None
) -> Iterator[tuple[int, WindowScores]]:
    """What a model finds likely at every position of windows [windows, length]; yields (first, scores) per batch."""

    def look(logits: Tensor, came: Tensor, _rows: slice) -> WindowScores:
        values, ids = logits.topk(min(top, logits.shape[-1]), -1)
        return WindowScores(_at(logits, came[..., None])[..., 0], ids.int(), values, _rest(logits, ids))

    yield from _positions(model, windows, rows, plan, look)


def given_scores(
    model: PreTrainedModel, windows: Tensor, ids: Tensor, *, rows: int, plan: BatchPolicy | None = None
) -> Iterator[tuple[int, GivenScores]]:
    """A model's log-probabilities of given tokens `ids` [windows, length-1, k]; yields (first, scores) per batch."""
    flat = ids.flatten(0, 1)

    def look(logits: Tensor, came: Tensor, where: slice) -> GivenScores:
        asked = flat[where].to(logits.device, torch.int64)
        found = _at(logits, asked)
        tokens = _at(logits, came[..., None])[..., 0]
        return GivenScores(tokens, found[..., 0] == logits.amax(-1), found, _rest(logits, asked))

    yield from _positions(model, windows, rows, plan, look)


@torch.inference_mode()
def _positions(
    model: PreTrainedModel,
    windows: Tensor,
    rows: int,
    plan: BatchPolicy | None,
    look: Callable[[Tensor, Tensor, slice], Scores],
) -> Iterator[tuple[int, Scores]]:
    """`look` at the log-probabilities [positions, vocabulary] of some positions at a time; their places are counted
    over all windows."""

    def ask(part: Sequence[int], count: int) -> Scores:
        ids = _filled(model, windows[part[0] : part[-1] + 1], count)
        logits = _logits(model, ids)[: len(part), :-1]
        width, count = logits.shape[1], _positions_at_once(logits)
        scores = []
        for window, row, tokens in zip(part, logits, ids[:, 1:], strict=False):
            for at in range(0, width, count):
                some, start = row[at : at + count].float().log_softmax(-1), window * width + at
                scores.append(look(some, tokens[at : at + count], slice(start, start + len(some))))
        return type(scores[0])(*(torch.cat(c).unflatten(0, (-1, width)).cpu() for c in zip(*scores, strict=True)))

    first = 0
    for found in in_parts(range(len(windows)), rows, ask, plan or BatchPolicy(0, rows)):
        yield first, found
        first += len(found.tokens)


def _at(logprobs: Tensor, ids: Tensor) -> Tensor:
    return logprobs.gather(-1, ids)


def _rest(logprobs: Tensor, ids: Tensor) -> Tensor:
    """Log of the mass of all tokens but `ids`; summed, not subtracted, so that nothing cancels."""
    return logprobs.scatter(-1, ids, -torch.inf).logsumexp(-1)


@torch.inference_mode()
def text_logprobs(
    model: PreTrainedModel, prompts: Sequence[Ids], continuations: Sequence[Ids], *, plan: BatchPolicy, filler: int
) -> Iterator[dict[int, TextScore]]:
    """The log-probability of `continuations[i]` after `prompts[i]`; yields {prompt number: TextScore} per batch.

    The text is given, not chosen (teacher forcing): what the model thinks of a text that another one wrote. An
    empty continuation has log-probability 0; a prompt has at least one token.
    """
    if not prompts:
        return
    whole = [[*prompt, *text] for prompt, text in zip(prompts, continuations, strict=True)]
    noise = require_causal(model, max(whole, key=len))

    def right(_form: str) -> bool | None:
        some = sample(whole)
        own = [(prompts[i], continuations[i]) for i in some]
        few: dict[int, TextScore] = {}
        for batch in _in_padded_batches(model, [p for p, _ in own], [t for _, t in own], quiet(plan), filler):
            few |= batch
        pairs = [(few[n], _alone(model, prompt, text)) for n, (prompt, text) in enumerate(own)]
        if not all(math.isfinite(plain.total) for _, plain in pairs):
            return None
        return agree(
            model, noise, [a - b for one, plain in pairs for a, b in zip(one.tokens, plain.tokens, strict=True)]
        )

    ways = ("in padded batches", "one by one")
    if chosen_form(model, "given texts", max(map(len, whole)), noise, ways, right, plan) == ways[0]:
        yield from _in_padded_batches(model, prompts, continuations, plan, filler)
    else:
        for item, (prompt, text) in enumerate(zip(prompts, continuations, strict=True)):
            yield {item: _alone(model, prompt, text)}


def _alone(model: PreTrainedModel, prompt: Ids, text: Ids) -> TextScore:
    """One text by a forward of its own."""
    ids = torch.tensor([[*prompt, *text]], device=model.device)
    logits = answer(model, {"input_ids": ids, "use_cache": False}, 0).logits[0]
    return _text(logits[len(prompt) - 1 : -1], ids[0, len(prompt) :])


def _in_padded_batches(
    model: PreTrainedModel, prompts: Sequence[Ids], continuations: Sequence[Ids], plan: BatchPolicy, filler: int
) -> Iterator[dict[int, TextScore]]:
    by_width: dict[int, list[int]] = {}  # a shape must follow from the text alone, so texts of a width are together
    for item, text in enumerate(continuations):
        by_width.setdefault(round_up(len(text), plan.step), []).append(item)
    for width, items in sorted(by_width.items()):
        whole = [[*prompts[i], *continuations[i]] for i in items]
        for batch in batches([len(ids) for ids in whole], frugal(model, plan)):

            def ask(
                part: Sequence[int], rows: int, length: int = batch.length, keep: int = min(width + 1, batch.length)
            ) -> dict[int, TextScore]:
                count = rows if rows_matter(model) else len(part)
                texts = [[*prompts[i], *continuations[i]] for i in part]
                given = padded(texts, count, length, filler, model.device)
                logits = answer(model, given.inputs | {"use_cache": False}, keep).logits[:, -keep:]
                ends = [len(continuations[i]) for i in part]
                return {
                    item: _text(logits[row, keep - end - 1 : -1], given.ids[row, length - end :])
                    for row, (item, end) in enumerate(zip(part, ends, strict=True))
                }

            yield from in_parts([items[n] for n in batch.items], batch.rows, ask, plan)


def _text(logits: Tensor, tokens: Tensor) -> TextScore:
    if not len(tokens):
        return TextScore(0.0, (), 0)
    values = _taken(logits, tokens).tolist()
    other = (logits.gather(-1, tokens[:, None])[:, 0] != logits.amax(-1)).nonzero()
    return TextScore(sum(values), tuple(values), int(other[0]) if len(other) else len(tokens))
