"""Tables for the pages, remembered until something in the cache changes.

The key of every table is the cache's stamp and plain words, never a frame: Streamlit hashes large frames by a
sample, so two that differ elsewhere would be taken for one.
"""

from __future__ import annotations

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.views import matrices
from pages.parts.frame import stamp, store


@st.cache_data(show_spinner=False, max_entries=4)
def _scores(root: str, stamp: str) -> pd.DataFrame:
    return views.scores(store())


@st.cache_data(show_spinner=False, max_entries=16)
def _current(root: str, stamp: str, model: str, protocol: str) -> pd.DataFrame:
    return views.current(_scores(root, stamp), model, protocol)


@st.cache_data(show_spinner=False, max_entries=64)
def _examples(root: str, stamp: str, run: str, dense: str) -> pd.DataFrame:
    return views.examples(store(), run, dense)


@st.cache_data(show_spinner=False, max_entries=16)
def _coverage(root: str, stamp: str, model: str, protocol: str) -> pd.DataFrame:
    return views.coverage(store(), model, protocol=protocol)


@st.cache_data(show_spinner=False, max_entries=16)
def _weights(root: str, stamp: str) -> pd.DataFrame:
    return views.weights(store())


def place() -> str:
    return str(store().root)


def protocols(model: str) -> list[str]:
    """The protocols that a model was asked under, the one asked most first."""
    frame = _scores(place(), stamp())
    return [str(name) for name in frame.loc[frame["model"] == model, "protocol"].value_counts().index]


def protocol(model: str) -> str:
    """The protocol that the pages show: the chosen one where something was measured under it."""
    known, chosen = protocols(model), st.session_state.get("protocol")
    return str(chosen) if chosen in known or not known else known[0]


def current(model: str, under: str | None = None) -> pd.DataFrame:
    return _current(place(), stamp(), model, under or protocol(model))


@st.cache_data(show_spinner=False, max_entries=16)
def _claims(root: str, stamp: str, model: str, protocol: str) -> list[views.Claim]:
    return views.claims(_current(root, stamp, model, protocol))


def claims(model: str) -> list[views.Claim]:
    return _claims(place(), stamp(), model, protocol(model))


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
def _broken(root: str, stamp: str, run: str, dense: str) -> str | None:
    table = _examples(root, stamp, run, dense)
    return views.pick(table.loc[table["flip"] == "broke", "id"].tolist())


def broken(run: str, dense: str) -> str | None:
    """One example that broke, by the stated rule."""
    return _broken(place(), stamp(), run, dense)


def scorers(run: str) -> pd.DataFrame:
    """All scorers' rows of one run."""
    frame = _scores(place(), stamp())
    return frame[frame["run"] == run]


def examples(run: str, dense: str) -> pd.DataFrame:
    return _examples(place(), stamp(), run, dense)


def coverage(model: str) -> pd.DataFrame:
    return _coverage(place(), stamp(), model, protocol(model))


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
def _detail(root: str, stamp: str, run: str, example: str) -> views.Detail:
    return views.example(store(), run, example)


def detail(run: str, example: str) -> views.Detail:
    return _detail(place(), stamp(), run, example)
