"""Scoring running text: windows of a corpus for perplexity and divergence, and given continuations of prompts.

Logits are turned to float32 a few positions at a time, so that memory does not grow with the vocabulary twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kick_core.engine.plan import Ids, Plan, batches, in_parts, padded, round_up, rows_matter

_CHUNK = 2048
"""Positions (over all rows) whose logits are float32 at the same time: 262 MB at a vocabulary of 32,000."""


class WindowScores(NamedTuple):
    """Scores of n windows at each position 1 … length-1, float32 on the CPU, natural logarithms.

    `logprobs` [n, length-1] are those of the tokens that stand there; `ids` (int32) and `top` [n, length-1, k] the
    likeliest tokens and their log-probabilities, likeliest first; `tail` [n, length-1] is the probability that all
    other tokens share. A divergence computed on these (k tokens and the tail) is a lower bound of the true one
    (data processing inequality).
    """

    logprobs: Tensor
    ids: Tensor
    top: Tensor
    tail: Tensor


class TextScore(NamedTuple):
    """The log-probability of a given text after its prompt: `total`, and per token."""

    total: float
    tokens: tuple[float, ...]


def _filled(model: PreTrainedModel, part: Tensor, rows: int) -> Tensor:
    """A last batch of windows filled up with copies, where the number of rows matters."""
    count = rows if rows_matter(model) else len(part)
    return part[torch.arange(count).clamp(max=len(part) - 1)].to(model.device)


@torch.inference_mode()
def window_logprobs(
    model: PreTrainedModel, windows: Tensor, *, rows: int, plan: Plan | None = None
) -> Iterator[tuple[int, list[float]]]:
    """Summed log-probability of tokens 1 … length-1 of each window [windows, length]; yields (first, sums)."""

    def ask(part: Sequence[int], count: int) -> list[float]:
        ids = _filled(model, windows[part[0] : part[-1] + 1], count)
        logits = model(input_ids=ids, use_cache=False).logits[: len(part), :-1]
        return [float(_taken(row, tokens[1:]).sum()) for row, tokens in zip(logits, ids, strict=False)]

    first = 0
    for found in in_parts(range(len(windows)), rows, ask, plan or Plan(0, rows)):
        yield first, found
        first += len(found)


def _taken(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities of tokens [n] under logits [n, vocabulary], float32."""
    parts = zip(logits.split(_CHUNK), tokens.split(_CHUNK), strict=True)
    return -torch.cat([torch.nn.functional.cross_entropy(some.float(), ids, reduction="none") for some, ids in parts])


@torch.inference_mode()
def window_scores(
    model: PreTrainedModel, windows: Tensor, *, rows: int, top: int = 64, plan: Plan | None = None
) -> Iterator[tuple[int, WindowScores]]:
    """Per window and position what `WindowScores` holds; yields (first, scores) per batch of windows."""

    def ask(part: Sequence[int], count: int) -> WindowScores:
        ids = _filled(model, windows[part[0] : part[-1] + 1], count)
        logits = model(input_ids=ids, use_cache=False).logits[: len(part), :-1]
        tokens, wide = ids[: len(part), 1:], logits.shape[1]
        parts = [
            _top(some, some_ids, min(top, logits.shape[-1]))
            for some, some_ids in zip(logits.flatten(0, 1).split(_CHUNK), tokens.flatten().split(_CHUNK), strict=True)
        ]
        return WindowScores(*(torch.cat(column).unflatten(0, (-1, wide)).cpu() for column in zip(*parts, strict=True)))

    first = 0
    for found in in_parts(range(len(windows)), rows, ask, plan or Plan(0, rows)):
        yield first, found
        first += len(found.logprobs)


def _top(logits: Tensor, tokens: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logprobs = logits.float().log_softmax(-1)
    values, ids = logprobs.topk(count, -1)
    tail = (1 - values.double().exp().sum(-1)).clamp(min=0).float()
    return logprobs.gather(-1, tokens[:, None])[:, 0], ids.int(), values, tail


@torch.inference_mode()
def text_logprobs(
    model: PreTrainedModel, prompts: Sequence[Ids], continuations: Sequence[Ids], *, plan: Plan, filler: int
) -> Iterator[dict[int, TextScore]]:
    """The log-probability of `continuations[i]` after `prompts[i]`; yields {prompt number: TextScore} per batch.

    The text is given, not chosen (teacher forcing): what the model thinks of a text that another one wrote. An
    empty continuation has log-probability 0; a prompt has at least one token.
    """
    by_width: dict[int, list[int]] = {}  # a shape must follow from the text alone, so texts of a width are together
    for item, text in enumerate(continuations):
        by_width.setdefault(round_up(len(text), plan.step), []).append(item)
    for width, items in sorted(by_width.items()):
        whole = [[*prompts[i], *continuations[i]] for i in items]
        for batch in batches([len(ids) for ids in whole], plan):

            def ask(
                part: Sequence[int], rows: int, length: int = batch.length, keep: int = min(width + 1, batch.length)
            ) -> dict[int, TextScore]:
                count = rows if rows_matter(model) else len(part)
                texts = [[*prompts[i], *continuations[i]] for i in part]
                given = padded(texts, count, length, filler, model.device)
                logits = model(**given.inputs, use_cache=False, logits_to_keep=keep).logits[:, -keep:]
                ends = [len(continuations[i]) for i in part]
                return {
                    item: _text(logits[row, keep - end - 1 : -1], given.ids[row, length - end :])
                    for row, (item, end) in enumerate(zip(part, ends, strict=True))
                }

            yield from in_parts([items[n] for n in batch.items], batch.rows, ask, plan)


def _text(logits: Tensor, tokens: Tensor) -> TextScore:
    values = _taken(logits, tokens).tolist() if len(tokens) else []
    return TextScore(sum(values), tuple(values))
