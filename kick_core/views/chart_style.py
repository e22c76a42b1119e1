"""How rows of a table are drawn: names, colours and marks, error bars, axes, what stands at a point."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from kick_core import methods, tasks
from kick_core.views.findings import percent

Chart = dict[str, Any]


def plain(text: str) -> str:
    """Text for plotly."""
    return html.escape(text, quote=False)


OTHERS = ("#9a7a10", "#6b7280", "#0e86a8", "#c04a86")
"""For what has no card: joint recipes, options of their own, methods that are gone."""


FLUENCY = "#76808d"
"""The dotted line of perplexity, which belongs to no method: a colour means a method, on every page."""


MARKER = "#d6453d"


def task_colour(name: str) -> str:
    """A task's colour, as its record says."""
    return tasks.record(name).colour


def task_symbol(name: str) -> str:
    """A task's mark where a chart shows one method on many tasks: by its place among the tasks."""
    marks = ("circle", "circle", "square", "diamond", "triangle-down", "cross", "x", "star")
    return marks[tasks.names().index(name) % len(marks)] if name in tasks.names() else marks[0]


def method_colour(name: str) -> str:
    """A method's colour, as its card says; a search's is its objective's."""
    objective = re.search(r"objective=(\w+)", name)
    if objective and objective[1] in tasks.names():
        return task_colour(objective[1])
    name = name.partition(" (group=")[0]
    return methods.card(name).colour if name in methods.names() else OTHERS[sum(map(ord, name)) % len(OTHERS)]


def method_symbol(name: str) -> str:
    """A method's mark, as its card says; everything that was searched for is a star."""
    if "alloc=search" in name or "objective=" in name:
        return "star"
    name = name.partition(" (group=")[0]
    return methods.card(name).symbol if name in methods.names() else "circle"


def look(rows: pd.DataFrame) -> tuple[str, str, bool]:
    """Colour and symbol of one method's rows, those of the method that they recover from, and whether they do."""
    base = str(rows["base"].iloc[0])
    return method_colour(base), method_symbol(base), bool(rows["recovered"].iloc[0])


def hollow(symbol: str, again: bool) -> str:
    """A symbol, hollow for what was recovered."""
    return f"{symbol}-open" if again else symbol


def bars(rows: pd.DataFrame, value: str, low: str, high: str, colour: str, scale: float = 1) -> Chart:
    up, down = (rows[high] - rows[value]) * scale, (rows[value] - rows[low]) * scale
    return {
        "type": "data", "array": numbers(up), "arrayminus": numbers(down), "thickness": 1, "width": 3, "color": colour,
    }  # fmt: skip


Row = Mapping[Any, Any]


def each(rows: pd.DataFrame) -> Sequence[Row]:
    """The rows as mappings: `to_dict` takes three times as long, and a report asks for 10,000."""
    names = list(rows.columns)
    values = zip(*(column.tolist() for _, column in rows.items()), strict=True)
    return [dict(zip(names, row, strict=True)) for row in values]


def said_n(rows: pd.DataFrame) -> str:
    """How many examples stand behind these rows: 200, or 64 to 200."""
    low, high = int(rows["n"].min()), int(rows["n"].max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def numbers(values: pd.Series) -> list[float | None]:
    """Numbers for JSON: what is not known is left out of the drawing."""
    return [None if math.isnan(v) or math.isinf(v) else round(float(v), 6) for v in values]


def axis(**more: Any) -> Chart:
    return {"zeroline": False, "fixedrange": True, "automargin": True, **more}


def share_axis(top: float, step: float = 0.25, **more: Any) -> Chart:
    """An axis of shares, written as everywhere else on the page: "50 %", with the space that d3 has no format for.

    Args:
        top: the largest share that ticks have to reach.
        step: the distance between two ticks.
        more: what else the axis is told.
    """
    ticks = [round(step * place, 4) for place in range(math.floor(top / step + 1e-9) + 1)]
    words = [percent(tick) for tick in ticks]
    return axis(**{"tickformat": ".0%", "tickvals": ticks, "ticktext": words, **more})


def tip(row: Row, share: bool) -> str:
    numbers = [percent(v, 1) if share else f"{v:.3g}" for v in (row["score"], row["low"], row["high"])]
    return f"<b>{plain(row['label'])}</b><br>{numbers[0]} [{numbers[1]}, {numbers[2]}]<br>{row['n']} examples"
