"""Many recipes side by side: a row per example, a column per recipe, the answers in the cells; the open one in full."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer import address, answers, controls, data
from kick_core.explorer.browser import MOST, clicked, id_width
from kick_core.explorer.frame import heading, note
from kick_core.explorer.safe import Safe, many, show, tag
from kick_core.explorer.stepper import each, near, stepper
from kick_core.views import percent
from kick_core.views.example_text import question, said

APART, RIGHT, WRONG, ALL = SHOWN = ("apart", "all right", "all wrong", "all")
"""Which examples are listed: those on which the recipes part, those that all have right or wrong, every one."""
AT_ONCE = 12
"""Recipes side by side at most; more columns cannot be read."""


def section(frame: pd.DataFrame, task: str) -> None:
    """The matrix of one task.

    Args:
        frame: a `current` frame.
        task: the task whose examples are the rows.
    """
    rows = frame[frame["task"] == task].drop_duplicates("recipe")
    if task in views.task_names(kind="perplexity", unlisted=True):
        note("Windows of text have no answers to put side by side. Choose another task.")
        return
    chosen = _chosen(rows)
    if len(chosen) < 2:
        note("Choose two recipes or more.")
        return
    heading(
        "Many recipes, one example a row",
        "✓ right, ✗ wrong. " + " · ".join(
            f"{row['label']} {percent(row['score'], 1)}" for row in chosen.to_dict("records")
        ) + f", n {chosen['n'].min():,}.",
    )  # fmt: skip

    @st.fragment
    def examples() -> None:
        _examples(chosen)
        address.write_fragment("address-many")

    examples()


def _chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of the recipes that are put side by side, in the address as `with`."""
    names = dict(zip(rows["recipe"], rows["label"], strict=True))
    brought = address.value("with").split() if address.brings("with") is not None else None
    if brought is not None:
        for text in brought:
            if text not in names:
                address.unknown(f"This address names the recipe {text[:80]}, which is not measured on this task.")
        st.session_state["with"] = [text for text in brought if text in names] or start(rows)
    elif "with" not in st.session_state:
        st.session_state["with"] = start(rows)
    else:
        st.session_state["with"] = [text for text in st.session_state["with"] if text in names] or start(rows)
    chosen = st.multiselect(
        "Recipes", list(names), format_func=lambda text: names[text], key="with", persist_state="session",
        max_selections=AT_ONCE,
    )  # fmt: skip
    address.say("with", " ".join(chosen))
    return rows[rows["recipe"].isin(chosen)]


def start(rows: pd.DataFrame) -> list[str]:
    """What the matrix opens with: dense, every method at the sparsity nearest to half, and 3 or 4 bits."""
    found = [str(text) for text in rows.loc[rows["kind"] == "dense", "recipe"]]
    for name in controls.pruners(rows):
        mine = rows[(rows["method"] == name) & (rows["kind"] == "ratio")]
        found.append(str(mine["recipe"].iloc[int((mine["sparsity"] - 0.5).abs().argmin())]))
    grids = rows[(rows["kind"] == "bits") & rows["bits"].isin((3, 4)) & (rows["recovered"] == "")]
    found += [str(mine["recipe"].iloc[-1]) for _, mine in grids.groupby("method", sort=False)]
    return found[:AT_ONCE]


def _examples(chosen: pd.DataFrame) -> None:
    frame = data.answer_matrix(chosen)
    words = list(chosen["label"])
    shown = _searched(_filtered(frame, len(words)))
    if shown.empty:
        note("No example has these words.")
        return
    rows = shown.head(MOST)
    ids: list[str] = rows["id"].tolist()
    opened = address.value("ex")
    at = ids.index(opened) if opened in ids else 0
    key = f"matrix-{len(ids)}-{ids[0]}-{len(words)}"

    def open_row() -> None:
        if (row := clicked(key, at)) is not None and row < len(ids):
            address.say("ex", ids[row])

    st.session_state[key] = {"selection": {"rows": [at], "columns": [], "cells": []}}
    column = st.column_config.TextColumn
    columns = {"id": column("example", width=id_width(rows)), "question": column("question", width=300),
               "gold": column("gold", width=130)}  # fmt: skip
    st.dataframe(
        rows[["question", "gold", *words, "id"]], hide_index=True, height=min(400, 38 + 35 * len(rows)),
        column_config=columns, key=key, on_select=open_row, selection_mode=["single-row", "single-cell"],
        alt="Examples down, recipes across; select a row to open it below",
    )  # fmt: skip
    if len(shown) > len(rows):
        note(f"The first {len(rows):,} of {len(shown):,}: search or filter to see others.")
    stepper("stepper-many", ids, at, lambda place: address.say("ex", ids[place]))
    address.say("ex", ids[at])
    show(each({one: _opened(chosen, one) for one in near(ids, at)}, ids[at]))


def _filtered(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    right, wrong = frame["rights"] == "y" * count, frame["rights"] == "n" * count
    among = {APART: ~(right | wrong), RIGHT: right, WRONG: wrong, ALL: pd.Series(True, index=frame.index)}
    kinds = [name for name in SHOWN if among[name].any()]
    kind = address.choice("apart", kinds, kinds[0], lambda key: st.pills(
        "Show", kinds, required=True, key=key, persist_state="session",
        format_func=lambda word: f"{'recipes disagree' if word == APART else word} {among[word].sum():,}",
    ), noun="kind", why="has no example here")  # fmt: skip
    return frame[among[kind]].sort_values("wrong", kind="stable")


def _searched(frame: pd.DataFrame) -> pd.DataFrame:
    if address.brings("q") is not None:
        st.session_state["q"] = address.value("q")
    words = st.text_input(
        "Search", key="q", persist_state="session", placeholder="Search questions and answers", max_chars=200,
        label_visibility="collapsed", icon=":material/search:",
    )  # fmt: skip
    address.say("q", words or "")
    if not words:
        return frame
    texts = frame.drop(columns=["rights", "wrong"]).agg("\n".join, axis=1)
    return frame[texts.str.contains(words, case=False, regex=False)]


def _opened(chosen: pd.DataFrame, example: str) -> Safe:
    """Every recipe's answer in full, what it shares with the first one's marked."""
    detail = data.detail(chosen.iloc[0], example, tuple(chosen["run"]))
    given = [answer for run in chosen["run"] if (answer := detail.of(str(run))) is not None]
    first = said(detail, given[0])
    pieces = (
        tag("div", answers.head(answer.label, answer), answers.box(
            tag("span", first) if at == 0 else answers.marked(answers.SHARED, first, said(detail, answer))[1]
        ))
        for at, answer in enumerate(given)
    )  # fmt: skip
    return many([
        tag("p", example, cls="quiet"), answers.box(question(detail)),
        answers.golden(detail), tag("div", *pieces, cls="many"),
    ])  # fmt: skip
