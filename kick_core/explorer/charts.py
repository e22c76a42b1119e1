"""Charts on a page: built once for a state of the cache, shown with the slider's line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pandas as pd
import streamlit as st
from plotly.basedatatypes import BaseFigure

from kick_core.explorer import data
from kick_core.explorer.frame import stamp
from kick_core.explorer.safe import show, tag
from kick_core.views import charts, size_charts
from kick_core.views.chart_style import Chart

BUILDERS: dict[str, Callable[..., Chart]] = {
    "overlay": charts.overlay,
    "panels": charts.panels,
    "sizes": size_charts.sizes,
    "accuracy": charts.accuracy,
    "pareto": size_charts.pareto,
}


def chart(name: str, frame: pd.DataFrame, *words: str | int) -> Chart:
    """A chart over a `current` frame, remembered until the cache changes; without its marker."""
    about = tuple(str(frame[name].iloc[0]) for name in ("model", "protocol", "data"))
    return _built(data.place(), stamp(), name, about, words, frame)


@st.cache_data(show_spinner=False, max_entries=256)
def _built(
    root: str, stamp: str, name: str, about: tuple[str, ...], words: tuple[str | int, ...], _frame: pd.DataFrame
) -> Chart:
    return BUILDERS[name](_frame, *words)


class _Checked(BaseFigure):
    """A chart that Streamlit takes as it is. It would fill a Figure to check a dict, 45 of 100 ms at every rerun;
    the charts of `kick_core.views.charts` are checked by tests instead."""

    def __init__(self, chart: Chart) -> None:
        self._chart = chart

    def to_dict(self) -> Chart:
        return self._chart


LEGEND = 22
"""Pixels of a line of a legend."""


def on_phone() -> bool:
    return "Mobi" in st.context.headers.get("User-Agent", "")


def narrowed(chart: Chart) -> Chart:
    """A chart whose legend stands below it, on as many lines as it has entries: a phone has room for one beside another
    where names are short only, and above the chart they would take its height."""
    named = sum("name" in trace and trace.get("showlegend", True) for trace in chart["data"])
    layout = chart["layout"]
    if layout.get("showlegend") is False or named < MANY or "height" not in layout:
        return chart
    legend = {"orientation": "v", "x": 0, "xanchor": "left", "y": 0, "yref": "container", "yanchor": "bottom",
              "tracegroupgap": 0}  # fmt: skip
    below = LEGEND * named + 12
    margin = {**layout["margin"], "b": layout["margin"]["b"] + below + 44}
    return {
        "data": chart["data"],
        "layout": {**layout, "legend": legend, "height": layout["height"] + below, "margin": margin},
    }


MANY = 6
"""Entries of a legend from which a phone shows it below."""


def draw(
    chart: Chart, *, key: str, alt: str, marker: float | None = None, follows: bool = False, **options: Any
) -> Any:
    """Show a chart.

    Args:
        chart: what is drawn.
        key: the element's key.
        alt: what is to be seen, for those who cannot.
        marker: a sparsity in percent at which a line is drawn.
        follows: a line follows the page's slider, in the browser (see `steps`).
        options: more for Streamlit.
    """
    if not chart["data"]:
        show(tag("p", "Nothing to draw has been measured here.", cls="quiet"))
        return None
    chart = narrowed(chart) if on_phone() else chart
    shown = chart if marker is None else charts.marked(chart, marker)
    if follows:
        axes = [name.removeprefix("xaxis") for name in charts.sparsity_axes(chart["layout"])]
        shown = {"data": chart["data"], "layout": {**chart["layout"], "meta": {"follows": axes}}}
    return st.plotly_chart(_Checked(shown), key=key, alt=alt, config={"displayModeBar": False}, **options)
