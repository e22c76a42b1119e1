"""Where a number of a run means less than it seems to: what the reader has to know before believing it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kick_core.records import Example, RunCard
from kick_core.store import Store, results
from kick_core.tasks.base import NO_GOLD
from kick_core.tasks.breakdowns import ties
from kick_core.tasks.scorers import comparable, normalise
from kick_core.views import load
from kick_core.views.verdict_columns import KEPT, VerdictColumns

ONE_TOKEN = 0.3
"""Share of a text that is one token from which on it is no text to the model; of English the commonest takes 5 %."""


def warnings(store: Store, key: str) -> dict[str, str]:
    """What to know before believing a run's numbers.

    Args:
        store: the cache.
        key: the run's.

    Returns:
        Kind -> sentence: `no gold`, `golds`, `text`, `same prompts`, `shots`, `context`, `ties`; those that concern the
        run.
    """
    return dict(_warnings(store, key, results.measured(store, key)))


@lru_cache(maxsize=KEPT)
def _warnings(store: Store, key: str, measured: int) -> dict[str, str]:
    run = load.one(store, key)
    card, kind, table = run.card, run.task.kind, load.answers(store, key)
    limit = card.settings.get("new_tokens")
    words = limit if isinstance(limit, int) else None
    found = dict(_data(store, card.examples, measured, kind, tuple(card.settings.get("stop", ())), words))
    if kind != "perplexity":
        prompts = _prompts(store, card.examples, measured)
        hashes = pc.count_distinct(table["prompt_hash"]).as_py()
        if hashes < prompts:
            found["same prompts"] = (
                f"{prompts - hashes} of {prompts} prompts read like another one as tokens: the tokenizer does not know "
                "their words"
            )
    shots = [number for number in table["shots_used"].to_pylist() if number is not None]
    if shots and min(shots) < max(shots):
        fewer = sum(number < max(shots) for number in shots)
        found["shots"] = (
            f"{fewer} of {measured} prompts were too long and are shown with fewer than {max(shots)} examples"
        )
    if lacking := _no_gold(run, load.verdicts(store, run)):
        found["no gold"] = lacking
    if cut := _cut_by_context(card, table):
        found["context"] = f"{cut} of {measured} answers were cut by the model's context"
    for row in ties(table["logprobs"].to_pylist()) if kind == "choose" else ():
        found["ties"] = (
            f"{row['ties']} of {row['n']} questions have several likeliest options, equal in "
            f"{card.dtype or 'what was logged'}; the first counts as chosen"
        )
    return found


@lru_cache(maxsize=4)
def _first(store: Store, key: str, count: int) -> list[Example]:
    return results.examples(store, key, first=count)


@lru_cache(maxsize=64)
def _prompts(store: Store, key: str, count: int) -> int:
    return len({"".join(example.prompt) for example in _first(store, key, count)})


@lru_cache(maxsize=64)
def _data(
    store: Store, key: str, count: int, kind: str, stops: tuple[str, ...], most_words: int | None
) -> tuple[tuple[str, str], ...]:
    """What is odd about the first questions of a task, the same for all recipes."""
    asked = _first(store, key, count)
    if kind == "perplexity":
        counts = Counter(token for example in asked for token in example.meta.get("ids", ()))
        (token, most), *_ = counts.most_common(1) or [(0, 0)]
        if counts and most >= ONE_TOKEN * counts.total():
            share = f"{most / counts.total():.0%}"
            return (("text", f"{share} of the text is token {token}: the tokenizer does not know its words"),)
    if kind != "generate":
        return ()
    never = [one.id for one in asked if _never_right(one.answers, stops, most_words)]
    if not never:
        return ()
    return ((
        "golds",
        f"{len(never)} of {len(asked)} questions can never be right: none of their golds fits the answer "
        f"({never[0]}, …)",
    ),)  # fmt: skip


def _never_right(golds: Sequence[str], stops: Sequence[str], most_words: int | None) -> bool:
    """Whether there are golds that could be compared, and none of them fits an answer."""
    usable = [gold for gold in golds if comparable([gold])]
    short = [gold for gold in usable if most_words is None or len(normalise(gold).split()) <= most_words]
    return bool(usable) and all(any(stop in gold for stop in stops) for gold in short)


def _no_gold(run: load.Asked, verdicts: Mapping[str, VerdictColumns]) -> str:
    """How many questions have no gold that could be compared, in words; nothing where all have one."""
    columns = verdicts.get(run.task.headline_of(run.card.protocol))
    if columns is None or not (places := np.flatnonzero(columns.why == NO_GOLD)).size:
        return ""
    return (
        f"{places.size} of {columns.score.size} questions are not judged: none of their golds holds a word that could "
        f"be compared ({columns.ids[places[0]]}{', …' if places.size > 1 else ''})"
    )


def _cut_by_context(card: RunCard, table: pa.Table) -> int:
    """Answers that ended at a limit below the task's own."""
    limit = str(card.settings.get("new_tokens", ""))
    if not limit.endswith("what the context leaves") or not limit.partition(",")[0].isdigit():
        return 0
    rows = zip(table["stop"].to_pylist(), table["tokens"].to_pylist(), strict=True)
    return sum(stop == "limit" and tokens < int(limit.partition(",")[0]) for stop, tokens in rows)
