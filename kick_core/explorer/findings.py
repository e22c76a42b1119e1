"""Findings: the sentence, the chart behind it and the paper's claims; then every recipe, every task; then examples."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from kick_core import views
from kick_core.explorer import (
    address,
    answers,
    cards,
    charts,
    controls,
    data,
    forgetting,
    gaps,
    heatmap,
    job_cards,
    later,
    masks,
    recovery,
    steps,
)
from kick_core.explorer.frame import heading, moved, note, provenance, title, without_weights
from kick_core.explorer.safe import Safe, show, tag
from kick_core.views.charts import left_out


class Choice(NamedTuple):
    """What the controls say: a `current` frame, a method at a sparsity in percent, and all of its sparsities."""

    frame: pd.DataFrame
    model: str
    method: str
    percent: int
    percents: list[int]
    recipes: dict[int, str]

    @property
    def recipe(self) -> str:
        """The recipe at the chosen sparsity."""
        return self.recipes[self.percent]


def page() -> None:
    known = data.models()
    if not known:
        title("What does compression take from a language model?")
        gaps.demo("There are no results in this cache yet.")
    chosen = _choose(known)
    moved(chosen.model)
    job_cards.live(ended=0)
    if not chosen.method:
        _without_sparsity(chosen)
        return
    left, right = st.columns([5, 3], gap="medium")
    with left:
        _poster(chosen)
    with right:
        above = st.container()
    _claims(chosen.model, above)
    show(tag("div", steps.each(_cards(chosen.model, chosen.method), chosen.percent), cls="steady"))
    heatmap.section(chosen.frame, chosen.method)
    forgetting.of(chosen.frame, chosen.recipes[chosen.percents[-1]])
    left, right = st.columns([5, 3], gap="large")
    with left:
        _broken(chosen)
    with right:
        masks.kept(chosen.model, chosen.method, chosen.percent)
    recovery.section(chosen.model)
    _panels(chosen)
    _sized(chosen.frame)


def _choose(known: list[str]) -> Choice:
    """The controls in one row, under the sentence that they change."""
    several = len(known) > 1
    with st.container(key="controls"):  # whose columns wrap where they have no room: see style.css
        places = list(st.columns([4, 7.4, 7.6, 1.7, 4] if several else [7, 10, 1.7, 4], vertical_alignment="bottom"))
    with places[0]:
        model = controls.model(known)
    if several:
        places.pop(0)
    with places[-1]:
        controls.protocol(model)
        controls.kind_of_data(model)
    frame = data.current(model)
    names = controls.pruners(frame)
    if not names:
        recipe = str(frame["recipe"].iloc[-1])
        title(views.headline(frame, recipe), provenance(frame), shared=_shared(model))
        return Choice(frame, model, "", 0, [0], {0: recipe})
    opens = frame[frame["recipe"] == _widest_gap(model)]
    start = (
        (str(opens["method"].iloc[0]), round(100 * float(opens["sparsity"].iloc[0]))) if len(opens) else (names[0], 50)
    )
    with places[0]:
        method = controls.method(names, start[0])
    percents = controls.percents(frame, method)
    with places[1]:
        percent = controls.sparsity(percents, min(percents, key=lambda step: abs(step - start[1])), method)
    with places[2]:
        steps.player(percents, percent)
    title(steps.each(_headlines(model, method), percent, "span"), provenance(frame), shared=_shared(model))
    recipes = controls.recipes_at(frame, method, percents)
    return Choice(frame, model, method, percent, percents, recipes)


@data.remembered(16, data.shown_words)
def _widest_gap(model: str, protocol: str, kind: str) -> str:
    """The recipe where perplexity and knowledge are furthest apart."""
    return views.widest_gap(views.current(data.scores(), model, protocol, kind))


def _shared(model: str) -> tuple[str, str, str]:
    return model, data.protocol(model), data.kind(model)


def _without_sparsity(chosen: Choice) -> None:
    """A model that was measured, but under no plain sparsity: its cards, its heat map, and a way on."""
    frame = chosen.frame
    recipe = str(frame["recipe"].iloc[-1])
    show(cards.metrics(frame, recipe))
    note("This model has not been measured at any sparsity, so there is no curve to show.")
    gaps.sweep(chosen.model, frame)
    _claims(chosen.model, st.container())
    if (frame["kind"] != "dense").any():
        heatmap.section(frame)
    recovery.section(chosen.model)
    _sized(frame)


def _poster(chosen: Choice) -> None:
    frame, method = chosen.frame, chosen.method
    again = ((frame["base"] == method) & (frame["recovered"] != "") & (frame["kind"] == "ratio")).any()
    others = left_out(frame, method)
    phone = charts.on_phone()
    with st.container(key="overlay-narrow" if phone else "overlay-scroll"):
        charts.draw(
            charts.chart("overlay", frame, method, phone),
            key="overlay",
            follows=True,
            alt=f"Share of the dense score kept by {method} against sparsity, one line for each task",
        )
    note(
        f"{method} against dense. Dotted: perplexity, as dense / compressed. Solid: knowledge. Dashed: context, "
        "skills. Bars are 95 % paired intervals." + (" Hollow: the same recipes, recovered." if again else "")
        + (f" Measured too seldom for a line, but in the table below: {'; '.join(others)}." if others else "")
    )  # fmt: skip
    windows = [row for task in views.task_names(kind="perplexity")
               if (row := data.cell(frame, chosen.recipe, task)) is not None and row["dense_run"]]  # fmt: skip
    if windows and chosen.percent and not (without_weights(chosen.model) and data.surprise_by_kind(windows[0]).empty):
        st.page_link(
            "pages/evaluate.py", label="Why perplexity does not notice: token by token", icon=":material/text_fields:",
            query_params={"model": chosen.model, "task": str(windows[0]["task"]), "b": chosen.recipe},
        )  # fmt: skip


def _claims(model: str, above: DeltaGenerator) -> None:
    """The paper's claims, in a place above the switch and the cells that they are judged by."""
    words, together = views.multiplicity(data.current(model)), False
    opened = address.fold("evidence")
    with st.expander("Evidence for the claims: their rules and every cell", key="evidence", on_change="rerun"):
        if words:
            together = address.choice("together", (False, True), False, lambda key: st.toggle(
                "Correct the verdicts for the number of recipes (Holm)", key=key, persist_state="session"
            ))  # fmt: skip
            note(words)
        found = data.claims(model, together)
        for claim in found if opened else ():
            heading(claim.text, claim.rule)
            answers.evidence(claim)
    with above:
        show(tag("h2", "The paper's claims, put to this data", style="margin-top:0"))
        for claim in found:
            with st.container(border=True):
                show(cards.claim(claim))


def _words(model: str, method: str) -> data.Words:
    return (*data.shown_words(model), method)


@data.remembered(32, _words)
def _headlines(model: str, protocol: str, kind: str, method: str) -> dict[int, Safe]:
    """The headline of a method at every sparsity."""
    frame = views.current(data.scores(), model, protocol, kind)
    percents = controls.percents(frame, method)
    recipes = controls.recipes_at(frame, method, percents)
    return {step: tag("span", views.headline(frame, recipe)) for step, recipe in recipes.items()}


@data.remembered(32, _words)
def _cards(model: str, protocol: str, kind: str, method: str) -> dict[int, Safe]:
    """The cards of a method at every sparsity."""
    frame = views.current(data.scores(), model, protocol, kind)
    percents = controls.percents(frame, method)
    recipes = controls.recipes_at(frame, method, percents)
    return {step: cards.metrics(frame, recipe, recipes) for step, recipe in recipes.items()}


def _broken(chosen: Choice) -> None:
    """One example that the harshest step broke, picked by a rule, with its answer at every step."""
    harshest = chosen.recipes[chosen.percents[-1]]
    for task in (*views.task_names(measures="knowledge"), *views.task_names(measures="in_context")):
        row = data.cell(chosen.frame, harshest, task)
        name = data.broken(row) if row is not None and row["dense_run"] and row["broke"] > 0 else None
        if row is None or name is None:
            continue
        heading("What it looks like", f"{row['title']}: one of the {row['broke']:,.0f} answers that broke in the end.")
        runs = {step: data.cell(chosen.frame, recipe, task) for step, recipe in chosen.recipes.items()}
        along = {step: str(one["run"]) for step, one in runs.items() if one is not None} | {0: str(row["dense_run"])}
        answers.along(data.detail(row, name, tuple(along.values())), along, chosen.percent)
        here = runs[chosen.percent]
        if here is not None and here["broke"] > 0:
            st.page_link(
                "pages/evaluate.py", label="See all that broke here", icon=":material/arrow_forward:",
                query_params={"model": chosen.model, "task": task, "b": str(here["recipe"]), "kind": "broke"},
            )  # fmt: skip
        return
    heading("What it looks like", "No answer broke under this method.")


def _panels(chosen: Choice) -> None:
    heading("Every task, all methods", "Raw scores from 0; perplexity on a logarithmic axis, where up is worse.")
    drawn = charts.chart("panels", chosen.frame)
    with st.container(key="panels-scroll"):
        later.part("later-panels", drawn["layout"].get("height", 0), lambda: charts.draw(
            drawn, key="panels", follows=True,
            alt="Scores of all pruning methods against sparsity, one panel for each task",
        ))  # fmt: skip


def _sized(frame: pd.DataFrame) -> None:
    """Pruning beside quantization on the axis that they share: size."""
    shares = frame[(frame["kind"] != "dense") & frame["share_kept"].notna()]
    if shares.empty:
        return
    knowledge = [task for task in views.task_names(measures="knowledge") if (shares["task"] == task).any()]
    task = next(iter(knowledge), str(shares["task"].iloc[0]))
    name = str(frame.loc[frame["task"] == task, "title"].iloc[0])
    heading(
        "At equal size",
        f"{name}: a pruned weight costs 16 bits if kept and one bit to say where. Recipes of one "
        "size stand side by side.",
    )
    drawn = charts.chart("sizes", frame, task)
    later.part("later-sizes", drawn["layout"].get("height", 0), lambda: charts.draw(
        drawn, key="sizes", alt=f"Share of dense kept on {name} against bits per weight, all recipes"
    ))  # fmt: skip
