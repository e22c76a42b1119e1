"""Pruning and quantization side by side by their size."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kick_core.views.chart_style import Chart, axis, bars, each, hollow, look, numbers, plain, said_n, share_axis, tip
from kick_core.views.charts import chance, value_axis
from kick_core.views.findings import percent


def sizes(frame: pd.DataFrame, task: str) -> Chart:
    """Pruning beside quantization at equal size: share kept against bits per weight, and the best at each size."""
    rows = frame[(frame["task"] == task) & frame["share_kept"].notna()].sort_values("bits_per_weight")
    best = rows[rows["share_kept"] >= rows["share_kept"].cummax()]
    wide, top = max(16.5, 1.03 * float(rows["bits_per_weight"].max())), max(1, float(rows["share_high"].max()))
    rows = rows.assign(place=apart(rows["bits_per_weight"], rows["share_kept"], wide, top))
    traces: list[Chart] = [
        {"type": "scatter", "mode": "lines", "x": numbers(best["bits_per_weight"]), "y": numbers(best["share_kept"]),
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
        colour, symbol, again = look(mine)
        marker = {"color": colour, "size": 10, "symbol": hollow(symbol, again)}
        traces.append(
            {"type": "scatter", "mode": "markers", "name": plain(name), "x": numbers(mine["place"]),
             "cliponaxis": False,
             "y": numbers(mine["share_kept"]), "marker": marker, "hovertext": said, "hoverinfo": "text",
             "error_y": bars(mine, "share_kept", "share_low", "share_high", colour)}
        )  # fmt: skip
    layout = {
        # each name beyond the first few takes a line of the legend
        "height": 360 + 18 * max(0, len(traces) - 6), "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": axis(
            title={"text": "Bits per weight (dense: 16)"},
            range=[0, wide], showgrid=False,
        ),
        "yaxis": share_axis(
            top, title={"text": f"Share of dense kept (n {said_n(rows)})"},
            rangemode="tozero",
        ),
    }  # fmt: skip
    return {"data": traces, "layout": layout}


MARK = (0.011, 0.05)
"""What a mark takes of an axis's width and of its height."""


def apart(x: pd.Series, y: pd.Series, width: float, height: float) -> pd.Series:
    """Places along x at which marks of one size stand side by side instead of on each other.

    Args:
        x: the true sizes.
        y: the values.
        width: what the x axis spans.
        height: what the y axis spans.

    Returns:
        For every row x itself where nothing lies there yet, else the nearest free place to its left or right.
    """
    placed: list[tuple[float, float]] = []
    places = {}
    for at in y.sort_values(kind="stable", ascending=False).index:
        lane, value = 0, float(y[at])
        while True:
            here = float(x[at]) + MARK[0] * width * lane
            if not any(abs(here - a) < 0.9 * MARK[0] * width and abs(value - b) < MARK[1] * height for a, b in placed):
                break
            lane = -lane if lane > 0 else 1 - lane
        placed.append((here, value))
        places[at] = here
    return pd.Series(places, dtype=float).reindex(x.index)


def frontier(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of one task that no other one beats at its size or below, small to large."""
    sign = 1 if rows["higher_is_better"].iloc[0] else -1
    known = rows[rows["score"].notna()].assign(_good=sign * rows["score"])
    ordered = known.sort_values(["bits_per_weight", "_good"], ascending=[True, False])
    best = ordered["_good"].cummax()
    return ordered[(ordered["_good"] >= best) & ~ordered["_good"].duplicated()].drop(columns="_good")


def said_by_size(rows: pd.DataFrame) -> str:
    """What quantization and pruning keep at their sizes, in a sentence; "" where one of them was not measured.

    Of the quantized recipes the one that keeps most per bit is named, of the pruned ones the best of those that are
    nearest in size but no smaller: nothing speaks for quantization but what it keeps.

    Args:
        rows: one task's rows of a `current` frame.
    """
    known = rows[rows["share_kept"].notna()].assign(per_bit=rows["share_kept"] / rows["bits_per_weight"])
    grids, pruned = known[known["kind"] == "bits"], known[known["kind"].isin(("ratio", "pattern"))]
    if grids.empty:
        return ""
    one = grids.sort_values("per_bit").iloc[-1]
    larger = pruned[pruned["bits_per_weight"] >= one["bits_per_weight"]]
    if larger.empty:
        return ""
    nearest = larger[larger["bits_per_weight"] <= 1.02 * larger["bits_per_weight"].min()]
    other = nearest.sort_values("share_kept").iloc[-1]
    times = other["bits_per_weight"] / one["bits_per_weight"]
    size = "of the same size" if times < 1.1 else f"{times:.1f} times as large"
    return (
        f"{one['title']}: at {percent(one['bits_per_weight'] / 16)} of dense's size, {one['label']} keeps "
        f"{percent(one['share_kept'])} of the dense score; {other['label']}, {size}, keeps "
        f"{percent(other['share_kept'])}."
    )


def pareto(frame: pd.DataFrame, task: str, weights: int = 0, *compared: str) -> Chart:
    """Every recipe's score on a task by its size, with the line of the best at each size.

    Args:
        frame: a `current` frame.
        task: the task whose scores are drawn.
        weights: how many weights the compressed linears have; then sizes are megabytes, else bits per weight.
        compared: the recipes that are A and B on the page; their points are named.
    """
    rows = frame[frame["task"] == task]
    scale = weights / 8e6 if weights else 1.0
    best = frontier(rows)
    share = bool(rows["higher_is_better"].iloc[0]) and rows["score"].max() <= 1
    wide = scale * max(16.5, float(rows["bits_per_weight"].max()) * 1.03)
    across = value_axis(rows, title={"text": f"{plain(str(rows['title'].iloc[0]))} (n {said_n(rows)})"})
    # On a logarithmic axis plotly counts an annotation's height, and the axis its range, in logarithms.
    height = np.log10(rows["score"]) if across.get("type") == "log" else rows["score"]
    known, (low, high) = height.notna(), across["range"]
    place = apart(scale * rows.loc[known, "bits_per_weight"], height[known], wide, high - low)
    rows = rows.assign(place=place, height=height)
    traces: list[Chart] = [
        {"type": "scatter", "mode": "lines", "x": numbers(scale * best["bits_per_weight"]), "y": numbers(best["score"]),
         "line": {"color": "#7f8c8d", "width": 1.5, "dash": "dot", "shape": "hv"}, "name": "best at its size",
         "hoverinfo": "skip"},
    ]  # fmt: skip
    unit = "MB" if weights else "bits per weight"
    for (kind, method), mine in rows.groupby([rows["kind"].eq("dense"), "method"], sort=True):
        name = "dense" if kind else str(method)
        colour, symbol, again = ("#7f8c8d", "circle", False) if kind else look(mine)
        sizes = scale * mine["bits_per_weight"]
        said = [f"{tip(row, share)}<br>{size:.3g} {unit}" for row, size in zip(each(mine), sizes, strict=True)]
        traces.append(
            {"type": "scatter", "mode": "markers", "name": plain(name), "cliponaxis": False,
             "x": numbers(mine["place"]), "y": numbers(mine["score"]),
             "marker": {"color": colour, "size": 10, "symbol": hollow(symbol, again)}, "hovertext": said,
             "hoverinfo": "text", "error_y": bars(mine, "score", "low", "high", colour),
             "customdata": [[row["recipe"], row["task"]] for row in each(mine)],
             "unselected": {"marker": {"opacity": 1}}}
        )  # fmt: skip
    layout = {
        "height": 440, "margin": {"l": 8, "r": 8, "t": 34, "b": 8}, "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": axis(
            title={"text": "Megabytes" if weights else "Bits per weight (dense: 16)"}, showgrid=False,
            range=[0, wide],
        ),
        "yaxis": across,
        "shapes": chance(rows, ""),
        "annotations": [
            {"x": row["place"], "y": row["height"], "text": f"<b>{name}</b>", "showarrow": True,
             "arrowhead": 0, "ax": 0, "ay": -26, "font": {"size": 14}}
            for name, recipe in zip("AB", compared, strict=False) for row in each(rows[rows["recipe"] == recipe])
        ],
    }  # fmt: skip
    return {"data": traces, "layout": layout}
