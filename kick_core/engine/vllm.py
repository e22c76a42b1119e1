"""vLLM as engine: the tasks' questions as completions that a server of it is asked for, token ids in and out.

What is asked is what this package's engine computes: log-probabilities over the whole vocabulary (`raw_logprobs`),
greedy tokens, texts cut by the same rules. Two things differ. The entropy of the next token's distribution and the
ranks of options in it are not told (nan, and none). And the server puts rows together as they come, so that in half
precision the last bits of a number depend on what else was asked at that moment.

Every option and every window is a request of its own: log-probabilities of chosen tokens are asked by name, and such
names belong to one request. A given text's last token is never sent, only asked for: it is predicted, not read.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from kick_core.engine.batching import BatchPolicy, Ids
from kick_core.engine.generation import Sampling
from kick_core.engine.interface import Engine
from kick_core.engine.padded import Options, OptionScores
from kick_core.engine.refilling import Generated, Stopper
from kick_core.engine.windows import TextScore

Choice = Mapping[str, Any] | None
"""One completion as the interface writes it; None where a number in it was not finite."""

Complete = Callable[[Mapping[str, Any]], Choice]
"""Ask for one completion: the body of a request to /v1/completions in, its choice out."""

FLOOR = -9999.0
"""What the interface writes for a log-probability that is minus infinity or not a number."""

AT_ONCE = 16
"""Answers that are handed on together."""

Item = TypeVar("Item")


def engine(complete: Complete, device: str, settings: Mapping[str, Any]) -> Engine:
    """The engine that asks a server. `settings` tell its version and how it was started."""
    return Engine(
        partial(score_options, complete),
        partial(generate, complete),
        partial(window_logprobs, complete),
        partial(text_logprobs, complete),
        device,
        settings,
        plan=_in_words,
    )


def _in_words(plan: BatchPolicy) -> str:
    return f"vLLM's own batches, {plan.rows} requests at once"


def _each(complete: Complete, bodies: Sequence[Mapping[str, Any]], plan: BatchPolicy) -> Iterator[Choice]:
    """Choices for requests in their order, so many under way at once that the server's batches stay full."""
    left = iter(bodies)
    with ThreadPoolExecutor(plan.rows) as pool:
        asked = deque(pool.submit(complete, body) for body in islice(left, 2 * plan.rows))
        try:
            while asked:
                yield asked.popleft().result()
                asked.extend(pool.submit(complete, body) for body in islice(left, 1))
        finally:
            for answer in asked:
                answer.cancel()


def _some(items: Iterator[Item]) -> Iterator[list[Item]]:
    while some := list(islice(items, AT_ONCE)):
        yield some


def _scoring(ids: Ids, tokens: Collection[int], *, read: int | None = None) -> dict[str, Any]:
    """A request for the log-probabilities of `tokens` after `ids`; with `read` also of all ids, and of as many of the
    likeliest at each place."""
    body = {"prompt": list(ids), "max_tokens": 1, "temperature": 0.0, "logprobs": 0, "return_token_ids": True}
    body |= {"logprob_token_ids": sorted(tokens), "return_tokens_as_token_ids": True, "ignore_eos": True}
    return body if read is None else body | {"prompt_logprobs": read}


def _next(choice: Mapping[str, Any]) -> dict[int, float]:
    """Token -> log-probability after the prompt."""
    found = choice["logprobs"]["top_logprobs"][0]
    return {int(name.removeprefix("token_id:")): value for name, value in found.items()}


def _read(choice: Mapping[str, Any], ids: Ids, start: int) -> list[float]:
    """The log-probabilities of a prompt's ids from `start` on."""
    return [choice["prompt_logprobs"][at][str(ids[at])]["logprob"] for at in range(start, len(ids))]


def _sound(values: Sequence[float]) -> bool:
    return all(math.isfinite(value) and value > FLOOR for value in values)


# --- options -----------------------------------------------------------------------------------------------


class _Group(NamedTuple):
    """Options of a question that differ in their last token: `begin` are the tokens before, `last` number -> last."""

    begin: tuple[int, ...]
    last: dict[int, int]


def _groups(options: Options) -> list[_Group]:
    found: dict[tuple[int, ...], dict[int, int]] = {}
    for number, ids in enumerate(options):
        found.setdefault(tuple(ids[:-1]), {})[number] = ids[-1]
    return [_Group(begin, last) for begin, last in found.items()]


def score_options(
    complete: Complete,
    prompts: Sequence[Ids],
    options: Sequence[Options],
    *,
    plan: BatchPolicy,
    filler: int,
    wanted: Collection[int] | None = None,
) -> Iterator[dict[int, OptionScores]]:
    """Score `options[i]` after `prompts[i]`; yields {prompt number: Scored}."""
    items = sorted(range(len(prompts)) if wanted is None else wanted)
    groups = {item: _groups(options[item]) for item in items}
    bodies = [
        _scoring([*prompts[item], *group.begin], set(group.last.values()), read=1 if group.begin else None)
        for item in items
        for group in groups[item]
    ]
    choices = _each(complete, bodies, plan)

    def answered() -> Iterator[tuple[int, OptionScores]]:
        for item in items:
            own = list(islice(choices, len(groups[item])))
            yield item, _scored(prompts[item], options[item], groups[item], own)

    for some in _some(answered()):
        yield dict(some)


def _scored(prompt: Ids, options: Options, groups: Sequence[_Group], choices: Sequence[Choice]) -> OptionScores:
    sums = [0.0] * len(options)
    first: dict[int, float] = {}  # of the tokens after the prompt
    sound = True
    for group, choice in zip(groups, choices, strict=True):
        if choice is None:
            return OptionScores((math.nan,) * len(options), 0, math.nan, math.nan, (), False)
        ids = [*prompt, *group.begin]
        before, after = _read(choice, ids, len(prompt)) if group.begin else [], _next(choice)
        sound = sound and _sound([*before, *(after[token] for token in group.last.values())])
        for number, token in group.last.items():
            sums[number] = sum(before) + after[token]
        first |= _first(choice, len(prompt)) if group.begin else after
    argmax = max(first, key=lambda token: first[token])  # the likeliest of all is among them
    return OptionScores(tuple(sums), argmax, first[argmax], math.nan, (), sound and _sound([first[argmax]]))


def _first(choice: Mapping[str, Any], place: int) -> dict[int, float]:
    """Token -> log-probability at a place of the prompt: the token that stands there, and the likeliest."""
    return {int(token): about["logprob"] for token, about in choice["prompt_logprobs"][place].items()}


# --- running text ------------------------------------------------------------------------------------------


def window_logprobs(
    complete: Complete, windows: Tensor, *, rows: int, plan: BatchPolicy | None = None
) -> Iterator[tuple[int, list[float]]]:
    """Summed log-probability of tokens 1 … length-1 of each window [windows, length]; yields (first, sums)."""
    texts = windows.tolist()
    at = 0
    for some in _some(_given(complete, [(ids[:1], ids[1:]) for ids in texts], plan or BatchPolicy(0, rows))):
        yield at, [_total(values) for values in some]
        at += len(some)


def text_logprobs(
    complete: Complete, prompts: Sequence[Ids], continuations: Sequence[Ids], *, plan: BatchPolicy, filler: int
) -> Iterator[dict[int, TextScore]]:
    """The log-probability of `continuations[i]` after `prompts[i]`; `until` is not told, it counts every token."""
    pairs = list(zip(prompts, continuations, strict=True))
    at = 0
    for some in _some(_given(complete, pairs, plan)):
        yield {at + n: TextScore(_total(values), tuple(values), len(values)) for n, values in enumerate(some)}
        at += len(some)


def _total(values: Sequence[float]) -> float:
    return sum(values) if _sound(values) else math.nan


def _given(complete: Complete, pairs: Sequence[tuple[Ids, Ids]], plan: BatchPolicy) -> Iterator[list[float]]:
    """For every (prompt, text) the log-probabilities of the text's tokens; a prompt has at least one token."""
    choices = _each(complete, [_scoring([*p, *text[:-1]], text[-1:], read=0) for p, text in pairs if text], plan)
    for prompt, text in pairs:
        choice = next(choices) if text else None
        if choice is not None:
            yield [*_read(choice, [*prompt, *text[:-1]], len(prompt)), _next(choice)[text[-1]]]
        else:
            yield [math.nan] if text else []


# --- writing -----------------------------------------------------------------------------------------------


def generate(
    complete: Complete,
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
    """Continuations, greedy or drawn by the server from a seed a row. Yields {prompt number: Generated}. What prompts
    share at their beginnings is the server's to find.

    Stop strings are looked for here, in what was written, so that texts end where this package's engine ends them.
    """
    body: dict[str, Any] = {"max_tokens": new_tokens, "temperature": 0.0, "logprobs": 0, "return_token_ids": True}
    body |= {"stop_token_ids": sorted(ends), "ignore_eos": True}  # the ends that this package knows, and no others
    if sampling:
        body |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
    drawn = [{"seed": seed} for seed in seeds] if sampling and seeds else [{} for _ in prompts]
    bodies = [body | seed | {"prompt": list(prompt)} for prompt, seed in zip(prompts, drawn, strict=True)]
    at = 0
    for some in _some(_each(complete, bodies, plan)):
        yield {at + n: _written(choice, ends, stops) for n, choice in enumerate(some)}
        at += len(some)


def _written(choice: Choice, ends: frozenset[int], stops: Stopper) -> Generated:
    if choice is None:
        return Generated((), "not finite")
    ids: list[int] = []
    for token, value in zip(choice["token_ids"], choice["logprobs"]["token_logprobs"], strict=True):
        if not _sound([value]):
            return Generated(tuple(ids), "not finite")
        if token in ends:
            return Generated(tuple(ids), "eos")
        ids.append(token)
        if stops(ids):
            return Generated(tuple(ids), "stop")
    return Generated(tuple(ids), "limit")
