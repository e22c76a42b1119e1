"""Can this be measured? What dense was asked word for word, what it answered, what was read in it, and a verdict."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from kick_core import jobs, views
from kick_core.explorer import address, data, gaps, job_cards
from kick_core.explorer.frame import heading, note, store
from kick_core.explorer.safe import Safe, many, show, tag
from kick_core.views import CheckedAnswer, TaskCheck


def panel(model: str, frame: pd.DataFrame, task: str) -> None:
    """The verdict on every task that dense was asked; the prompts of the chosen one."""
    opened = address.fold("check")
    with st.expander("Can this model be measured?", key="check", on_change="rerun"):
        if not opened:
            return
        found = _checks(model, tuple(frame.loc[frame["kind"] == "dense", "run"]))
        show(*(_verdict(check) for check in found))
        _offer(model, frame, [check.task for check in found])
        for check in found:
            if check.task == task:
                _prompts(check)


def _named(model: str, runs: tuple[str, ...]) -> data.Words:
    return model, runs


@data.remembered(16, _named)
def _checks(model: str, runs: Sequence[str]) -> list[TaskCheck]:
    return views.checks(store(), runs)


def _verdict(check: TaskCheck) -> Safe:
    tone, word = ("good", "can be measured") if check.measurable else ("bad", "cannot be measured")
    why = f"because {check.because} · {check.size}"
    return tag("div", tag("b", check.title), tag("span", word, cls=f"chip {tone}"), tag("span", why, cls="quiet"),
               cls="answer")  # fmt: skip


def _offer(model: str, frame: pd.DataFrame, there: Sequence[str]) -> None:
    """A check of the tasks that dense was not asked yet."""
    name, kind = views.asked_name(model), data.named(model)
    missing = [one for one in jobs.check(name, data=kind).tasks if one not in there]
    if missing:
        job = jobs.check(name, missing, data=kind, protocol=data.protocol(model), dtype=str(frame["dtype"].iloc[0]))
        job_cards.button("Check the other tasks", job, key="check-more", cost=f"{len(missing)} tasks")
    gaps.command(f"kick check {name}" + ("" if kind == "auto" else f" --data {kind}"), model=model)


def _prompts(check: TaskCheck) -> None:
    heading("As they were sent", f"{check.form}: {check.reason}" if check.reason else check.form)
    for answer in check.answers:
        show(*_asked(answer))
    if check.answers and not any(answer.sent for answer in check.answers):
        note("This run is of an earlier version, which did not keep its prompts.")


def _asked(answer: CheckedAnswer) -> list[Safe]:
    shown = [tag("div", tag("span", answer.question), cls="text long")]
    if answer.sent:
        pieces = (tag("mark" if special else "span", text) for text, special in answer.sent.pieces)
        options = (tag("p", f"{len(tokens)} tokens: ", *(tag("code", one) for one in tokens), cls="quiet")
                   for tokens in answer.sent.options)  # fmt: skip
        shown = [tag("div", *pieces, cls="text long"), tag("p", f"{answer.sent.tokens:,} tokens", cls="quiet"),
                 many(options)]  # fmt: skip
    if answer.right is None:
        return shown
    read = [" · read as ", tag("b", answer.extracted)] if answer.extracted not in ("", answer.raw) else []
    right = tag("span", "right" if answer.right else "not right", cls=f"chip {'good' if answer.right else 'bad'}")
    raw, gold = tag("b", answer.raw or "(empty answer)"), tag("b", answer.gold)
    return [*shown, tag("p", "Answer: ", raw, *read, " · gold ", gold, " ", right)]
