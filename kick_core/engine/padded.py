"""Scoring options one prompt a row, padded: what every model can be asked, and what a score holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from kick_core.engine.batching import BatchPolicy, Ids, Padded, batches, in_parts, logits_of, padded, rows_matter
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
) -> Iterator[dict[int, OptionScores]]:
    """One prompt a row, padded on the left; its cache is repeated for its options."""
    for batch in batches([len(prompts[i]) for i in asked], plan):

        def ask(items: Sequence[int], rows: int, length: int = batch.length) -> dict[int, OptionScores]:
            count = rows if rows_matter(model) else len(items)
            return dict(zip(items, _scored_rows(model, prompts, options, items, count, length, filler), strict=True))

        yield from in_parts([asked[n] for n in batch.items], batch.rows, ask, plan)


def _scored_rows(
    model: PreTrainedModel,
    prompts: Sequence[Ids],
    options: Sequence[Options],
    items: Sequence[int],
    rows: int,
    length: int,
    filler: int,
) -> list[OptionScores]:
    batch = padded([prompts[i] for i in items], rows, length, filler, model.device)
    asked = [options[items[min(row, len(items) - 1)]] for row in range(rows)]
    # the widest of the whole list, so that a shape does not depend on the neighbours
    each = max(len(ids) for ids in options)
    width = max(max(branches(ids)) for ids in options)
    cache = DynamicCache(config=model.config) if width else None
    inputs = batch.inputs | {"past_key_values": cache, "use_cache": cache is not None}
    first = logits_of(model, inputs, 1)[: len(items), 0].log_softmax(-1)
    asked = [options[i] for i in items]
    if cache is None:
        return scored(first, asked, [[0.0] * len(ids) for ids in asked])
    flat = [ids for row in range(rows) for ids in _exactly(each, asked[min(row, len(asked) - 1)])]
    sums = _later_sums(model, batch, cache, flat, width, filler)
    rest = [sums[row * each : row * each + len(ids)] for row, ids in enumerate(asked)]
    return scored(first, asked, rest)


def _exactly(count: int, options: Options) -> list[Ids]:
    """So many options: the first one again where there are fewer."""
    return [*options, *[options[0]] * (count - len(options))]


def _later_sums(
    model: PreTrainedModel, batch: Padded, cache: DynamicCache, flat: Sequence[Ids], width: int, filler: int
) -> list[float]:
    """For every option in order, the summed log-probability of its second token and on."""
    each = len(flat) // len(batch.ids)
    tokens = torch.full((len(flat), width + 1), filler)
    for row, ids in enumerate(flat):
        tokens[row, : len(ids)] = torch.tensor(ids)
    tokens = tokens.to(model.device)
    cache.batch_repeat_interleave(each)
    inputs = {
        "input_ids": tokens[:, :width],
        "attention_mask": torch.cat([batch.mask.repeat_interleave(each, 0), torch.ones_like(tokens[:, :width])], 1),
        "position_ids": batch.positions[:, -1:].repeat_interleave(each, 0)
        + 1
        + torch.arange(width, device=model.device),
        "past_key_values": cache,
        "use_cache": True,
    }
    logprobs = logits_of(model, inputs, width).log_softmax(-1)
    taken = logprobs.gather(-1, tokens[:, 1:, None])[..., 0].cpu()
    return [float(taken[row, : len(ids) - 1].sum()) for row, ids in enumerate(flat)]
