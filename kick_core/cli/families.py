"""`kick reproduce families --model A --model B`: the same recipes on several models, and base against tuned."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kick_core import views
from kick_core.cli import printing
from kick_core.cli.plan import print_plans
from kick_core.cli.requests import experiment_base
from kick_core.cli.running import run_sweep
from kick_core.errors import BadRequest
from kick_core.models.source import Source, find
from kick_core.spec import ModelRef
from kick_core.store import Store, lineage, open_store
from kick_core.sweeps import experiments
from kick_core.sweeps.request import SweepJob
from kick_core.tasks import paper


def run(args: Namespace) -> int:
    """The families experiment: its sweeps where they are missing, then what `views.families` says of these models."""
    store, names = open_store(args.cache), _named(args)
    jobs = [
        job
        for name in names
        for job in experiments.requests("families", experiment_base(args, name), store, args.small)
    ]
    sources = [find(ModelRef(name, args.revision), store) for name in names]
    _distinct(names, sources)
    if args.plan:
        print_plans(jobs, store, as_json=args.json)
        return 0
    if args.tuned_from:
        lineage.set_base_model(store, sources[0].fingerprint, sources[1].fingerprint)
    for job in jobs:
        run_sweep(job, store, args.workers)
    frame = _measured(store, jobs[0], sources)
    return _document(store, frame) if args.json else _tables(store, frame)


def _named(args: Namespace) -> list[str]:
    """The models to compare: those that were named, or the two that ship with the tool."""
    if args.tuned_from:
        if len(args.models) != 1:
            raise BadRequest("--tuned-from BASE says of one model where it comes from: name it with one --model TUNED")
        return [args.models[0], args.tuned_from]
    names = args.models or list(experiments.FAMILY)
    if len(names) < 2:
        raise BadRequest("families compares models: name several, --model A --model B")
    return list(names)


def _distinct(names: Sequence[str], sources: Sequence[Source]) -> None:
    """Refuse models whose files are the same: they would be compared with themselves."""
    seen: dict[str, str] = {}
    for name, source in zip(names, sources, strict=True):
        if source.fingerprint in seen:
            raise BadRequest(f"{seen[source.fingerprint]} and {name} are the same files: name two different models")
        seen[source.fingerprint] = name


def _measured(store: Store, job: SweepJob, sources: Sequence[Source]) -> pd.DataFrame:
    """The rows of these models on the data that was asked, of the experiment's recipes and tasks."""
    frame = views.families(store, views.kind_of_data(job.data), job.protocol)
    mine = frame["fingerprint"].isin([source.fingerprint for source in sources])
    requested = frame["recipe"].isin(job.recipes) & frame["task"].isin(job.tasks)
    return frame[mine & requested].reset_index(drop=True)


def _document(store: Store, frame: pd.DataFrame) -> int:
    pairs = [
        {
            "tuned": pair.tuned,
            "base": pair.base,
            "known_by": pair.how,
            "verdict": word.verdict,
            "words": f"{word.sentence} {word.because}",
            "rule": word.rule,
            "cells": gaps.to_dict("records"),
        }
        for pair, gaps, word in views.pairs(store, frame)
    ]
    about = {"experiment": "families", "source": paper.SOURCE, "paper": list(paper.CLAIMS["families"])}
    printing.document(about | {"calibrations": _calibrations(frame), "rows": frame.to_dict("records"), "pairs": pairs})
    return 0


def _calibrations(frame: pd.DataFrame) -> dict[str, str]:
    return {str(recipe): views.calibrations(rows) for recipe, rows in frame.groupby("recipe", sort=False)}


def _tables(store: Store, frame: pd.DataFrame) -> int:
    print("the share of its own dense score that each model keeps, paired, with 95 % intervals")
    header = ("recipe", "task", "model", "n", "dense", "here", "kept", "95 % interval", "matching (5 %)")
    printing.table(header, (_row(row) for row in frame.to_dict("records")))
    printing.lines("calibration:", [f"{recipe}: {said}" for recipe, said in _calibrations(frame).items()])
    pairs = views.pairs(store, frame)
    for pair, gaps, word in pairs:
        print(f"\n{printing.clean(pair.told)}")
        printing.table(("recipe", "task", "tuned beside base"), (_gap_row(row) for row in gaps.to_dict("records")))
        printing.lines("together:", [f"{word.verdict}. {word.sentence} {word.because}", word.rule])
    if not pairs:
        said = "which of these was tuned from which is not known: --model TUNED --tuned-from BASE says it"
        printing.lines("base and tuned:", [said])
    return 0


def _row(row: Mapping[Any, Any]) -> tuple[str, ...]:
    return (
        row["recipe"],
        row["task"],
        row["model"],
        str(row["paired"]),
        f"{row['dense_score']:.3f}",
        f"{row['score']:.3f}",
        printing.blank_as(row["share_kept"], ".1%"),
        f"{printing.blank_as(row['share_low'], '.1%')} … {printing.blank_as(row['share_high'], '.1%')}",
        row["verdict"],
    )


def _gap_row(row: Mapping[Any, Any]) -> tuple[str, ...]:
    return row["label"], row["task"], row["words"]
