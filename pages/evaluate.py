"""Evaluate: what is measured, accuracy against sparsity, and the very examples that broke."""

from kick_core.explorer.frame import ensure

ensure()

import pandas as pd  # noqa: E402
import streamlit as st  # noqa: E402

from kick_core.explorer import answers, browser, cards, charts, controls, coverage_grid, data, job_cards, measures  # noqa: E402
from kick_core.explorer.frame import empty, heading, moved, note, provenance, title  # noqa: E402
from kick_core.explorer.safe import show  # noqa: E402


def take_click() -> None:
    """A click on a point of the chart chooses its recipe."""
    points = st.session_state["curves"]["selection"]["points"]
    if points:
        st.session_state["b"] = points[0]["customdata"][0]


def chart(frame: pd.DataFrame, task: str, row: pd.Series) -> None:
    drawn = charts.chart("accuracy", frame, task)
    pruned = row["kind"] in ("ratio", "dense")
    charts.draw(
        drawn,
        key="curves",
        marker=100 * row["sparsity"] if pruned else None,
        alt=f"{row['title']} of all methods against sparsity with 95 % intervals",
        on_select=take_click,
        selection_mode="points",
    )
    note("Click a point to open its examples. Bars are 95 % intervals of each score alone.")


def fill(model: str, covered: pd.DataFrame) -> None:
    """The grid, and one job for all of its holes; what is measured costs it nothing."""
    coverage_grid.clickable(model, covered)
    holes = covered[covered["state"] == "missing"]
    if len(holes):
        recipes, tasks = (list(dict.fromkeys(holes[name])) for name in ("recipe", "task"))
        wanted = coverage_grid.wanted(model, recipes, tasks, covered)
        job_cards.button(f"Measure the {len(holes)} missing cells", wanted, key="fill")


def summary(row: pd.Series) -> None:
    """The recipe's number on this task and the sentence that says how sure it is."""
    show(cards.sentence(row))
    if row["kind"] != "dense" and row["broke"] == row["broke"]:
        show(answers.flips(row))


def choose(known: list[str]) -> tuple[pd.DataFrame, str, str]:
    """Model, protocol, task and recipe. Recipes that this task has not been asked are on offer too."""
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
        coverage_grid.nothing(model, under)
    with left:
        task = controls.task(frame)
    with middle:
        start = controls.start_recipe(frame[frame["task"] == task])
        recipe = controls.recipe(frame, "Recipe", "b", start)
    return frame, task, recipe


def page() -> None:
    known = data.models()
    if not known:
        title("Evaluate")
        empty("No model has been asked anything yet.")
    head = st.container()
    frame, task, recipe = choose(known)
    mine, model = frame[frame["task"] == task], str(frame["model"].iloc[0])
    with head:
        title("Evaluate", provenance(mine[mine["recipe"].isin(("dense", recipe))]))
        moved(model)
    covered = coverage_grid.coverage(model)
    with st.expander(f"What is measured: {coverage_grid.said(covered)}"):
        fill(model, covered)
    row = data.cell(mine, recipe, task)
    if row is None:
        coverage_grid.gap(model, recipe, task)
    job_cards.live(ended=0)
    left, right = st.columns([3, 2], gap="large")
    with left:
        chart(frame, task, row)
    with right:
        summary(row)
    measures.more(row)
    measures.whole(row)
    if row["kind"] == "dense":
        note("This is the dense model. Choose a compressed recipe to see which examples broke.")
    elif not row["dense_run"]:
        empty("There is no dense run to compare with.", f"kick sweep {model} --recipe dense --task {task}")
    else:
        heading("Example by example")
        browser.browse(row)


page()
