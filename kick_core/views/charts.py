"""The pictures as plain data: what plotly draws, for the pages and the offline report alike.

Dictionaries and not plotly's Figure objects, which cost 75 ms each to fill. No template is set, so the theme of
whoever shows them applies. Every trace carries the recipe in customdata, and hovermode is "closest" everywhere:
with "x" a click reports the wrong trace. Names are escaped, because plotly knows a little HTML of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from kick_core import tasks
from kick_core.views.chart_style import (
    FLUENCY,
    MARKER,
    Chart,
    Row,
    axis,
    bars,
    each,
    hollow,
    look,
    method_colour,
    numbers,
    plain,
    said_n,
    share_axis,
    task_symbol,
    tip,
)
from kick_core.views.findings import leading, percent


def marked(chart: Chart, x: float) -> Chart:
    """A chart with the slider's line on every axis of sparsity."""
    layout = chart["layout"]
    lines = [_marker(x, name.removeprefix("xaxis")) for name in sparsity_axes(layout)]
    return {"data": chart["data"], "layout": {**layout, "shapes": [*layout.get("shapes", ()), *lines]}}


def sparsity_axes(layout: Chart) -> list[str]:
    """The names of a layout's axes of sparsity."""
    return sorted(name for name, axis in layout.items() if name.startswith("xaxis") and "ticksuffix" in axis)


def _marker(x: float, number: str) -> Chart:
    return {
        "type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "xref": f"x{number}", "yref": f"y{number} domain",
        "line": {"width": 2, "dash": "dash", "color": MARKER}, "layer": "below",
    }  # fmt: skip


# --- the poster --------------------------------------------------------------------------------------------


DASHES = {"fluency": "dot", "knowledge": "solid", "in_context": "longdash", "skill": "dashdot"}
"""What a task measures, by the line: colour says the method alone."""


def overlay(frame: pd.DataFrame, method: str, narrow: bool = False) -> Chart:
    """Share of the dense score kept against sparsity, all tasks but `left_out` on one axis, perplexity dotted; hollow
    what recovery made of the same recipes. A narrow one names its lines in a legend below instead of at their ends.
    """
    mine = _along(frame, method)
    lead, drawn = leading(set(mine["task"])), _legible(mine)
    traces, ends = _brought_back(frame[frame["task"].isin(drawn)], method), []
    mine = mine[mine["task"].isin(drawn)]
    for task, rows in mine.groupby("task", sort=False):
        name = str(task)
        role = tasks.record(name).measures
        colour = FLUENCY if role == "fluency" else method_colour(str(rows["base"].iloc[-1]))
        traces.append(_kept(rows, colour, strong=name in lead, dash=DASHES[role]))
        ends.append((float(rows["share_kept"].iloc[-1]), str(rows["title"].iloc[-1]), name in lead))
    top = max([1.06, *(float(v) + 0.02 for v in mine["share_high"].dropna().clip(upper=1.3))])
    last_x = 100 * float(mine["sparsity"].max()) if len(mine) else 100
    dense = {"type": "line", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "xref": "x domain", "yref": "y", "layer": "below",
             "line": {"width": 1, "color": "#7f8c8d"}}  # fmt: skip
    layout = {
        "height": 430,
        "margin": {"l": 8, "r": 40 + 7 * max((len(name) for _, name, _ in ends), default=0), "t": 8, "b": 8},
        "hovermode": "closest",
        "showlegend": False,
        "xaxis": axis(title={"text": "Sparsity"}, ticksuffix=" %", range=[-1.5, last_x + 3], showgrid=False),
        "yaxis": share_axis(
            top,
            0.2,
            title={"text": f"Share of the dense score kept (n {said_n(mine)})" if len(mine) else ""},
            range=[0, top],
        ),
        "annotations": [_label(last_x, end) for end in _spread(ends, top)],
        "shapes": [dense, *(_leader(last_x, end) for end in _spread(ends, top))],
    }
    if narrow:
        layout |= {
            "height": 520, "margin": {"l": 8, "r": 8, "t": 8, "b": 8}, "annotations": [], "showlegend": True,
            "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top", "itemwidth": 60}, "shapes": [dense],
        }  # fmt: skip
    return {"data": traces, "layout": layout}


LINES = 7
"""More than so many on one axis cannot be told apart."""


def left_out(frame: pd.DataFrame, method: str) -> list[str]:
    """The titles of the tasks that were measured along a method but have no line in its `overlay`."""
    mine = _along(frame, method)
    hidden = mine[(mine["kind"] != "dense") & ~mine["task"].isin(_legible(mine))]
    return list(dict.fromkeys(map(str, hidden["title"])))


def _along(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    """Dense and a method's sparsities, as far as a share of dense is known."""
    mine = frame[((frame["method"] == method) & (frame["kind"] == "ratio")) | (frame["kind"] == "dense")]
    return mine[mine["share_kept"].notna()]


def _legible(mine: pd.DataFrame) -> list[str]:
    """The tasks that are drawn: those of the headline, then those whose shares are known best, `LINES` at most.

    One that was measured at less than half of the sparsities would be a straight line over all that the others tell.
    """
    sparse = mine[mine["kind"] != "dense"]
    steps = sparse["task"].value_counts(sort=False)
    width = (sparse["share_high"] - sparse["share_low"]).groupby(sparse["task"]).mean()
    often = [str(task) for task in steps.index if 2 * steps[task] >= steps.max()]
    lead = leading(set(often))
    return sorted(often, key=lambda task: (task not in lead, float(width[task])))[:LINES]


def _kept(rows: pd.DataFrame, colour: str, *, strong: bool, dash: str) -> Chart:
    said = [
        f"<b>{plain(row['title'])}</b> · {row['label']}<br>keeps {percent(row['share_kept'])} of dense"
        f" [{percent(row['share_low'])}, {percent(row['share_high'])}]<br>{row['n']} examples · {row['verdict']}"
        for row in each(rows)
    ]
    return {
        "type": "scatter",
        "mode": "lines+markers" if len(rows) > 1 else "markers",
        "x": numbers(100 * rows["sparsity"]),
        "y": numbers(rows["share_kept"]),
        "error_y": bars(rows, "share_kept", "share_low", "share_high", colour),
        "line": {"color": colour, "width": 4.5 if strong else 1.6, "dash": dash},
        "marker": {
            "color": colour,
            "size": 9 if strong else 7,
            "symbol": hollow(task_symbol(str(rows["task"].iloc[-1])), dash == "dash"),
        },
        "hovertext": said,
        "hoverinfo": "text",
        "customdata": [[row["recipe"], row["task"]] for row in each(rows)],
        "name": plain(str(rows["title"].iloc[0])),
    }


def _brought_back(frame: pd.DataFrame, method: str) -> list[Chart]:
    """Hollow marks for every task and every way in which this method's recipes were recovered; several are joined."""
    known = frame[frame["share_kept"].notna()]
    again = known[(known["base"] == method) & (known["recovered"] != "") & (known["kind"] == "ratio")]
    return [
        _kept(rows, method_colour(method), strong=False, dash="dash")
        for _, rows in again.groupby(["task", "method"], sort=False)
    ]


def _spread(ends: list[tuple[float, str, bool]], top: float) -> list[tuple[float, float, str, bool]]:
    """The ends of the lines, lowest first, each with a place for its name, pushed apart so that none covers another."""
    gap = 0.052 * top
    places: list[float] = []
    for y, _, _ in sorted(ends):
        places.append(max(y, places[-1] + gap) if places else max(y, 0.01))
    over = max(0.0, (places[-1] if places else 0) - (top - 0.02))
    return [
        (y, max(at - over, i * gap), name, strong)
        for i, (at, (y, name, strong)) in enumerate(zip(places, sorted(ends), strict=True))
    ]


def _label(x: float, end: tuple[float, float, str, bool]) -> Chart:
    """A line's name, in the theme's own text colour."""
    _, at, name, strong = end
    return {
        "x": x + 3, "y": at, "xref": "x", "yref": "y", "xanchor": "left", "xshift": 4, "showarrow": False,
        "text": f"<b>{plain(name)}</b>" if strong else plain(name), "font": {"size": 13},
    }  # fmt: skip


def _leader(x: float, end: tuple[float, float, str, bool]) -> Chart:
    """From the end of a line to its name."""
    y, at, _, _ = end
    return {
        "type": "line", "x0": x + 0.8, "x1": x + 3, "y0": y, "y1": at, "xref": "x", "yref": "y", "layer": "below",
        "line": {"width": 1, "color": "#7f8c8d"},
    }  # fmt: skip


# --- by how well known the subject is ------------------------------------------------------------------------

_TIERS = ("#2a63c0", "#7a5cc4", "#b94a86", "#c2571a", "#8a6d1a")
"""Best known first, from cold to warm; on white and on the dark theme's ground the contrast of each is 3:1."""


def popularity(table: pd.DataFrame, steps: Mapping[str, float], method: str) -> Chart:
    """The share of facts kept against sparsity, one line per tier of how well known their subjects are.

    Args:
        table: of `views.by_popularity`: a column per step.
        steps: a step's name in the table to its sparsity, dense first.
        method: whose series it is.
    """
    x = [round(100 * severity, 4) for severity in steps.values()]
    rows, last = each(table), len(table) - 1
    traces = [
        {
            "type": "scatter", "mode": "lines+markers", "x": x, "y": [round(float(row[name]), 4) for name in steps],
            "name": _tier(row, at, last), "hoverinfo": "text",
            "hovertext": [
                f"{plain(method)} {plain(name)}<br>{_tier(row, at, last)}: {percent(row[name])} of {row['n']:,} kept"
                for name in steps
            ],
            "line": {"color": _TIERS[min(at, len(_TIERS) - 1)], "width": 3, "dash": ("solid", "dash", "dot")[at % 3]},
            "marker": {"color": _TIERS[min(at, len(_TIERS) - 1)], "size": 7},
        }
        for at, row in enumerate(rows)
    ]  # fmt: skip
    layout = {
        "height": 280, "margin": {"l": 8, "r": 8, "t": 34, "b": 8}, "hovermode": "closest", "shapes": [],
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}, "annotations": [],
        "xaxis": axis(title={"text": "Sparsity"}, ticksuffix=" %", range=[-1.5, x[-1] + 3], showgrid=False),
        "yaxis": share_axis(1, title={"text": "Share of the facts kept"}, range=[0, 1.04]),
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def _tier(row: Row, at: int, last: int) -> str:
    word = "best known" if at == 0 else "least known" if at == last else f"tier {row['tier']}"
    return f"{plain(word)} (n {row['n']:,})"


# --- all methods, task by task -----------------------------------------------------------------------------


def panels(frame: pd.DataFrame, columns: int = 4) -> Chart:
    """Raw scores of all pruning methods against sparsity, one small panel a task that has a sparsity measured."""
    tasks = list(dict.fromkeys(frame.loc[frame["kind"] == "ratio", "task"]))
    height = math.ceil(len(tasks) / columns)
    layout: Chart = {
        "height": 215 * height + 30, "margin": {"l": 8, "r": 8, "t": 30, "b": 8}, "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1, "yref": "container", "yanchor": "top"},
        "annotations": [], "shapes": [],
    }  # fmt: skip
    traces: list[Chart] = []
    for at, task in enumerate(tasks):
        rows = frame[frame["task"] == task]
        number = str(at + 1) if at else ""
        _place(layout, number, at % columns, at // columns, columns, height, rows)
        traces += [
            {**trace, "xaxis": f"x{number}", "yaxis": f"y{number}", "showlegend": at == 0} for trace in curves(rows)
        ]
        layout["shapes"] += chance(rows, number)
    return {"data": traces, "layout": layout}


def _place(layout: Chart, number: str, column: int, row: int, columns: int, height: int, rows: pd.DataFrame) -> None:
    first = rows.iloc[0]
    left, right = (column + 0.1) / columns, (column + 0.98) / columns
    bottom, top = 1 - (row + 0.84) / height, 1 - (row + 0.12) / height
    layout[f"xaxis{number}"] = axis(
        domain=[left, right], anchor=f"y{number}", ticksuffix=" %", showgrid=False, nticks=5
    )
    layout[f"yaxis{number}"] = value_axis(rows, domain=[bottom, top], anchor=f"x{number}", nticks=5)
    layout["annotations"].append(
        {"text": f"<b>{plain(first['title'])}</b>  n {said_n(rows)}", "x": left, "y": top + 0.035 / height,
         "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False,
         "font": {"size": 13}}
    )  # fmt: skip


def chance(rows: pd.DataFrame, number: str) -> list[Chart]:
    """A dotted line at the score of blind guessing."""
    y = float(rows["chance"].max())
    if math.isnan(y):
        return []
    return [
        {"type": "line", "x0": 0, "x1": 1, "y0": y, "y1": y, "xref": f"x{number} domain", "yref": f"y{number}",
         "layer": "below", "line": {"width": 1, "dash": "dot", "color": "#7f8c8d"},
         "label": {"text": "guessing", "textposition": "start", "font": {"size": 10, "color": "#7f8c8d"}}},
    ]  # fmt: skip


def value_axis(rows: pd.DataFrame, **more: Any) -> Chart:
    """From 0 to 100 % for shares, to 50 % where none is higher; a logarithm for perplexity, where up is a loss."""
    if not rows["higher_is_better"].iloc[0]:
        seen = rows["high"].where(rows["high"].notna(), rows["score"]).replace(math.inf, math.nan)
        low, high = math.log10(rows["score"].min()), math.log10(max(seen.max(), 1))
        pad = 0.06 * max(high - low, 0.1)
        ticks = _ticks(low - pad, high + pad)
        return axis(
            type="log",
            range=[low - pad, high + pad],
            tickvals=ticks,
            **{k: v for k, v in more.items() if k != "nticks"},
        )
    top = rows[["high", "score"]].max().max()
    if top > 1.5:
        return axis(range=[0, top * 1.05], **more)
    reach = max(0.5 if top <= 0.5 else 1.0, top)
    return share_axis(
        reach, 0.1 if reach <= 0.5 else 0.25, range=[0, max(1.04 * min(reach, 1), top)],
        **{k: v for k, v in more.items() if k != "nticks"},
    )  # fmt: skip


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis, four or so of them."""
    steps = [
        m * 10**e for e in range(math.floor(low) - 1, math.ceil(high) + 1) for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    ]
    inside = [step for step in steps if low <= math.log10(step) <= high]
    fine = [round(10 ** (low + (high - low) * i / 4), 2) for i in range(5)]
    return inside[:: max(1, len(inside) // 4)] if len(inside) > 1 else fine


def curves(rows: pd.DataFrame) -> list[Chart]:
    """One line a pruning method over one task's rows, each beginning at dense; of recovered recipes hollow marks.

    Those begin where they were measured: a line from dense would pass where nothing is known of them.
    """
    dense = rows[rows["kind"] == "dense"]
    found = []
    for method, mine in rows[rows["kind"] == "ratio"].groupby("method", sort=True):
        name, (colour, symbol, again) = str(method), look(mine)
        line = (mine if again else pd.concat([dense, mine])).sort_values("sparsity")
        share = bool(rows["higher_is_better"].iloc[0]) and line["score"].max() <= 1
        found.append(
            {
                "type": "scatter", "mode": "lines+markers" if len(line) > 1 else "markers",
                "name": plain(name), "legendgroup": plain(name), "cliponaxis": False,
                "x": numbers(100 * line["sparsity"]), "y": numbers(line["score"]),
                "error_y": bars(line, "score", "low", "high", colour),
                "line": {"color": colour, "width": 2, "dash": "dash" if again else "solid"},
                "marker": {"color": colour, "size": 7, "symbol": hollow(symbol, again)},
                "hovertext": [tip(row, share) for row in each(line)], "hoverinfo": "text",
                "customdata": [[row["recipe"], row["task"]] for row in each(line)],
            }
        )  # fmt: skip
    return found


def accuracy(frame: pd.DataFrame, task: str) -> Chart:
    """One task, all methods: sparsities left, and at their right, on the same scale, patterns and widths."""
    rows = frame[frame["task"] == task]
    lines, marks = curves(rows), _beside(rows)
    split = (0.68 if lines else 0.0) if marks else 1.0
    names = [plain(str(name)) for name in dict.fromkeys(_no_sparsity(rows)["target_label"])]
    layout: Chart = {
        "height": 380, "margin": {"l": 8, "r": 8, "t": 34, "b": 8}, "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "yaxis": value_axis(rows, title={"text": f"{plain(str(rows['title'].iloc[0]))} (n {said_n(rows)})"}),
        "shapes": chance(rows, ""),
    }  # fmt: skip
    if lines:
        layout["xaxis"] = axis(title={"text": "Sparsity"}, ticksuffix=" %", showgrid=False, domain=[0, split - 0.04])
    if marks:
        layout["xaxis2"] = axis(
            title={"text": "N:M and bits"}, type="category", categoryarray=names, categoryorder="array",
            showgrid=False, domain=[split, 1], anchor="y",
        )  # fmt: skip
    return {"data": [*lines, *marks], "layout": layout}


def _no_sparsity(rows: pd.DataFrame) -> pd.DataFrame:
    """The recipes that are no points on an axis of sparsity: patterns, widths, both, each from mild to harsh."""
    rest = rows[rows["kind"].isin(("pattern", "bits", "joint"))]
    return rest.sort_values(["kind", "severity"], ascending=[False, True])


def _beside(rows: pd.DataFrame) -> list[Chart]:
    """Marks for recipes that are no points on an axis of sparsity."""
    found = []
    for method, mine in _no_sparsity(rows).groupby("method", sort=True):
        name, (colour, symbol, again) = str(method), look(mine)
        share = bool(mine["higher_is_better"].iloc[0]) and mine["score"].max() <= 1
        found.append(
            {
                "type": "scatter", "mode": "markers", "name": plain(name), "legendgroup": plain(name), "xaxis": "x2",
                "cliponaxis": False,
                "x": [plain(str(target_label)) for target_label in mine["target_label"]], "y": numbers(mine["score"]),
                "error_y": bars(mine, "score", "low", "high", colour),
                "marker": {"color": colour, "size": 9, "symbol": hollow(symbol, again)},
                "hovertext": [tip(row, share) for row in each(mine)], "hoverinfo": "text",
                "customdata": [[row["recipe"], row["task"]] for row in each(mine)],
                "showlegend": not (rows["method"].eq(name) & rows["kind"].eq("ratio")).any(),
            }
        )  # fmt: skip
    return found
