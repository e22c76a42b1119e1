"""The examples of one recipe against another: filters, a table with the texts, arrow keys, and the open one.

All of it is one fragment: a filter, a row or a step redraws it alone. Filters and the open example are in the address
(kind, why, slice, q, sort, ex), so a reload or a link shows the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer import address, answers, data, stars, surprise
from kick_core.explorer.frame import note, store
from kick_core.explorer.safe import Safe, show
from kick_core.explorer.stepper import each, near, stepper

WHYS = ("wrong", "no answer", "empty", "loop", "cut off", "rejected", "no gold")
EVERY = "all"
MOST = 200
"""Rows that travel to the browser at most; at MMLU's 14,042 the texts alone would be three megabytes."""

SORTS = {
    "task order": ("", True),
    "breaks first": ("breaks_at", True),
    "most repeated": ("repetition", False),
    "question": ("question", True),
    "answer": ("after", True),
}
"""Orders of the table: the column, and whether small comes first."""


class Pair(NamedTuple):
    """What is compared: the `scores` row whose examples are listed, the other recipe and its run, and their names."""

    row: pd.Series
    recipe: str
    run: str
    names: tuple[str, str] = ("dense", "compressed")


def browse(row: pd.Series) -> None:
    """The examples of one `scores` row against dense."""
    section(Pair(row, "dense", str(row["dense_run"])))


def section(pair: Pair, runs: Sequence[str] = (), above: Callable[[views.Detail], Safe] | None = None) -> None:
    """Filters, table and the open example.

    Args:
        pair: what is compared.
        runs: keys of more runs whose answers `above` shows.
        above: more about an example, above its answers.
    """

    @st.fragment
    def examples() -> None:
        frame = data.examples(pair.row, pair.run)
        if frame.empty:
            note("These two have no judged example in common.")
            return
        frame = frame.merge(data.example_texts(pair.row, pair.run), on="id", how="left")
        frame["starred"] = frame["id"].isin(stars.of(str(pair.row["run"])))
        shown = _filtered(frame) if frame["flip"].ne("").any() else _worst(frame)
        if shown.empty:
            note("No example has these words.")
        else:
            ids, at = _pick(shown, pair)
            name = ids[at]
            details = {one: data.detail(pair.row, one, (pair.run, *runs)) for one in near(ids, at)}
            with st.container(key="follows-star"):
                stars.button(str(pair.row["run"]), name, pair.run)
            if above:
                show(each({one: above(detail) for one, detail in details.items()}, name))
            answers.opened(details, name, str(pair.row["run"]), pair.run)
            if not details[name].judged:
                with st.container(key="follows-tokens"):
                    surprise.section(pair.row, name)
        address.write_fragment("address-examples")

    examples()


# --- filters -----------------------------------------------------------------------------------------------


def slicing(frame: pd.DataFrame) -> str:
    """The column that examples are grouped by: disciplines where there are several, else subjects."""
    return "discipline" if frame["discipline"].nunique() > 1 else "subject"


def _filtered(frame: pd.DataFrame) -> pd.DataFrame:
    """The examples of one kind of flip, one reason, one group, with some words; each filter is in the address."""
    left, middle, right = st.columns([5, 5, 3], vertical_alignment="bottom")
    with right:
        frame = _sliced(frame)
    with left:
        frame = _flipped(frame)
    with middle:
        frame = _because(frame)
    return _sorted(_searched(stars.only(_repetitive(frame))))


def _sliced(frame: pd.DataFrame) -> pd.DataFrame:
    """Chosen here, or by a click on a bar of the chart."""
    column = slicing(frame)
    names = sorted(name for name in frame[column].unique() if name)
    if len(names) < 2:
        return frame
    chosen = address.choice("slice", [EVERY, *names], EVERY, lambda key: st.selectbox(
        "Group", [EVERY, *names], key=key, persist_state="session"
    ), noun="group", why="has no example here")  # fmt: skip
    return frame if chosen == EVERY else frame[frame[column] == chosen]


def _flipped(frame: pd.DataFrame) -> pd.DataFrame:
    """One kind of flip. Only kinds that have an example are on offer, so that no choice leads to nothing."""
    counts = frame["flip"].value_counts()
    if counts.index.tolist() == ["both wrong"] and frame[["dense_score", "score"]].gt(0).any(axis=None):
        return frame  # graded, and none has all that counts
    kinds = [kind for kind in views.FLIPS if counts.get(kind)]
    first = next((kind for kind in views.FLIPS[:2] if counts.get(kind)), str(counts.index[0]))
    kind = address.choice("kind", kinds, first, lambda key: st.pills(
        "Show", kinds, required=True, key=key, persist_state="session", wrap=True,
        format_func=lambda word: f"{word} {counts[word]:,}",
    ), noun="kind", why="has no example here")  # fmt: skip
    return frame[frame["flip"] == kind]


def _because(frame: pd.DataFrame) -> pd.DataFrame:
    reasons = frame["why"].value_counts()
    named = [why for why in WHYS if reasons.get(why)]
    if len(named) < 2:
        return frame
    why = address.choice("why", [EVERY, *named], EVERY, lambda key: st.pills(
        "Why", [EVERY, *named], required=True, key=key, persist_state="session", wrap=True,
        format_func=lambda word: f"{word} {len(frame) if word == EVERY else reasons[word]:,}",
    ), noun="reason", why="has no example here")  # fmt: skip
    return frame if why == EVERY else frame[frame["why"] == why]


def _repetitive(frame: pd.DataFrame) -> pd.DataFrame:
    """Answers that repeat themselves so much; chosen here, or by a click on the distribution."""
    bins = views.repeated(frame["repetition"])
    counts = bins[bins != ""].value_counts()
    names = [name for name in views.REPEATED if counts.get(name)]
    if len(names) < 2:
        return frame
    chosen = address.choice("repeats", [EVERY, *names], EVERY, lambda key: st.pills(
        "Repeated 4-grams", [EVERY, *names], required=True, key=key, persist_state="session",
        format_func=lambda word: f"{word} {len(frame) if word == EVERY else counts[word]:,}",
    ), noun="repetition", why="has no example here")  # fmt: skip
    return frame if chosen == EVERY else frame[bins == chosen]


def _searched(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows one of whose texts has the words that were typed."""
    brought = address.brings("q")
    if brought is not None:
        st.session_state["q"] = address.value("q")
    words = st.text_input(
        "Search", key="q", persist_state="session", placeholder="Search questions and answers", max_chars=200,
        label_visibility="collapsed", icon=":material/search:",
    )  # fmt: skip
    address.say("q", words or "")
    if not words:
        return frame
    texts = frame[["id", "question", "gold", "before", "after"]].fillna("").agg("\n".join, axis=1)
    return frame[texts.str.contains(words, case=False, regex=False)]


def _sorted(frame: pd.DataFrame) -> pd.DataFrame:
    names = [name for name, (column, _) in SORTS.items() if not column or _says_something(frame[column])]
    chosen = address.choice("sort", names, names[0], lambda key: st.segmented_control(
        "Sort", names, required=True, key=key, persist_state="session", label_visibility="collapsed",
    ), noun="order", why="makes no difference here")  # fmt: skip
    column, rising = SORTS[chosen]
    return frame.sort_values(column, ascending=rising, kind="stable", na_position="last") if column else frame


def _worst(frame: pd.DataFrame) -> pd.DataFrame:
    """Windows have no right or wrong: the ones that lost most come first."""
    note("Windows of text have no right or wrong; those that lost most come first (nats per token).")
    return frame.loc[(frame["score"] - frame["dense_score"]).sort_values(ascending=False).index]


# --- the table ---------------------------------------------------------------------------------------------


def _pick(shown: pd.DataFrame, pair: Pair) -> tuple[list[str], int]:
    """The table, its keys and its files; returns the ids and the place of the open one, which is in the address too."""
    rows = shown.head(MOST)
    ids: list[str] = rows["id"].tolist()
    wanted = address.value("ex")
    if wanted and wanted not in ids and address.was_brought("ex"):
        address.unknown(f"This address opens the example {wanted[:60]}, which is not among those that are shown.")
    at = ids.index(wanted) if wanted in ids else 0
    key = f"table-{pair.row['run']}-{pair.run}-{len(ids)}-{ids[0]}"

    def open_row() -> None:
        if (row := clicked(key, at)) is not None and row < len(ids):
            address.say("ex", ids[row])

    st.session_state[key] = {"selection": {"rows": [at], "columns": [], "cells": []}}
    narrow = _narrow(rows)
    st.dataframe(
        narrow, hide_index=True, height=min(330, 38 + 35 * len(rows)), column_config=_columns(narrow, pair.names),
        key=key, on_select=open_row, selection_mode=["single-row", "single-cell"],
        alt="Examples; select a row to open it below",
    )  # fmt: skip
    if len(shown) > len(rows):
        note(f"The first {len(rows):,} of {len(shown):,}: search or filter to see others. The files hold all.")
    with st.container(horizontal=True, vertical_alignment="center"):
        stepper("stepper", ids, at, lambda place: address.say("ex", ids[place]))
        _exports(shown, pair)
    address.say("ex", ids[at])
    return ids, at


def clicked(key: str, at: int) -> int | None:
    """The row of a table that was clicked, by its box or in any cell; None where that is the open one.

    Args:
        key: the table's key.
        at: the row that is open: its box stays ticked when a cell of another row is clicked.
    """
    chosen = st.session_state[key]["selection"]
    return next((row for row in (*(row for row, _ in chosen["cells"]), *chosen["rows"]) if row != at), None)


def _exports(shown: pd.DataFrame, pair: Pair) -> None:
    """These rows as files, with full texts; on every line stands which model, recipes and runs it comes from."""
    file = re.sub(r"[^\w.-]+", "-", f"{pair.row['task']}-{pair.row['recipe']}-against-{pair.recipe}")
    bare = shown.drop(columns=["question", "gold", "before", "after", "starred"])
    st.download_button(
        "CSV of these rows", data=lambda: views.csv(views.exported(store(), bare, pair.row, pair.recipe)),
        file_name=f"{file}.csv", mime="text/csv", on_click="ignore", type="tertiary", icon=":material/download:",
    )  # fmt: skip
    st.download_button(
        "Parquet", data=lambda: views.parquet(views.exported(store(), bare, pair.row, pair.recipe)),
        file_name=f"{file}.parquet", mime="application/vnd.apache.parquet", on_click="ignore", type="tertiary",
        icon=":material/download:",
    )  # fmt: skip


_SHOWN = (
    "starred", "question", "gold", "before", "after", "why", "dense_score", "score", "breaks", "repetition",
    "discipline", "subject", "id",
)  # fmt: skip


def _narrow(rows: pd.DataFrame) -> pd.DataFrame:
    """The table as it travels to the browser: columns that differ anywhere, words as codes, short numbers."""
    narrow = rows.assign(repetition=100 * rows["repetition"]).reset_index(drop=True)
    graded = not rows[["dense_score", "score"]].isin((0, 1)).all(axis=None)
    names = [
        name for name in _SHOWN
        if _says_something(rows[name]) and (graded or name not in ("dense_score", "score"))
        and (name not in ("why", "discipline", "subject") or rows[name].nunique() > 1)
        and (name != "question" or len(rows) == 1 or rows[name].nunique() > 1)  # a pack may leave all of them out
    ]  # fmt: skip
    if "question" not in names:  # windows of text, and what a pack leaves out, have no better name
        names.sort(key=lambda name: name != "id")
    kinds = {"why": "category", "discipline": "category", "subject": "category", "breaks": "category",
             "dense_score": "float32", "score": "float32", "repetition": "float32"}  # fmt: skip
    return narrow[names].astype({name: kind for name, kind in kinds.items() if name in names})


def _says_something(column: pd.Series) -> bool:
    """Whether a column differs anywhere from nothing: empty, unknown, or no repetition at all."""
    return bool(
        column.notna().any()
        and column.ne("").any()
        and not (column.name in ("repetition", "starred") and column.max() == 0)
    )


WIDTHS = {
    "starred": 40, "id": 84, "why": 72, "dense_score": 72, "score": 84, "breaks": 78, "repetition": 92,
    "discipline": 104, "subject": 112,
}  # fmt: skip
"""Pixels of the columns that need no more."""
TEXTS = {"question": 0.31, "gold": 0.15, "before": 0.27, "after": 0.27}
"""What the columns of texts share among them of the rest."""
ROOM = 1236
"""Pixels that a table has beside the boxes of its rows in a window of 1,440."""


def id_width(rows: pd.DataFrame) -> int:
    """Pixels for the ids of some examples."""
    return min(120, max(WIDTHS["id"], 24 + 7 * int(rows["id"].str.len().max())))


def _columns(narrow: pd.DataFrame, names: tuple[str, str]) -> dict[str, object]:
    """Titles, formats and widths, such that no column is cut off on a usual screen."""
    widths = {**WIDTHS, "id": id_width(narrow)}
    room = ROOM - sum(widths.get(str(name), 0) for name in narrow)
    width = {**widths, **{name: max(110, int(room * share)) for name, share in TEXTS.items()}}
    titles = {
        "id": "example", "question": "question", "gold": "gold", "before": f"{names[0]} answered",
        "after": f"{names[1]} answered", "why": "why", "discipline": "discipline", "subject": "subject",
    }  # fmt: skip
    number, column = st.column_config.NumberColumn, st.column_config.TextColumn
    return {
        "starred": st.column_config.CheckboxColumn("★", width=width["starred"]),
        **{name: column(words, width=width[name]) for name, words in titles.items()},
        "dense_score": number(names[0], format="%.2f", width=width["dense_score"]),
        "score": number(names[1], format="%.2f", width=width["score"]),
        "breaks": column(
            "breaks at", help="The mildest recipe of this method whose answer is wrong where dense was right",
            width=width["breaks"],
        ),
        "repetition": st.column_config.ProgressColumn(
            "repetition", format="%.0f %%", min_value=0, max_value=100, help="Share of 4-grams said before",
            width=width["repetition"],
        ),
    }  # fmt: skip
