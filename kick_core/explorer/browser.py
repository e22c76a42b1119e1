"""The examples of one recipe against dense: filters, a light table, arrow keys, and the open one.

The table holds ids and numbers only; at 14,042 rows it costs two kilobytes a rerun. Filters and the open
example are in the URL (kind, why, slice, ex), so a reload or a link shows the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer import answers, controls, data
from kick_core.explorer.frame import note

WHYS = ("wrong", "no answer", "empty", "loop", "cut off", "rejected")


def browse(row: pd.Series) -> None:
    """Filters, table and the open example of one `scores` row."""
    frame = data.examples(row, row["dense_run"])
    if frame.empty:
        note("Dense and this recipe have no judged example in common.")
        return
    shown = filtered(frame) if frame["flip"].ne("").any() else _worst(frame)
    graded = frame["flip"].ne("").any() and not frame[["dense_score", "score"]].isin((0, 1)).all(axis=None)
    more = " Scores are graded here: right means that nothing is missing." if graded else ""
    note(f"{len(shown):,} of {len(frame):,} examples that both have answered.{more}")
    if shown.empty:
        return
    name = pick(shown, row, "dense")
    answers.opened(data.detail(row, name), row["run"], row["dense_run"])


def pick(shown: pd.DataFrame, row: pd.Series, against: str, names: tuple[str, str] = ("dense", "compressed")) -> str:
    """The table and its arrow keys; returns the id of the open example, which is in the URL too."""
    filters = "-".join(str(st.session_state.get(name)) for name in ("kind", "why", "slice"))
    key = f"table-{row['run']}-{against}-{filters}"
    name = str(shown["id"].iloc[_table(shown, key, row, against, names)])
    st.query_params["ex"] = name
    return name


EVERY = "all"


def slicing(frame: pd.DataFrame) -> str:
    """The column that examples are grouped by: disciplines where there are several, else subjects."""
    return "discipline" if frame["discipline"].nunique() > 1 else "subject"


def filtered(frame: pd.DataFrame) -> pd.DataFrame:
    """The examples of one discipline, one kind of flip, one reason: three filters in a row, all in the URL."""
    left, middle, right = st.columns([5, 5, 3], vertical_alignment="bottom")
    with right:
        frame = _sliced(frame)
    with left:
        frame = _flipped(frame)
    with middle:
        return _because(frame)


def _sliced(frame: pd.DataFrame) -> pd.DataFrame:
    """Chosen here, or by a click on a bar of the chart."""
    column = slicing(frame)
    names = sorted(name for name in frame[column].unique() if name)
    if len(names) < 2:
        return frame
    chosen = controls.linked("slice", [EVERY, *names], EVERY, lambda key, words: st.selectbox(
        "Discipline" if column == "discipline" else "Subject", words, key=key, persist_state="session"
    ))  # fmt: skip
    return frame if chosen == EVERY else frame[frame[column] == chosen]


def _flipped(frame: pd.DataFrame) -> pd.DataFrame:
    counts = frame["flip"].value_counts()
    first = next((kind for kind in views.FLIPS if counts.get(kind)), views.FLIPS[0])
    kind = controls.linked("kind", views.FLIPS, first, lambda key, words: st.pills(
        "Show", words, required=True, key=key, persist_state="session",
        format_func=lambda word: f"{word} {counts.get(word, 0):,}",
    ))  # fmt: skip
    return frame[frame["flip"] == kind]


def _because(frame: pd.DataFrame) -> pd.DataFrame:
    reasons = frame["why"].value_counts()
    named = [why for why in WHYS if reasons.get(why)]
    if len(named) < 2:
        return frame
    why = controls.linked("why", [EVERY, *named], EVERY, lambda key, words: st.pills(
        "Why", words, required=True, key=key, persist_state="session",
        format_func=lambda word: f"{word} {len(frame) if word == EVERY else reasons[word]:,}",
    ))  # fmt: skip
    return frame if why == EVERY else frame[frame["why"] == why]


def _worst(frame: pd.DataFrame) -> pd.DataFrame:
    """Windows have no right or wrong: the ones that lost most come first."""
    note("Windows of text have no right or wrong; those that lost most come first (nats per token).")
    return frame.loc[(frame["score"] - frame["dense_score"]).sort_values(ascending=False).index]


def _table(shown: pd.DataFrame, key: str, row: pd.Series, against: str, names: tuple[str, str]) -> int:
    """The table; returns the place of the open row. Left and right arrow keys step."""
    ids = shown["id"].tolist()
    if key not in st.session_state:
        wanted = st.query_params.get("ex", "")
        st.session_state[key] = _selection(ids.index(wanted) if wanted in ids else 0)
    columns = [name for name in _COLUMNS if name in shown and _says_something(shown[name])]
    scores = {
        column: st.column_config.NumberColumn(name, format="%.2f")
        for column, name in zip(("dense_score", "score"), names, strict=True)
    }
    st.dataframe(
        _narrow(shown)[columns],
        hide_index=True, height=min(330, 38 + 35 * len(shown)), column_config={**_COLUMNS, **scores}, key=key,
        on_select="rerun", selection_mode="single-row", alt="Examples; select a row to open it below",
    )  # fmt: skip
    rows = st.session_state[key]["selection"]["rows"]
    at = min(rows[0], len(ids) - 1) if rows else 0
    with st.container(horizontal=True):
        st.button("Previous", shortcut="Left", on_click=_step(key, at - 1), disabled=at == 0)
        st.button("Next", shortcut="Right", on_click=_step(key, at + 1), disabled=at + 1 >= len(ids))
        _exports(shown, row, against)
    return at


def _exports(shown: pd.DataFrame, row: pd.Series, against: str) -> None:
    """These rows as files; on every line stands which model, recipes, task, protocol and runs they come from."""
    file = re.sub(r"[^\w.-]+", "-", f"{row['task']}-{row['recipe']}-against-{against}")
    st.download_button(
        "CSV of these rows", data=lambda: views.csv(views.provided(shown, row, against)), file_name=f"{file}.csv",
        mime="text/csv", on_click="ignore", type="tertiary", icon=":material/download:",
    )  # fmt: skip
    st.download_button(
        "Parquet", data=lambda: views.parquet(views.provided(shown, row, against)), file_name=f"{file}.parquet",
        mime="application/vnd.apache.parquet", on_click="ignore", type="tertiary", icon=":material/download:",
    )  # fmt: skip


def _narrow(shown: pd.DataFrame) -> pd.DataFrame:
    """The table as it travels to the browser, again whenever another row is opened: words as codes, short numbers."""
    narrow = shown.assign(repetition=100 * shown["repetition"]).reset_index(drop=True)
    words = {name: "category" for name in ("why", "discipline", "subject", "breaks")}
    return narrow.astype({**words, "dense_score": "float32", "score": "float32", "repetition": "float32"})


def _step(key: str, to: int) -> Callable[[], None]:
    def move() -> None:
        st.session_state[key] = _selection(to)

    return move


def _selection(row: int) -> dict[str, object]:
    return {"selection": {"rows": [row], "columns": [], "cells": []}}


def _says_something(column: pd.Series) -> bool:
    """Whether a column differs anywhere from nothing: empty, unknown, or no repetition at all."""
    return bool(
        column.notna().any() and column.ne("").any() and not (column.name == "repetition" and column.max() == 0)
    )


_COLUMNS: dict[str, object] = {
    "id": "example",
    "why": "why",
    "dense_score": None,
    "score": None,
    "discipline": "discipline",
    "subject": "subject",
    "repetition": st.column_config.ProgressColumn(
        "repetition", format="%.0f %%", min_value=0, max_value=100, help="Share of 4-grams said before"
    ),
    "breaks": st.column_config.TextColumn(
        "breaks at", help="The mildest recipe of this method whose answer is wrong where dense was right"
    ),
}
