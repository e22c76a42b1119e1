"""What recovery brought back: the share of each loss, task by task, and the answer to "perplexity, or knowledge too?".

A recovered recipe is put beside the recipe that it started from and beside dense, over the examples that all three have
answered. Perplexity's loss is counted in nats a token. The rule of the words is in `RULE`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kick_core import stats, tasks
from kick_core.errors import KickError
from kick_core.store import Store, weight_artifacts
from kick_core.views import clusters, load
from kick_core.views.findings import percent
from kick_core.views.paired import AT_FLOOR, pair, text_order
from kick_core.views.verdict_columns import VerdictColumns

BACK, NOT_BACK, PART, OPEN, NO_LOSS, UNKNOWN = (
    "over half came back", "under half came back", "differs by task", "cannot tell", "no loss shown", "not measured"
)  # fmt: skip

HALF = 0.5

RULE = (
    "The share of a loss that came back is (recovered - compressed) / (dense - compressed) over the same examples, "
    "with a 95 % bootstrap interval; perplexity in nats per token. Over half came back when the interval lies above "
    "50 %, under half when it lies below; a negative share means that still more was lost. Where no loss is shown "
    "nothing can come back. Several tasks of one kind must agree."
)

KINDS: dict[str, tasks.Measures] = {
    "perplexity": "fluency", "closed-book knowledge": "knowledge", "open-book skill": "in_context"
}  # fmt: skip
"""What is told apart, and the role of the tasks that tell it."""

COLUMNS = (
    "recipe", "label", "without", "how", "text", "task", "title", "higher_is_better", "n", "dense", "compressed",
    "recovered", "share", "low", "high", "word",
)  # fmt: skip


def recovered(store: Store, frame: pd.DataFrame) -> pd.DataFrame:
    """One row per recovered recipe and task of a `current` frame, with `COLUMNS`; scores are of the shared examples.

    `share` with `low` and `high` is the part of the loss that came back, `text` what was trained or fitted on. Where
    the unrecovered recipe or dense was not asked, the word is "not measured"; where dense is at chance, "nothing to
    lose".
    """
    rows = {(row["recipe"], row["task"]): row for row in frame.to_dict("records")}
    found = []
    for row in rows.values():
        if row["without"]:
            before, dense = (rows.get((other, row["task"])) for other in (row["without"], "dense"))
            about = {name: row[name] for name in ("recipe", "label", "without", "task", "title", "higher_is_better")}
            about |= {"how": row["recovered"], "text": trained_on(store, row["weights"])}
            found.append(about | _share(store, row, before, dense))
    return pd.DataFrame(found, columns=list(COLUMNS))


def trained_on(store: Store, key: str) -> str:
    """The text of a recovery in words, as the artifact's card tells; empty where the artifact is gone."""
    try:
        facts = weight_artifacts.card(store, key).recovery
    except KickError:
        return ""
    return "" if not facts else f"{facts['windows'] * facts['length']:,} tokens of {facts['source']}"


def _share(
    store: Store, row: Mapping[Any, Any], before: Mapping[Any, Any] | None, dense: Mapping[Any, Any] | None
) -> dict[str, Any]:
    nothing = dict.fromkeys(("dense", "compressed", "recovered", "share", "low", "high"), math.nan)
    if before is None or dense is None:
        return {"n": 0, **nothing, "word": UNKNOWN}
    if dense["verdict"] == AT_FLOOR:
        return {"n": 0, **nothing, "word": AT_FLOOR}
    asked = [load.one(store, key) for key in (dense["run"], before["run"], row["run"])]
    found = [load.verdicts(store, run)[row["scorer"]] for run in asked]
    ids, scores = _shared(found)
    groups = clusters.of(store, asked[0].card.examples, ids)
    if asked[0].task.aggregate == "exp":
        tokens = load.tokens(store, asked[0])
        lengths = np.array([tokens[name] for name in ids], dtype=float)
        told = [float(np.exp((score * lengths).sum() / lengths.sum())) if ids.size else math.nan for score in scores]
        scores = [-score * lengths for score in scores]
        order, neighbours = text_order(ids)
        if neighbours:
            groups[order] = stats.blocks(ids.size)
    else:
        told = [float(score.mean()) if ids.size else math.nan for score in scores]
    at_dense, at_before, at_after = scores
    share = stats.bootstrap_recovered(at_dense, at_before, at_after, groups)
    named = dict(zip(("dense", "compressed", "recovered"), told, strict=True))
    return {"n": ids.size, **named, "share": share.value, "low": share.low, "high": share.high, "word": _word(share)}


def _shared(found: Sequence[VerdictColumns]) -> tuple[Any, list[Any]]:
    """The ids that all have judged, and the scores of each on them."""
    dense, before, after = found
    _, at_dense, at_after = pair(dense, after)
    first = after.take(at_after)
    ids, at_first, at_before = pair(first, before)
    return ids, [dense.score[at_dense][at_first], before.score[at_before], first.score[at_first]]


def _word(share: stats.Interval) -> str:
    if not share.n:
        return UNKNOWN
    if math.isnan(share.value):
        return NO_LOSS
    return BACK if share.low >= HALF else NOT_BACK if share.high < HALF else OPEN


# --- the answer ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What one recovery did.

    Attributes:
        recipe: the recovered recipe.
        label: its name.
        text: what it was trained or fitted on, in words.
        verdict: perplexity beside knowledge, in a sentence.
        words: the common word of each kind's tasks (see `KINDS`).
        shares: the share of each kind's loss that came back, from the least task to the most; "" where not known.
        because: the words and shares, kind by kind.
    """

    recipe: str
    label: str
    text: str
    verdict: str
    words: dict[str, str]
    shares: dict[str, str]
    because: tuple[str, ...]


def answers(table: pd.DataFrame) -> list[Answer]:
    """One answer a recovered recipe, in the order of a `recovered` table."""
    return [_answer(rows) for _, rows in table.groupby("recipe", sort=False)]


def _answer(rows: pd.DataFrame) -> Answer:
    first = rows.iloc[0]
    kinds = {
        kind: rows[rows["task"].isin(tasks.names(measures=role))].to_dict("records") for kind, role in KINDS.items()
    }
    words = {kind: _together([row["word"] for row in cells]) for kind, cells in kinds.items()}
    because = tuple(f"{kind}: {words[kind]}{_cells(cells)}" for kind, cells in kinds.items() if cells)
    verdict = _verdict(words, _apart(kinds["perplexity"], kinds["closed-book knowledge"]))
    shares = {kind: _range([row["share"] for row in cells]) for kind, cells in kinds.items()}
    return Answer(str(first["recipe"]), str(first["label"]), str(first["text"]), verdict, words, shares, because)


def _range(shares: Sequence[float]) -> str:
    """Shares in a word: 29 %, or 0 to 9 %."""
    known = [share for share in shares if not math.isnan(share)]
    if not known:
        return ""
    least, most = percent(min(known)), percent(max(known))
    return least if least == most else f"{least.removesuffix(' %')} to {most}"


def _together(words: Sequence[str]) -> str:
    """Several tasks in one word: where a loss is shown they must agree."""
    shown = {word for word in words if word not in (NO_LOSS, UNKNOWN, AT_FLOOR)}
    if not shown:
        return next((word for word in (NO_LOSS, AT_FLOOR) if word in words), UNKNOWN)
    if len(shown) == 1:
        return shown.pop()
    return PART if shown == {BACK, NOT_BACK} else OPEN


def _cells(cells: Sequence[Mapping[Any, Any]]) -> str:
    told = [
        f"{row['title']} {percent(row['share'])} [{percent(row['low'])}, {percent(row['high'])}]"
        for row in cells
        if not math.isnan(row["share"])
    ]
    return f" ({'; '.join(told)})" if told else ""


def _apart(fluent: Sequence[Mapping[Any, Any]], facts: Sequence[Mapping[Any, Any]]) -> str:
    """Which of the two surely came back further: their intervals do not touch."""
    shares = [[row for row in cells if not math.isnan(row["share"])] for cells in (fluent, facts)]
    if not all(shares):
        return ""
    (low, high), (least, most) = (
        (min(row["low"] for row in cells), max(row["high"] for row in cells)) for cells in shares
    )
    if low > most:
        return "perplexity recovered a larger share of it than knowledge did"
    return "knowledge recovered a larger share of it than perplexity did" if least > high else ""


def _verdict(words: Mapping[str, str], apart: str) -> str:
    more = f"; {apart}" if apart else ""
    match words["perplexity"], words["closed-book knowledge"]:
        case (fluent, facts) if BACK == fluent == facts:
            return f"Perplexity and knowledge both recovered over half of their loss{more}."
        case (fluent, facts) if NOT_BACK == fluent == facts:
            return f"Neither perplexity nor knowledge recovered half of its loss{more}."
        case (fluent, facts) if (fluent, facts) == (BACK, NOT_BACK):
            return "Perplexity recovered over half of its loss, knowledge under half."
        case (fluent, facts) if (fluent, facts) == (NOT_BACK, BACK):
            return "Knowledge recovered over half of its loss, perplexity under half."
        case fluent, facts:
            return f"Perplexity: {fluent}; knowledge: {facts}{more}."
