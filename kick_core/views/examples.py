"""Two runs example by example, and one example under every recipe.

The frame of all examples stays narrow (ids, words and numbers, no prompts, no answers), so that it is light at
14,042 rows; the text of one example is read when it is opened.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kick_core import stats, tasks
from kick_core.errors import KickError
from kick_core.records import Example, Output
from kick_core.store import Store, results
from kick_core.views import load, paired, recipe_labels, sentences, text_diff
from kick_core.views.as_sent import as_sent
from kick_core.views.load import Asked
from kick_core.views.scores import RIGHT, pair
from kick_core.views.verdict_columns import VerdictColumns

FLIPS = ("broke", "fixed", "both wrong", "both right")
"""In the order in which pages offer them: failures first."""

REPEATED = ("none", "up to 20 %", "20 to 40 %", "40 to 60 %", "60 to 80 %", "above 80 %")
"""Bins of the share of an answer's 4-grams that it has said before."""

COLUMNS = {
    "id": "str",
    "flip": "str",
    "why": "str",
    "dense_why": "str",
    "subject": "str",
    "discipline": "str",
    "dense_score": "float",
    "score": "float",
    "dense_repetition": "float",
    "repetition": "float",
    "loops": "bool",
    "breaks_at": "float",
    "breaks": "str",
}


@dataclass(frozen=True, slots=True)
class Answer:
    """One recipe's answer to one example, with its verdicts by scorer and how repetitive its text is."""

    run: str
    recipe: str
    label: str
    target_label: str
    kind: str
    output: Output
    score: float
    why: str
    extracted: str
    scores: dict[str, float]
    probabilities: tuple[float, ...]
    repetition: stats.Repetition

    @property
    def text(self) -> str:
        """All assistant turns; for a choice the option taken."""
        missing = load.NOT_IN_PACK if self.output.stop == tasks.LEFT_OUT else ""
        return "\n\n".join(self.output.text) or self.extracted or missing

    @property
    def right(self) -> bool | None:
        """None: not judged."""
        return None if math.isnan(self.score) else self.score >= RIGHT


@dataclass(frozen=True, slots=True)
class Detail:
    """One example under every recipe it was asked under, the dense answer first.

    `judged`: answers can be right or wrong. Windows of running text (perplexity) cannot. `sent` is the prompt as the
    model got it, "" where a run does not tell (dialogues).
    """

    example: Example
    task: str
    answers: tuple[Answer, ...]
    judged: bool
    sent: str = ""

    @property
    def subject(self) -> str:
        return _said(self.example, "subject")

    def of(self, run: str) -> Answer | None:
        return next((answer for answer in self.answers if answer.run == run), None)


def examples(store: Store, run_key: str, dense_run_key: str, scorer: str | None = None) -> pd.DataFrame:
    """The examples that both runs have judged, in the task's order. `scorer`: the task's headline one.

    `flip` says how the answer moved from the second run to the first; perplexity's windows have no right or
    wrong and no flip. `breaks_at` is the severity of the mildest recipe of the same method whose answer is
    wrong where dense was right (nan: it never is, or dense was wrong already), `breaks` its name.
    """
    run, dense = load.one(store, run_key), load.one(store, dense_run_key)
    scorer = scorer or run.task.headline
    after, before = _scored(store, run, scorer), _scored(store, dense, scorer)
    ids, at_before, at_after = pair(before, after)
    graded = run.task.aggregate == "mean"
    old, new = before.score[at_before], after.score[at_after]
    about = load.examples(store, run.card.examples)
    sparsity_series = load.sparsity_series(run, load.asked(store)) if graded else []
    severity, names = _breaks(store, sparsity_series, scorer, ids)
    frame = {
        "id": ids,
        "flip": _flip(old, new) if graded else np.full(ids.size, ""),
        "why": after.why[at_after],
        "dense_why": before.why[at_before],
        "subject": [_said(about.get(name), "subject") for name in ids],
        "discipline": [_said(about.get(name), "discipline", "bucket", "category") for name in ids],
        "dense_score": old,
        "score": new,
        "dense_repetition": _repetitions(store, dense, ids)[0],
        "breaks_at": severity,
        "breaks": names,
    }
    frame["repetition"], frame["loops"] = _repetitions(store, run, ids)
    return pd.DataFrame(frame, columns=list(COLUMNS)).fillna({"why": "", "dense_why": ""}).astype(COLUMNS)


def broke(store: Store, run_key: str, dense_run_key: str, scorer: str) -> list[str]:
    """The ids that dense has right and the run has wrong, in the task's order: those of `examples` that broke."""
    after, before = (_scored(store, load.one(store, key), scorer) for key in (run_key, dense_run_key))
    ids, at_before, at_after = pair(before, after)
    was, now = before.score[at_before] >= RIGHT, after.score[at_after] >= RIGHT
    return [str(name) for name in ids[was & ~now]]


def apart(store: Store, run_key: str, other_key: str, dense_run_key: str, scorer: str) -> list[str]:
    """The ids that dense has right and of which the two runs have one right and one wrong, in the task's order."""
    dense, one, other = (_scored(store, load.one(store, key), scorer) for key in (dense_run_key, run_key, other_key))
    first, second = _on(dense.ids, one), _on(dense.ids, other)
    judged = ~(np.isnan(first) | np.isnan(second))
    differ = (dense.score >= RIGHT) & judged & ((first >= RIGHT) != (second >= RIGHT))
    return [str(name) for name in dense.ids[differ]]


def _scored(store: Store, run: Asked, scorer: str) -> VerdictColumns:
    found = load.verdicts(store, run)
    if scorer not in found:
        raise KickError(f"run {run.key} has no verdicts of {scorer!r}; it has {', '.join(found) or 'none'}")
    return found[scorer]


def _flip(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.str_]:
    was, now = before >= RIGHT, after >= RIGHT
    return np.select(
        [was & ~now, ~was & now, ~was & ~now],
        FLIPS[:3],
        default=FLIPS[3],
    )


def _said(example: Example | None, *names: str) -> str:
    """The first of these facts that an example's meta states."""
    if example is None:
        return ""
    return next((str(example.meta[name]) for name in names if example.meta.get(name)), "")


def _breaks(
    store: Store, sparsity_series: Sequence[Asked], scorer: str, ids: NDArray[np.object_]
) -> tuple[NDArray[np.float64], list[str]]:
    severity, names = np.full(ids.size, math.nan), [""] * ids.size
    if not sparsity_series or sparsity_series[0].recipe.target is not None:
        return severity, names
    right = _on(ids, _scored(store, sparsity_series[0], scorer)) >= RIGHT
    for step in reversed(sparsity_series[1:]):
        wrong = np.flatnonzero(right & (_on(ids, _scored(store, step, scorer)) < RIGHT))
        severity[wrong] = recipe_labels.severity(step.recipe)
        for at in wrong:
            names[at] = recipe_labels.target_label(step.recipe)
    return severity, names


def _on(ids: NDArray[np.object_], found: VerdictColumns) -> NDArray[np.float64]:
    """Scores on these ids, nan where the run has none."""
    if found.ids.size >= ids.size and np.array_equal(found.ids[: ids.size], ids):
        return found.score[: ids.size]
    where = dict(zip(found.ids, found.score, strict=True))
    return np.array([where.get(name, math.nan) for name in ids], dtype=float)


def _repetitions(store: Store, run: Asked, ids: NDArray[np.object_]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """seq-rep-4 of every answer by words, and whether it ends in a loop; nan where nothing is known of it."""
    if run.task.kind in ("choose", "perplexity"):
        return np.full(ids.size, math.nan), np.zeros(ids.size, dtype=bool)
    table = load.answers(store, run.key)
    said = dict(zip(table.column("example").to_pylist(), table.column("text").to_pylist(), strict=True))
    texts = [text_diff.words(" ".join(said.get(name) or ())) for name in ids]
    ends = dict(zip(table.column("example").to_pylist(), table.column("stop").to_pylist(), strict=True))
    there = np.array([ends.get(name) != tasks.LEFT_OUT for name in ids], dtype=bool)
    repeated = np.array([stats.repeated(words) for words in texts], dtype=float)
    loops = np.array([stats.find_loop(words) is not None for words in texts], dtype=bool)
    return np.where(there, repeated, math.nan), loops


@dataclass(frozen=True, slots=True)
class Versus:
    """Two recipes over the examples that both have: means, how answers moved, whether that may be chance."""

    before: float
    after: float
    difference: stats.Interval
    table: stats.Flips
    p: float
    test: str
    detectable: float


def versus(frame: pd.DataFrame) -> Versus:
    """The numbers behind an `examples` frame."""
    before, after = frame["dense_score"].to_numpy(), frame["score"].to_numpy()
    table = stats.flips(before, after, RIGHT)
    binary = stats.is_binary(before) and stats.is_binary(after)
    return Versus(
        float(before.mean()),
        float(after.mean()),
        stats.paired_difference(before, after),
        table,
        stats.paired_p(before, after),
        "exact McNemar" if binary else "paired t and score test",
        stats.smallest_detectable(table.share, table.n),
    )


def words_between(store: Store, run_key: str, other_key: str, scorer: str, name: str) -> str:
    """How a run differs from another one by a scorer, in words; `name` is what the other is called there."""
    run, other = load.one(store, run_key), load.one(store, other_key)
    row = paired.numbers(store, run, scorer, _scored(store, run, scorer), _scored(store, other, scorer))
    about = {"kind": "", "p_holm": math.nan, "higher_is_better": run.task.higher_is_better}
    return sentences.sentence(row | about, name)


def survival(store: Store, run_key: str, scorer: str | None = None) -> pd.DataFrame:
    """Of the answers that are right under dense, how many no recipe of a run's method up to each step has broken.

    Args:
        store: the cache.
        run_key: any run of the method; the series is compared with its own dense run, whatever else is on the page.
        scorer: whose verdicts count; the task's headline scorer unless it is given.

    Returns:
        One row per step of the series, dense first, mild to harsh, also where a step breaks nothing: target_label,
        left, n (right under dense), share. Empty where the series has no dense run.
    """
    run = load.one(store, run_key)
    scorer = scorer or run.task.headline
    series = load.sparsity_series(run, load.asked(store))
    columns = ["target_label", "left", "n", "share"]
    if not series or series[0].recipe.target is not None:
        return pd.DataFrame(columns=columns)
    dense = _scored(store, series[0], scorer)
    alive = dense.score >= RIGHT
    n, rows = int(alive.sum()), []
    for step in series:
        alive &= ~(_on(dense.ids, _scored(store, step, scorer)) < RIGHT)
        left = int(alive.sum())
        rows.append((recipe_labels.target_label(step.recipe), left, n, left / max(n, 1)))
    return pd.DataFrame(rows, columns=columns)


def repeated(shares: pd.Series) -> pd.Series:
    """The bin of `REPEATED` of every share; "" where nothing was generated."""
    at = np.ceil(np.asarray(shares, dtype=float) * (len(REPEATED) - 1) - 1e-9)
    return pd.Series(
        ["" if math.isnan(place) else REPEATED[int(place)] for place in at], index=shares.index, dtype="str"
    )


def csv(frame: pd.DataFrame) -> bytes:
    """A frame as CSV whose words no spreadsheet takes for formulas."""
    words_: list[str] = list(frame.select_dtypes(include="str").columns)
    safe = {name: frame[name].mask(frame[name].str.match(r"[=+\-@\t\r]"), "'" + frame[name]) for name in words_}
    return frame.assign(**safe).to_csv(index=False).encode()


def parquet(frame: pd.DataFrame) -> bytes:
    """A frame as Parquet, every word as it is."""
    return bytes(frame.to_parquet(index=False))


def by(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Flips by subject or discipline: n, broke, fixed and their shares, most broken first."""
    named = frame[frame[column] != ""]
    table = named.groupby(column)["flip"].value_counts().unstack(fill_value=0)
    table = table.reindex(columns=list(FLIPS), fill_value=0)
    table.insert(0, "n", table.sum(axis=1))
    table["broke_share"], table["fixed_share"] = table["broke"] / table["n"], table["fixed"] / table["n"]
    return table.sort_values(["broke_share", "n"], ascending=False).reset_index()


def example(
    store: Store, run_key: str, example_id: str, scorer: str | None = None, among: Collection[str] | None = None
) -> Detail:
    """One example under every recipe asked alike, or under the run and `among` others: prompt, golds, answers."""
    run = load.one(store, run_key)
    about = load.examples(store, run.card.examples).get(example_id)
    if about is None:
        raise KickError(f"example {example_id!r} is not among those of {run.card.task}")
    others = load.asked(store) if among is None else load.some(store, {run_key, *among})
    alike = [other for other in others if load.alike(other) == load.alike(run)]
    order = sorted(alike, key=lambda other: recipe_labels.order(other.recipe))
    answers = (_answer(store, other, example_id, scorer or run.task.headline) for other in order)
    judged = run.task.aggregate == "mean"
    given = tuple(answer for answer in answers if answer)
    shots = next((answer.output.shots_used for answer in given if answer.run == run_key), None)
    return Detail(about, run.card.task, given, judged, as_sent(run, about, shots))


def _answer(store: Store, run: Asked, example_id: str, scorer: str) -> Answer | None:
    output = load.answer(store, run.key, example_id)
    if output is None:
        return None
    scores, why, extracted = {}, "", ""
    for name, found in load.verdicts(store, run).items():
        places = np.flatnonzero(found.ids == example_id)
        if places.size:
            scores[name] = float(found.score[places[0]])
            if name == scorer:
                why, extracted = str(found.why[places[0]] or ""), found.extracted_at(places[0])
    return Answer(
        run.key,
        run.recipe.text,
        recipe_labels.label(run.recipe),
        recipe_labels.target_label(run.recipe),
        recipe_labels.kind(run.recipe),
        output,
        scores.get(scorer, math.nan),
        why,
        extracted,
        scores,
        _softmax(output.logprobs) if run.task.kind == "choose" else (),
        text_diff.repetition(" ".join(output.text)),
    )


def _softmax(logprobs: Sequence[float]) -> tuple[float, ...]:
    """Probabilities among the options alone."""
    if not logprobs:
        return ()
    found = np.exp(np.asarray(logprobs) - max(logprobs))
    return tuple(float(share) for share in found / found.sum())


def series(store: Store, run_key: str) -> list[str]:
    """The keys of the runs of a run's method from mild to harsh, dense first."""
    return [step.key for step in load.sparsity_series(load.one(store, run_key), load.asked(store))]


RULE = "the one whose id has the smallest SHA-256 with seed 0"


def pick(ids: Sequence[str], seed: int = 0) -> str | None:
    """One example by a rule that nobody can bend: the smallest SHA-256 of seed and id."""
    return min(ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).hexdigest(), default=None)


def total(store: Store, run_key: str) -> int:
    """How many examples the run's task has in all."""
    return max(results.run(store, run_key).total, results.measured(store, run_key))
