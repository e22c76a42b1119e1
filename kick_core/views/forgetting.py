"""Forgetting, question by question: the same questions at every step of a method, and by how well known the subject is.

Only questions that dense answers rightly can be forgotten, so only they are followed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kick_core.records import Example
from kick_core.store import Store
from kick_core.views import example_table, load, recipe_labels
from kick_core.views.load import Asked
from kick_core.views.scores import RIGHT

ROWS = 20
"""Questions that are shown."""


@dataclass(frozen=True, slots=True)
class Step:
    """A recipe of the series: its run, its target in words, and its sparsity or width as a number."""

    run: str
    recipe: str
    target_label: str
    severity: float


@dataclass(frozen=True, slots=True)
class Row:
    """One question along the series: `right[i]` is None where step i did not judge it."""

    id: str
    question: str
    gold: str
    answers: tuple[str, ...]
    right: tuple[bool | None, ...]

    @property
    def breaks(self) -> int:
        """The first step that is wrong; the number of steps where none is."""
        return next((at for at, right in enumerate(self.right) if right is False), len(self.right))


@dataclass(frozen=True, slots=True)
class Forgetting:
    """`rows` are those of `total` questions right under dense that a fixed rule picks, first broken first."""

    steps: tuple[Step, ...]
    rows: tuple[Row, ...]
    total: int


def forgetting(store: Store, run_key: str, scorer: str, rows: int = ROWS) -> Forgetting:
    """Twenty questions along a method.

    Args:
        store: the cache.
        run_key: any run of the method.
        scorer: whose verdicts count.
        rows: how many questions.

    Returns:
        Questions that are right under dense, picked by the smallest SHA-256 of their ids, sorted by when they break.
    """
    run, series = _series(store, run_key)
    if not series:
        return Forgetting((), (), 0)
    ids, right = _rights(store, series, scorer)
    known = [at for at in range(ids.size) if right[at, 0] == RIGHT]
    picked = sorted(known, key=lambda at: hashlib.sha256(f"0:{ids[at]}".encode()).hexdigest())[:rows]
    examples = load.examples(store, run.card.examples)
    answers = [example_table.answers(store, step, examples) for step in series]
    table = [
        Row(
            str(ids[at]), example_table.question(examples[ids[at]]), example_table.gold_words(examples[ids[at]]),
            tuple(texts.get(ids[at], "") for texts in answers),
            tuple(None if math.isnan(score) else bool(score >= RIGHT) for score in right[at]),
        )
        for at in picked
    ]  # fmt: skip
    steps = tuple(
        Step(one.key, one.recipe.text, recipe_labels.target_label(one.recipe), recipe_labels.severity(one.recipe))
        for one in series
    )
    return Forgetting(steps, tuple(sorted(table, key=lambda row: (row.breaks, row.id))), len(known))


POPULARITY = ("tier", "popularity", "n")


def by_popularity(store: Store, run_key: str, scorer: str) -> pd.DataFrame:
    """The share of facts kept along a method, by how well known their subject is.

    Of examples whose meta names a `tier` (most popular first by the mean of `popularity`), those right under dense.
    Where none is named, tiers are the quarters of all examples by `popularity`, the best known first.

    Returns:
        One row per tier: tier, mean popularity, n right under dense, and one column per step (its target in words)
        with the share of them that is right. Empty where examples name neither.
    """
    run, series = _series(store, run_key)
    examples = load.examples(store, run.card.examples)
    if not series or not any({"tier", "popularity"} & set(example.meta) for example in examples.values()):
        return pd.DataFrame(columns=list(POPULARITY))
    ids, right = _rights(store, series, scorer)
    names = [recipe_labels.target_label(step.recipe) for step in series]
    frame = pd.DataFrame(right >= RIGHT, columns=names)
    frame["tier"] = [_meta(examples, name, "tier") for name in ids]
    frame["popularity"] = pd.to_numeric([_meta(examples, name, "popularity") for name in ids], errors="coerce")
    if frame["tier"].isna().all():
        rank = frame["popularity"].rank(ascending=False, method="min")
        frame["tier"] = (4 * (rank - 1) // frame["popularity"].notna().sum() + 1).astype("Int64")
    known = frame[frame[names[0]] & frame["tier"].notna()]
    tiers = known.groupby("tier")
    table = tiers[["popularity", *names]].mean().assign(n=tiers.size())
    return table.sort_values("popularity", ascending=False).reset_index()


def _meta(examples: dict[str, Example], name: str, key: str) -> Any:
    return examples[name].meta.get(key) if name in examples else None


def _series(store: Store, run_key: str) -> tuple[Asked, Sequence[Asked]]:
    """A run, and the series of its method that begins with dense; none where dense is missing."""
    run = load.one(store, run_key)
    series = load.sparsity_series(run, load.asked(store)) if run.task.aggregate == "mean" else []
    return run, series if series and series[0].recipe.target is None and len(series) > 1 else ()


def _rights(store: Store, series: Sequence[Asked], scorer: str) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """The ids that dense judged, and every step's score on them [ids, steps]; nan where a step has none."""
    columns = [load.verdicts(store, step)[scorer] for step in series]
    ids = columns[0].ids
    where = [dict(zip(one.ids, one.score, strict=True)) for one in columns]
    return ids, np.array([[scores.get(name, math.nan) for scores in where] for name in ids], dtype=float)
