"""Recipes by size: pruning beside quantization on the axis that they share."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from kick_core.explorer import charts, data, glossary, three
from kick_core.explorer.frame import heading, note
from kick_core.explorer.safe import show, tag
from kick_core.views import search_tables, size_charts


def page(frame: pd.DataFrame, task: str, a: str, b: str) -> None:
    """Score against size over all recipes, the best at each size, and the same as a table."""
    rows = frame[frame["task"] == task]
    if rows.empty:
        note("Nothing has been asked of this task.")
        return
    weights = _weights(str(frame["model"].iloc[0]))
    if words := size_charts.said_by_size(rows):
        show(tag("h2", words))
    heading(
        "What a megabyte buys",
        "A pruned weight costs 16 bits if kept and one bit to say where; a quantized one its code and its share of a "
        "scale. Embeddings and lm_head stay dense and are not counted. Bars are 95 % intervals.",
    )
    charts.draw(
        charts.chart("pareto", frame, task, weights, a, b), key="pareto", on_select=_take, selection_mode="points",
        alt="Score against size, all recipes, with the best at each size",
    )  # fmt: skip
    note(
        "The dotted line joins the best at each size. Recipes of one size stand side by side. "
        "A and B are named; click a point to make it B."
    )
    _table(rows, weights)
    three.section(rows)
    for number, found in enumerate(data.searches(str(frame["model"].iloc[0]))):
        _searched(frame, number, *found)


def _searched(
    frame: pd.DataFrame, number: int, family: search_tables.Family, shared: pd.DataFrame, looked: pd.DataFrame
) -> None:
    """A family of recipes of one size: where each one takes from, and what that does to every task."""
    heading(
        f"What was chosen for {family.title}",
        "Recipes of one size that differ in how they share it out over the model. A search for a task looks at "
        "examples that are then never asked; intervals are 95 %.",
    )
    if len(shared):
        charts.draw(
            search_tables.chart(shared, family.unit), key=f"allocation{number}",
            alt=f"{family.unit} by block and by kind of matrix, {family.title}",
        )  # fmt: skip
    st.dataframe(
        search_tables.scores_of(frame, family), hide_index=True, key=f"family{number}", alt=f"Scores, {family.title}",
        column_config={"label": "recipe"},
    )  # fmt: skip
    show(tag("ul", *(tag("li", said) for said in search_tables.differences(frame, family))))
    if len(looked):
        note("What the searches saw on what they searched on, which is not what is asked above:")
        st.dataframe(
            looked.drop(columns="recipe"), hide_index=True, key=f"looked{number}", alt=f"Searches, {family.title}",
            column_config={
                "label": "recipe", "even": st.column_config.NumberColumn("shared out evenly", format="%.3f"),
                "found": st.column_config.NumberColumn("as found", format="%.3f"), "candidates": "looked at",
                "examples": "examples or windows",
            },
        )  # fmt: skip


def _take() -> None:
    points = st.session_state["pareto"]["selection"]["points"]
    if points and points[0].get("customdata"):
        st.session_state["b"] = points[0]["customdata"][0]


def _weights(model: str) -> int:
    """How many weights the compressed linears of a model have, as far as its artifacts tell."""
    table = data.weights()
    mine = table.loc[table["model"] == model, "weights"]
    return int(mine.iloc[-1]) if len(mine) else 0


def _best(rows: pd.DataFrame) -> set[str]:
    """The recipes on the front of size and score, and those of the same size that its intervals cannot tell apart."""
    front = size_charts.frontier(rows)
    sign = 1 if rows["higher_is_better"].iloc[0] else -1
    least = "low" if sign > 0 else "high"
    best = set(front["recipe"])
    for _, top in front.iterrows():
        near = rows[(rows["bits_per_weight"] / top["bits_per_weight"] - 1).abs() < 0.02]
        reach = near["high" if sign > 0 else "low"]
        best |= set(near.loc[sign * reach >= sign * top[least], "recipe"])
    return best


def _table(rows: pd.DataFrame, weights: int) -> None:
    best = _best(rows)
    share = 100 if rows["higher_is_better"].iloc[0] else 1
    shown = rows.sort_values("bits_per_weight").assign(
        megabytes=rows["bits_per_weight"] * weights / 8e6 if weights else float("nan"),
        best=rows["recipe"].isin(best),
        **{name: share * rows[name] for name in ("score", "low", "high")},
    )
    form = "%.1f %%" if share == 100 else "%.2f"
    number = st.column_config.NumberColumn
    columns = {
        "label": "recipe", "megabytes": number("MB", format="%.2f"), "best": st.column_config.CheckboxColumn(
            "best at its size", help="The best of those of at most this size, and those of this size whose interval "
            "reaches it: they cannot be told apart"
        ),
        "bits_per_weight": number("bits / weight", format="%.2f", help=glossary.TERMS["bits per weight"]), "n": "n",
        "verdict": st.column_config.TextColumn("against dense", help=glossary.TERMS["matching"]),
        "score": number(str(rows["title"].iloc[0]), format=form), "low": number("from", format=form),
        "high": number("to", format=form),
    }  # fmt: skip
    if not weights:  # results without their artifacts, as of a pack: the size in bytes is not known
        del columns["megabytes"]
    st.dataframe(shown[list(columns)], hide_index=True, column_config=columns, height=330, key="by_size",
                 alt="Recipes by size")  # fmt: skip
