"""Evaluate: what is measured, accuracy against sparsity, and the very examples that broke."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer import (
    answers,
    browser,
    cards,
    charts,
    check,
    controls,
    coverage_grid,
    data,
    gaps,
    job_cards,
    measures,
    own_questions,
)
from kick_core.explorer.frame import heading, moved, note, provenance, title
from kick_core.explorer.safe import show


def page() -> None:
    known = data.models()
    if not known:
        title("Evaluate")
        gaps.demo("No model has been evaluated yet.")
    frame, task, recipe = _choose(known)
    mine, model = frame[frame["task"] == task], str(frame["model"].iloc[0])
    title(
        "Evaluate", provenance(mine[mine["recipe"].isin(("dense", recipe))]),
        shared=(model, data.protocol(model), data.kind(model)),
    )  # fmt: skip
    moved(model)
    covered = coverage_grid.coverage(model)
    with st.expander("What is measured", key="measured"):
        note(coverage_grid.said(covered))
        _fill(model, covered)
    check.panel(model, frame, task)
    own_questions.panel(model, frame, recipe)
    row = data.cell(mine, recipe, task)
    if row is None:
        gaps.cell(model, recipe, task, covered)
    job_cards.live(ended=0)
    left, right = st.columns([3, 2], gap="large")
    with left:
        _chart(frame, task, row)
    with right:
        show(cards.sentence(row))
        if row["kind"] != "dense" and row["broke"] == row["broke"]:
            show(answers.flips(row))
    measures.more(row)
    measures.whole(row)
    if row["kind"] == "dense":
        note("This is the dense model. Choose a compressed recipe to see which examples broke.")
    elif not row["dense_run"]:
        note("Dense was not evaluated like this, so there is nothing to compare with.")
        gaps.offer(model, ["dense"], [task], covered, "Evaluate dense", key="no-dense")
        gaps.command(gaps.sweep_command(model, "dense", task), model=model)
    else:
        heading("Example by example")
        browser.browse(row)


def _choose(known: list[str]) -> tuple[pd.DataFrame, str, str]:
    """Model, protocol, task and recipe. Recipes that were not evaluated on this task are on offer too."""
    left, middle, right, last = st.columns(
        [3, 3, 2, 3] if len(known) > 1 else [3, 3, 2, 1], vertical_alignment="bottom"
    )
    with last:
        model = controls.model(known)
    with right:
        under = controls.protocol(model)
        controls.kind_of_data(model)
    frame = data.current(model, under)
    if frame.empty:
        title("Evaluate")
        gaps.nothing(model, under)
    with left:
        task = controls.task(frame)
    with middle:
        start = controls.start_recipe(frame[frame["task"] == task])
        recipe = controls.recipe(data.coverage(model), "Recipe", "b", start)
    return frame, task, recipe


def _fill(model: str, covered: pd.DataFrame) -> None:
    """The grid, and one job for all of its holes; what is measured costs it nothing."""
    coverage_grid.clickable(covered)
    holes = covered[(covered["state"] == "missing") & ~covered["task"].map(views.own_task)]
    if len(holes):
        recipes, tasks = (list(dict.fromkeys(holes[name])) for name in ("recipe", "task"))
        gaps.offer(model, recipes, tasks, covered, "Measure all missing cells", key="fill")


def _chart(frame: pd.DataFrame, task: str, row: pd.Series) -> None:
    charts.draw(
        charts.chart("accuracy", frame, task),
        key="curves",
        marker=100 * row["sparsity"] if row["kind"] in ("ratio", "dense") else None,
        alt=f"{row['title']} of all methods against sparsity with 95 % intervals",
        on_select=_take_click,
        selection_mode="points",
    )
    note("Click a point to open its examples. Bars are 95 % intervals of each score alone.")


def _take_click() -> None:
    """A click on a point of the chart chooses its recipe."""
    points = st.session_state["curves"]["selection"]["points"]
    if points:
        st.session_state["b"] = points[0]["customdata"][0]
