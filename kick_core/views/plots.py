"""The pictures as plain data: what plotly draws, for the pages and the offline report alike.

Dictionaries and not plotly's Figure objects, which cost 75 ms each to fill. No template is set, so the theme of
whoever shows them applies. Every trace carries the recipe in customdata, and hovermode is "closest" everywhere:
with "x" a click reports the wrong trace. Names are escaped, because plotly knows a little HTML of its own.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kick_core.views.findings import percent

Chart = dict[str, Any]


def plain(text: str) -> str:
    """Text for plotly."""
    return html.escape(text, quote=False)


TASK_COLOURS = {
    "perplexity": "#7f8c8d",
    "factoid_qa": "#e07b00",
    "multiple_choice": "#8e44ad",
    "retrieval_qa_closed": "#c0392b",
    "retrieval_qa_open": "#1b9e77",
    "summarization": "#3366cc",
    "instructions": "#0aa2c0",
}
METHOD_COLOURS = {
    "magnitude": "#e07b00",
    "wanda": "#3366cc",
    "sparsegpt": "#1b9e77",
    "rtn": "#8e44ad",
    "gptq": "#d6336c",
    "ria": "#0aa2c0",
    "random": "#7f8c8d",
    "depth": "#495057",
    "width": "#b8860b",
    "mop": "#c0392b",
    "mix": "#0aa2c0",
}
OTHERS = ("#b8860b", "#495057", "#0aa2c0", "#c0392b")
MARKER = "#d6453d"
SYMBOLS = {
    "magnitude": "circle", "wanda": "diamond", "sparsegpt": "square", "rtn": "cross", "gptq": "x", "mix": "star",
    "depth": "triangle-down", "width": "triangle-left", "mop": "star",
}  # fmt: skip


def task_colour(name: str) -> str:
    return TASK_COLOURS.get(name, OTHERS[sum(map(ord, name)) % len(OTHERS)])


def method_colour(name: str) -> str:
    """A method's colour; a search's is its objective's."""
    objective = re.search(r"objective=(\w+)", name)
    if objective and objective[1] in TASK_COLOURS:
        return TASK_COLOURS[objective[1]]
    return METHOD_COLOURS.get(name, OTHERS[sum(map(ord, name)) % len(OTHERS)])


def method_symbol(name: str) -> str:
    """A method's mark; everything that was searched for is a star."""
    return "star" if "alloc=search" in name or "objective=" in name else SYMBOLS.get(name, "circle")


def _bars(rows: pd.DataFrame, value: str, low: str, high: str, colour: str, scale: float = 1) -> Chart:
    up, down = (rows[high] - rows[value]) * scale, (rows[value] - rows[low]) * scale
    return {
        "type": "data", "array": _list(up), "arrayminus": _list(down), "thickness": 1, "width": 3, "color": colour,
    }  # fmt: skip


Row = Mapping[Any, Any]


def each(rows: pd.DataFrame) -> Sequence[Row]:
    return rows.to_dict("records")


def said_n(rows: pd.DataFrame) -> str:
    """How many examples stand behind these rows: 200, or 64 to 200."""
    low, high = int(rows["n"].min()), int(rows["n"].max())
    return f"{low}" if low == high else f"{low} to {high}"


def _list(values: pd.Series) -> list[float | None]:
    """Numbers for JSON: what is not known is left out of the drawing."""
    return [None if math.isnan(v) or math.isinf(v) else round(float(v), 6) for v in values]


def _axis(**more: Any) -> Chart:
    return {"zeroline": False, "fixedrange": True, "automargin": True, **more}


def marked(chart: Chart, x: float) -> Chart:
    """A chart with the slider's line on every axis of sparsity."""
    layout = chart["layout"]
    axes = sorted(name for name, axis in layout.items() if name.startswith("xaxis") and "ticksuffix" in axis)
    lines = [_marker(x, name.removeprefix("xaxis")) for name in axes]
    return {"data": chart["data"], "layout": {**layout, "shapes": [*layout.get("shapes", ()), *lines]}}


def _marker(x: float, number: str) -> Chart:
    return {
        "type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "xref": f"x{number}", "yref": f"y{number} domain",
        "line": {"width": 2, "dash": "dash", "color": MARKER}, "layer": "below",
    }  # fmt: skip


# --- the poster --------------------------------------------------------------------------------------------

STRONG = ("perplexity", "factoid_qa")


def overlay(frame: pd.DataFrame, method: str) -> Chart:
    """Share of the dense score kept against sparsity, every task on one axis, perplexity dotted; dashed what
    recovery made of the same recipes.
    """
    mine = frame[((frame["method"] == method) & (frame["kind"] == "ratio")) | (frame["kind"] == "dense")]
    mine = mine[mine["share_kept"].notna()]
    traces, ends = _brought_back(frame, method), []
    for task, rows in mine.groupby("task", sort=False):
        if len(rows) < 2:
            continue
        name, colour = str(task), task_colour(str(task))
        traces.append(_kept(rows, colour, strong=name in STRONG, dash="dot" if name == "perplexity" else "solid"))
        last = rows.iloc[-1]
        ends.append((float(last["share_kept"]), str(last["title"]), colour, name in STRONG))
    top = max([1.06, *(float(v) + 0.02 for v in mine["share_high"].dropna().clip(upper=1.3))])
    last_x = 100 * float(mine["sparsity"].max()) if len(mine) else 100
    layout = {
        "height": 430,
        "margin": {"l": 8, "r": 150, "t": 8, "b": 8},
        "hovermode": "closest",
        "showlegend": False,
        "xaxis": _axis(title={"text": "Sparsity"}, ticksuffix=" %", range=[-1.5, last_x + 1.5], showgrid=False),
        "yaxis": _axis(
            title={"text": f"Share of the dense score kept (n {said_n(mine)})" if len(mine) else ""}, tickformat=".0%",
            range=[0, top], dtick=0.2,
        ),
        "annotations": _labels(ends, last_x, top),
        "shapes": [
            {"type": "line", "x0": 0, "x1": 1, "y0": 1, "y1": 1, "xref": "x domain", "yref": "y", "layer": "below",
             "line": {"width": 1, "color": "#7f8c8d"}},
        ],
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def _kept(rows: pd.DataFrame, colour: str, *, strong: bool, dash: str) -> Chart:
    said = [
        f"<b>{plain(row['title'])}</b> · {row['label']}<br>keeps {percent(row['share_kept'])} of dense"
        f" [{percent(row['share_low'])}, {percent(row['share_high'])}]<br>{row['n']} examples · {row['verdict']}"
        for row in each(rows)
    ]
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "x": _list(100 * rows["sparsity"]),
        "y": _list(rows["share_kept"]),
        "error_y": _bars(rows, "share_kept", "share_low", "share_high", colour),
        "line": {"color": colour, "width": 4 if strong else 2, "dash": dash},
        "marker": {"color": colour, "size": 8 if strong else 6, "symbol": _open("circle", dash == "dash")},
        "opacity": 1 if strong else 0.75,
        "hovertext": said,
        "hoverinfo": "text",
        "customdata": [[row["recipe"], row["task"]] for row in each(rows)],
        "name": plain(str(rows["title"].iloc[0])),
    }


def _brought_back(frame: pd.DataFrame, method: str) -> list[Chart]:
    """A dashed line from dense for every task and every way in which this method's recipes were recovered."""
    known = frame[frame["share_kept"].notna()]
    again = known[(known["base"] == method) & (known["recovered"] != "") & (known["kind"] == "ratio")]
    dense = known[known["kind"] == "dense"]
    return [
        _kept(pd.concat([dense[dense["task"] == task], rows]), task_colour(str(task)), strong=False, dash="dash")
        for (task, _), rows in again.groupby(["task", "method"], sort=False)
    ]


def _labels(ends: list[tuple[float, str, str, bool]], x: float, top: float) -> list[Chart]:
    """Names at the ends of the lines, pushed apart so that none covers another."""
    gap = 0.052 * top
    placed: list[tuple[float, str, str, bool]] = []
    for y, name, colour, strong in sorted(ends):
        at = max(y, placed[-1][0] + gap) if placed else max(y, 0.01)
        placed.append((at, name, colour, strong))
    over = max(0.0, (placed[-1][0] if placed else 0) - (top - 0.02))
    return [
        {
            "x": x, "y": max(at - over, i * gap), "xref": "x", "yref": "y", "xanchor": "left", "xshift": 10,
            "showarrow": False, "text": f"<b>{plain(name)}</b>" if strong else plain(name),
            "font": {"color": colour, "size": 13},
        }
        for i, (at, name, colour, strong) in enumerate(placed)
    ]  # fmt: skip


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
        layout["shapes"] += _chance(rows, number)
    return {"data": traces, "layout": layout}


def _place(layout: Chart, number: str, column: int, row: int, columns: int, height: int, rows: pd.DataFrame) -> None:
    first = rows.iloc[0]
    left, right = (column + 0.1) / columns, (column + 0.98) / columns
    bottom, top = 1 - (row + 0.84) / height, 1 - (row + 0.12) / height
    layout[f"xaxis{number}"] = _axis(
        domain=[left, right], anchor=f"y{number}", ticksuffix=" %", showgrid=False, nticks=5
    )
    layout[f"yaxis{number}"] = value_axis(rows, domain=[bottom, top], anchor=f"x{number}", nticks=5)
    layout["annotations"].append(
        {"text": f"<b>{plain(first['title'])}</b>  n {said_n(rows)}", "x": left, "y": top + 0.035 / height,
         "xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom", "showarrow": False,
         "font": {"size": 13}}
    )  # fmt: skip


def _chance(rows: pd.DataFrame, number: str) -> list[Chart]:
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
    """From 0 to 100 % for shares; a logarithm for perplexity, where every step up is a loss."""
    if not rows["higher_is_better"].iloc[0]:
        seen = rows["high"].where(rows["high"].notna(), rows["score"]).replace(math.inf, math.nan)
        low, high = math.log10(rows["score"].min()), math.log10(max(seen.max(), 1))
        pad = 0.06 * max(high - low, 0.1)
        ticks = _ticks(low - pad, high + pad)
        return _axis(
            type="log",
            range=[low - pad, high + pad],
            tickvals=ticks,
            **{k: v for k, v in more.items() if k != "nticks"},
        )
    top = rows[["high", "score"]].max().max()
    return _axis(
        tickformat=".0%" if top <= 1.5 else "", range=[0, max(1.04, top) if top <= 1.5 else top * 1.05], **more
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis, four or so of them."""
    steps = [
        m * 10**e for e in range(math.floor(low) - 1, math.ceil(high) + 1) for m in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    ]
    inside = [step for step in steps if low <= math.log10(step) <= high]
    fine = [round(10 ** (low + (high - low) * i / 4), 2) for i in range(5)]
    return inside[:: max(1, len(inside) // 4)] if len(inside) > 1 else fine


def _look(rows: pd.DataFrame) -> tuple[str, str, bool]:
    """Colour and symbol of one method's rows, those of the method that they recover from, and whether they do."""
    base = str(rows["base"].iloc[0])
    return method_colour(base), method_symbol(base), bool(rows["recovered"].iloc[0])


def curves(rows: pd.DataFrame) -> list[Chart]:
    """One line a pruning method over one task's rows, each beginning at dense; dashed where it was recovered."""
    dense = rows[rows["kind"] == "dense"]
    found = []
    for method, mine in rows[rows["kind"] == "ratio"].groupby("method", sort=True):
        line = pd.concat([dense, mine]).sort_values("sparsity")
        name, (colour, symbol, again) = str(method), _look(mine)
        share = bool(rows["higher_is_better"].iloc[0]) and line["score"].max() <= 1
        found.append(
            {
                "type": "scatter", "mode": "lines+markers", "name": plain(name), "legendgroup": plain(name),
                "x": _list(100 * line["sparsity"]), "y": _list(line["score"]),
                "error_y": _bars(line, "score", "low", "high", colour),
                "line": {"color": colour, "width": 2, "dash": "dash" if again else "solid"},
                "marker": {"color": colour, "size": 7, "symbol": _open(symbol, again)},
                "hovertext": [_tip(row, share) for row in each(line)], "hoverinfo": "text",
                "customdata": [[row["recipe"], row["task"]] for row in each(line)],
            }
        )  # fmt: skip
    return found


def _open(symbol: str, again: bool) -> str:
    """A symbol, hollow for what was recovered."""
    return f"{symbol}-open" if again else symbol


def _tip(row: Row, share: bool) -> str:
    numbers = [percent(v, 1) if share else f"{v:.3g}" for v in (row["score"], row["low"], row["high"])]
    return f"<b>{plain(row['label'])}</b><br>{numbers[0]} [{numbers[1]}, {numbers[2]}]<br>{row['n']} examples"


def sizes(frame: pd.DataFrame, task: str) -> Chart:
    """Pruning beside quantization at equal size: share kept against bits per weight, and the best at each size."""
    rows = frame[(frame["task"] == task) & frame["share_kept"].notna()].sort_values("bits_per_weight")
    best = rows[rows["share_kept"] >= rows["share_kept"].cummax()]
    traces: list[Chart] = [
        {"type": "scatter", "mode": "lines", "x": _list(best["bits_per_weight"]), "y": _list(best["share_kept"]),
         "line": {"color": "#7f8c8d", "width": 1, "dash": "dot", "shape": "hv"}, "name": "best at its size",
         "hoverinfo": "skip"},
    ]  # fmt: skip
    for method, mine in rows[rows["kind"] != "dense"].groupby("method", sort=True):
        name = str(method)
        said = [
            f"<b>{plain(row['label'])}</b><br>{row['bits_per_weight']:.2f} bits per weight<br>keeps "
            f"{percent(row['share_kept'])} [{percent(row['share_low'])}, {percent(row['share_high'])}]"
            for row in each(mine)
        ]
        colour, symbol, again = _look(mine)
        marker = {"color": colour, "size": 10, "symbol": _open(symbol, again)}
        traces.append(
            {"type": "scatter", "mode": "markers", "name": plain(name), "x": _list(mine["bits_per_weight"]),
             "y": _list(mine["share_kept"]), "marker": marker, "hovertext": said, "hoverinfo": "text",
             "error_y": _bars(mine, "share_kept", "share_low", "share_high", colour)}
        )  # fmt: skip
    layout = {
        "height": 360, "margin": {"l": 8, "r": 8, "t": 8, "b": 8}, "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": _axis(title={"text": "Bits per weight, dense 16"}, range=[0, 16.5], showgrid=False),
        "yaxis": _axis(
            title={"text": f"Share of dense kept (n {said_n(rows)})"}, tickformat=".0%", rangemode="tozero", dtick=0.25
        ),
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def frontier(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one task that no other one beats at its size or below, small to large."""
    sign = 1 if rows["higher_is_better"].iloc[0] else -1
    known = rows[rows["score"].notna()].assign(_good=sign * rows["score"])
    ordered = known.sort_values(["bits_per_weight", "_good"], ascending=[True, False])
    best = ordered["_good"].cummax()
    return ordered[(ordered["_good"] >= best) & ~ordered["_good"].duplicated()].drop(columns="_good")


def pareto(frame: pd.DataFrame, task: str, weights: int = 0) -> Chart:
    """Every recipe's score on a task by its size, with the line of the best at each size.

    `weights`: how many weights the compressed linears have; then sizes are megabytes, else bits per weight.
    """
    rows = frame[frame["task"] == task]
    scale = weights / 8e6 if weights else 1.0
    best = frontier(rows)
    share = bool(rows["higher_is_better"].iloc[0]) and rows["score"].max() <= 1
    traces: list[Chart] = [
        {"type": "scatter", "mode": "lines", "x": _list(scale * best["bits_per_weight"]), "y": _list(best["score"]),
         "line": {"color": "#7f8c8d", "width": 1.5, "dash": "dot", "shape": "hv"}, "name": "best at its size",
         "hoverinfo": "skip"},
    ]  # fmt: skip
    unit = "MB" if weights else "bits per weight"
    for (kind, method), mine in rows.groupby([rows["kind"].eq("dense"), "method"], sort=True):
        name = "dense" if kind else str(method)
        colour, symbol, again = ("#7f8c8d", "circle", False) if kind else _look(mine)
        sizes = scale * mine["bits_per_weight"]
        said = [f"{_tip(row, share)}<br>{size:.3g} {unit}" for row, size in zip(each(mine), sizes, strict=True)]
        traces.append(
            {"type": "scatter", "mode": "markers", "name": plain(name), "x": _list(sizes), "y": _list(mine["score"]),
             "marker": {"color": colour, "size": 10, "symbol": _open(symbol, again)}, "hovertext": said,
             "hoverinfo": "text", "error_y": _bars(mine, "score", "low", "high", colour),
             "customdata": [[row["recipe"], row["task"]] for row in each(mine)],
             "unselected": {"marker": {"opacity": 1}}}
        )  # fmt: skip
    layout = {
        "height": 440, "margin": {"l": 8, "r": 8, "t": 34, "b": 8}, "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": _axis(
            title={"text": f"Size of the compressed linears, {unit} (dense at 16 bits)"}, showgrid=False,
            range=[0, scale * max(16.5, float(rows["bits_per_weight"].max()) * 1.03)],
        ),
        "yaxis": value_axis(rows, title={"text": f"{plain(str(rows['title'].iloc[0]))} (n {said_n(rows)})"}),
        "shapes": _chance(rows, ""),
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def accuracy(frame: pd.DataFrame, task: str) -> Chart:
    """One task, all methods: sparsities left, and at their right, on the same scale, patterns and widths."""
    rows = frame[frame["task"] == task]
    lines, marks = curves(rows), _beside(rows)
    split = (0.68 if lines else 0.0) if marks else 1.0
    names = list(dict.fromkeys(name for mark in marks for name in mark["x"]))
    layout: Chart = {
        "height": 380, "margin": {"l": 8, "r": 8, "t": 34, "b": 8}, "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "yaxis": value_axis(rows, title={"text": f"{plain(str(rows['title'].iloc[0]))} (n {said_n(rows)})"}),
        "shapes": _chance(rows, ""),
    }  # fmt: skip
    if lines:
        layout["xaxis"] = _axis(title={"text": "Sparsity"}, ticksuffix=" %", showgrid=False, domain=[0, split - 0.04])
    if marks:
        layout["xaxis2"] = _axis(
            title={"text": "N:M and bits"}, type="category", categoryarray=names, categoryorder="array",
            showgrid=False, domain=[split, 1], anchor="y",
        )  # fmt: skip
    return {"data": [*lines, *marks], "layout": layout}


def _beside(rows: pd.DataFrame) -> list[Chart]:
    """Marks for recipes that are no points on an axis of sparsity."""
    found = []
    rest = rows[rows["kind"].isin(("pattern", "bits", "joint"))].sort_values(
        ["kind", "severity"], ascending=[False, True]
    )
    for method, mine in rest.groupby("method", sort=True):
        name, (colour, symbol, again) = str(method), _look(mine)
        share = bool(mine["higher_is_better"].iloc[0]) and mine["score"].max() <= 1
        found.append(
            {
                "type": "scatter", "mode": "markers", "name": plain(name), "legendgroup": plain(name), "xaxis": "x2",
                "x": [plain(str(rung)) for rung in mine["rung"]], "y": _list(mine["score"]),
                "error_y": _bars(mine, "score", "low", "high", colour),
                "marker": {"color": colour, "size": 9, "symbol": _open(symbol, again)},
                "hovertext": [_tip(row, share) for row in each(mine)], "hoverinfo": "text",
                "customdata": [[row["recipe"], row["task"]] for row in each(mine)],
                "showlegend": not (rows["method"].eq(name) & rows["kind"].eq("ratio")).any(),
            }
        )  # fmt: skip
    return found


# --- what searches chose -------------------------------------------------------------------------------------


def allocation(table: pd.DataFrame, unit: str) -> Chart:
    """How recipes share out their sparsity (or bits), as two strips of heat: by block, and by kind of matrix.

    `table` is `searched.allocation`'s; one row a recipe, the first on top.
    """
    names = [plain(label) for label in dict.fromkeys(table["label"])][::-1]
    share = unit == "sparsity"
    layout: Chart = {
        "height": 90 + 34 * len(names), "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "yaxis": _axis(categoryorder="array", categoryarray=names),
        "coloraxis": {
            "colorscale": [[0, "#eef2fb"], [1, "#2c55b0" if share else "#1b7a5a"]], "cmin": float(table["value"].min()),
            "cmax": float(table["value"].max()),
            "colorbar": {"title": {"text": unit}, "tickformat": ".0%" if share else ".1f", "thickness": 12},
        },
    }  # fmt: skip
    traces: list[Chart] = []
    for number, axis in (("", "block"), ("2", "matrix")):
        rows = table[table["axis"] == axis]
        places = [plain(place) for place in dict.fromkeys(rows["place"])]
        wide = rows.assign(label=rows["label"].map(plain), place=rows["place"].map(plain))
        wide = wide.pivot_table(index="label", columns="place", values="value", sort=False).reindex(names)[places]
        values = [[None if math.isnan(v) else round(float(v), 6) for v in row] for row in wide.to_numpy()]
        traces.append(
            {"type": "heatmap", "x": places, "y": names, "z": values, "xaxis": f"x{number}", "coloraxis": "coloraxis",
             "texttemplate": "%{z:.0%}" if share else "%{z:.1f}", "xgap": 2, "ygap": 2,
             "hovertemplate": f"<b>%{{y}}</b><br>{axis} %{{x}}: %{{z{':.1%' if share else ':.2f'}}}<extra></extra>"}
        )  # fmt: skip
        domain = [0, 0.5] if axis == "block" else [0.52, 1]
        title = "Block" if axis == "block" else "Kind of matrix"
        layout[f"xaxis{number}"] = _axis(title={"text": title}, type="category", domain=domain, showgrid=False)
    return {"data": traces, "layout": layout}
