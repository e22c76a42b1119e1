"""One row per model, recipe, task and scorer: the table that the pages and `kick evaluate --json` both print.

Dense and compressed are compared over the examples that both have measured and judged, never over more. What
cannot be compared says so: nan in the numbers, "not measured" in the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kick_core import stats
from kick_core.store import Store, results
from kick_core.views import naming, runs
from kick_core.views.runs import Asked, Scored

COLUMNS = {
    "model": "str",
    "recipe": "str",
    "label": "str",
    "rung": "str",
    "method": "str",
    "kind": "str",
    "sparsity": "float",
    "bits": "float",
    "bits_per_weight": "float",
    "severity": "float",
    "task": "str",
    "title": "str",
    "scorer": "str",
    "headline": "bool",
    "higher_is_better": "bool",
    "n": "int",
    "total": "int",
    "unjudged": "int",
    "chance": "float",
    "score": "float",
    "low": "float",
    "high": "float",
    "paired": "int",
    "dense_score": "float",
    "share_kept": "float",
    "share_low": "float",
    "share_high": "float",
    "difference": "float",
    "diff_low": "float",
    "diff_high": "float",
    "both_right": "float",
    "broke": "float",
    "fixed": "float",
    "both_wrong": "float",
    "p": "float",
    "p_holm": "float",
    "detectable": "float",
    "verdict": "str",
    "run": "str",
    "dense_run": "str",
    "weights": "str",
    "protocol": "str",
    "data": "str",
    "dtype": "str",
    "device": "str",
    "seed": "str",
    "created": "str",
    "fingerprint": "str",
}

NOT_MEASURED = "not measured"
DENSE = "dense"

RIGHT = 1.0
"""A graded answer counts as right when nothing is missing; that is also what the scorers' "why" says."""

MEASURES = ("repeated", "unique_words")
"""Scorers that describe a text: they have a difference, but no right, no wrong and nothing to keep."""

_SIDES = ("share_kept", "share_low", "share_high", "both_right", "broke", "fixed", "both_wrong", "detectable")


def scores(store: Store, model: str | None = None) -> pd.DataFrame:
    """All measured scores, dense included. `model` keeps one model (by its name or fingerprint).

    Sorted by model, task in reading order, method, from mild to harsh. Perplexity's score is the exponential
    of the mean negative log-probability per token, its share kept is dense / compressed, its difference is
    compressed - dense.
    """
    among = runs.asked(store)
    names = runs.model_names(among)
    rows = [
        row
        for run in among
        if model is None or model in (run.card.model, run.card.fingerprint, names[run.card.fingerprint])
        for row in _rows(store, run, runs.dense_of(run, among), names[run.card.fingerprint])
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    frame["p_holm"] = _holm(frame)
    order = {name: at for at, name in enumerate(runs.task_titles(frame["task"].unique()))}
    frame["_task"], frame["_dense"] = frame["task"].map(order), frame["kind"] != "dense"
    frame["_kind"] = frame["kind"].map(naming.KINDS.index)
    by = ["model", "_task", "_dense", "method", "_kind", "severity", "recipe", "created"]
    return frame.sort_values(by, kind="stable").drop(columns=["_task", "_dense", "_kind"]).reset_index(drop=True)


def current(frame: pd.DataFrame, model: str, protocol: str | None = None) -> pd.DataFrame:
    """What the pages draw: one model, one protocol, headline scorers, the newest run of each recipe and task."""
    mine = frame[(frame["model"] == model) & frame["headline"]]
    if protocol is not None:
        mine = mine[mine["protocol"] == protocol]
    newest = mine.sort_values("created", kind="stable").drop_duplicates(["recipe", "task"], keep="last")
    return newest.sort_index().reset_index(drop=True)


def _holm(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Adjusted within one model, task and scorer: "which of these recipes differs from dense?"."""
    adjusted = np.full(len(frame), math.nan)
    for places in frame.groupby(["fingerprint", "task", "scorer", "protocol"], sort=False).indices.values():
        adjusted[places] = stats.holm(frame["p"].iloc[places].tolist())
    return adjusted


def _rows(store: Store, run: Asked, dense: Asked | None, model: str) -> list[dict[str, Any]]:
    found = runs.verdicts(store, run)
    base = runs.verdicts(store, dense) if dense else {}
    about = _about(run, dense, model)
    about["total"] = max(run.card.total, results.measured(store, run.key))
    about["chance"] = runs.chance(store, run)
    rows = []
    for scorer, mine in found.items():
        row = {**about, "scorer": scorer, "headline": scorer == run.task.headline}
        if run.task.aggregate == "exp":
            row |= _exponential(store, run, mine, dense, base.get(scorer))
        else:
            row |= _average(mine, None if run.recipe.target is None else base.get(scorer))
            if scorer in MEASURES:
                row |= dict.fromkeys(_SIDES, math.nan) | {"verdict": NOT_MEASURED}
        if run.recipe.target is None:
            row |= {"dense_score": row["score"], "share_kept": 1.0, "verdict": DENSE}
        rows.append(row)
    return rows


def _about(run: Asked, dense: Asked | None, model: str) -> dict[str, Any]:
    card, recipe = run.card, run.recipe
    kind = naming.kind(recipe)
    return {
        "model": model,
        "recipe": recipe.text,
        "label": naming.label(recipe),
        "rung": naming.rung(recipe),
        "method": naming.method(recipe),
        "kind": kind,
        "sparsity": naming.sparsity(recipe),
        "bits": naming.bits(recipe),
        "bits_per_weight": naming.bits_per_weight(recipe),
        "severity": naming.severity(recipe),
        "task": card.task,
        "title": run.task.title,
        "higher_is_better": run.task.higher_is_better,
        "run": card.key,
        "dense_run": dense.key if dense else "",
        "weights": card.weights,
        "protocol": card.protocol,
        "data": card.data,
        "dtype": card.dtype,
        "device": card.device,
        "seed": str(card.settings.get("seed", "")),
        "created": card.created,
        "fingerprint": card.fingerprint,
    }


def pair(before: Scored, after: Scored) -> tuple[NDArray[np.object_], NDArray[np.intp], NDArray[np.intp]]:
    """The ids that both have judged, and their places in each; in the order of `after`."""
    shared = min(before.ids.size, after.ids.size)
    if before.ids is after.ids or np.array_equal(before.ids[:shared], after.ids[:shared]):
        at_before = at_after = np.arange(shared)
    else:
        where = {name: at for at, name in enumerate(before.ids)}
        at_after = np.array([i for i, name in enumerate(after.ids) if name in where], dtype=np.intp)
        at_before = np.array([where[name] for name in after.ids[at_after]], dtype=np.intp)
    judged = ~np.isnan(before.score[at_before]) & ~np.isnan(after.score[at_after])
    return after.ids[at_after[judged]], at_before[judged], at_after[judged]


def _average(mine: Scored, base: Scored | None) -> dict[str, Any]:
    judged = mine.score[~np.isnan(mine.score)]
    value, low, high, n = stats.score(judged)
    row: dict[str, Any] = {"score": value, "low": low, "high": high, "n": n, "unjudged": mine.score.size - n}
    if base is None:
        return row | _nothing()
    ids, at_base, at_mine = pair(base, mine)
    before, after = base.score[at_base], mine.score[at_mine]
    table = stats.flips(before, after, RIGHT)
    kept = stats.ratio_of_means(before, after)
    return row | {
        "paired": ids.size,
        "dense_score": float(before.mean()) if ids.size else math.nan,
        **_named(("share_kept", "share_low", "share_high"), kept),
        **_named(("difference", "diff_low", "diff_high"), stats.paired_difference(before, after)),
        **dict(zip(("both_right", "broke", "fixed", "both_wrong"), table, strict=True)),
        "p": stats.paired_p(before, after) if ids.size else math.nan,
        "detectable": stats.smallest_detectable(table.share, table.n),
        "verdict": _verdict(kept),
    }


def _exponential(store: Store, run: Asked, mine: Scored, dense: Asked | None, base: Scored | None) -> dict[str, Any]:
    tokens = runs.tokens(store, run)
    lengths = np.array([tokens[name] for name in mine.ids], dtype=float)
    judged = ~np.isnan(mine.score)
    value, low, high, n = stats.perplexity((mine.score * lengths)[judged], lengths[judged])
    row: dict[str, Any] = {"score": value, "low": low, "high": high, "n": n, "unjudged": mine.score.size - n}
    if run.recipe.target is None or dense is None or base is None:
        return row | _nothing()
    ids, at_base, at_mine = pair(base, mine)
    weights = lengths[at_mine]
    before, after = base.score[at_base] * weights, mine.score[at_mine] * weights
    kept = stats.perplexity_kept(before, after, weights)
    reference, found = stats.perplexity(before, weights).value, stats.perplexity(after, weights).value
    return row | _nothing() | {
        "paired": ids.size,
        "dense_score": reference,
        **_named(("share_kept", "share_low", "share_high"), kept),
        "difference": found - reference,
        "diff_low": reference / kept.high - reference if kept.high else math.inf,
        "diff_high": reference / kept.low - reference if kept.low else math.inf,
        "p": stats.paired_p(before / weights, after / weights),
        "verdict": _verdict(kept),
    }  # fmt: skip


def _named(names: Sequence[str], found: stats.Interval) -> dict[str, float]:
    return dict(zip(names, found[:3], strict=True))


def _verdict(kept: stats.Interval) -> str:
    """A share of a dense score of nothing is not a number, and tells nothing."""
    return NOT_MEASURED if kept.n == 0 else stats.matching(kept.low, kept.high)


def _nothing() -> dict[str, Any]:
    numbers = (*_SIDES, "dense_score", "difference", "diff_low", "diff_high", "p")
    return {"paired": 0, "verdict": NOT_MEASURED, **dict.fromkeys(numbers, math.nan)}
