"""One row per model, recipe, task and scorer: the table that the pages and `kick evaluate --json` both print.

Dense and compressed are compared over the examples that both have measured and judged, never over more. What
cannot be compared says so: nan in the numbers, "not measured" in the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kick_core import methods, stats
from kick_core.errors import KickError
from kick_core.methods import storage
from kick_core.spec import Recipe
from kick_core.store import Store, results, weight_artifacts
from kick_core.tasks import DESCRIPTIVE, OFFICIAL, POCKET, get
from kick_core.views import load, paired, recipe_labels, sentences
from kick_core.views.load import Asked
from kick_core.views.paired import NOT_MEASURED, RIGHT, pair

__all__ = ["COLUMNS", "DENSE", "DESCRIPTIVE", "NOT_MEASURED", "RIGHT", "current", "pair", "scores"]

COLUMNS = {
    "model": "str",
    "recipe": "str",
    "label": "str",
    "target_label": "str",
    "method": "str",
    "base": "str",
    "without": "str",
    "recovered": "str",
    "kind": "str",
    "sparsity": "float",
    "bits": "float",
    "bits_per_weight": "float",
    "severity": "float",
    "task": "str",
    "title": "str",
    "scorer": "str",
    "headline": "bool",
    "published": "bool",
    "higher_is_better": "bool",
    "n": "int",
    "total": "int",
    "unjudged": "int",
    "chance": "float",
    "clusters": "int",
    "unit": "str",
    "score": "float",
    "stderr": "float",
    "low": "float",
    "high": "float",
    "paired": "int",
    "dense_score": "float",
    "share_kept": "float",
    "share_low": "float",
    "share_high": "float",
    "share_above": "float",
    "share_above_low": "float",
    "share_above_high": "float",
    "difference": "float",
    "diff_low": "float",
    "diff_high": "float",
    "both_right": "float",
    "broke": "float",
    "fixed": "float",
    "both_wrong": "float",
    "changed": "float",
    "changed_low": "float",
    "changed_high": "float",
    "p": "float",
    "p_holm": "float",
    "p_matching": "float",
    "p_not_matching": "float",
    "detectable": "float",
    "needed": "float",
    "verdict": "str",
    "together": "str",
    "compared": "int",
    "words": "str",
    "run": "str",
    "dense_run": "str",
    "weights": "str",
    "protocol": "str",
    "shared": "bool",
    "data": "str",
    "examples": "str",
    "own": "bool",
    "dtype": "str",
    "device": "str",
    "engine": "str",
    "prompting": "str",
    "seed": "str",
    "created": "str",
    "fingerprint": "str",
}

DENSE = "dense"


def scores(store: Store, model: str | None = None) -> pd.DataFrame:
    """All measured scores, dense included. `model` keeps one model (by its name or fingerprint).

    Sorted by model, task in reading order, method, from mild to harsh. Perplexity's score is the exponential
    of the mean negative log-probability per token, its share kept is dense / compressed, its difference is
    compressed - dense. `clusters` are the independent groups that the n examples form; `changed` is the share of
    answers that are another answer now; `p_matching` and `p_not_matching` are one-sided at the margin, and `together`
    is the verdict that holds over all `compared` recipes of the task; `needed` the examples that a verdict would
    take; `words` says it all.
    `recovered` says what came after compression, `without` the recipe that it started from, `base` its method.
    `examples` is the key of the questions; `own` says that the cache itself holds the run, not the gallery beside it.
    `headline` marks the scorer that the strict protocol reports, `published` the paper's; `shared` a run that both
    ask alike.
    """
    among = [run for run in load.asked(store) if load.is_result(run)]
    names = load.model_names(among)
    wanted = [
        run
        for run in among
        if model is None or model in (run.card.model, run.card.fingerprint, names[run.card.fingerprint])
    ]
    return _frame(store, wanted, among, names)


def scores_of(store: Store, runs: Collection[str]) -> pd.DataFrame:
    """`scores` of these runs, also where other worked examples were shown than `scores` tells of."""
    among = [run for run in load.asked(store) if load.AGAIN not in run.card.settings]
    wanted = [run for run in among if run.key in runs or load.is_result(run)]
    frame = _frame(store, wanted, among, load.model_names(among))
    return frame[frame["run"].isin(runs)]


def _frame(store: Store, wanted: Sequence[Asked], among: Sequence[Asked], names: Mapping[str, str]) -> pd.DataFrame:
    dense: dict[tuple[str, ...], list[Asked]] = {}
    for run in (run for run in among if run.recipe.target is None):
        dense.setdefault(load.alike(run), []).append(run)
    rows = [
        row
        for run in wanted
        for row in _rows(store, run, load.dense_of(run, dense.get(load.alike(run), ())), names[run.card.fingerprint])
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    frame["p_holm"], frame["together"], frame["compared"] = _families(frame)
    frame["words"] = pd.Series([sentences.sentence(row) for row in frame.to_dict("records")], dtype="str")
    order = {name: at for at, name in enumerate(load.task_titles(frame["task"].unique()))}
    frame["_task"], frame["_dense"] = frame["task"].map(order), frame["kind"] != "dense"
    frame["_kind"] = frame["kind"].map(recipe_labels.KINDS.index)
    by = ["model", "_task", "_dense", "method", "_kind", "severity", "recipe", "created"]
    return frame.sort_values(by, kind="stable").drop(columns=["_task", "_dense", "_kind"]).reset_index(drop=True)


def way(frame: pd.DataFrame, tasks: Iterable[str]) -> dict[str, str]:
    """How `current` rows of some tasks were measured, as far as it is one way: the dtype, and the form of prompting.

    Args:
        frame: of `current`.
        tasks: names of tasks.

    Returns:
        Fields of a request, `dtype` and `prompting`; no form where the tasks have one only.
    """
    mine = frame[frame["task"].isin(list(tasks))]
    dtypes, forms = set((mine if len(mine) else frame)["dtype"]) & DTYPES, set(mine["prompting"])
    way = {"dtype": dtypes.pop()} if len(dtypes) == 1 else {}
    pairs = {
        (task.partition("/")[0], POCKET if data == POCKET else OFFICIAL)
        for task, data in zip(mine["task"], mine["data"], strict=True)
    }
    several = any(get(task, data).strict.elicitation for task, data in pairs)
    return way | ({"prompting": forms.pop()} if len(forms) == 1 and several else {})


DTYPES = frozenset({"float32", "bfloat16", "float16"})
"""What a request may name."""


def current(frame: pd.DataFrame, model: str, protocol: str | None = None, data: str | None = None) -> pd.DataFrame:
    """What the pages draw: one model on one kind of data, asked by one engine, one run of each recipe and task: of the
    artifact that was asked the most tasks, then the newest.

    All of it is by the engine in which most recipes were evaluated, and each task in one way: the same questions, form
    of prompting and dtype. Numbers of two ways make no curve, and a recipe is compared with dense within one only.

    `data` is "pocket" or "official" (the first of `data_kinds` unless it is given): numbers on both make no curve.
    `protocol` chooses runs asked in its way and the scorer that it reports; a run that both ask alike counts for
    both, and its `protocol` here is the one that was chosen. Without one, every run's strict headline scorer.
    """
    mine = frame[frame["model"] == model]
    kinds = mine["data"].map(load.kind_of_data)
    mine = mine[kinds == (data or next(iter(data_kinds(frame, model)), load.POCKET))]
    mine = mine[mine["engine"] == load.asked_most(mine.drop_duplicates("run")["engine"])]
    reported = "published" if protocol == "paper" else "headline"
    mine = mine[mine[reported]]
    if protocol is not None:
        asked = mine["protocol"] == protocol
        mine = mine[asked | mine["shared"] if protocol == "paper" else asked].assign(protocol=protocol)
    mine = _one_way(mine)
    # another calibration's artifact is another model: one that was asked less does not stand in a row of the other's
    mine = mine.assign(breadth=mine.groupby(["recipe", "weights"])["task"].transform("nunique"))
    newest = mine.sort_values(["breadth", "created"], kind="stable").drop_duplicates(["recipe", "task"], keep="last")
    return newest.drop(columns="breadth").sort_index().reset_index(drop=True)


def _one_way(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each task the rows that were asked in one way: the one that most recipes have, then the newer one.

    Where this cache holds compressed recipes of the model, the gallery's rows are left out: a recipe there was made
    and asked in another way, so a sentence over both would be about two models.
    """
    by = ["task", "examples", "prompting", "dtype"]
    if (frame["own"] & (frame["kind"] != DENSE)).any():
        frame = frame[frame["own"]]
    ways = frame.groupby(by, as_index=False).agg({"recipe": "nunique", "created": "max"})
    chosen = ways.sort_values(["recipe", "created"]).drop_duplicates("task", keep="last")[by]
    return frame[pd.MultiIndex.from_frame(frame[by]).isin(pd.MultiIndex.from_frame(chosen))]


def data_kinds(frame: pd.DataFrame, model: str) -> list[str]:
    """The kinds of data that a model was asked on, the pocket world's first."""
    found = set(frame.loc[frame["model"] == model, "data"].map(load.kind_of_data))
    return [kind for kind in load.DATA if kind in found]


def protocols(frame: pd.DataFrame, model: str) -> list[str]:
    """The protocols that a model was asked under, the one asked most first; what both ask alike counts for both."""
    mine = frame[frame["model"] == model]
    found = [str(name) for name in mine["protocol"].value_counts().index]
    return list(dict.fromkeys([*found, *(["paper"] if mine["shared"].any() else [])]))


def verdicts_together(frame: pd.DataFrame) -> pd.DataFrame:
    """A frame of scores whose verdicts hold together: with 95 % confidence no "matching" of a task is false.

    Claims, matrices and reports made of it follow from these verdicts.
    """
    return frame.assign(verdict=frame["together"])


def multiplicity(frame: pd.DataFrame) -> str:
    """What to know beside verdicts that each stand alone; empty where none of two is "matching"."""
    most = int(frame["compared"].max()) if len(frame) else 0
    if most < 2 or not frame["verdict"].eq("matching").any():
        return ""
    matching = frame["verdict"].eq("matching")
    found, kept = sum(matching), sum(matching & frame["together"].eq("matching"))
    rest = "stay" if kept == found else "stay, the others become “cannot tell”"
    return (
        f"One “matching” is wrong with a probability of up to {100 * (1 - stats.CONFIDENCE) / 2:.1f} %, at least one "
        f"among {most} recipes with up to {100 * stats.false_matching(most):.0f} %. Corrected for the number of "
        f"recipes (Holm 1979), {kept} of {found} “matching” {rest}."
    )


def _families(frame: pd.DataFrame) -> tuple[NDArray[np.float64], list[str], NDArray[np.intp]]:
    """Per row, over the recipes that were compared with one dense run by one scorer: the adjusted p of "differs from
    dense", the verdict at the margin that holds together with the others, and how many recipes were compared."""
    adjusted, compared = np.full(len(frame), math.nan), np.zeros(len(frame), dtype=np.intp)
    together, margins = frame["verdict"].tolist(), frame[["p_matching", "p_not_matching"]].to_numpy()
    by = ["fingerprint", "task", "scorer", "protocol", "engine", "dense_run"]
    for places in frame.groupby(by, sort=False).indices.values():
        adjusted[places] = stats.holm(frame["p"].iloc[places].tolist())
        tests = [stats.MarginTest(*margins[at]) for at in places]
        words = stats.match_together(tests)
        compared[places] = sum(not math.isnan(test.loses) for test in tests)
        for at, word in zip(places, words, strict=True):
            together[at] = word if together[at] in get_args(stats.Match) else together[at]
    return adjusted, together, compared


def _rows(store: Store, run: Asked, dense: Asked | None, model: str) -> list[dict[str, Any]]:
    found = load.verdicts(store, run)
    base = load.verdicts(store, dense) if dense else {}
    about = _about(run, dense, model, _shapes(store, run))
    about["own"] = store.own("results", run.key)
    about["total"] = max(run.card.total, results.measured(store, run.key))
    about["chance"] = load.chance(store, run)
    rows = []
    for scorer, mine in found.items():
        row = {**about, "scorer": scorer, "headline": scorer == run.task.headline}
        row["published"] = scorer == run.task.headline_of("paper")
        other = None if run.recipe.target is None else base.get(scorer)
        row |= paired.numbers(store, run, scorer, mine, other)
        if run.recipe.target is None:
            row |= paired.alone(store, run, scorer, row)
        rows.append(row | {"together": row["verdict"], "compared": 0})  # until `_families` knows the others
    return rows


def _recovery(recipe: Recipe) -> dict[str, str]:
    """How a recipe recovers, its method without that, and the recipe that it recovers from; nothing for others."""
    how, base = recipe_labels.recovered(recipe), methods.unrecovered(recipe)
    return {"recovered": how, "base": recipe_labels.method(base), "without": base.text if how else ""}


def _shapes(store: Store, run: Asked) -> list[storage.Shape]:
    """The shapes of the matrices that a recovered recipe was made of, as far as its artifact tells."""
    if methods.recovery(run.recipe) is None:
        return []
    try:
        layers = weight_artifacts.card(store, run.card.weights).layers
    except KickError:
        return []
    return [storage.Shape(layer.rows, layer.cols) for layer in layers]


def _about(run: Asked, dense: Asked | None, model: str, shapes: list[storage.Shape]) -> dict[str, Any]:
    card, recipe = run.card, run.recipe
    kind = recipe_labels.kind(recipe)
    return {
        "model": model,
        "recipe": recipe.text,
        "label": recipe_labels.label(recipe),
        "target_label": recipe_labels.target_label(recipe),
        "method": recipe_labels.method(recipe),
        **_recovery(recipe),
        "kind": kind,
        "sparsity": recipe_labels.sparsity(recipe),
        "bits": recipe_labels.bits(recipe),
        "bits_per_weight": storage.bits_per_weight(recipe, 32 if card.dtype == "float32" else 16, shapes),
        "severity": recipe_labels.severity(recipe),
        "task": card.task,
        "title": run.task.title,
        "higher_is_better": run.task.higher_is_better,
        "run": card.key,
        "dense_run": dense.key if dense else "",
        "weights": card.weights,
        "protocol": card.protocol,
        "shared": load.asked_alike(run),
        "data": card.data,
        "examples": card.examples,
        "dtype": card.dtype,
        "device": card.device,
        "engine": load.engine_of(run),
        "prompting": str(card.settings.get("prompting", "raw")),
        "seed": str(card.settings.get("seed", "")),
        "created": card.created,
        "fingerprint": card.fingerprint,
    }
