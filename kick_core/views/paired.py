"""One scorer of one run against dense, over the examples that both have measured and judged, never over more.

Examples on one passage count as a cluster (see `clusters`); what cannot be compared is nan.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kick_core import stats
from kick_core.store import Store
from kick_core.tasks import DESCRIPTIVE, Task
from kick_core.tasks.option_scorers import GUESSED
from kick_core.tasks.scorers import normalise
from kick_core.views import clusters, load, verdict_columns
from kick_core.views.load import Asked
from kick_core.views.verdict_columns import VerdictColumns

NOT_MEASURED = "not measured"

AT_FLOOR = "nothing to lose"
"""The verdict where the dense model itself may be guessing: whatever is kept of that is no knowledge."""

AT_CHANCE = "nothing to lose here: dense is at chance"
"""The same in words, wherever a share or a verdict would stand."""

SILENT = (NOT_MEASURED, AT_FLOOR)
"""Verdicts that are none: such a cell has no share of dense, and no vote."""

RIGHT = 1.0
"""A graded answer counts as right when nothing is missing; that is also what the scorers' "why" says."""

_SIDES = (
    "share_kept", "share_low", "share_high", "both_right", "broke", "fixed", "both_wrong", "detectable",
    "changed", "changed_low", "changed_high", "needed", "p_matching", "p_not_matching", "share_above",
    "share_above_low", "share_above_high",
)  # fmt: skip


def pair(
    before: VerdictColumns, after: VerdictColumns
) -> tuple[NDArray[np.object_], NDArray[np.intp], NDArray[np.intp]]:
    """The ids that both have judged, and their places in each; in the order of `after`."""
    shared = min(before.ids.size, after.ids.size)
    if before.ids is after.ids and not np.isnan(before.score).any() and not np.isnan(after.score).any():
        return after.ids, np.arange(shared), np.arange(shared)
    if before.ids is after.ids or np.array_equal(before.ids[:shared], after.ids[:shared]):
        at_before = at_after = np.arange(shared)
    else:
        where = {name: at for at, name in enumerate(before.ids)}
        at_after = np.array([i for i, name in enumerate(after.ids) if name in where], dtype=np.intp)
        at_before = np.array([where[name] for name in after.ids[at_after]], dtype=np.intp)
    judged = ~np.isnan(before.score[at_before]) & ~np.isnan(after.score[at_after])
    return after.ids[at_after[judged]], at_before[judged], at_after[judged]


def numbers(store: Store, run: Asked, scorer: str, mine: VerdictColumns, base: VerdictColumns | None) -> dict[str, Any]:
    """The numbers of one scorer of a run, beside those of `base` where there is one to compare with."""
    if run.task.aggregate == "exp":
        return exponential(store, run, mine, base)
    return average(store, run, scorer, mine, base)


def average(store: Store, run: Asked, scorer: str, mine: VerdictColumns, base: VerdictColumns | None) -> dict[str, Any]:
    """The numbers of a scorer whose mean counts; without `base` those of the run alone."""
    judged = ~np.isnan(mine.score)
    groups = clusters.grouping(store, run.card.examples, mine.ids, judged)
    value, low, high, n = stats.clustered_score(mine.score[judged], groups)
    row = {"score": value, "low": low, "high": high, "n": n, "unjudged": mine.score.size - n, "unit": ""}
    row["clusters"] = groups.sizes.size
    row["stderr"] = stats.clustered_error(mine.score[judged], groups)
    if base is None:
        row |= nothing()
    else:
        row |= against(store, run, mine, base, floor(store, run, scorer))
    if scorer in DESCRIPTIVE:
        row |= dict.fromkeys(_SIDES, math.nan) | {"verdict": NOT_MEASURED}
    return row


def floor(store: Store, run: Asked, scorer: str) -> float:
    """The score of a blind guess under one scorer."""
    return load.chance(store, run) if run.task.kind == "choose" and scorer in GUESSED else 0.0


def alone(store: Store, run: Asked, scorer: str, row: dict[str, Any]) -> dict[str, Any]:
    """What a dense run's own numbers say beside themselves: all of it kept, or nothing to lose."""
    score = stats.Interval(row["score"], row["low"], row["high"], row["n"])
    known = run.task.aggregate == "exp" or stats.anything_to_lose(score, floor(store, run, scorer))
    verdict = NOT_MEASURED if not row["n"] else "dense" if known else AT_FLOOR
    return {"dense_score": row["score"], "share_kept": 1.0 if verdict == "dense" else math.nan, "verdict": verdict}


def _above_floor(
    before: NDArray[np.float64], after: NDArray[np.float64], groups: stats.Grouping, guess: float
) -> dict[str, Any]:
    """The share kept of what is no guess; no share and no verdict at all where dense may be guessing itself."""
    if not before.size or not stats.is_share(before):
        return {}
    if not stats.anything_to_lose(stats.clustered_score(before, groups), guess):
        lost = ("share_kept", "share_low", "share_high", "needed", "p_matching", "p_not_matching")
        return dict.fromkeys(lost, math.nan) | {"verdict": AT_FLOOR}
    if not guess or not stats.is_share(after):
        return {}
    share = stats.share_above_chance(before, after, guess, groups)
    return _named(("share_above", "share_above_low", "share_above_high"), share)


def against(store: Store, run: Asked, mine: VerdictColumns, base: VerdictColumns, guess: float) -> dict[str, Any]:
    """Two runs' scores of the same examples: differences, flips, answers changed, p, what it would take.

    `guess` is the score of a blind guess: where `base` may be one, there is no share and no verdict.
    """
    ids, at_base, at_mine = pair(base, mine)
    before, after = base.score[at_base], mine.score[at_mine]
    groups = clusters.grouping(store, run.card.examples, mine.ids, at_mine)
    table = stats.flips(before, after, RIGHT)
    kept = stats.clustered_ratio(before, after, groups)
    return {
        "paired": ids.size,
        "unit": "pp" if stats.is_share(before) and stats.is_share(after) else "",
        "dense_score": float(before.mean()) if ids.size else math.nan,
        **_named(("share_kept", "share_low", "share_high"), kept),
        **_named(("difference", "diff_low", "diff_high"), stats.clustered_difference(before, after, groups)),
        **dict(zip(("both_right", "broke", "fixed", "both_wrong"), table, strict=True)),
        **_named(("changed", "changed_low", "changed_high"), _changed(store, run, base, mine)),
        "p": stats.clustered_p(before, after, groups) if ids.size else math.nan,
        **_margin(before, after, groups),
        "detectable": stats.smallest_detectable(table.share, table.n),
        "needed": stats.examples_needed(kept),
        "verdict": _verdict(kept),
    } | _above_floor(before, after, groups, guess)


def _changed(store: Store, run: Asked, base: VerdictColumns, mine: VerdictColumns) -> stats.Interval:
    """`answers_changed`, where all answers are known: a compact pack keeps mostly those that did change."""
    if run.task.kind == "generate" and load.thinned(store, run.key):
        return stats.Interval(math.nan, math.nan, math.nan, 0)
    return answers_changed(run.task, base, mine)


def answers_changed(task: Task, before: VerdictColumns, after: VerdictColumns) -> stats.Interval:
    """The share of answers that are another answer now, wrong to wrong included.

    An answer is the chosen option, or a short text in its normal form. Long texts nearly always differ
    somewhere, so nothing is said of them.
    """
    if task.kind not in ("choose", "generate"):
        return stats.Interval(math.nan, math.nan, math.nan, 0)
    _, at_before, at_after = pair(before, after)
    form = normalise if task.kind == "generate" else str
    return stats.wilson(verdict_columns.changed(before, at_before, after, at_after, form), at_after.size)


def exponential(store: Store, run: Asked, mine: VerdictColumns, base: VerdictColumns | None) -> dict[str, Any]:
    """The numbers of perplexity: the exponential of the mean negative log-probability per token."""
    tokens = load.tokens(store, run)
    lengths = np.array([tokens[name] for name in mine.ids], dtype=float)
    judged = np.flatnonzero(~np.isnan(mine.score))
    order, neighbours = text_order(mine.ids[judged])
    judged = judged[order]
    value, low, high, n = stats.perplexity((mine.score * lengths)[judged], lengths[judged], neighbours=neighbours)
    row: dict[str, Any] = {"score": value, "low": low, "high": high, "n": n, "unjudged": mine.score.size - n}
    row |= {"unit": "ratio", "clusters": n, "stderr": math.nan}
    if base is None:
        return row | nothing()
    ids, at_base, at_mine = pair(base, mine)
    order, _ = text_order(ids)
    at_base, at_mine = at_base[order], at_mine[order]
    weights = lengths[at_mine]
    before, after = base.score[at_base] * weights, mine.score[at_mine] * weights
    kept = stats.perplexity_kept(before, after, weights, neighbours=neighbours)
    test = stats.perplexity_margin_test(before, after, weights, neighbours=neighbours)
    reference, perplexity = (stats.perplexity(each, weights).value for each in (before, after))
    return row | nothing() | {
        "paired": ids.size,
        "dense_score": reference,
        **_named(("share_kept", "share_low", "share_high"), kept),
        "difference": perplexity - reference,
        "diff_low": reference / kept.high - reference if kept.high else math.inf,
        "diff_high": reference / kept.low - reference if kept.low else math.inf,
        "p": stats.perplexity_p(before, after, weights, neighbours=neighbours),
        "p_matching": test.loses,
        "p_not_matching": test.keeps,
        "needed": stats.examples_needed(kept),
        "verdict": _verdict(kept),
    }  # fmt: skip


def text_order(ids: NDArray[np.object_]) -> tuple[NDArray[np.intp], bool]:
    """Windows or pages in the order of their text, and whether they are neighbours there.

    Windows are cut from one text side by side, so their numbers are their places; pages are asked each alone.
    """
    names = ids.astype(str)
    return np.argsort(names, kind="stable"), bool(names.size) and names[0].startswith("window-")


def nothing() -> dict[str, Any]:
    """The columns of a comparison where there is none."""
    numbers = (*_SIDES, "dense_score", "difference", "diff_low", "diff_high", "p")
    return {"paired": 0, "verdict": NOT_MEASURED, **dict.fromkeys(numbers, math.nan)}


def _named(names: Sequence[str], found: stats.Interval) -> dict[str, float]:
    return dict(zip(names, found[:3], strict=True))


def _margin(before: NDArray[np.float64], after: NDArray[np.float64], groups: stats.Grouping) -> dict[str, float]:
    test = stats.margin_test(before, after, groups)
    return {"p_matching": test.loses, "p_not_matching": test.keeps}


def _verdict(kept: stats.Interval) -> str:
    """A share of a dense score of nothing is not a number, and tells nothing."""
    return NOT_MEASURED if kept.n == 0 else stats.matching(kept.low, kept.high)
