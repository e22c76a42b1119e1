"""What a job that a page offers would take, from what the same work took before in this cache."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from kick_core import methods
from kick_core.spec import parse
from kick_core.store import Store, results, weight_artifacts
from kick_core.views import load, recipe_labels
from kick_core.views.artifact_tables import cards

START = 15.0
"""Seconds until a job's first cell: a Python process, its libraries, a small model opened."""


def seconds(
    store: Store, model: str, recipes: Iterable[str], counts: Mapping[str, int], *, fidelity: bool = False
) -> float:
    """Seconds to compress a model by recipes, where that has not been done, and to evaluate it.

    Args:
        store: the cache, whose records say how long things took.
        model: the model's name.
        recipes: recipes in their text form; dense is among them where it is to be evaluated.
        counts: examples per task.
        fidelity: whether the tasks' windows are read once more, to compare the recipes with dense token by token.

    Returns:
        An estimate, start-up included; nan where some of the work was never timed for this model.
    """
    texts = list(dict.fromkeys(recipes))
    known = [run for run in load.asked(store) if model in (run.card.model, run.card.fingerprint)]
    total = START
    for task, count in counts.items():
        runs = {run.card.recipe: run for run in known if run.card.task == task and load.is_result(run)}
        left = sum(max(0, count - _measured(store, runs, text)) + count * fidelity for text in texts)
        total += left * _per_example(store, (run.key for run in runs.values())) if left else 0.0
    return total + sum(_making(store, model, text) for text in texts)


def _measured(store: Store, runs: Mapping[str, load.Asked], recipe: str) -> int:
    return results.measured(store, runs[recipe].key) if recipe in runs else 0


def _per_example(store: Store, keys: Iterable[str]) -> float:
    sittings = [sitting for key in keys for sitting in results.timings(store, key)]
    examples = sum(sitting.examples for sitting in sittings)
    return sum(sitting.seconds for sitting in sittings) / examples if examples else math.nan


def _making(store: Store, model: str, text: str) -> float:
    recipe = methods.resolve(parse(text))
    mine = [card for card in cards(store) if model in (card.model, card.fingerprint)]
    if recipe.target is None or any(card.recipe == text and weight_artifacts.has(store, card.key) for card in mine):
        return 0.0
    name = recipe_labels.method(recipe)
    took = [card.seconds for card in mine if recipe_labels.method(parse(card.recipe)) == name]
    return max(took) if took else math.nan
