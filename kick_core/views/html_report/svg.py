"""Our charts as static pictures: the same plain data that plotly draws on the pages, as one SVG that prints.

Only what `kick_core.views.charts` uses is known: lines and markers with error bars on linear, logarithmic and category
axes, lines as shapes, text as annotations. Lines in another dash or marks in another symbol stay apart without
colour. Everything is drawn in `currentColor` or the trace's own colour, so a page's light and dark scheme applies.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from kick_core.views.chart_style import Chart

SIZE = 11.0
"""Of letters, in units of the picture."""

DASHES = {"dot": "2 3", "dash": "6 4", "dashdot": "6 3 2 3", "longdash": "10 4"}
_LETTER = 0.56 * SIZE
_ROW = 18.0


def draw(chart: Chart, title: str, *, width: float = 760, height: float | None = None) -> str:
    """One picture with its title for those who do not see it; nothing for a chart without data."""
    if not chart["data"]:
        return ""
    layout = chart["layout"]
    named = layout.get("showlegend", True)
    legend = _legend(chart["data"], width) if named else ("", 0.0)
    frame = _frame(layout, chart["data"], width, float(height or layout.get("height", 360)), legend[1])
    axes = {name: _axis(name, layout, chart["data"], frame) for name in layout if re.fullmatch(r"[xy]axis\d*", name)}
    parts = [
        *(_drawn_axis(axis, axes, layout) for axis in axes.values()),
        *(_shape(shape, axes, frame) for shape in layout.get("shapes", ())),
        *(_trace(trace, axes) for trace in chart["data"]),
        *(_annotation(note, axes, frame) for note in layout.get("annotations", ())),
        legend[0],
    ]
    return (
        f'<svg viewBox="0 0 {_n(width)} {_n(frame.height)}" role="img" '
        f'font-size="{_n(SIZE)}" {_slide(axes)}><title>{_text(title)}</title>{"".join(parts)}</svg>'
    )


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _text(words: str) -> str:
    return html.escape(str(words))


# --- where things are ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Frame:
    """The whole picture and the part that axes share."""

    height: float
    left: float
    right: float
    top: float
    bottom: float


@dataclass(frozen=True, slots=True)
class _Axis:
    """One axis: its place on the picture, and how values become places."""

    name: str
    start: float
    stop: float
    low: float
    high: float
    log: bool
    categories: Mapping[str, int]
    ticks: Sequence[tuple[float, str]]
    title: str
    grid: bool

    @property
    def horizontal(self) -> bool:
        return self.name.startswith("x")

    def at(self, value: Any) -> float | None:
        """The place of a value; None for what is not known or lies beyond."""
        number = self._number(value)
        if number is None or not math.isfinite(number):
            return None
        return self.start + (number - self.low) / ((self.high - self.low) or 1) * (self.stop - self.start)

    def _number(self, value: Any) -> float | None:
        if value is None:
            return None
        if self.categories:
            return None if value not in self.categories else float(self.categories[value])
        if self.log:
            return math.log10(value) if value > 0 else None
        return float(value)

    def inside(self, place: float) -> float:
        """The nearest place on the axis."""
        low, high = sorted((self.start, self.stop))
        return min(max(place, low), high)


def _frame(layout: Chart, data: Sequence[Chart], width: float, height: float, legend: float) -> _Frame:
    margin = layout.get("margin", {})
    several = any(re.fullmatch(r"xaxis\d+", name) and "domain" not in layout.get("xaxis", {}) for name in layout)
    titled = any(_title(layout[name]) for name in layout if name.startswith("xaxis"))
    panels = sum(1 for name in layout if name.startswith("yaxis")) > 1
    beside = 8.0 if _title(layout.get("yaxis", {})) else 0.0  # an upright title stands left of the ticks' words
    left = 26.0 if panels else 30.0 + (18.0 if not several else 0.0) + _widest(layout, data) + beside
    right = width - max(float(margin.get("r", 8)), 14.0)
    below = 22.0 + (18.0 if titled else 0.0)
    return _Frame(height + legend, left, right, legend + (22.0 if panels else 10.0), height + legend - below)


def _widest(layout: Chart, data: Sequence[Chart]) -> float:
    """Room for the longest category beside an axis of words."""
    words = layout.get("yaxis", {}).get("ticktext") or ()
    return max((len(word) * _LETTER - 28 for word in words), default=0.0) if words else 0.0


def _title(axis: Chart) -> str:
    title = axis.get("title", "")
    return _plain(title.get("text", "") if isinstance(title, dict) else title)


def _plain(text: str) -> str:
    """A text for plotly without its marks, as the words that it stands for."""
    return html.unescape(re.sub(r"</?b>", "", text))


def _axis(name: str, layout: Chart, data: Sequence[Chart], frame: _Frame) -> _Axis:
    about, short = layout[name], name.replace("axis", "")
    span = about.get("domain", [0, 1])
    near, far = (frame.left, frame.right) if name.startswith("x") else (frame.bottom, frame.top)
    start, stop = (near + part * (far - near) for part in span)
    values = [
        value
        for trace in data
        if trace.get(f"{short[0]}axis", short[0]) == short
        for value in trace.get(short[0], ())
        if value is not None
    ]
    if about.get("type") == "category":
        names = list(about.get("categoryarray") or dict.fromkeys(values))
        places = {value: at for at, value in enumerate(names)}
        ticks = [(float(at), _plain(str(value))) for value, at in places.items()]
        return _Axis(name, start, stop, -0.5, len(names) - 0.5, False, places, ticks, _title(about), False)
    log = about.get("type") == "log"
    low, high = about.get("range") or _range(values, about)
    ticks = _ticks(about, float(low), float(high), log, abs(stop - start))
    return _Axis(name, start, stop, float(low), float(high), log, {}, ticks, _title(about), about.get("showgrid", True))


def _range(values: Sequence[float], about: Chart) -> tuple[float, float]:
    low, high = min(values, default=0.0), max(values, default=1.0)
    low = min(low, 0.0) if about.get("rangemode") == "tozero" else low
    pad = 0.05 * ((high - low) or 1.0)
    return (low if low == 0 else low - pad), high + pad


def _ticks(about: Chart, low: float, high: float, log: bool, room: float) -> list[tuple[float, str]]:
    if about.get("tickvals") is not None:
        named = about.get("ticktext") or [_said(value, about) for value in about["tickvals"]]
        found = [
            (math.log10(v) if log else float(v), str(word)) for v, word in zip(about["tickvals"], named, strict=True)
        ]
        return [(at, word) for at, word in found if low - 1e-9 <= at <= high + 1e-9]
    step = about.get("dtick") or _step(high - low, about.get("nticks") or max(2, round(room / 90)))
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [(step * (first + i), _said(step * (first + i), about)) for i in range(count)]


def _step(span: float, wanted: int) -> float:
    """A round distance between ticks that gives about as many as are wanted."""
    rough = (span or 1.0) / wanted
    base = 10.0 ** math.floor(math.log10(rough))
    return next(m * base for m in (1, 2, 2.5, 5, 10) if m * base >= rough * 0.999)


def _said(value: float, about: Chart) -> str:
    if about.get("tickformat") == ".0%":
        return f"{100 * value:.0f} %"
    return f"{value:.6g}{about.get('ticksuffix', '')}"


def _slide(axes: Mapping[str, _Axis]) -> str:
    """Where 0 and one unit lie on the first axis across, for whoever moves a line along it."""
    axis = axes.get("xaxis")
    if axis is None or axis.categories or axis.log:
        return ""
    zero, one = axis.at(0), axis.at(1)
    return f'data-zero="{_n(zero or 0)}" data-unit="{(one or 0) - (zero or 0):.5f}"'


# --- what is drawn -------------------------------------------------------------------------------------------


def _drawn_axis(axis: _Axis, axes: Mapping[str, _Axis], layout: Chart) -> str:
    """Ticks, their words, the grid, the line and the title of an axis."""
    anchor = layout[axis.name].get("anchor") or ("y" if axis.horizontal else "x")
    other = axes.get(anchor[0] + "axis" + anchor[1:]) or next(
        one for one in axes.values() if one.horizontal != axis.horizontal
    )
    parts, low_rows = [], _rows_of_words(axis)
    for at, (value, word) in enumerate(axis.ticks):
        place = axis.start + (value - axis.low) / ((axis.high - axis.low) or 1) * (axis.stop - axis.start)
        if axis.horizontal:
            parts.append(_words(place, other.start + 14 + 11 * (at % low_rows), word, "middle"))
        else:
            if axis.grid:
                parts.append(_stroke(other.start, place, other.stop, place, "class=grid"))
            parts.append(_words(other.start - 5, place + 4, word, "end"))
    ends = (
        (axis.start, other.start, axis.stop, other.start)
        if axis.horizontal
        else (other.start, axis.start, other.start, axis.stop)
    )
    parts.append(_stroke(*ends, 'stroke="currentColor" stroke-opacity=".5"'))
    if axis.title and axis.horizontal:
        parts.append(_words((axis.start + axis.stop) / 2, other.start + 26 + 6 * low_rows, axis.title, "middle"))
    elif axis.title:
        middle = (axis.start + axis.stop) / 2
        parts.append(
            f'<text x="12" y="{_n(middle)}" text-anchor="middle" fill="currentColor" '
            f'transform="rotate(-90 12 {_n(middle)})">{_text(axis.title)}</text>'
        )
    return "".join(parts)


def _rows_of_words(axis: _Axis) -> int:
    """Words under an axis stand in two rows where they would run into each other in one."""
    gap = abs(axis.stop - axis.start) / ((axis.high - axis.low) or 1)
    places = [value for value, _ in axis.ticks]
    nearest = min((b - a for a, b in pairwise(places)), default=math.inf)
    return 2 if max((len(word) for _, word in axis.ticks), default=0) * _LETTER + 4 > nearest * gap else 1


def _stroke(x0: float, y0: float, x1: float, y1: float, how: str) -> str:
    how = 'stroke="currentColor" stroke-opacity=".16"' if how == "class=grid" else how
    return f'<line x1="{_n(x0)}" y1="{_n(y0)}" x2="{_n(x1)}" y2="{_n(y1)}" {how}/>'


def _words(x: float, y: float, words: str, anchor: str, colour: str = "currentColor") -> str:
    return f'<text x="{_n(x)}" y="{_n(y)}" text-anchor="{anchor}" fill="{_text(colour)}">{_text(words)}</text>'


def _place(value: float, reference: str, axes: Mapping[str, _Axis], frame: _Frame) -> float:
    """Where a value of a shape or a note lies: on an axis, along its length ("x domain"), or along all axes."""
    name, _, share = reference.partition(" ")
    axis = axes.get(f"{name[0]}axis{name[1:]}")
    if axis is None:
        near, far = (frame.left, frame.right) if reference.startswith("x") else (frame.bottom, frame.top)
        return near + value * (far - near)
    if share:
        return axis.start + value * (axis.stop - axis.start)
    return axis.at(value) or axis.start


def _shape(shape: Chart, axes: Mapping[str, _Axis], frame: _Frame) -> str:
    line = shape["line"]
    x0, x1 = (_place(shape[name], shape["xref"], axes, frame) for name in ("x0", "x1"))
    y0, y1 = (_place(shape[name], shape["yref"], axes, frame) for name in ("y0", "y1"))
    dash = DASHES.get(line.get("dash", ""), "")
    drawn = _stroke(x0, y0, x1, y1, f'stroke="{_text(line["color"])}" stroke-dasharray="{dash}"')
    label = shape.get("label", {}).get("text", "")
    return drawn + (_words(x0 + 3, y0 - 3, _plain(label), "start", line["color"]) if label else "")


def _annotation(note: Chart, axes: Mapping[str, _Axis], frame: _Frame) -> str:
    where = ["x" if note["xref"] == "paper" else note["xref"], "y" if note["yref"] == "paper" else note["yref"]]
    own = [note[f"{name}ref"] == "paper" for name in "xy"]
    none: Mapping[str, _Axis] = {}
    x, y = (
        _place(note[name], ref, none if paper else axes, frame)
        for name, ref, paper in zip("xy", where, own, strict=True)
    )
    anchor = {"left": "start", "right": "end"}.get(note.get("xanchor", ""), "middle")
    colour = note.get("font", {}).get("color", "currentColor")
    shift = 0.0 if note.get("yanchor") == "bottom" else 4.0
    loud, _, rest = note["text"].removeprefix("<b>").rpartition("</b>")
    strong = f'<tspan font-weight="700">{_text(_plain(loud))}</tspan>' if loud else ""
    gap = ' dx="6"' if loud and rest.strip() else ""
    return (
        f'<text x="{_n(x + note.get("xshift", 0))}" y="{_n(y + shift)}" text-anchor="{anchor}" fill="{_text(colour)}">'
        f"{strong}<tspan{gap}>{_text(_plain(rest).strip())}</tspan></text>"
    )


def _trace(trace: Chart, axes: Mapping[str, _Axis]) -> str:
    across = axes["xaxis" + trace.get("xaxis", "x")[1:]]
    up = axes["yaxis" + trace.get("yaxis", "y")[1:]]
    points = [(across.at(x), up.at(y)) for x, y in zip(trace["x"], trace["y"], strict=True)]
    colour = (trace.get("line") or trace.get("marker") or {}).get("color", "currentColor")
    parts = [_bars(trace, axis, across, up, colour) for axis in ("x", "y") if f"error_{axis}" in trace]
    if "lines" in trace["mode"]:
        parts.append(_line(trace.get("line", {}), points, up))
    if "markers" in trace["mode"]:
        marker = trace["marker"]
        parts += [
            symbol(marker.get("symbol", "circle"), x, up.inside(y), marker.get("size", 7) * 0.42, marker["color"])
            for x, y in points
            if x is not None and y is not None
        ]
    opacity = f' opacity="{trace["opacity"]}"' if trace.get("opacity", 1) != 1 else ""
    return f"<g{opacity}>{''.join(parts)}</g>"


def _line(line: Chart, points: Sequence[tuple[float | None, float | None]], up: _Axis) -> str:
    path, open_ = [], False
    for x, y in points:
        if x is None or y is None:
            open_ = False
            continue
        y = up.inside(y)
        step = f"H{_n(x)}V{_n(y)}" if open_ and line.get("shape") == "hv" else f"{'L' if open_ else 'M'}{_n(x)} {_n(y)}"
        path.append(step)
        open_ = True
    dash = DASHES.get(line.get("dash", ""), "")
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    width = 0.8 * float(line.get("width", 2))
    return f'<path d="{"".join(path)}" fill="none" stroke="{_text(line["color"])}" stroke-width="{_n(width)}"{dashed}/>'


def _bars(trace: Chart, direction: str, across: _Axis, up: _Axis, colour: str) -> str:
    """Error bars, cut where the axis ends."""
    bars = trace[f"error_{direction}"]
    axis = up if direction == "y" else across
    parts = []
    for x, y, more, less in zip(trace["x"], trace["y"], bars["array"], bars["arrayminus"], strict=True):
        value, place = (y, across.at(x)) if direction == "y" else (x, up.at(y))
        if value is None or place is None or more is None or less is None:
            continue
        ends = [axis.at(value - less), axis.at(value + more)]
        low, high = (axis.inside(axis.start if end is None else end) for end in ends)
        line = (place, low, place, high) if direction == "y" else (low, place, high, place)
        parts.append(_stroke(*line, f'stroke="{_text(colour)}"'))
    return "".join(parts)


def symbol(name: str, x: float, y: float, r: float, colour: str) -> str:
    """A mark of radius about `r`; a circle where the name is not known."""
    match name:
        case "diamond":
            points = [(0, -1.3), (1.3, 0), (0, 1.3), (-1.3, 0)]
        case "square":
            points = [(-1, -1), (1, -1), (1, 1), (-1, 1)]
        case "triangle-up":
            points = [(0, -1.25), (1.2, 1), (-1.2, 1)]
        case "cross" | "x":
            ends = [(-1.2, 0, 1.2, 0), (0, -1.2, 0, 1.2)] if name == "cross" else [(-1, -1, 1, 1), (-1, 1, 1, -1)]
            return "".join(
                _stroke(x + a * r, y + b * r, x + c * r, y + d * r, f'stroke="{_text(colour)}" stroke-width="2.2"')
                for a, b, c, d in ends
            )
        case _:
            return f'<circle cx="{_n(x)}" cy="{_n(y)}" r="{_n(r)}" fill="{_text(colour)}"/>'
    corners = " ".join(f"{_n(x + a * r)},{_n(y + b * r)}" for a, b in points)
    return f'<polygon points="{corners}" fill="{_text(colour)}"/>'


def _legend(data: Sequence[Chart], width: float) -> tuple[str, float]:
    """Names of the traces in rows on top, and how much room they take; nothing where all are named at their lines."""
    named = {
        trace.get("name"): trace for trace in reversed(data) if trace.get("name") and trace.get("showlegend", True)
    }
    if len(named) < 2:
        return "", 0.0
    parts, x, y = [], 4.0, 12.0
    for name, trace in reversed(named.items()):
        words = _plain(str(name))
        if x > 4 and x + 30 + len(words) * _LETTER > width:
            x, y = 4.0, y + _ROW
        line, marker = trace.get("line"), trace.get("marker")
        if "lines" in trace["mode"] and line:
            dash = DASHES.get(line.get("dash", ""), "")
            parts.append(
                _stroke(
                    x,
                    y - 4,
                    x + 20,
                    y - 4,
                    f'stroke="{_text(line["color"])}" stroke-width="2" stroke-dasharray="{dash}"',
                )
            )
        if "markers" in trace["mode"] and marker:
            parts.append(symbol(marker.get("symbol", "circle"), x + 10, y - 4, 3.6, marker["color"]))
        parts.append(_words(x + 25, y, words, "start"))
        x += 25 + len(words) * _LETTER + 16
    return "".join(parts), y + 8
