"""Scoring options one prompt a row, padded: what every model can be asked, and what a score holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kick_core.engine.batching import (
    BatchPolicy,
    Ids,
    Padded,
    answer,
    batches,
    frugal,
    in_parts,
    logits_in,
    logits_of,
    padded,
    positions,
    rows_matter,
)
from kick_core.engine.caches import new_cache, select_rows
from kick_core.engine.packing import branches

Options = Sequence[Ids]


class OptionScores(NamedTuple):
    """One prompt's scores, natural logarithms in float32.

    `logprobs` are summed over every option's tokens. `argmax` is the token that the model would have chosen
    freely, `top` its log-probability, `entropy` that of the next token's distribution in nats; `rank` is the place
    of every option's first token in it, 1 being the likeliest. `finite` is False when a logit was NaN or
    infinite: then no number here means anything.
    """

    logprobs: tuple[float, ...]
    argmax: int
    top: float
    entropy: float
    rank: tuple[int, ...]
    finite: bool


def scored(first: Tensor, options: Sequence[Options], rest: Sequence[Sequence[float]]) -> list[OptionScores]:
    """Scores from the next-token log-probabilities [n, vocabulary] and the sums over second tokens and on."""
    most = max(len(ids) for ids in options)
    begins = torch.tensor([[o[0] for o in ids] + [ids[0][0]] * (most - len(ids)) for ids in options]).to(first.device)
    values = first.gather(-1, begins)
    ranks = torch.stack([(first > values[:, n, None]).sum(-1) + 1 for n in range(most)], -1)
    top, argmax = first.max(-1)
    entropy = torch.special.entr(first.exp()).sum(-1)
    finite = ~first.isnan().any(-1)
    columns = [t.tolist() for t in (values, ranks, argmax, top, entropy, finite)]
    return [
        OptionScores(
            tuple(v + r for v, r in zip(value, more, strict=False)),
            token,
            high,
            spread,
            tuple(rank[: len(more)]),
            sound and all(x - x == 0 for x in (*value, *more)),
        )
        for value, rank, token, high, spread, sound, more in zip(*columns, rest, strict=True)
    ]


def in_batches(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    options: Sequence[Options],
    asked: Sequence[int],
    plan: BatchPolicy,
    filler: int,
    *,
    singly: bool = False,
) -> Iterator[dict[int, OptionScores]]:
    """One prompt a row, padded on the left; its cache is repeated for its options, whose tokens are read in one
    forward, or `singly`, one after the other."""
    for batch in batches([len(prompts[i]) for i in asked], frugal(model, plan)):

        def ask(items: Sequence[int], rows: int, length: int = batch.length) -> dict[int, OptionScores]:
            count = rows if rows_matter(model) else len(items)
            found = _scored_rows(model, prompts, options, items, count, length, filler, singly)
            return dict(zip(items, found, strict=True))

        yield from in_parts([asked[n] for n in batch.items], batch.rows, ask, plan)


def _scored_rows(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    options: Sequence[Options],
    items: Sequence[int],
    rows: int,
    length: int,
    filler: int,
    singly: bool,
) -> list[OptionScores]:
    batch = padded([prompts[i] for i in items], rows, length, filler, model.device)
    asked = [options[items[min(row, len(items) - 1)]] for row in range(rows)]
    # the widest of the whole list, so that a shape does not depend on the neighbours
    each = max(len(ids) for ids in options)
    width = max(max(branches(ids)) for ids in options)
    cache: Any = new_cache(model) if width else None
    keep = positions(model, rows)
    output = answer(model, batch.inputs | {"past_key_values": cache, "use_cache": bool(width)}, keep)
    first = logits_in(output, keep)[: len(items), -1].log_softmax(-1)
    asked = [options[i] for i in items]
    if not width:
        return scored(first, asked, [[0.0] * len(ids) for ids in asked])
    flat = [ids for row in range(rows) for ids in _exactly(each, asked[min(row, len(asked) - 1)])]
    sums = _later_sums(model, batch, cache or output.past_key_values, flat, width, filler, singly)
    rest = [sums[row * each : row * each + len(ids)] for row, ids in enumerate(asked)]
    return scored(first, asked, rest)


def _exactly(count: int, options: Options) -> list[Ids]:
    """So many options: the first one again where there are fewer."""
    return [*options, *[options[0]] * (count - len(options))]


def _later_sums(
    model: PreTrainedModel, batch: Padded, cache: Any, flat: Sequence[Ids], width: int, filler: int, singly: bool
) -> list[float]:
    """For every option in order, the summed log-probability of its second token and on."""
    each = len(flat) // len(batch.ids)
    tokens = torch.full((len(flat), width + 1), filler)
    for row, ids in enumerate(flat):
        tokens[row, : len(ids)] = torch.tensor(ids)
    tokens = tokens.to(model.device)
    select_rows(cache, torch.arange(len(batch.ids), device=model.device).repeat_interleave(each))
    mask, last = batch.mask.repeat_interleave(each, 0), batch.positions[:, -1:].repeat_interleave(each, 0)
    found = []
    for at, count in [(n, 1) for n in range(width)] if singly else [(0, width)]:
        mask = torch.cat([mask, torch.ones_like(tokens[:, at : at + count])], 1)
        inputs = {
            "input_ids": tokens[:, at : at + count],
            "attention_mask": mask,
            "position_ids": last + 1 + torch.arange(at, at + count, device=model.device),
            "past_key_values": cache,
            "use_cache": True,
        }
        found.append(logits_of(model, inputs, count))
    logprobs = torch.cat(found, 1).log_softmax(-1)
    taken = logprobs.gather(-1, tokens[:, 1:, None])[..., 0].cpu()
    return [float(taken[row, : len(ids) - 1].sum()) for row, ids in enumerate(flat)]


def one_by_one(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    options: Sequence[Options],
    asked: Sequence[int],
) -> Iterator[dict[int, OptionScores]]:
    """Every option behind its prompt by a forward of its own, without padding or a cache: what every model can do."""
    for item in asked:
        prompt, own = list(prompts[item]), options[item]
        first = plain_logprobs(model, prompt, 1)
        later = [_later_sum(plain_logprobs(model, [*prompt, *ids[:-1]], len(ids)), ids) for ids in own if len(ids) > 1]
        sums = iter(later)
        yield {item: scored(first, [own], [[next(sums) if len(ids) > 1 else 0.0 for ids in own]])[0]}


def _later_sum(logprobs: Tensor, ids: Ids) -> float:
    return float(sum(logprobs[n, token] for n, token in enumerate(ids[1:], start=1)))


def plain_logprobs(model: PreTrainedModel, ids: Ids, keep: int) -> Tensor:
    """Float32 log-probabilities [keep, vocabulary] at the last positions of one text, by a plain forward."""
    inputs = {"input_ids": torch.tensor([list(ids)], device=model.device), "use_cache": False}
    return logits_of(model, inputs, keep)[0].log_softmax(-1)
