"""What recovery brought back: an answer for every recovered recipe, and the table that it stands on."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer import address, data
from kick_core.explorer.frame import heading, note
from kick_core.explorer.measures import table
from kick_core.explorer.safe import Child, chip, many, show, tag
from kick_core.views import percent

ANSWER = ("perplexity", "closed-book knowledge", "open-book skill")


def section(model: str) -> None:
    """Nothing where nothing was recovered."""
    found = data.recovered(model)
    if found.empty:
        return
    heading(
        "What recovery brought back",
        "Does training after compression bring knowledge back, or perplexity alone? The share of each loss that did.",
    )
    lines: list[list[Child]] = []
    for one in views.recovery_answers(found):
        told = [many([tag("b", f"{one.shares[kind]} "), chip(one.words[kind])]) for kind in ANSWER]
        text = tag("span", f" on {one.text}" if one.text else "", cls="quiet")
        lines.append([tag("span", one.label, text), *told, one.verdict])
    show(table(("Recipe", *ANSWER, "In words"), lines, said=len(ANSWER) + 1))
    note(views.RECOVERY_RULE)
    opened = address.fold("recovered")
    with st.expander("Task by task", key="recovered", on_change="rerun"):
        if opened:
            show(table(_HEADS, (_row(row) for _, row in found.iterrows())))


_HEADS = ("Recipe", "task", "n", "dense", "compressed", "recovered", "share that came back", "95 %", "")


def _row(row: pd.Series) -> list[Child]:
    form = _share if row["higher_is_better"] else _plain
    scores = [form(row[name]) for name in ("dense", "compressed", "recovered")]
    bounds = "" if pd.isna(row["low"]) else f"{percent(row['low'])} to {percent(row['high'])}"
    return [row["label"], row["title"], f"{row['n']:,}", *scores, percent(row["share"]), bounds, chip(row["word"])]


def _share(value: float) -> str:
    return percent(value, 1)


def _plain(value: float) -> str:
    return "–" if pd.isna(value) else f"{value:.2f}"
