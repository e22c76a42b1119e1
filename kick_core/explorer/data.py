"""Tables for the pages, remembered until something in the cache changes.

The key of every table is the cache's stamp and plain words, never a frame: Streamlit hashes large frames by a
sample, so two that differ elsewhere would be taken for one.
"""

from __future__ import annotations

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer.frame import stamp, store
from kick_core.views import matrices, search_tables


@st.cache_data(show_spinner=False, max_entries=4)
def _scores(root: str, stamp: str) -> pd.DataFrame:
    return views.scores(store())


@st.cache_data(show_spinner=False, max_entries=16)
def _current(root: str, stamp: str, model: str, protocol: str, kind: str) -> pd.DataFrame:
    return views.current(_scores(root, stamp), model, protocol, kind)


@st.cache_data(show_spinner=False, max_entries=64)
def _examples(root: str, stamp: str, run: str, dense: str, scorer: str) -> pd.DataFrame:
    return views.examples(store(), run, dense, scorer)


@st.cache_data(show_spinner=False, max_entries=16)
def _coverage(root: str, stamp: str, model: str, protocol: str, kind: str) -> pd.DataFrame:
    return views.coverage(store(), model, protocol=protocol, data=kind)


@st.cache_data(show_spinner=False, max_entries=16)
def _weights(root: str, stamp: str) -> pd.DataFrame:
    return views.weights(store())


@st.cache_data(show_spinner=False, max_entries=16)
def _searched(
    root: str, stamp: str, model: str, protocol: str, kind: str, _frame: pd.DataFrame
) -> list[tuple[search_tables.Family, pd.DataFrame, pd.DataFrame]]:
    found = search_tables.families(_frame)
    return [
        (one, search_tables.allocation(store(), _frame, one), search_tables.looked(store(), _frame, one))
        for one in found
    ]


def searches(frame: pd.DataFrame) -> list[tuple[search_tables.Family, pd.DataFrame, pd.DataFrame]]:
    """Families of recipes that differ in what was searched for: how they share out, and what the searches saw."""
    about = (str(frame[name].iloc[0]) for name in ("model", "protocol", "data"))
    return _searched(place(), stamp(), *about, frame)


def place() -> str:
    return str(store().root)


def protocols(model: str) -> list[str]:
    """The protocols that a model was asked under, the one asked most first."""
    return views.protocols(_scores(place(), stamp()), model)


def protocol(model: str) -> str:
    """The protocol that the pages show: the chosen one where something was measured under it."""
    known, chosen = protocols(model), st.session_state.get("protocol")
    return str(chosen) if chosen in known or not known else known[0]


def kinds(model: str) -> list[str]:
    """The kinds of data that a model was asked on: the pocket world's, the benchmarks' own."""
    return views.data_kinds(_scores(place(), stamp()), model)


def kind(model: str) -> str:
    """The kind of data that the pages show: the chosen one where something was measured on it."""
    known, chosen = kinds(model), st.session_state.get("data")
    return str(chosen) if chosen in known else next(iter(known), views.POCKET)


def named(model: str) -> str:
    """The name that the shown data have for commands and jobs: pocket, official, or the newest run's folder."""
    if kind(model) == views.POCKET:
        return views.POCKET
    frame = _scores(place(), stamp())
    mine = frame[(frame["model"] == model) & (frame["data"] != views.POCKET)]
    return str(mine.loc[mine["created"].idxmax(), "data"])


def current(model: str, under: str | None = None) -> pd.DataFrame:
    return _current(place(), stamp(), model, under or protocol(model), kind(model))


@st.cache_data(show_spinner=False, max_entries=16)
def _claims(root: str, stamp: str, model: str, protocol: str, kind: str, together: bool) -> list[views.Claim]:
    frame = _current(root, stamp, model, protocol, kind)
    return views.claims(views.verdicts_together(frame) if together else frame)


def claims(model: str, *, together: bool = False) -> list[views.Claim]:
    return _claims(place(), stamp(), model, protocol(model), kind(model), together)


@st.cache_data(show_spinner=False, max_entries=16)
def _recovered(root: str, stamp: str, model: str, protocol: str, kind: str) -> pd.DataFrame:
    return views.recovered(store(), _current(root, stamp, model, protocol, kind))


def recovered(model: str) -> pd.DataFrame:
    """What every recovery brought back, task by task."""
    return _recovered(place(), stamp(), model, protocol(model), kind(model))


@st.cache_data(show_spinner=False, max_entries=64)
def _look(root: str, stamp: str, asked: matrices.Asked) -> matrices.Look | None:
    return matrices.look(store(), asked)


def look(asked: matrices.Asked) -> matrices.Look | None:
    """One matrix under a recipe: its mask and its weights."""
    return _look(place(), stamp(), asked)


@st.cache_data(show_spinner=False, max_entries=16)
def _layers(root: str, stamp: str, key: str) -> pd.DataFrame:
    try:
        return views.layers(store(), key)
    except OSError:
        return pd.DataFrame()


def layers(key: str) -> pd.DataFrame:
    """The linears of an artifact; none where it was removed."""
    return _layers(place(), stamp(), key)


@st.cache_data(show_spinner=False, max_entries=256)
def _broken(root: str, stamp: str, run: str, dense: str, scorer: str) -> str | None:
    table = _examples(root, stamp, run, dense, scorer)
    return views.pick(table.loc[table["flip"] == "broke", "id"].tolist())


def broken(row: pd.Series) -> str | None:
    """One example of a `scores` row that broke, by the stated rule."""
    return _broken(place(), stamp(), row["run"], row["dense_run"], row["scorer"])


def scorers(run: str) -> pd.DataFrame:
    """All scorers' rows of one run."""
    frame = _scores(place(), stamp())
    return frame[frame["run"] == run]


def examples(row: pd.Series, against: str) -> pd.DataFrame:
    """The examples of a `scores` row against another run, judged by the row's scorer."""
    return _examples(place(), stamp(), row["run"], against, row["scorer"])


@st.cache_data(show_spinner=False, max_entries=64)
def _between(root: str, stamp: str, run: str, other: str, scorer: str, name: str) -> str:
    return views.words_between(store(), run, other, scorer, name)


def between(row: pd.Series, other: pd.Series, name: str) -> str:
    """How a row differs from another one, in words; against dense they are the row's own, with Holm's correction."""
    if other["run"] == row["dense_run"]:
        return str(row["words"])
    return _between(place(), stamp(), row["run"], other["run"], row["scorer"], name)


@st.cache_data(show_spinner=False, max_entries=64)
def _details(root: str, stamp: str, run: str, dense: str) -> dict[str, pd.DataFrame]:
    return views.details(store(), run, dense)


def details(row: pd.Series) -> dict[str, pd.DataFrame]:
    """The whole-run tables of a row beside dense's."""
    return _details(place(), stamp(), row["run"], row["dense_run"])


@st.cache_data(show_spinner=False, max_entries=4)
def _closer(root: str, stamp: str) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return views.fidelity(store()), views.texts(store()), views.noise(store())


def closer(row: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """What was measured of a row's weights beside scores: fidelity, dense's texts of the task, the noise floor."""
    fidelity, texts, noise = _closer(place(), stamp())
    kind = views.kind_of_data(row["data"])
    close, read = (
        frame[(frame["weights"] == row["weights"]) & (frame["data"].map(views.kind_of_data) == kind)]
        for frame in (fidelity, texts)
    )
    dense = row["dense_run"] or row["run"]
    floor = noise[(noise["dense_run"] == dense) & (noise["scorer"] == row["scorer"])]
    return close, read[read["task"] == row["task"]], floor


@st.cache_data(show_spinner=False, max_entries=64)
def _divergence(root: str, stamp: str, run: str, dense: str) -> views.Interval:
    return views.until_divergence(store(), run, dense)


def divergence(row: pd.Series) -> views.Interval:
    """How many words a row's texts share with dense's from the start; over 0 texts where nothing is written."""
    return _divergence(place(), stamp(), row["run"], row["dense_run"] or row["run"])


@st.cache_data(show_spinner=False, max_entries=4)
def _judged(root: str, stamp: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    return views.judgings(store()), views.judge_controls(store())


def judged(row: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The judgings of a row's run, and their controls."""
    judgings, controls = _judged(place(), stamp())
    mine = judgings[judgings["run"] == row["run"]]
    return mine, controls[controls["judging"].isin(mine["judging"])]


def coverage(model: str) -> pd.DataFrame:
    return _coverage(place(), stamp(), model, protocol(model), kind(model))


def weights() -> pd.DataFrame:
    return _weights(place(), stamp())


def models() -> list[str]:
    """Models with results, those with most first."""
    return [str(name) for name in _scores(place(), stamp())["model"].value_counts().index]


def cell(frame: pd.DataFrame, recipe: str, task: str) -> pd.Series | None:
    """One recipe's row of one task in a `current` frame."""
    rows = frame[(frame["recipe"] == recipe) & (frame["task"] == task)]
    return None if rows.empty else rows.iloc[0]


@st.cache_data(show_spinner=False, max_entries=64)
def _detail(root: str, stamp: str, run: str, example: str, scorer: str) -> views.Detail:
    return views.example(store(), run, example, scorer)


def detail(row: pd.Series, example: str) -> views.Detail:
    """One example in full, judged by the row's scorer."""
    return _detail(place(), stamp(), row["run"], example, row["scorer"])


@st.cache_data(show_spinner=False, max_entries=8)
def _families(root: str, stamp: str, kind: str, protocol: str) -> pd.DataFrame:
    return views.families(store(), kind, protocol, measured=_scores(root, stamp))


def families(model: str) -> pd.DataFrame:
    """What several models share, on the kind of data and under the protocol that are shown of this one."""
    return _families(place(), stamp(), kind(model), protocol(model))


@st.cache_data(show_spinner=False, max_entries=8)
def _kin(root: str, stamp: str, kind: str, protocol: str) -> list[tuple[views.Kin, pd.DataFrame, views.Robustness]]:
    return views.pairs(store(), _families(root, stamp, kind, protocol))


def kin(model: str) -> list[tuple[views.Kin, pd.DataFrame, views.Robustness]]:
    """The pairs of base and tuned among them, cell by cell and in one word."""
    return _kin(place(), stamp(), kind(model), protocol(model))
