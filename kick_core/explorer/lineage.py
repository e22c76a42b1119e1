"""Several models under the same recipe: what each keeps of its own dense score, and tuned beside its base."""

from __future__ import annotations

from typing import NoReturn

import pandas as pd
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from kick_core import views
from kick_core.explorer import address, charts, controls, data, gaps, job_cards
from kick_core.explorer.cards import number
from kick_core.explorer.frame import end, heading, note, provenance, store, title, without_weights
from kick_core.explorer.measures import table
from kick_core.explorer.safe import chip, show, tag
from kick_core.views import commands, lineage_charts, percent
from kick_core.views.chart_style import Row, each

OTHER = "OTHER_MODEL"
"""Stands in a command where a model is to be named."""


def page(known: list[str], row: DeltaGenerator) -> None:
    """The view; its controls go into `row`, which lies above it."""
    with row:
        places = st.columns([3, 3, 3], vertical_alignment="bottom")
    with places[2]:
        controls.protocol(known[0])
        controls.kind_of_data(known[0])
    frame = data.families(known[0])
    if frame.empty:
        title("Compare")
        _missing(known)
    with places[0]:
        recipe = controls.recipe(frame, "Recipe", "b", controls.start_recipe(frame), measured=True)
    with places[1]:
        task = controls.task(frame)
    same = str(frame.loc[frame["recipe"] == recipe, "same"].iloc[0])
    mine = frame[frame["same"] == same]
    title("Compare", provenance(mine), shared=(known[0], data.protocol(known[0]), data.kind(known[0])))
    _pictures(frame, same, task)
    _tuned(known[0])
    heading("All that they share")
    _table(frame)


def _missing(known: list[str]) -> NoReturn:
    """Fewer than two models share a recipe: what that takes, as buttons and in commands."""
    model = known[0]
    note("This view sets models side by side that were measured under the same recipe on the same task.")
    mine = data.current(model)
    show(
        tag("p", f"Only {model} has been measured so far." if len(known) == 1 else "These models share no recipe yet.")
    )
    lines = ["kick reproduce families --model A --model B"]
    if len(mine):
        others = dict.fromkeys((*_siblings(model), *known[1:]))
        other = _other([name for name in others if name != model and not without_weights(name)])
        show(tag("p", "The same sweep on another model, and nothing else differs:"))
        lines = [*commands.sweeps(store(), mine, views.asked_name(other) if other else OTHER), *lines]
        if other:
            covered, names = data.coverage(model), list(dict.fromkeys(mine["task"]))
            request = gaps.request_for(model, list(mine["recipe"]), names, covered, instead=views.asked_name(other))
            job_cards.button("Run it on this model", request, key="families", primary=True,
                             cost=_cost(other, mine, gaps.counts(names, covered)))  # fmt: skip
            job_cards.live(ended=1)
    gaps.command(*lines)
    end()


def _siblings(model: str) -> tuple[str, ...]:
    """Models that know what this one was asked: the other pocket model, where it was the pocket world."""
    return views.POCKETS if data.kind(model) == views.POCKET else ()


def _other(known: list[str]) -> str | None:
    """The model that is to be measured as well: a known one, or any that is typed."""
    brought = address.value("other")
    if brought and brought not in known:
        known = [*known, brought]
    other = st.selectbox(
        "Another model", known, index=known.index(brought) if brought else 0 if known else None, key="other",
        accept_new_options=True, placeholder="A folder or a hub id", help="Choose one, or type a hub id or a folder.",
    )  # fmt: skip
    address.say("other", other or "")
    return other


def _cost(model: str, mine: pd.DataFrame, counts: dict[str, int]) -> str:
    """What the same sweep takes on another model; of a pocket model that was never timed, what the demo takes."""
    seconds = views.seconds(store(), views.asked_name(model), list(mine["recipe"]), counts)
    if seconds != seconds and model in views.POCKETS:
        return f"about {gaps.DEMO_MINUTES} min on two cores at most"
    return job_cards.about(seconds)


def _pictures(frame: pd.DataFrame, same: str, task: str) -> None:
    rows = frame[frame["same"] == same]
    label, name = str(rows["label"].iloc[0]), str(frame.loc[frame["task"] == task, "title"].iloc[0])
    left, right = st.columns(2, gap="large")
    with left:
        sentence = views.calibrations(rows)
        heading(f"{label}, task by task", f"{sentence[:1].upper()}{sentence[1:]}.")
        charts.draw(lineage_charts.by_task(frame, same), key="kin_tasks", on_select=_take, selection_mode="points",
                    alt=f"Share of its own dense score that each model keeps under {label}, by task")  # fmt: skip
    with right:
        heading(f"{name}, recipe by recipe", "Click a point to choose its recipe and task.")
        charts.draw(lineage_charts.by_recipe(frame, task), key="kin_recipes", on_select=_take, selection_mode="points",
                    alt=f"Share of its own dense score kept on {name} by each model, by recipe")  # fmt: skip


def _take() -> None:
    """A click on a point of either chart chooses its recipe and task."""
    for key in ("kin_tasks", "kin_recipes"):
        points = st.session_state.get(key, {}).get("selection", {}).get("points", [])
        if points:
            st.session_state["b"], st.session_state["task"] = points[0]["customdata"]


def _tuned(model: str) -> None:
    """Base beside tuned, where it is known or hinted at which is which."""
    heading("Base and tuned")
    pairs = data.lineage(model)
    if not pairs:
        note("Which of these models was tuned from which is not known. If one was, this records it:")
        st.code("kick reproduce families --model TUNED --tuned-from BASE", language=None)
    for pair, cells, word in pairs:
        show(
            tag("p", pair.told),
            tag("h3", chip(word.verdict), " ", word.sentence, style="margin:.4rem 0 .2rem"),
            tag("p", f"{word.because} {word.rule}", cls="quiet"),
        )
        with st.expander("Recipe by recipe"):
            rows = [_gap(row) for row in each(cells)]
            show(table(("Recipe and task", "tuned", "base", "tuned beside base"), rows, said=3))


def _gap(row: Row) -> tuple[str, ...]:
    tuned, base = (
        f"{percent(row[f'{side}_kept'])} [{percent(row[f'{side}_low'])}, {percent(row[f'{side}_high'])}]"
        for side in ("tuned", "base")
    )
    shared = f"over {row['shared']} shared examples" if row["shared"] else "over different examples"
    return f"{row['label']}, {row['title']}", tuned, base, f"{row['words']}; {shared}"


def _table(frame: pd.DataFrame) -> None:
    """Every row as a table and as files; on every line stands where it comes from."""
    rows = [
        (
            f"{row['label']}, {row['title']}", str(row["model"]), number(row, "dense_score"), number(row),
            f"{percent(row['share_kept'])} [{percent(row['share_low'])}, {percent(row['share_high'])}]",
            f"{row['paired']:,}", chip(row["verdict"]),
        )
        for row in each(frame)
    ]  # fmt: skip
    shown = table(("Recipe and task", "model", "dense", "compressed", "kept, 95 %", "n", "against dense"), rows, said=1)
    show(tag("div", shown, cls="tall", tabindex="0", role="region", **{"aria-label": "All that they share"}))
    with st.container(horizontal=True):
        st.download_button(
            "CSV of these rows", data=lambda: views.csv(frame), file_name="families.csv", mime="text/csv",
            on_click="ignore", type="tertiary", icon=":material/download:",
        )  # fmt: skip
        st.download_button(
            "Parquet", data=lambda: views.parquet(frame), file_name="families.parquet",
            mime="application/vnd.apache.parquet", on_click="ignore", type="tertiary", icon=":material/download:",
        )  # fmt: skip
