"""The paper's experiments beside what was measured here, row by row: its number, ours with interval and n, in words.

Numbers on different scales (GPT-4's 1 to 10 against a share of facts) are compared by the share of the dense score
that is kept; `differences` says what else is not the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from kick_core import stats
from kick_core.records import Example
from kick_core.spec import parse
from kick_core.store import Store
from kick_core.tasks import paper
from kick_core.tasks.paper import Printed
from kick_core.views import load, paired, recipe_labels, sentences
from kick_core.views.verdict_columns import VerdictColumns


@dataclass(frozen=True, slots=True)
class Swept:
    """A sweep that is done: its model, its calibration windows, the run of each (recipe, task), and how many shots
    were shown where that was asked for."""

    model: str
    windows: int
    runs: Mapping[tuple[str, str], str]
    shots: int | None = None

    def recipes(self, task: str) -> list[str]:
        """The recipes that were asked a task, dense first, then by method and from mild to harsh."""
        asked = [parse(recipe) for recipe, of in self.runs if of == task]
        return [recipe.text for recipe in sorted(asked, key=recipe_labels.order)]


OURS = ("score", "low", "high", "n", "kept", "kept_low", "kept_high", "verdict", "words")
"""Columns of what was measured: the score and the share of dense kept, each with its interval, and both in words."""


def compared(store: Store, run: str, dense: str, only: Callable[[Example], bool] | None = None) -> dict[str, Any]:
    """The headline score of one run, and beside dense, over the examples that `only` keeps."""
    mine, base = load.one(store, run), load.one(store, dense)
    scorer = mine.task.headline
    scored, before = (_where(store, one, load.verdicts(store, one)[scorer], only) for one in (mine, base))
    row = paired.numbers(store, mine, scorer, scored, None if run == dense else before)
    row |= {"kind": recipe_labels.kind(mine.recipe) if run != dense else "dense", "p_holm": math.nan}
    row |= {"higher_is_better": mine.task.higher_is_better}
    row |= paired.alone(store, mine, scorer, row) if run == dense else {}
    kept = {"kept": row["share_kept"], "kept_low": row["share_low"], "kept_high": row["share_high"]}
    return row | kept | {"words": sentences.sentence(row)}


def _where(
    store: Store, run: load.Asked, found: VerdictColumns, only: Callable[[Example], bool] | None
) -> VerdictColumns:
    if only is None:
        return found
    examples = load.examples(store, run.card.examples)
    return found.take(np.flatnonzero([only(examples[name]) for name in found.ids]))


def _ours(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in OURS}


def printed(store: Store, swept: Swept, numbers: Iterable[Printed]) -> pd.DataFrame:
    """Table 2 or 3: one row per printed number that was measured here too."""
    rows = []
    for number in numbers:
        run, dense = (swept.runs.get((recipe, number.task)) for recipe in (number.recipe, "dense"))
        if run and dense:
            only = _having("bucket", number.bucket) if number.bucket else None
            about = {"task": number.task, "measure": number.measure, "recipe": number.recipe, "paper": number.value}
            rows.append(about | {"paper_kept": number.kept} | _ours(compared(store, run, dense, only)))
    return pd.DataFrame(rows, columns=["task", "measure", "recipe", "paper", "paper_kept", *OURS])


def calibration_size(store: Store, sweeps: Sequence[Swept], task: str = paper.MMLU) -> pd.DataFrame:
    """Figure 7: a score by the number of calibration windows, and its difference from the fewest windows."""
    ordered = {one.windows: one for one in sorted(sweeps, key=lambda one: one.windows)}
    rows = [row for row in _steps(store, ordered, task, "windows", "fewest windows") if row["recipe"] != "dense"]
    return pd.DataFrame(rows, columns=["recipe", "windows", *OURS, "gain"])


def few_shots(store: Store, sweeps: Sequence[Swept], task: str = paper.MMLU) -> pd.DataFrame:
    """Figure 14: a score by the number of shots, beside dense with as many, and its difference from no shots."""
    ordered = {one.shots or 0: one for one in sorted(sweeps, key=lambda one: one.shots or 0)}
    return pd.DataFrame(_steps(store, ordered, task, "shots", "no shots"), columns=["recipe", "shots", *OURS, "gain"])


def _steps(store: Store, ordered: Mapping[int, Swept], task: str, name: str, least: str) -> list[dict[str, Any]]:
    """One row a recipe and step: beside dense at that step, and its difference from the first step (`least`)."""
    first, rows = next(iter(ordered.values())), []
    for recipe in first.recipes(task):
        for step, swept in ordered.items():
            run = swept.runs[recipe, task]
            row = _ours(compared(store, run, swept.runs["dense", task]))
            begun = first.runs[recipe, task]
            gain = least if run == begun else sentences.difference(compared(store, run, begun))
            rows.append({"recipe": recipe, name: step, **row, "gain": gain})
    return rows


def small_dense(store: Store, small: Swept, large: Swept) -> pd.DataFrame:
    """Section 4: every sparse large model against the dense small one, on the same examples."""
    rows = []
    for task in dict.fromkeys(of for _, of in small.runs):
        reference = small.runs["dense", task]
        alone = _ours(compared(store, reference, reference)) | {"words": "the small dense model"}
        rows.append({"model": small.model, "recipe": "dense", "task": task, **alone})
        for recipe in large.recipes(task):
            row = compared(store, large.runs[recipe, task], reference)
            about = {"model": large.model, "recipe": recipe, "task": task}
            words = {"words": sentences.difference({**row, "kind": "ratio"})}
            rows.append(about | _ours(row) | words)
    return pd.DataFrame(rows, columns=["model", "recipe", "task", *OURS])


def disciplines(store: Store, swept: Swept, task: str = paper.MMLU) -> pd.DataFrame:
    """Figure 3: multiple choice by discipline. Fewer examples each, so wider intervals."""
    dense = swept.runs["dense", task]
    examples = load.examples(store, load.one(store, dense).card.examples).values()
    names = sorted({str(example.meta["discipline"]) for example in examples if example.meta.get("discipline")})
    rows = [
        {"discipline": name, "recipe": recipe}
        | _ours(compared(store, swept.runs[recipe, task], dense, _having("discipline", name)))
        for recipe in swept.recipes(task)
        for name in names
    ]
    return pd.DataFrame(rows, columns=["discipline", "recipe", *OURS])


def _having(name: str, value: str) -> Callable[[Example], bool]:
    return lambda example: example.meta.get(name) == value


def perplexity_vs_tasks(store: Store, swept: Swept) -> pd.DataFrame:
    """Figure 1: the share kept of perplexity and of every task, recipe by recipe."""
    rows = []
    for recipe in swept.recipes(paper.PERPLEXITY):
        for task in dict.fromkeys(of for _, of in swept.runs):
            row = compared(store, swept.runs[recipe, task], swept.runs["dense", task])
            rows.append({"recipe": recipe, "task": task, **_ours(row)})
    return pd.DataFrame(rows, columns=["recipe", "task", *OURS])


def agreement(frame: pd.DataFrame) -> list[str]:
    """What a `perplexity_vs_tasks` frame says: up to where each still matches, and whether the orders agree."""
    said = []
    wide = frame[frame["recipe"] != "dense"].pivot(index="recipe", columns="task", values="kept")
    for task in wide.columns:
        mine = frame[frame["task"] == task]
        if mine["verdict"].eq(paired.AT_FLOOR).all():
            said.append(f"{task}: {paired.AT_CHANCE}")
            continue
        said.append(f"{task} matches dense up to: {furthest(mine)}")
        if task != paper.PERPLEXITY and len(wide) > 2:
            rank = float(np.corrcoef(wide[paper.PERPLEXITY].rank(), wide[task].rank())[0, 1])  # Spearman's
            said[-1] += f"; rank correlation with perplexity {rank:.2f} over {len(wide)} recipes"
    return said


def furthest(rows: pd.DataFrame) -> str:
    """Per method the harshest sparsity before the first that does not surely match."""
    best: dict[str, str] = {}
    lost: set[str] = set()
    for row in sorted(rows.to_dict("records"), key=lambda row: recipe_labels.severity(parse(row["recipe"]))):
        recipe = parse(row["recipe"])
        method = recipe_labels.method(recipe)
        if recipe.target is None:
            continue
        if row["verdict"] == "matching" and method not in lost:
            best[method] = recipe_labels.target_label(recipe)
        else:
            lost.add(method)
            best.setdefault(method, "none")
    return ", ".join(f"{method} {target_label}" for method, target_label in sorted(best.items()))


def differences(model: str, data: str, tasks: Iterable[str]) -> list[str]:
    """What is not as in the paper, in words; belongs under every table."""
    asked = set(tasks)
    found = [f"model: {model}; the paper's is {paper.MODEL}" + (" (and 13B)" if paper.MMLU in asked else "")]
    if data == "pocket":
        found.append("data: the pocket world's questions and texts; the paper's are FreebaseQA, MMLU, TriviaQA, CNN")
    found += [text for concerned, text in paper.DIFFERENCES if asked & set(concerned)]
    return [*found, f"intervals: {100 * stats.CONFIDENCE:.0f} %, paired with dense; the paper prints none"]
