"""Compare: any recipe against any other on one task, down to one prompt at every sparsity; by size; live; by model."""

from __future__ import annotations

import functools

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer import (
    address,
    answers,
    browser,
    compare_ab,
    controls,
    coverage_grid,
    data,
    gaps,
    lineage,
    many_recipes,
    own_prompt,
    same_size,
)
from kick_core.explorer.frame import heading, moved, note, provenance, title
from kick_core.explorer.safe import Safe, many, tag

ANSWERS, MANY, SIZE, OWN, FAMILIES = VIEWS = (
    "Answers", "Many recipes", "Same size", "Your own prompt", "Families",
)  # fmt: skip


def swap() -> None:
    st.session_state["a"], st.session_state["b"] = st.session_state["b"], st.session_state["a"]


def choose(known: list[str]) -> tuple[pd.DataFrame, str, str, str]:
    """Model, protocol, task, A and B."""
    places = st.columns(
        [3, 3, 1.3, 2.8, 1.9, 2.8] if len(known) > 1 else [3, 3, 1.2, 3, 2.2, 0.1], vertical_alignment="bottom"
    )
    with places[5]:
        model = controls.model(known)
    with places[4]:
        under = controls.protocol(model)
        controls.kind_of_data(model)
    frame = data.current(model, under)
    if frame.empty:
        title("Compare")
        gaps.nothing(model, under)
    covered = data.coverage(model)
    with places[3]:
        task = controls.task(frame)
    with places[0]:
        a = controls.recipe(covered, "A", "a", "dense")
    with places[1]:
        b = controls.recipe(covered, "B", "b", controls.start_recipe(frame[frame["task"] == task]))
    with places[2]:
        st.button("Swap", icon=":material/swap_horiz:", on_click=swap, width="stretch")
    return frame, task, a, b


def compared(one: pd.Series, other: pd.Series) -> None:
    """The numbers of A against B, then one example in full."""
    examples = data.examples(other, one["run"])
    if examples.empty:
        note(
            "These two have no judged example in common: they were evaluated on different data or by another protocol."
        )
        return
    if examples["flip"].eq("").all():
        compare_ab.windows(examples, one, other)
        heading("One window of text")
    else:
        compare_ab.overview(examples, one, other)
        heading("One example")

    series = other if other["kind"] != "dense" else one
    along = data.sparsity_series(series)
    strip = functools.partial(_strip, along=along, series=series, outlined=str(other["run"]))
    browser.section(browser.Pair(other, str(one["recipe"]), str(one["run"]), ("A", "B")), along, strip)


def _strip(detail: views.Detail, along: list[str], series: pd.Series, outlined: str) -> Safe:
    """A prompt at every step of a method."""
    if not detail.judged:
        return Safe("")
    steps = [answer for run in along if (answer := detail.of(run)) is not None]
    broke = next((step.target_label for step in steps[1:] if steps[0].right and step.right is False), None)
    about = f"One prompt along {series['method']}'s {compare_ab.KINDS.get(series['kind'], 'steps')}; outlined: B."
    return many([
        tag("h2", f"Breaks at {broke}" if broke else "The same prompt at every step"),
        tag("p", about, cls="quiet"), answers.strip(steps, outlined, detail),
    ])  # fmt: skip


def _any(frame: pd.DataFrame, recipe: str, task: str) -> pd.Series:
    """A recipe's row of this task, else of any: a prompt of one's own needs the weights alone.

    One that was evaluated on nothing gets another recipe's row under its own name, and no weights: a job makes them.
    """
    if (found := data.cell(frame, recipe, task)) is not None:
        return found
    rows = frame[frame["recipe"] == recipe]
    if len(rows):
        return rows.iloc[0]
    other = frame.iloc[0].copy()
    other["recipe"], other["weights"] = recipe, ""
    return other


def page() -> None:
    known = data.models()
    if not known:
        title("Compare")
        gaps.demo("There is nothing to compare yet.")
    chosen = st.container()
    first = OWN if address.brings("ask") else ANSWERS
    view = address.choice("view", VIEWS, first, lambda key: st.segmented_control(
        "View", VIEWS, required=True, key=key, label_visibility="collapsed", persist_state="session"
    ), why="does not exist")  # fmt: skip
    if view == FAMILIES:
        lineage.page(known, chosen)
        return
    with chosen:
        frame, task, a, b = choose(known)
    model = str(frame["model"].iloc[0])
    title(
        "Compare", provenance(frame[(frame["task"] == task) & frame["recipe"].isin((a, b))]),
        shared=(model, data.protocol(model), data.kind(model)),
    )  # fmt: skip
    moved(model)
    if view == MANY:
        many_recipes.section(frame, task)
        return
    if view == SIZE:
        same_size.page(frame, task, a, b)
        return
    if view == OWN:
        own_prompt.page(*(_any(frame, recipe, task) for recipe in (a, b)))
        return
    one, other = (data.cell(frame, recipe, task) for recipe in (a, b))
    if one is None or other is None:
        gaps.cell(model, a if one is None else b, task, coverage_grid.coverage(model))
    if a == b:
        note("A and B are the same recipe: choose another to see what moved.")
        return
    compared(one, other)
