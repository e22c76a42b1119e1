"""Compressed weights on the page: sizes as bars, the table of what was made, an artifact's layers."""

from __future__ import annotations

import math

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer import address, data, matrix_view
from kick_core.explorer.charts import draw
from kick_core.explorer.frame import heading, note
from kick_core.explorer.safe import Safe, tag
from kick_core.units import bytes_text
from kick_core.views import matrices


def preview(recipe: str, made: views.Preview) -> Safe:
    """Before and after, to scale."""
    share = made.bytes / made.dense_bytes if made.dense_bytes else math.nan
    if math.isnan(share):
        return tag(
            "div",
            tag("h2", recipe),
            tag("p", "How large this model is will be known once its files are on this machine.", cls="quiet"),
        )
    rows = [
        ("dense", 1.0, bytes_text(made.dense_bytes), "#7f8c8d"),
        (recipe, share, f"{bytes_text(made.bytes)} · {100 * share:.0f} %", "#3366cc"),
    ]
    if made.card:
        rows.append(("in this cache", made.stored / made.dense_bytes, bytes_text(made.stored), "#1b9e77"))
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
    if made.card and made.stored < 0.9 * made.bytes:
        note += " The cache stores less, because the kept values are the dense model's own."
    return tag(
        "div",
        tag("h2", "Size of the linear layers in the decoder blocks"),
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


def layers(model: str, made: views.Preview) -> pd.DataFrame:
    """The linears of an artifact, or before there is one those of the model's files; what is not known is nan."""
    if made.card:
        return data.layers(made.card.key)
    found = [(one.block, one.name, one.rows, one.cols) for one in matrices.linears(model)]
    frame = pd.DataFrame(found, columns=["block", "name", "rows", "cols"])
    return frame.assign(sparsity=math.nan, loss=math.nan)


def opened(model: str, recipe: str, made: views.Preview) -> None:
    """Layer by module, and the one matrix that was clicked."""
    found = layers(model, made)
    if found.empty:
        return
    names = [matrix_view.place(row) for row in found.to_dict("records")]
    chosen = address.value("matrix")
    if chosen and chosen not in names and address.was_brought("matrix"):
        address.unknown(f"This address names the matrix {chosen[:60]}, which this model does not have.")
    chosen = chosen if chosen in names else names[len(names) // 2]
    address.say("matrix", chosen)

    def take() -> None:
        points = st.session_state["layers"]["selection"]["points"]
        if points:
            address.say("matrix", points[0]["customdata"][0])

    said = "Every linear of every block. Click one to look inside."
    if made.card and found["loss"].notna().any():
        said += " Darker: its output moved more (relative error)."
    elif made.card:
        said += " Darker: more zeros; no error per linear was recorded."
    heading(f"Inside {recipe}" if made.card else f"What {recipe} will work on", said)
    draw(matrix_view.grid(found, chosen), key="layers", alt="Layers by blocks", on_select=take, selection_mode="points")
    row = found.iloc[names.index(chosen)]
    key = made.card.key if made.card else ""
    matrix_view.open_one(
        matrices.Asked(model, recipe, key, int(row["block"]), row["name"], int(row["rows"]), int(row["cols"]))
    )
    if made.card:
        for warning in made.card.warnings:
            note(f"Warning on its card: {warning}.")
        if made.card.left:
            note(f"Left as they were: {views.left_alone(made.card)}.")
        with st.expander("Key"):
            st.code(key, language=None)
