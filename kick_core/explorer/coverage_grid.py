"""The coverage grid: every task under every recipe, measured, running, partly measured or missing."""

from __future__ import annotations

import re

import pandas as pd
import streamlit as st

from kick_core import jobs, views
from kick_core.explorer import data
from kick_core.explorer.charts import draw
from kick_core.explorer.frame import note, store, without_weights
from kick_core.explorer.safe import Safe, show, tag
from kick_core.views.chart_style import Chart, Row, each, plain

STATES = {
    "done": ("measured", "#2f7d5d"),
    "running": ("queued or running", "#e0a100"),
    "partial": ("fewer examples than elsewhere", "#9cc9b5"),
    "missing": ("not measured", "rgba(127,140,141,0.10)"),
}


def coverage(model: str) -> pd.DataFrame:
    """`views.coverage` with what the jobs are at: a cell that a job was asked for and is not done is running."""
    frame, here = data.coverage(model), (views.asked_name(model), data.protocol(model), data.named(model))
    if without_weights(model):  # what nothing was ever asked of cannot be filled here
        frame = frame[frame["wanted"] > 0].reset_index(drop=True)
    busy = {
        (recipe, task)
        for job in jobs.jobs(store())
        if job.active and (job.spec.get("model"), job.spec.get("protocol"), job.spec.get("data")) == here
        for recipe in job.spec.get("recipes", ())
        for task in job.spec.get("tasks", ())
    }
    cells = pd.Series(list(zip(frame["recipe"], frame["task"], strict=True)), index=frame.index)
    return frame.assign(state=frame["state"].mask(frame["state"].ne("done") & cells.isin(busy), "running"))


def said(frame: pd.DataFrame) -> str:
    """How much of the grid is filled, in words."""
    measured = int(frame["state"].isin(("done", "partial")).sum())
    return f"{measured} of {len(frame)} cells of {frame['recipe'].nunique()} recipes x {frame['task'].nunique()} tasks"


def clickable(covered: pd.DataFrame) -> None:
    """The grid itself. A click opens a cell; an empty one says what it would take to measure it, and offers to."""

    def take() -> None:
        points = st.session_state["grid"]["selection"]["points"]
        if points:
            st.session_state["b"], st.session_state["task"], _ = points[0]["customdata"]

    draw(squares(covered), key="grid", alt="Tasks by recipes: what is measured", on_select=take,
         selection_mode="points")  # fmt: skip
    show(_legend(covered))
    note("Click a cell to open it. An empty one says what measuring it would take, and asks before it starts.")


def squares(frame: pd.DataFrame) -> Chart:
    """Tasks down, recipes across grouped by method, a square a cell."""
    rows = each(frame)
    recipes = list(dict.fromkeys(frame["label"]))
    columns = {label: at for at, label in enumerate(recipes)}
    size = max(9, min(24, 1000 // max(1, len(recipes))))
    traces = [
        {
            "type": "scatter", "mode": "markers", "name": name, "x": [columns[row["label"]] for row in mine],
            "y": [plain(row["title"]) for row in mine], "hovertext": [_tip(row) for row in mine], "hoverinfo": "text",
            "customdata": [[row["recipe"], row["task"], row["state"]] for row in mine],
            "marker": {"symbol": "square", "size": size, "color": colour, "line": {"width": 1, "color": "#8b9cc0"}},
            "unselected": {"marker": {"opacity": 1}},
        }
        for state, (name, colour) in STATES.items()
        if (mine := [row for row in rows if row["state"] == state])
    ]  # fmt: skip
    groups = pd.Series(recipes).str.partition(" ")[0]
    # Options in brackets stand in a cell's tip: under squares of 24 pixels there is no room for them.
    targets = [
        plain(re.sub(r" \([^)]*\)", "", label.partition(" ")[2]).removesuffix(" %") or label) for label in recipes
    ]
    titles = list(dict.fromkeys(plain(row["title"]) for row in rows))
    layout = {
        "height": 120 + 27 * len(titles), "margin": {"l": 8, "r": 8, "t": 26, "b": 8}, "hovermode": "closest",
        "showlegend": False,
        "xaxis": {"tickvals": list(range(len(recipes))), "ticktext": targets, "side": "bottom", "showgrid": False,
                  "zeroline": False, "fixedrange": True, "range": [-0.6, len(recipes) - 0.4], "tickfont": {"size": 11},
                  "tickangle": -90, "automargin": True},
        "yaxis": {"autorange": "reversed", "categoryorder": "array", "categoryarray": titles, "showgrid": False,
                  "automargin": True, "fixedrange": True, "ticksuffix": " "},
        "annotations": [
            {"text": plain(str(name)), "x": float(places.min()) - 0.4, "y": 1, "xref": "x", "yref": "paper",
             "xanchor": "left", "yanchor": "bottom", "showarrow": False, "font": {"size": 12}}
            for name, places in groups.reset_index().groupby(0, sort=False)["index"]
            if name != "dense"
        ],
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def _tip(cell: Row) -> str:
    text = f"<b>{plain(cell['label'])}</b> · {plain(cell['title'])}<br>{STATES[cell['state']][0]}"
    if cell["n"]:
        text += f"<br>{cell['n']} examples; the most asked of any recipe {cell['wanted']}, of {cell['total']}"
    return text


def _legend(frame: pd.DataFrame) -> Safe:
    counts = frame["state"].value_counts()
    return tag(
        "div",
        *(
            tag("span", tag("i", cls="cell", style=f"background:{colour}"), f"{counts.get(state, 0)} {name}")
            for state, (name, colour) in STATES.items()
        ),
        cls="legend",
        style="margin:.2rem 0 .3rem",
    )
