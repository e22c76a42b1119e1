"""Compressed weights on the page: sizes as bars, the table of what was made, an artifact's layers."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.views.plots import each, plain
from pages.parts.charts import draw
from pages.parts.frame import heading, note, store
from pages.parts.safe import Safe, tag


def size(count: float) -> str:
    """Bytes for people."""
    if math.isnan(count):
        return "not known yet"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.2f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def preview(recipe: str, made: views.Preview) -> Safe:
    """Before and after, to scale."""
    share = made.bytes / made.dense_bytes if made.dense_bytes else math.nan
    if math.isnan(share):
        return tag(
            "div",
            tag("h2", recipe),
            tag("p", "How large this model is becomes known with its first artifact.", cls="quiet"),
        )
    rows = [
        ("dense", 1.0, size(made.dense_bytes), "#7f8c8d"),
        (recipe, share, f"{size(made.bytes)} · {100 * share:.0f} %", "#3366cc"),
    ]
    if made.card:
        stored = made.card.bytes
        rows.append(("in this cache", stored / made.dense_bytes, size(stored), "#1b9e77"))
    bars = (
        cell
        for name, width, words, colour in rows
        for cell in (
            tag("b", name),
            tag("div", tag("i", style=f"width:{min(100, 100 * width):.1f}%;background:{colour}"), cls="bar"),
            tag("span", words),
        )
    )
    note = f"{made.bits_per_weight:.2f} bits per weight for a copy that stands alone: kept values and where they are, "
    note += "or codes and scales. Embeddings, norms and lm_head stay dense."
    if made.card and made.card.bytes < 0.9 * made.bytes:
        note += " The cache stores less, because the kept values are the dense model's own."
    return tag(
        "div",
        tag("h2", "The linears of the decoder blocks"),
        tag("div", *bars, cls="size", style="margin:.5rem 0"),
        tag("p", note, cls="quiet"),
    )


def table(frame: pd.DataFrame) -> None:
    """All artifacts, light and sortable."""
    shown = frame.assign(
        sparsity=100 * frame["sparsity"],
        share=100 * frame["share"],
        **{name: frame[name] / 1e6 for name in ("alone", "dense_bytes", "bytes")},
        created=frame["created"].str[:16].str.replace("T", " "),
    )
    columns = [
        "model", "label", "sparsity", "bits_per_weight", "alone", "share", "dense_bytes", "bytes", "seconds",
        "calibration", "warnings", "created", "key",
    ]  # fmt: skip
    st.dataframe(
        shown[columns], hide_index=True, column_config=_COLUMNS, alt="Artifacts in this cache", key="artifacts"
    )


_COLUMNS = {
    "label": "recipe",
    "sparsity": st.column_config.NumberColumn("zeros", format="%.1f %%"),
    "bits_per_weight": st.column_config.NumberColumn("bits / weight", format="%.2f"),
    "alone": st.column_config.NumberColumn("MB alone", format="%.2f", help="The linears without the dense model"),
    "dense_bytes": st.column_config.NumberColumn("dense MB", format="%.2f"),
    "bytes": st.column_config.NumberColumn("MB stored", format="%.2f", help="In this cache, beside the dense model"),
    "share": st.column_config.ProgressColumn("of dense", format="%.0f %%", min_value=0, max_value=100),
    "seconds": st.column_config.NumberColumn("seconds", format="%.1f"),
    "created": "made",
}


def opened(key: str, recipe: str) -> None:
    """One artifact's layers: how sparse, and how far each linear's output moved."""
    layers = views.layers(store(), key)
    known = layers["loss"].notna().any()
    darker = " Darker: its output moved more (relative error)." if known else ""
    heading(f"Inside {recipe}", f"Every linear of every block.{darker}")
    if not known:
        note("The card holds no error for single linears, so the colour is the share of zeros.")
    value = layers["loss"] if known else layers["sparsity"]
    draw(_grid(layers, value, "relative error" if known else "zeros"), key="layers", alt="Layers by blocks")
    with st.expander("Key and files"):
        st.code(key, language=None)


def _grid(layers: pd.DataFrame, value: pd.Series, name: str) -> dict[str, object]:
    linears = list(dict.fromkeys(layers["linear"]))
    blocks = int(layers["block"].max()) + 1
    said = [
        f"block {row['block']} · {plain(row['linear'])}<br>{100 * row['sparsity']:.1f} % zeros"
        + ("" if math.isnan(row["loss"]) else f"<br>relative error {row['loss']:.4f}")
        for row in each(layers)
    ]
    marks = {
        "type": "scatter", "mode": "markers", "x": layers["block"].tolist(),
        "y": [plain(linear) for linear in layers["linear"]], "hovertext": said, "hoverinfo": "text",
        "marker": {"symbol": "square", "size": max(8, min(26, 900 // blocks)), "color": value.tolist(),
                   "colorscale": [[0, "#dfe8fb"], [1, "#17408f"]], "showscale": True,
                   "colorbar": {"title": {"text": name}, "thickness": 12, "outlinewidth": 0}},
    }  # fmt: skip
    layout = {
        "height": 90 + 30 * len(linears), "margin": {"l": 8, "r": 8, "t": 8, "b": 8}, "hovermode": "closest",
        "xaxis": {"title": {"text": "block"}, "showgrid": False, "zeroline": False, "dtick": 1, "fixedrange": True},
        "yaxis": {"showgrid": False, "autorange": "reversed", "automargin": True, "fixedrange": True},
    }  # fmt: skip
    return {"data": [marks], "layout": layout}
