"""What is not there yet: said in a sentence, with a button that fills it, its cost, the job in place, the command."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn
from urllib.parse import urlencode

import pandas as pd
import streamlit as st

from kick_core import jobs, views
from kick_core.explorer import data, job_cards
from kick_core.explorer.frame import FILL, end, note, store, without_weights
from kick_core.explorer.safe import show, tag
from kick_core.spec import parse

DEMO_MINUTES = 10
"""What the demo sweep took on two cores; in an empty cache there is nothing better to go by."""
NEAR = 8
"""Measured recipes that are named where one is missing."""


def demo(sentence: str) -> NoReturn:
    """Nothing has been measured at all: offer the demo sweep."""
    show(tag("p", sentence))
    job_cards.button(
        "Run the demo", jobs.demo(views.POCKETS[0]), key="demo", primary=True,
        cost=f"about {DEMO_MINUTES} min on two cores",
    )  # fmt: skip
    note(
        "It compresses the embedded pocket model under 36 recipes and evaluates each on 7 tasks. Findings appear as "
        "cells are done; what is finished is kept if you stop it."
    )
    job_cards.live(ended=1)
    command(FILL)
    end()


def command(*lines: str, model: str = "") -> None:
    """The same on the command line.

    Args:
        lines: the commands.
        model: whom they name; one that is known by a pack alone is named by a path to fill in.
    """
    note("On the command line:")
    for line in lines:
        if model and without_weights(model):
            name = views.asked_name(model)
            line = line.replace(f" {name}", f" PATH/TO/{name}", 1)
        st.code(line, language=None, wrap_lines=True)  # highlighted options are too pale to read


def cell(model: str, recipe: str, task: str, covered: pd.DataFrame) -> NoReturn:
    """A cell that a page would show is empty."""
    title = views.task_titles([task]).get(task, task)
    show(tag("p", tag("b", views.label_of(recipe)), f" has not been evaluated on {title}."))
    _measured(model, recipe, task)
    offer(model, [recipe], [task], covered, "Measure it now", key="gap")
    job_cards.live(ended=1)
    command(sweep_command(model, recipe, task), model=model)
    end()


def _measured(model: str, recipe: str, task: str) -> None:
    """Links to what this task was evaluated under: recipes of the same method, else all."""
    frame = data.current(model)
    rows = frame[(frame["task"] == task) & (frame["kind"] != "dense")]
    method = parse(recipe).method
    same = rows[rows["base"].str.split(" ").str[0] == method]
    rows = (same if len(same) else rows).head(NEAR)
    if rows.empty:
        return
    links = (
        tag("a", row["label"], target="_self", **{"data-inside": ""},
            href=f"evaluate?{urlencode({'model': model, 'task': task, 'b': row['recipe']})}")
        for row in rows.to_dict("records")
    )  # fmt: skip
    show(tag("p", "Evaluated on it: ", *(part for link in links for part in (link, " "))))


def nothing(model: str, protocol: str) -> NoReturn:
    """A model that was not evaluated in the chosen way."""
    named = data.named(model)
    about = f" on {data.kind(model)} data" if len(data.kinds(model)) > 1 else ""
    show(tag("p", f"{model} has not been evaluated under the protocol {protocol}{about}."))
    name = views.asked_name(model)
    job_cards.button(
        "Run the demo sweep under it", jobs.demo(name, protocol=protocol, data=named), key="nothing", primary=True
    )
    job_cards.live(ended=1)
    more = "" if named == views.POCKET else f" --data {named}"
    command(f"kick sweep {name} --preset demo --protocol {protocol}{more}", model=model)
    end()


def sweep(model: str, frame: pd.DataFrame) -> None:
    """No sparsity was measured: offer the demo sweep of this model."""
    name = views.asked_name(model)
    job_cards.button(
        "Run the demo sweep of this model", jobs.demo(name, protocol=str(frame["protocol"].iloc[0])), key="sweep",
        primary=True,
    )  # fmt: skip
    job_cards.live(ended=1)
    command(f"kick sweep {name} --preset demo", model=model)


def offer(
    model: str,
    recipes: Sequence[str],
    tasks: Sequence[str],
    covered: pd.DataFrame,
    label: str,
    *,
    key: str,
    fidelity: bool = False,
) -> None:
    """The button that measures cells like the rest of the grid, or compares them with dense, with what that takes."""
    request = request_for(model, recipes, tasks, covered, fidelity=fidelity)
    seconds = cost(model, recipes, tasks, covered, fidelity=fidelity)
    job_cards.button(label, request, key=key, primary=True, cost=job_cards.about(seconds))


def counts(tasks: Sequence[str], covered: pd.DataFrame) -> dict[str, int]:
    """As many examples per task as the best-measured recipe has."""
    wanted = covered.groupby("task")["wanted"].max()
    return {task: int(wanted.get(task, 0)) for task in tasks if wanted.get(task, 0)}


def cost(
    model: str, recipes: Sequence[str], tasks: Sequence[str], covered: pd.DataFrame, *, fidelity: bool = False
) -> float:
    """Seconds that measuring these cells takes, dense among them; nan where that is not known."""
    usual = counts(tasks, covered)
    if len(usual) < len(tasks):
        return math.nan
    return views.seconds(store(), views.asked_name(model), ["dense", *recipes], usual, fidelity=fidelity)


def request_for(
    model: str,
    recipes: Sequence[str],
    tasks: Sequence[str],
    covered: pd.DataFrame,
    *,
    fidelity: bool = False,
    instead: str = "",
) -> jobs.JobSpec:
    """A request that fills cells like the rest of the grid: the same calibration, as many examples, this protocol.

    `instead` names another model that is asked the very same.
    """
    name = views.asked_name(model)
    calibration = views.calibration_used(store(), name, recipes)
    return jobs.request(
        instead or name, list(dict.fromkeys(["dense", *recipes])), tasks=tasks, counts=counts(tasks, covered),
        protocol=data.protocol(model), data=data.named(model, tasks[0]), fidelity=fidelity, **way(model, tasks),
        **({"calibration": calibration} if calibration else {}),
    )  # fmt: skip


def way(model: str, tasks: Sequence[str]) -> dict[str, str]:
    """The dtype and the form of prompting of what the page shows, for a request: another way would be no part of it."""
    return views.way(data.current(model), tasks)


def sweep_command(model: str, recipe: str, task: str, *more: str) -> str:
    """The command that measures a cell, or `more` of it, exactly as the button does: as many examples, too."""
    limit = [] if "--limit" in more else _limit(model, task)
    return views.command(
        store(), views.asked_name(model), recipe, task, *limit, *more, protocol=data.protocol(model),
        data=data.named(model, task), **way(model, [task]),
    )  # fmt: skip


def _limit(model: str, task: str) -> list[str]:
    usual = counts([task], data.coverage(model))
    return ["--limit", str(usual[task])] if task in usual else []
