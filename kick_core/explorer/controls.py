"""The controls that pages share; a key is a name in the address: model, protocol, data, method, s, task, a, b."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.errors import BadRequest
from kick_core.explorer import address, data
from kick_core.explorer.safe import unmarked


def model(names: list[str]) -> str:
    """Which model; a choice only when there are several."""
    chosen = st.session_state.get("model")
    if chosen and not address.brings("model") and chosen not in names:  # as on Compress
        if alike := [name for name in names if views.asked_name(name) == chosen]:  # one of several of this name
            st.session_state["model"] = alike[-1]
        else:
            address.unknown(f"{chosen} has no results in this cache yet: this is {names[0]}.")
    why = "has no results in this cache yet"
    if len(names) == 1:
        return address.choice("model", names, names[0], lambda key: st.session_state[key], why=why)
    return address.choice("model", names, names[0], lambda key: st.selectbox(
        "Model", names, key=key, persist_state="session"
    ), why=why)  # fmt: skip


PROTOCOLS = ("strict", "paper")


def protocol(model: str) -> str:
    """Strict or as the paper did it. What nothing was measured under can be chosen: a gap is an answer too."""
    known = list(dict.fromkeys([*PROTOCOLS, *data.protocols(model)]))
    return address.choice("protocol", known, data.protocols(model)[0], lambda key: st.segmented_control(
        "Protocol", known, required=True, format_func=unmarked, key=key, persist_state="session",
        help="strict: a fixed rule judges every answer. paper: prompts and scoring as in LLM-KICK's own code.",
    ))  # fmt: skip


def kind_of_data(model: str) -> str:
    """The pocket world's data or the benchmarks' own; a choice only for a model that was evaluated on both."""
    known = data.kinds(model)
    if len(known) < 2:
        return data.kind(model)
    return address.choice("data", known, known[0], lambda key: st.segmented_control(
        "Data", known, required=True, format_func=unmarked, key=key, persist_state="session",
        help="pocket: the pocket models' own world. official: published benchmarks, and facts about the real world.",
    ))  # fmt: skip


def pruners(frame: pd.DataFrame) -> list[str]:
    """Methods measured at plain sparsities, in one fixed order; recovered ones stand beside their method."""
    plain = frame.loc[(frame["kind"] == "ratio") & (frame["recovered"] == ""), "method"]
    order = [card.name for card in views.methods_known()]
    return sorted(map(str, plain.unique()), key=lambda name: (_first(order, name), name))


def _first(order: list[str], name: str) -> int:
    """The place of a method, or of the method that one with options begins with."""
    return next((at for at, one in enumerate(order) if name.partition(" ")[0] == one), len(order))


def method(names: list[str], start: str) -> str:
    return address.choice("method", names, start, lambda key: st.segmented_control(
        "Method", names, required=True, format_func=unmarked, key=key, persist_state="session", wrap=True
    ))  # fmt: skip


def percents(frame: pd.DataFrame, method: str) -> list[int]:
    """The sparsities that a method was measured at, in whole percent, dense first."""
    mine = frame[(frame["method"] == method) & (frame["kind"] == "ratio")]
    return sorted({0, *(round(100 * ratio) for ratio in mine["sparsity"])})


def sparsity(steps: list[int], start: int, method: str) -> int:
    """The slider. It stands on measured sparsities only: numbers are never interpolated."""
    here = st.session_state.get("s", start)
    if here not in steps:
        st.session_state["s"] = min(steps, key=lambda step: abs(step - here))
    return address.choice("s", steps, start, lambda key: st.select_slider(
        "Sparsity", steps, format_func=lambda step: f"{step} %", key=key, persist_state="session"
    ), noun="sparsity", why=f"{method} was not measured at (in percent)")  # fmt: skip


def recipe_at(frame: pd.DataFrame, method: str, percent: int) -> str:
    """The recipe's text at a measured sparsity."""
    if percent == 0:
        return "dense"
    mine = frame[(frame["method"] == method) & (frame["kind"] == "ratio")]
    return str(mine.loc[(100 * mine["sparsity"]).round() == percent, "recipe"].iloc[0])


def recipes_at(frame: pd.DataFrame, method: str, percents: Sequence[int]) -> dict[int, str]:
    """The recipe's text at every measured sparsity, as `recipe_at`."""
    mine = frame[(frame["method"] == method) & (frame["kind"] == "ratio")]
    found = dict(zip((100 * mine["sparsity"]).round().astype(int)[::-1], mine["recipe"][::-1], strict=True))
    return {percent: str(found[percent]) if percent else "dense" for percent in percents}


def task(frame: pd.DataFrame) -> str:
    """Which task, in the order in which people read them; the knowledge tasks come first to mind."""
    titles = views.task_titles(frame["task"].unique())
    start = next((name for name in views.task_names(measures="knowledge") if name in titles), next(iter(titles)))
    return address.choice("task", list(titles), start, lambda key: st.selectbox(
        "Task", list(titles), format_func=lambda name: titles[name], key=key, persist_state="session"
    ))  # fmt: skip


def recipe(frame: pd.DataFrame, label: str, key: str, start: str, *, measured: bool = False) -> str:
    """Which recipe, mild to harsh within a method; in the address by its text form.

    Args:
        frame: what can be chosen, as `recipe` and `label`.
        label: the control's name, a literal of this program.
        key: its name in the address.
        start: the recipe that it opens with.
        measured: whether only those of the frame can be chosen. Else any recipe that the address names can: where
            nothing was measured the page says so and offers to measure it.
    """
    names = dict(zip(frame["recipe"], frame["label"], strict=True))
    for text in (address.brings(key), st.session_state.get(key)):
        if text and not measured and text not in names and (label_ := _label(text)):
            names[text] = label_
    why = "is not measured here" if measured else "is no recipe of this program and has not been measured"
    first = start if start in names else next(iter(names))
    return address.choice(key, list(names), first, lambda key: st.selectbox(
        label, list(names), format_func=lambda text: names[text], key=key, persist_state="session"
    ), noun="recipe", why=why)  # fmt: skip


def _label(text: str) -> str:
    """A recipe in words; "" for what is none."""
    try:
        return views.label_of(text)
    except BadRequest:
        return ""


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
