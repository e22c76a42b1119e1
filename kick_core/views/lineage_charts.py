"""Pictures of several models under the same recipes, as the plain data that plotly draws (see `plots`).

A model is a mark of its own symbol and colour, a little beside the others, so that intervals do not cover each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from kick_core.views.chart_style import Chart, each, plain, share_axis
from kick_core.views.findings import percent

COLOURS = ("#3366cc", "#e07b00", "#1b9e77", "#8e44ad", "#c0392b", "#7f8c8d", "#0aa2c0", "#b8860b", "#d6336c", "#6b7280")
SYMBOLS = ("circle", "diamond", "square", "x", "cross", "triangle-up")


def by_task(frame: pd.DataFrame, same: str) -> Chart:
    """One recipe of a `families` frame: the share of dense kept, task by task, a mark a model."""
    rows = frame[frame["same"] == same]
    return _marks(rows, "title", list(dict.fromkeys(frame["title"])))


def by_recipe(frame: pd.DataFrame, task: str) -> Chart:
    """One task of a `families` frame: the share of dense kept, recipe by recipe, a mark a model."""
    rows = frame[frame["task"] == task]
    names = rows.drop_duplicates("same").set_index("same")["label"].to_dict()
    return _marks(rows.assign(label=rows["same"].map(names)), "label", list(dict.fromkeys(names.values())))


def _marks(rows: pd.DataFrame, column: str, names: Sequence[str]) -> Chart:
    """`names` down, shares across."""
    shown = [name for name in names if (rows[column] == name).any()]
    rows = rows[rows["share_kept"].notna()]
    models = list(dict.fromkeys(rows["model"]))
    step = 0.6 / max(len(models), 1)
    traces = [
        _model(rows[rows["model"] == model], column, shown, (at - (len(models) - 1) / 2) * step, at)
        for at, model in enumerate(models)
    ]
    most = max([1.0, *(min(float(share), 3) for share in rows["share_kept"])])
    # An interval that is far wider than the shares would squeeze all of them; it ends at the edge.
    top = max([1.04, most, *(float(high) for high in rows["share_high"] if high < 1.6 * most)]) + 0.02
    layout = {
        "height": 90 + max(46, 26 * len(models)) * max(len(shown), 1),
        "margin": {"l": 8, "r": 8, "t": 34, "b": 8}, "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": share_axis(
            top, 0.25 if top < 1.5 else 0.5, title={"text": "Share of dense kept"}, range=[-0.03 * top, top]
        ),
        "yaxis": {"tickvals": list(range(len(shown))), "ticktext": [plain(name) for name in shown],
                  "range": [len(shown) - 0.5, -0.5], "zeroline": False, "fixedrange": True, "automargin": True,
                  "showgrid": False},
        "shapes": [{"type": "line", "x0": 1, "x1": 1, "y0": 0, "y1": 1, "xref": "x", "yref": "y domain",
                    "layer": "below", "line": {"width": 1, "color": "#7f8c8d"}}],
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def _model(rows: pd.DataFrame, column: str, names: Sequence[str], beside: float, at: int) -> Chart:
    colour, values = COLOURS[at % len(COLOURS)], each(rows)
    said = [
        f"<b>{plain(row['model'])}</b> · {plain(row['label'])} · {plain(row['title'])}<br>keeps "
        f"{percent(row['share_kept'])} [{percent(row['share_low'])}, {percent(row['share_high'])}] of "
        f"{row['dense_score']:.3g}<br>{row['paired']} examples · {row['verdict']}"
        for row in values
    ]
    return {
        "type": "scatter", "mode": "markers", "name": plain(str(rows["model"].iloc[0])),
        "x": [round(float(row["share_kept"]), 6) for row in values],
        "y": [names.index(row[column]) + beside for row in values],
        "error_x": {
            "type": "data", "thickness": 1.5, "width": 3, "color": colour,
            "array": [_finite(row["share_high"] - row["share_kept"]) for row in values],
            "arrayminus": [_finite(row["share_kept"] - row["share_low"]) for row in values],
        },
        "marker": {"color": colour, "size": 10, "symbol": SYMBOLS[at % len(SYMBOLS)]},
        "hovertext": said, "hoverinfo": "text",
        "customdata": [[row["recipe"], row["task"]] for row in values],
    }  # fmt: skip


def _finite(value: Any) -> float | None:
    return round(float(value), 6) if math.isfinite(value) else None
