"""Tables for the pages, remembered until something in the cache changes.

The key of every table is the cache's stamp and plain words, never a frame: Streamlit hashes large frames by a
sample, so two that differ elsewhere would be taken for one. `remembered` says by which words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.errors import KickError
from kick_core.explorer.frame import stamp, store
from kick_core.views import matrices, search_tables

Asks = ParamSpec("Asks")
Table = TypeVar("Table")
Words = tuple[Any, ...]


def remembered(
    entries: int, by: Callable[Asks, Words], waiting: str = ""
) -> Callable[[Callable[..., Table]], Callable[Asks, Table]]:
    """Keep what a function returns until the cache changes.

    Args:
        entries: how many results are kept at most.
        by: turns the caller's arguments into the words that the function takes and that name its result.
        waiting: what the page says meanwhile, where it takes seconds.

    Returns:
        A decorator. The decorated function takes the arguments of `by`.
    """

    def decorate(function: Callable[..., Table]) -> Callable[Asks, Table]:
        def result(root: str, stamp: str, *words: Any) -> Table:
            return function(*words)

        # Streamlit names a cache by qualified name and source, and the source of all of these is one.
        result.__qualname__ = function.__qualname__
        kept = st.cache_data(show_spinner=waiting or False, max_entries=entries)(result)

        @wraps(function)
        def look(*args: Asks.args, **more: Asks.kwargs) -> Table:
            found: Table = kept(place(), stamp(), *by(*args, **more))
            return found

        return look

    return decorate


def place() -> str:
    return str(store().root)


# --- by which words a table is kept ------------------------------------------------------------------------


def _nothing() -> Words:
    return ()


def shown_words(model: str, under: str | None = None) -> Words:
    """What the pages show of a model: protocol and kind of data."""
    return model, under or protocol(model), kind(model)


def _kind(model: str) -> Words:
    return kind(model), protocol(model)


def _text(text: str) -> Words:
    return (text,)


def _matrix(asked: matrices.Asked) -> Words:
    return (asked,)


def _against(row: pd.Series, other: str) -> Words:
    return row["run"], other, row["scorer"]


def _dense(row: pd.Series) -> Words:
    return row["run"], row["dense_run"] or row["run"], row["scorer"]


# --- tables ------------------------------------------------------------------------------------------------


@remembered(4, _nothing, "Comparing every run with dense …")
def scores() -> pd.DataFrame:
    return views.scores(store())


@remembered(16, shown_words)
def current(model: str, protocol: str, kind: str) -> pd.DataFrame:
    """What the pages draw of a model, under the chosen protocol or another."""
    return views.current(scores(), model, protocol, kind)


@remembered(16, shown_words)
def coverage(model: str, protocol: str, kind: str) -> pd.DataFrame:
    return views.coverage(store(), model, protocol=protocol, data=kind)


def _claimed(model: str, together: bool = False) -> Words:
    return model, protocol(model), kind(model), together


@remembered(16, _claimed)
def claims(model: str, protocol: str, kind: str, together: bool) -> list[views.Claim]:
    """The paper's claims; `together`: by verdicts that hold over all recipes of a task at once."""
    frame = views.current(scores(), model, protocol, kind)
    return views.claims(views.verdicts_together(frame) if together else frame)


@remembered(16, shown_words)
def recovered(model: str, protocol: str, kind: str) -> pd.DataFrame:
    """What every recovery brought back, task by task."""
    return views.recovered(store(), views.current(scores(), model, protocol, kind))


@remembered(16, shown_words)
def searches(model: str, protocol: str, kind: str) -> list[tuple[search_tables.Family, pd.DataFrame, pd.DataFrame]]:
    """Families of recipes that differ in what was searched for: their layer allocation, and what searches measured."""
    frame = views.current(scores(), model, protocol, kind)
    return [
        (one, search_tables.allocation(store(), frame, one), search_tables.looked(store(), frame, one))
        for one in search_tables.families(frame)
    ]


@remembered(16, _nothing)
def weights() -> pd.DataFrame:
    return views.weights(store())


@remembered(64, _matrix)
def look(asked: matrices.Asked) -> matrices.Look | None:
    """One matrix under a recipe: its mask and its weights."""
    return matrices.look(store(), asked)


@remembered(512, _matrix)
def mask(asked: matrices.Asked) -> bytes | None:
    """A corner of a mask as a picture; None where there is none, or where the artifact is damaged (Compress tells)."""
    try:
        found = matrices.look(store(), asked)
    except KickError:
        return None
    return found.png() if found else None


@remembered(16, _text)
def layers(key: str) -> pd.DataFrame:
    """The linears of an artifact; none where it was removed."""
    try:
        return views.layers(store(), key)
    except OSError:
        return pd.DataFrame()


@remembered(64, _against)
def examples(run: str, other: str, scorer: str) -> pd.DataFrame:
    """The examples of a `scores` row against another run, judged by the row's scorer."""
    return views.examples(store(), run, other, scorer)


def _runs(row: pd.Series, other: str) -> Words:
    return row["run"], other


@remembered(32, _runs)
def example_texts(run: str, other: str) -> pd.DataFrame:
    """Question, gold and both answers of every example, each on one short line."""
    return views.example_texts(store(), run, other)


def _columns(rows: pd.DataFrame) -> Words:
    return tuple(zip(rows["label"], rows["run"], strict=True)), str(rows["scorer"].iloc[0])


@remembered(16, _columns)
def answer_matrix(runs: tuple[tuple[str, str], ...], scorer: str) -> pd.DataFrame:
    """The answers of some rows of one task, a column each."""
    return views.answer_matrix(store(), dict(runs), scorer)


def _beside(row: pd.Series, other: str) -> Words:
    return row["run"], other, row["dense_run"], row["scorer"]


@remembered(16, _beside)
def apart(run: str, other: str, dense: str, scorer: str) -> list[str]:
    """The ids that dense has right and of which a row and another run have one right and one wrong."""
    return views.apart(store(), run, other, dense, scorer)


@remembered(32, _dense)
def surprise_by_kind(run: str, dense: str, _: str) -> pd.DataFrame:
    """By kind of token, how much more surprising a row's weights find running text than dense does."""
    return views.surprise_by_kind(store(), run, dense)


@remembered(32, _dense)
def forgetting(run: str, _: str, scorer: str) -> views.Forgetting:
    """Twenty questions of a row's task along its method."""
    return views.forgetting(store(), run, scorer)


@remembered(32, _dense)
def by_popularity(run: str, _: str, scorer: str) -> pd.DataFrame:
    """The share of facts kept along a row's method, by how well known their subject is."""
    return views.by_popularity(store(), run, scorer)


@remembered(64, _against)
def survival(run: str, _: str, scorer: str) -> pd.DataFrame:
    """Of the answers right under dense, how many each step of a row's method has left unbroken."""
    return views.survival(store(), run, scorer)


@remembered(256, _dense)
def broken(run: str, dense: str, scorer: str) -> str | None:
    """One example of a `scores` row that broke, by the stated rule."""
    table = views.examples(store(), run, dense, scorer)
    return views.pick(table.loc[table["flip"] == "broke", "id"].tolist())


def _under(row: pd.Series, example: str, runs: Sequence[str]) -> Words:
    return row["run"], example, row["scorer"], tuple(sorted({str(run) for run in runs if run}))


@remembered(256, _under)
def detail(run: str, example: str, scorer: str, runs: tuple[str, ...]) -> views.Detail:
    """One example in full under a row's run and some others, judged by the row's scorer."""
    return views.example(store(), run, example, scorer, among=runs)


def _run(row: pd.Series) -> Words:
    return (row["run"],)


@remembered(64, _run)
def sparsity_series(run: str) -> list[str]:
    """The runs of a row's method from mild to harsh, dense first."""
    return views.series(store(), run)


@remembered(64, _dense)
def details(run: str, dense: str, scorer: str) -> dict[str, pd.DataFrame]:
    """The whole-run tables of a row beside dense's."""
    return views.details(store(), run, "" if dense == run else dense)


@remembered(64, _dense)
def divergence(run: str, dense: str, scorer: str) -> views.Interval:
    """How many words a row's texts share with dense's from the start; over 0 texts where nothing is written."""
    return views.until_divergence(store(), run, dense)


def _between(row: pd.Series, other: pd.Series, name: str) -> Words:
    return row["run"], other["run"], row["scorer"], name


@remembered(64, _between)
def _words(run: str, other: str, scorer: str, name: str) -> str:
    return views.words_between(store(), run, other, scorer, name)


def between(row: pd.Series, other: pd.Series, name: str) -> str:
    """How a row differs from another one, in words; against dense they are the row's own, with Holm's correction."""
    return str(row["words"]) if other["run"] == row["dense_run"] else _words(row, other, name)


@remembered(4, _nothing)
def _fidelity() -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    return views.fidelity(store()), views.texts(store()), views.noise(store())


def fidelity(row: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """What was measured of a row's weights beside scores: fidelity, dense's texts of the task, the noise floor."""
    tables, kind = _fidelity(), views.kind_of_data(row["data"])
    close, read = (
        frame[(frame["weights"] == row["weights"]) & (frame["data"].map(views.kind_of_data) == kind)]
        for frame in tables[:2]
    )
    dense, noise = row["dense_run"] or row["run"], tables[2]
    floor = noise[(noise["dense_run"] == dense) & (noise["scorer"] == row["scorer"])]
    return close, read[read["task"] == row["task"]], floor


@remembered(4, _nothing)
def _judgings() -> tuple[pd.DataFrame, pd.DataFrame]:
    return views.judgings(store()), views.judge_controls(store())


def judgings(row: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The judgings of a row's run, and their controls."""
    table, controls = _judgings()
    mine = table[table["run"] == row["run"]]
    return mine, controls[controls["judging"].isin(mine["judging"])]


@remembered(8, _kind)
def families(kind: str, protocol: str) -> pd.DataFrame:
    """What several models share, on the kind of data and under the protocol that are shown of this one."""
    return views.families(store(), kind, protocol, measured=scores())


@remembered(8, _kind)
def lineage(kind: str, protocol: str) -> list[tuple[views.Kin, pd.DataFrame, views.Robustness]]:
    """The pairs of base and tuned among them, cell by cell and in one word."""
    return views.pairs(store(), views.families(store(), kind, protocol, measured=scores()))


# --- what is chosen, and rows of the tables ----------------------------------------------------------------


def models() -> list[str]:
    """Models with results, those with most first; those of the gallery alone come last."""
    scores()  # not from within another remembered table, where Streamlit says nothing of the wait
    return _models()


@remembered(4, _nothing)
def _models() -> list[str]:
    frame, cache = scores(), store()
    runs = frame.drop_duplicates("run")
    own = set(runs.loc[[cache.own("results", key) for key in runs["run"]], "model"])
    return sorted(map(str, frame["model"].value_counts().index), key=lambda name: name not in own)


@remembered(16, _text)
def protocols(model: str) -> list[str]:
    """The protocols that a model was evaluated under, the most frequent one first."""
    return views.protocols(scores(), model)


def protocol(model: str) -> str:
    """The protocol that the pages show: the chosen one where something was measured under it."""
    known, chosen = protocols(model), st.session_state.get("protocol")
    return str(chosen) if chosen in known or not known else known[0]


@remembered(16, _text)
def kinds(model: str) -> list[str]:
    """The kinds of data that a model was evaluated on: the pocket world's, the benchmarks' own."""
    return views.data_kinds(scores(), model)


def kind(model: str) -> str:
    """The kind of data that the pages show: the chosen one where something was measured on it."""
    known, chosen = kinds(model), st.session_state.get("data")
    return str(chosen) if chosen in known else next(iter(known), views.POCKET)


def named(model: str, task: str = "") -> str:
    """The name that the shown data have for commands and jobs: pocket, official, or the newest run's folder or file.

    A file of the user's own questions is the data of the `task` that its columns make, and of no other.
    """
    if kind(model) == views.POCKET:
        return views.POCKET
    frame = scores()
    mine = frame[(frame["model"] == model) & (frame["data"] != views.POCKET)]
    own = mine["task"].map(views.own_task).astype(bool)
    mine = mine[mine["task"] == task] if views.own_task(task) else mine[~own]
    return str(mine.sort_values("created", kind="stable")["data"].iloc[-1]) if len(mine) else views.OFFICIAL


def scorers(run: str) -> pd.DataFrame:
    """All scorers' rows of one run."""
    frame = scores()
    return frame[frame["run"] == run]


def cell(frame: pd.DataFrame, recipe: str, task: str) -> pd.Series | None:
    """One recipe's row of one task in a `current` frame, or in some of its rows."""
    if frame.empty:
        return None
    shown = tuple(str(frame[name].iat[0]) for name in ("model", "protocol", "data"))
    known, key = _cells(place(), stamp(), shown), (recipe, task, len(frame))
    if key not in known:
        rows = frame[(frame["recipe"] == recipe) & (frame["task"] == task)]
        known[key] = None if rows.empty else rows.iloc[0]
    return known[key]


@st.cache_resource(show_spinner=False, max_entries=16)
def _cells(root: str, stamp: str, shown: tuple[str, ...]) -> dict[tuple[str, str, int], pd.Series | None]:
    """Rows that were looked up: one row of a frame of 68 columns costs two milliseconds, and a page wants fifty."""
    return {}
