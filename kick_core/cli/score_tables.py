"""The tables of scores that `kick evaluate`, `kick sweep` and others print."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pandas as pd

from kick_core import stats, tasks, views
from kick_core.cli import fidelity_tables, printing
from kick_core.cli.formats import CSV, JSON
from kick_core.records import CHOSEN, RunCard
from kick_core.store import Store, results
from kick_core.sweeps.request import SweepJob
from kick_core.sweeps.sweep_keys import SweepKeys
from kick_core.tasks.data import lm_eval, task_files
from kick_core.tasks.verdicts import details
from kick_core.units import count_text
from kick_core.views import load


def print_scores(job: SweepJob, keys: SweepKeys, store: Store, recipes: tuple[str, ...], form: str) -> None:
    """Print what is measured of a sweep's recipes, in one of `formats.FORMATS`; opens no model."""
    job = replace(job, tasks=tuple(name for name in job.tasks if name not in keys.skipped))
    runs = {keys.runs[task][recipe] for task in job.tasks for recipe in recipes}
    frame = views.scores_of(store, runs)
    headlines = {name: tasks.get(name, job.data).headline_of(job.protocol) for name in job.tasks}
    frame = frame.assign(headline=frame["scorer"] == frame["task"].map(headlines))
    model = keys.model
    weights = set(frame["weights"]) | {keys.artifacts[recipe] for recipe in recipes}
    fidelity = fidelity_tables.measured(job, store, model.fingerprint, weights)
    warnings(frame, store)
    if form == CSV:
        printing.table(_COLUMNS, (_csv_row(row, store) for row in frame.to_dict("records")), CSV)
        return
    if form == JSON:
        facts: dict[str, Any] = {
            "model": model.name,
            "fingerprint": model.fingerprint,
            "decoder": model.decoder or None,
        }
        documents = [one | {"protocol": job.protocol} for one in _results(frame, store)]
        facts["multiplicity"] = views.multiplicity(frame[frame["headline"]])
        facts |= {"skipped": dict(keys.skipped)} if keys.skipped else {}
        printing.document(facts | {"results": documents} | fidelity_tables.documents(fidelity))
        return
    _print_tables(frame[frame["headline"]], store, form)
    fidelity_tables.print_tables(fidelity)


def print_imported(frame: pd.DataFrame, store: Store, form: str) -> None:
    """Print `scores` of runs that another program measured."""
    warnings(frame, store)
    if form == CSV:
        printing.table(_COLUMNS, (_csv_row(row, store) for row in frame.to_dict("records")), CSV)
    elif form == JSON:
        printing.document({"results": _results(frame, store)})
    else:
        _print_tables(frame[frame["headline"]], store, form)


def _print_tables(shown: pd.DataFrame, store: Store, form: str) -> None:
    printing.table(_HEADER, (_score_row(row) for row in shown.itertuples()), form)
    print(f"\n{_asked(shown, store)}")
    compared = shown.loc[shown["kind"] != "dense", ["recipe", "task", "words"]]
    if len(compared):
        print("\nagainst dense, on the same examples")
        rows = (tuple(map(str, row)) for row in compared.to_numpy())
        printing.table(("recipe", "task", "in words"), rows, form)
    if note := views.multiplicity(shown):
        print(f"\n{note}")


def _asked(shown: pd.DataFrame, store: Store) -> str:
    """Every task's version and worked examples, in a line."""
    facts = {}
    for row in shown.itertuples():
        run = load.one(store, str(row.run))
        given = draws(run.card)
        words = [f"{row.task} version {run.task.version}"]
        words += [count_text(given["shots"], "shot")] if given["shots"] is not None else []
        words += [f"few-shot seed {given['fewshot_seed']}"] if given["fewshot_seed"] is not None else []
        words += [f"{row.total} of {chosen['of']:,} examples, chosen"] if (chosen := _chosen(run.card)) else []
        facts[row.task] = ", ".join(words)
    return "; ".join(facts.values())


def _chosen(card: RunCard) -> dict[str, Any]:
    """How the examples of a run were chosen by id or subject, and `of` how many; empty where all are asked."""
    return dict(card.settings.get(CHOSEN, {}))


def draws(card: RunCard) -> dict[str, int | None]:
    """The worked examples of a run as far as they are not the task's own, and the seed that drew them."""
    prompting = str(card.settings.get("prompting", ""))
    shots = int(prompting.removeprefix("shots:")) if prompting.startswith("shots:") else card.settings.get("shots")
    own = card.settings.get(task_files.SETTING, {})
    return {
        "shots": own.get("shots") if shots is None else shots,
        "fewshot_seed": card.settings.get("fewshot_seed", own.get("fewshot_seed", 0) if own.get("shots") else None),
    }


def warnings(frame: pd.DataFrame, store: Store) -> None:
    """Say on standard error where a number means less than it seems to, of a kind once a task."""
    concerned: dict[tuple[str, str], list[str]] = {}
    first: dict[tuple[str, str], str] = {}
    for row in frame[frame["headline"]].itertuples():
        _print_unjudged(row, store)
        for kind, text in views.warnings(store, str(row.run)).items():
            concerned.setdefault((str(row.task), kind), []).append(str(row.recipe))
            first.setdefault((str(row.task), kind), text)
    for (task, kind), recipes in concerned.items():
        others = f" and {len(recipes) - 1} more" if len(recipes) > 1 else ""
        print(f"kick: {task}, {recipes[0]}{others}: {first[task, kind]}", file=sys.stderr)


_COLUMNS = (
    "model", "recipe", "task", "task_version", "scorer", "headline", "n", "unjudged", "score", "stderr", "low", "high",
    "dense_score", "difference", "diff_low", "diff_high", "share_kept", "share_low", "share_high", "broke", "fixed",
    "p", "p_holm", "verdict", "shots", "fewshot_seed", "chosen_of", "protocol", "data", "run",
)  # fmt: skip


def _csv_row(row: Mapping[Any, Any], store: Store) -> list[str]:
    run = load.one(store, str(row["run"]))
    cells = {**row, "task_version": run.task.version, **draws(run.card), "chosen_of": _chosen(run.card).get("of")}
    return ["" if (value := cells[name]) is None or value != value else str(value) for name in _COLUMNS]


_HEADER = ("recipe", "task", "n", "score", "95 % interval", "of dense", "broke", "fixed", "p", "matching (5 %)")


def _print_unjudged(row: Any, store: Store) -> None:
    """Say how many examples have no verdict, and why; those without a gold have a warning of their own."""
    if not row.unjudged:
        return
    settings = results.run(store, row.run).settings
    imported = lm_eval.SETTING in settings
    ends = Counter(
        "no score" if imported and output.stop in ("scored", "stop") and not output.metrics else output.stop
        for output in results.outputs(store, row.run)
    )
    reasons = (
        ("rejected", f"longer than the context of {settings.get('context', 0):,} tokens"),
        ("not finite", "logits not finite"),
        ("no score", "the harness logged no number"),
    )
    if why := ", ".join(f"{ends[end]} {words}" for end, words in reasons if ends[end]):
        count = sum(ends[end] for end, _ in reasons)
        print(f"kick: {row.recipe}, {row.task}: {count} of {row.n + row.unjudged} not judged: {why}", file=sys.stderr)


def _score_row(row: Any) -> tuple[str, ...]:
    return (
        row.recipe,
        row.task,
        str(row.n),
        printing.blank_as(row.score, ".3f"),
        f"{printing.blank_as(row.low, '.3f')} … {printing.blank_as(row.high, '.3f')}",
        printing.blank_as(row.share_kept, ".1%"),
        printing.blank_as(row.broke, ".0f"),
        printing.blank_as(row.fixed, ".0f"),
        printing.blank_as(row.p, ".2g"),
        row.verdict,
    )


def _results(frame: pd.DataFrame, store: Store) -> list[dict[str, Any]]:
    """One object per recipe and task, with every scorer of the task."""
    documents = []
    for key, rows in frame.groupby("run", sort=False):
        first = rows.iloc[0]
        sittings = results.timings(store, str(key))
        seconds = sum(sitting.seconds for sitting in sittings)
        run = load.one(store, str(key))
        examples = tuple(load.examples(store, run.card.examples).values())
        tokens = sum(sitting.tokens for sitting in sittings)
        documents.append(
            {
                "recipe": first["recipe"],
                "task": first["task"],
                "title": first["title"],
                "task_version": load.one(store, str(key)).task.version,
                **draws(results.run(store, str(key))),
                "n": int(rows[rows["headline"]]["n"].iloc[0]),
                "total": int(first["total"]),
                "chosen": _chosen(run.card) or None,
                "headline": str(rows[rows["headline"]]["scorer"].iloc[0]),
                "scorers": {str(row["scorer"]): _scorer(row, store) for row in rows.to_dict("records")},
                "words_until_divergence": fidelity_tables.divergence(store, first.to_dict()),
                "artifact": first["weights"],
                "run": key,
                "asked": first["protocol"],
                "warnings": list(views.warnings(store, str(key)).values()),
                "details": details(store, str(key), views.context_partner(store, run), examples),
                "tokens_per_second": tokens / seconds if seconds else None,
                "seconds": seconds,
            }
        )
    return documents


def _scorer(row: Mapping[Any, Any], store: Store) -> dict[str, Any]:
    against = {
        "n": row["paired"],
        "dense": row["dense_score"],
        "share_kept": row["share_kept"],
        "share_kept_interval": [row["share_low"], row["share_high"]],
        "chance": row["chance"],
        "share_above_chance": row["share_above"],
        "share_above_chance_interval": [row["share_above_low"], row["share_above_high"]],
        "difference": row["difference"],
        "interval": [row["diff_low"], row["diff_high"]],
        "broke": row["broke"],
        "fixed": row["fixed"],
        "p": row["p"],
        "p_holm": row["p_holm"],
        "matching": row["verdict"],
        "matching_together": row["together"],
        "recipes_compared": row["compared"],
        "false_matching_at_most": stats.false_matching(row["compared"]),
        "p_matching": row["p_matching"],
        "p_not_matching": row["p_not_matching"],
        "words": row["words"],
        "changed": row["changed"],
        "changed_interval": [row["changed_low"], row["changed_high"]],
        "needed": row["needed"],
        "detectable": row["detectable"],
    } | fidelity_tables.bootstrap(store, row)
    return {
        "n": row["n"],
        "unjudged": row["unjudged"],
        "clusters": row["clusters"],
        "mean": row["score"],
        "stderr": row["stderr"],
        "interval": [row["low"], row["high"]],
        "against_dense": None if row["recipe"] == "dense" else against,
    }
