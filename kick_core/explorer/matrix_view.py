"""One weight matrix on a page: which weights were kept, as a picture, and how large the dropped ones were."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from kick_core.errors import KickError
from kick_core.explorer import data
from kick_core.explorer.charts import draw
from kick_core.explorer.frame import heading, note
from kick_core.explorer.safe import show, tag
from kick_core.views.chart_style import Chart, Row, each, plain
from kick_core.views.matrices import Asked, Look


def grid(layers: pd.DataFrame, chosen: str) -> Chart:
    """Layer by module, one square a matrix; darker: its output moved more, or more of it is zero."""
    value, name = layers["loss"], "relative error"
    if not value.notna().any():
        value, name = layers["sparsity"], "zeros"
    known = bool(value.notna().any())
    shade = _numbers(value) if known else "rgba(127,140,141,0.10)"
    linears = list(dict.fromkeys(layers["name"]))
    blocks = int(layers["block"].max()) + 1
    rows = each(layers)
    marker = {
        "symbol": "square", "size": max(8, min(26, 900 // blocks)), "color": shade,
        "colorscale": [[0, "#dfe8fb"], [1, "#17408f"]], "cmin": 0, "showscale": known,
        "line": {
            "width": [3 if place(row) == chosen else 1 for row in rows],
            "color": ["#d6453d" if place(row) == chosen else "#8b9cc0" for row in rows],
        },
        "colorbar": {"title": {"text": name}, "thickness": 12, "outlinewidth": 0, "tickformat": ".2g"},
    }  # fmt: skip
    marks = {
        "type": "scatter", "mode": "markers", "x": layers["block"].tolist(), "y": [plain(row["name"]) for row in rows],
        "hovertext": [_tip(row) for row in rows], "hoverinfo": "text", "marker": marker,
        "customdata": [[place(row)] for row in rows], "unselected": {"marker": {"opacity": 1}},
    }  # fmt: skip
    layout = {
        "height": 80 + 30 * len(linears), "margin": {"l": 8, "r": 8, "t": 8, "b": 8}, "hovermode": "closest",
        "xaxis": {"title": {"text": "block"}, "showgrid": False, "zeroline": False, "fixedrange": True,
                  "tickvals": list(range(0, blocks, max(1, blocks // 16)))},
        "yaxis": {"showgrid": False, "autorange": "reversed", "automargin": True, "fixedrange": True},
    }  # fmt: skip
    return {"data": [marks], "layout": layout}


def place(row: Row) -> str:
    """A matrix's address: 3.mlp.up_proj."""
    return f"{row['block']}.{row['name']}"


def _numbers(values: pd.Series) -> list[float | None]:
    return [None if value != value else float(value) for value in values]


def _tip(row: Row) -> str:
    said = f"block {row['block']} · {plain(row['name'])}<br>{row['rows']} x {row['cols']}"
    for name, word, form in (("sparsity", "zeros", ".1%"), ("loss", "relative error", ".4f")):
        value = row[name]
        said += f"<br>{value:{form}} {word}" if value == value else ""
    return said + "<br>click to look inside"


def open_one(asked: Asked) -> None:
    """The mask's picture and the histogram of one matrix."""
    heading("One matrix", f"Block {asked.block}, {asked.name}, {asked.rows} x {asked.cols} weights.")
    try:
        found = data.look(asked)
    except KickError as error:
        show(tag("p", str(error), cls="bad"))
        return
    if found is None:
        note("The model's files do not hold this matrix under its own name, or are not on this machine.")
        return
    left, right = st.columns([2, 3], gap="large")
    with left:
        _picture(found, asked)
    with right:
        _bars(found, asked)


def _picture(found: Look, asked: Asked) -> None:
    if found.corner is None or found.fields is None:
        reads = "This recipe drops no weights, it rounds them." if "bit" in asked.recipe else (
            "Which weights go depends on the calibration text: the picture is known once this is compressed."
        )  # fmt: skip
        note(reads)
        return
    whole = st.segmented_control(
        "Picture", ("corner", "whole"), default="corner", required=True, key="mask_part", label_visibility="collapsed"
    ) == "whole"  # fmt: skip
    st.image(found.picture(whole), output_format="PNG", alt="Which weights of this matrix were kept")
    if whole:
        low, high = float(found.fields.min()), float(found.fields.max())
        note(f"The whole matrix; each field's share kept, from {low:.0%} (red) to {high:.0%}.")
    else:
        rows, cols = found.corner.shape
        said = "will keep" if found.foretold else "kept"
        note(f"The first {rows} x {cols} weights, one field each: red is dropped. {said.capitalize()} here: "
             f"{found.corner.mean():.1%}.")  # fmt: skip


def _bars(found: Look, asked: Asked) -> None:
    if found.bars is None:
        note("The dense weights are not on this machine, so there is no histogram.")
        return
    draw(histogram(found), key="weights", alt=f"How large the kept and the dropped weights of {asked.name} are")
    sampled = "" if found.step == 1 else f" Every {found.step}th row was looked at."
    if not sum(found.bars["dropped"]):
        note(f"The dense weights; the outermost bars hold what lies beyond.{sampled}")
    elif found.foretold:
        note(f"By size alone: what lies between the lines goes.{sampled}")
    else:
        note("Dashed: magnitude pruning would drop what lies between these lines. Red beyond them was dropped, and "
             f"blue between them kept, for the size of its inputs.{sampled}")  # fmt: skip


def histogram(found: Look) -> Chart:
    """Kept and dropped weights by value, the size at which magnitude would cut as lines."""
    assert found.bars is not None
    bars, (cut,) = found.bars, found.bars["threshold"]
    traces = [
        {"type": "bar", "x": bars["x"], "y": bars[part], "name": part,
         "marker": {"color": colour, "line": {"width": 0}}, "hovertemplate": "%{y:,} weights near %{x:.3f}"}
        for part, colour in (("kept", "#3366cc"), ("dropped", "#d6453d"))
        if sum(bars[part])
    ]  # fmt: skip
    lines = [
        {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "y domain",
         "line": {"width": 1.5, "dash": "dash", "color": "#7f8c8d"}}
        for x in ((-cut, cut) if cut else ())
    ]  # fmt: skip
    layout = {
        "barmode": "stack", "bargap": 0.05, "height": 300, "hovermode": "closest", "shapes": lines,
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8}, "showlegend": len(traces) > 1,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"title": {"text": "weight"}, "zeroline": False, "fixedrange": True},
        "yaxis": {"title": {"text": "how many"}, "fixedrange": True, "rangemode": "tozero"},
    }  # fmt: skip
    return {"data": traces, "layout": layout}
