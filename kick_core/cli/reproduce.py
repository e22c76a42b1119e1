"""`kick reproduce NAME --model M`: an experiment of the paper, run where it is missing, beside the printed numbers."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import pandas as pd

from kick_core import views
from kick_core.cli import lineage, printing
from kick_core.cli import sweep as planning
from kick_core.cli.requests import base_request
from kick_core.errors import BadRequest
from kick_core.store import Store, open_store
from kick_core.sweeps import experiments, pool
from kick_core.sweeps.grid import Sweep
from kick_core.sweeps.request import Request
from kick_core.tasks import paper
from kick_core.views import reproduced
from kick_core.views.reproduced import Swept


def reproduce(given: Namespace) -> int:
    """`kick reproduce NAME --model M`"""
    if given.name == "families":
        return lineage.compare(given)
    if len(given.models) > 1 or getattr(given, "tuned_from", None):
        raise BadRequest(f"{given.name} is about one model: several, and --tuned-from, are for families")
    store = open_store(given.cache)
    base = base_request(given, (given.models or ["pocket"])[0])
    requests = experiments.requests(given.name, base, store, given.small)
    if given.plan:
        return planning.tell(requests, store, as_json=given.json)
    sweeps = [_swept(request, store, given.workers) for request in requests]
    frame, notes = _beside(given.name, store, sweeps)
    differs = reproduced.differences(sweeps[-1].model, requests[0].data, requests[0].tasks)
    about = {"experiment": given.name, "source": paper.SOURCE, "paper": list(paper.CLAIMS[given.name])}
    if given.json:
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        printing.document(about | {"differs": differs, "ours": notes, "rows": rows})
        return 0
    print(f"{given.name}, after {paper.SOURCE}")
    printing.lines("the paper:", about["paper"])
    printing.table(
        [_HEADERS.get(name, name) for name in _shown(frame)], (_row(row) for row in frame.to_dict("records"))
    )
    printing.lines("here:", notes)
    printing.lines("what differs:", differs)
    return 0


def _swept(request: Request, store: Store, processes: int | None) -> Swept:
    opened = Sweep(request, store)
    printing.bar(pool.run(opened, processes))
    runs = {(recipe.text, task): opened.card(recipe, task).key for recipe in opened.recipes for task in opened.data}
    return Swept(opened.builder.opened.source.name, request.calibration.most_windows, runs, request.shots)


def _beside(name: str, store: Store, sweeps: list[Swept]) -> tuple[pd.DataFrame, list[str]]:
    """The rows of an experiment, and what they say beyond single rows."""
    match name:
        case "table2":
            return reproduced.printed(store, sweeps[0], paper.TABLE2), []
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
    told = [f"{one.label}, on {one.text}: {one.verdict}" for one in views.recovery_answers(frame)]
    shown = ["label", "text", "task", "n", "dense", "compressed", "recovered", "share", "low", "high", "word"]
    return frame[shown], [*told, views.RECOVERY_RULE]


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
