"""The controls that pages share.

Their keys are the names in the URL: model, protocol, data, method, s, task, kind, a, b.

Where an option's label is its value, `bind="query-params"` keeps the URL: it writes a moved widget at once, reads
it back on a deep link and refuses what is no option; what it lets through is put right here (s between two
steps). Where labels are words for people, `linked` does the same by plain values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from math import gcd

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer import data
from kick_core.explorer.safe import unmarked


def model(frame_models: list[str]) -> str:
    """Which model; asked only when there are several."""
    if len(frame_models) == 1:
        return frame_models[0]
    return st.selectbox("Model", frame_models, key="model", bind="query-params", persist_state="session")


PROTOCOLS = ("strict", "paper")


def protocol(model: str) -> str:
    """Strict or as the paper did it. What nothing was measured under can be chosen: a gap is an answer too."""
    known = list(dict.fromkeys([*PROTOCOLS, *data.protocols(model)]))
    start = data.protocols(model)[0]
    return str(linked("protocol", known, start, lambda key, names: st.segmented_control(
        "Protocol", names, required=True, format_func=unmarked, key=key, persist_state="session",
        help="strict: a fixed rule judges every answer. paper: prompts and scoring as in LLM-KICK's own code.",
    )))  # fmt: skip


def kind_of_data(model: str) -> str:
    """The pocket world's data or the benchmarks' own; asked only of a model that was asked on both."""
    known = data.kinds(model)
    if len(known) < 2:
        return data.kind(model)
    return str(linked("data", known, known[0], lambda key, names: st.segmented_control(
        "Data", names, required=True, format_func=unmarked, key=key, persist_state="session",
        help="pocket: the pocket models' own world. official: the benchmarks that LLM-KICK is made of.",
    )))  # fmt: skip


def pruners(frame: pd.DataFrame) -> list[str]:
    """Methods measured at plain sparsities, those with most first; recovered ones stand beside their method."""
    plain = frame[(frame["kind"] == "ratio") & (frame["recovered"] == "")]
    return [str(name) for name in plain["method"].value_counts().index]


def method(names: list[str]) -> str:
    chosen = st.segmented_control(
        "Method", names, default=names[0], required=True, format_func=unmarked, key="method", bind="query-params",
        persist_state="session", wrap=True,
    )  # fmt: skip
    return chosen or names[0]


def percents(frame: pd.DataFrame, method: str) -> list[int]:
    """The sparsities that a method was measured at, in whole percent, dense first."""
    mine = frame[(frame["method"] == method) & (frame["kind"] == "ratio")]
    return sorted({0, *(round(100 * ratio) for ratio in mine["sparsity"])})


def sparsity(steps: list[int]) -> int:
    """The slider. Between two measured sparsities the nearer one counts: numbers are never interpolated."""
    stride = reduce(gcd, steps) or 1
    start = min(steps, key=lambda step: abs(step - 50))
    value = st.slider(
        "Sparsity", 0, max(steps), value=start, step=stride, format="%d%%", key="s", bind="query-params",
        persist_state="session",
    )  # fmt: skip
    return min(steps, key=lambda step: abs(step - value))


def recipe_at(frame: pd.DataFrame, method: str, percent: int) -> str:
    """The recipe's text at a measured sparsity."""
    if percent == 0:
        return "dense"
    mine = frame[(frame["method"] == method) & (frame["kind"] == "ratio")]
    return str(mine.loc[(100 * mine["sparsity"]).round() == percent, "recipe"].iloc[0])


def task(frame: pd.DataFrame) -> str:
    """Which task, in the order in which people read them; the knowledge tasks come first to mind."""
    titles = views.task_titles(frame["task"].unique())
    start = next((name for name in views.task_names(measures="knowledge") if name in titles), next(iter(titles)))
    return str(linked("task", list(titles), start, lambda key, names: st.selectbox(
        "Task", names, format_func=lambda name: titles[name], key=key, persist_state="session"
    )))  # fmt: skip


def recipe(frame: pd.DataFrame, label: str, key: str, start: str) -> str:
    """Which recipe, mild to harsh within a method; in the URL by its text form."""
    names = dict(zip(frame["recipe"], frame["label"], strict=True))
    return str(linked(key, list(names), start if start in names else next(iter(names)), lambda key, texts: st.selectbox(
        label, texts, format_func=lambda text: names[text], key=key, persist_state="session"
    )))  # fmt: skip


def linked(key: str, options: Sequence[str], start: str, widget: Callable[[str, Sequence[str]], object]) -> object:
    """A widget whose value is in the URL under its key, by its plain value.

    Streamlit's own binding writes the *label* of an option into the URL and accepts nothing else, so a widget
    that shows "wanda 50 %" could not be linked to as wanda@0.5. A value in the URL that this did not write
    came with a link and wins; else the widget's own state does.
    """
    asked, seen = st.query_params.get(key), st.session_state.get(f"url:{key}")
    value = asked if asked in options and asked != seen else st.session_state.get(key, start)
    st.session_state[key] = value if value in options else start
    chosen = widget(key, options)
    st.query_params[key] = st.session_state[f"url:{key}"] = str(chosen)
    return chosen


def start_recipe(frame: pd.DataFrame) -> str:
    """The recipe that Evaluate and Compare open with: what Findings shows, else the one nearest to half pruned."""
    names = pruners(frame)
    if not names:
        return str(frame["recipe"].iloc[-1])
    chosen = st.session_state.get("method")
    name = chosen if chosen in names else names[0]
    steps = [step for step in percents(frame, name) if step]
    wanted = st.session_state.get("s") or 50
    return recipe_at(frame, name, min(steps, key=lambda step: abs(step - wanted)))
