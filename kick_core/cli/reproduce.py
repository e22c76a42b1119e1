"""`kick reproduce NAME --model M`: an experiment of the paper, run where it is missing, beside the printed numbers."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import Any

import pandas as pd

from kick_core import views
from kick_core.cli import families, printing
from kick_core.cli.plan import print_plans
from kick_core.cli.requests import experiment_base
from kick_core.cli.running import run_sweep
from kick_core.errors import BadRequest
from kick_core.store import Store, open_store
from kick_core.sweeps import experiments
from kick_core.sweeps.request import SweepJob
from kick_core.tasks import paper
from kick_core.views import reproduced
from kick_core.views.reproduced import Swept


def run(args: Namespace) -> int:
    """`kick reproduce NAME --model M`"""
    if args.name == "families":
        return families.run(args)
    if len(args.models) > 1 or args.tuned_from:
        raise BadRequest(f"{args.name} is about one model: several, and --tuned-from, are for families")
    store = open_store(args.cache)
    base = experiment_base(args, (args.models or ["pocket"])[0])
    jobs = experiments.requests(args.name, base, store, args.small)
    return experiment(args.name, jobs, store, workers=args.workers, plan=args.plan, as_json=args.json)


def experiment(
    name: str, jobs: Sequence[SweepJob], store: Store, *, workers: int | None, plan: bool, as_json: bool
) -> int:
    """Run an experiment's sweeps where they are missing, then print its rows beside the paper's.

    Args:
        name: One of `experiments.NAMES`.
        jobs: Its sweeps.
        store: The cache.
        workers: Number of processes; None as many as pay.
        plan: Print what it would cost instead.
        as_json: One document instead of tables.
    """
    if plan:
        print_plans(jobs, store, as_json=as_json)
        return 0
    sweeps = [_swept(job, store, workers) for job in jobs]
    frame, notes = _beside(name, store, sweeps)
    differs = reproduced.differences(sweeps[-1].model, jobs[0].data, jobs[0].tasks)
    facts = {"experiment": name, "source": paper.SOURCE, "paper": list(paper.CLAIMS[name])}
    if as_json:
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        printing.document(facts | {"differs": differs, "ours": notes, "rows": rows})
        return 0
    print(f"{name}, after {paper.SOURCE}")
    printing.lines("the paper:", facts["paper"])
    printing.table(
        [_HEADERS.get(column, column) for column in _shown(frame)], (_row(row) for row in frame.to_dict("records"))
    )
    printing.lines("here:", notes)
    printing.lines("what differs:", differs)
    return 0


def _swept(job: SweepJob, store: Store, workers: int | None) -> Swept:
    keys = run_sweep(job, store, workers)
    runs = {(recipe.text, task): keys.runs[task][recipe.text] for recipe in job.parsed() for task in job.tasks}
    return Swept(keys.model.name, job.calibration.most_windows, runs, job.shots)


def _beside(name: str, store: Store, sweeps: list[Swept]) -> tuple[pd.DataFrame, list[str]]:
    """The rows of an experiment, and what they say beyond single rows."""
    match name:
        case "table2":
            return reproduced.printed(store, sweeps[0], (*paper.TABLE2, *paper.TABLE2_ITS_PROMPT)), []
        case "table3":
            return reproduced.printed(store, sweeps[0], paper.TABLE3), []
        case "calibration-size":
            return reproduced.calibration_size(store, sweeps), []
        case "k-shot":
            return reproduced.few_shots(store, sweeps), []
        case "small-dense":
            return reproduced.small_dense(store, *sweeps), [_EQUAL]
        case "disciplines":
            return reproduced.disciplines(store, sweeps[0]), []
        case "recovery":
            return _recovery(store, sweeps[0])
        case _:
            frame = reproduced.perplexity_vs_tasks(store, sweeps[0])
            return frame, reproduced.agreement(frame)


def _recovery(store: Store, swept: Swept) -> tuple[pd.DataFrame, list[str]]:
    """What came back, task by task, and the answer for every recovery."""
    measured = views.scores(store)
    mine = measured[measured["run"].isin(set(swept.runs.values())) & measured["headline"]]
    frame = views.recovered(store, mine)
    answers = [f"{one.label}, on {one.text}: {one.verdict}" for one in views.recovery_answers(frame)]
    shown = ["label", "text", "task", "n", "dense", "compressed", "recovered", "share", "low", "high", "word"]
    return frame[shown], [*answers, views.RECOVERY_RULE]


_EQUAL = (
    "the lower sparsity gives the large model as many non-zero weights as the small one has; the higher one makes it "
    "take as many bytes, its mask included; `of it` is beside the small dense model"
)


# --- for people ----------------------------------------------------------------------------------------------

_HEADERS = {"paper_kept": "kept", "score": "here", "low": "95 % interval", "kept": "kept", "kept_low": "95 % interval"}
_HIDDEN = ("high", "kept_high", "verdict", "measure")
_SHARES = ("paper_kept", "kept", "share")
_SCORES = ("score", "dense", "compressed", "recovered")


def _shown(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if name not in _HIDDEN]


def _row(row: dict[Any, Any]) -> tuple[str, ...]:
    return tuple(_cell(name, row) for name in row if name not in _HIDDEN)


def _cell(name: str, row: dict[Any, Any]) -> str:
    value = row[name]
    match name:
        case "low" if "share" in row:
            return f"{printing.blank_as(value, '.1%')} … {printing.blank_as(row['high'], '.1%')}"
        case "low":
            return f"{value:.3f} … {row['high']:.3f}"
        case "kept_low":
            return f"{printing.blank_as(value, '.1%')} … {printing.blank_as(row['kept_high'], '.1%')}"
        case _ if name in _SHARES:
            return "–" if value is None else printing.blank_as(value, ".1%")
        case "paper":
            return f"{value:.4g}"
        case _ if name in _SCORES:
            return printing.blank_as(value, ".3f")
        case _:
            return str(value)
