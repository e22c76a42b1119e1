"""A, B, C: dense, a pruned and a quantized recipe of about the same bytes, answer beside answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer import address, answers, data
from kick_core.explorer.frame import heading, note
from kick_core.explorer.safe import Safe, many, show, tag
from kick_core.explorer.stepper import each, near, stepper
from kick_core.views.example_text import question, said


def section(rows: pd.DataFrame) -> None:
    """The examples that dense has right and on which the two others differ, one at a time.

    Args:
        rows: one task's rows of a `current` frame.
    """
    pair = _pair(rows)
    if pair is None or rows["task"].iloc[0] in views.task_names(measures="fluency", unlisted=True):
        return
    pruned, quantized = pair
    sizes = sorted((float(pruned["bits_per_weight"]), float(quantized["bits_per_weight"])))
    heading(
        "The same bytes, three answers" if sizes[1] <= 1.1 * sizes[0] else "Three answers, at the closest sizes",
        f"{pruned['label']} takes {pruned['bits_per_weight']:.2f} bits per weight, {quantized['label']} "
        f"{quantized['bits_per_weight']:.2f}: no two measured recipes of the two kinds are closer.",
    )

    @st.fragment
    def examples() -> None:
        ids = data.apart(pruned, str(quantized["run"]))
        if not ids:
            note("Both answer alike wherever dense is right.")
            return
        opened = address.value("three")
        at = ids.index(opened) if opened in ids else 0
        stepper("stepper-three", ids, at, lambda place: address.say("three", ids[place]))
        address.say("three", ids[at])
        runs = [str(pruned["dense_run"]), str(pruned["run"]), str(quantized["run"])]
        _answers({one: data.detail(pruned, one, runs) for one in near(ids, at)}, ids[at], runs)
        address.write_fragment("address-three")

    examples()


def _pair(rows: pd.DataFrame) -> tuple[pd.Series, pd.Series] | None:
    """The pruned and the quantized recipe whose sizes are closest.

    Of several such pairs the smallest, of those the one without recovery, then the one that keeps most.
    """
    known = rows[rows["dense_run"] != ""].sort_values("bits_per_weight")
    pruned, grids = known[known["kind"].isin(("ratio", "pattern"))], known[known["kind"] == "bits"]
    pairs = [
        ((abs(one["bits_per_weight"] - other["bits_per_weight"]), one["bits_per_weight"], *_rank(one), *_rank(other)),
         one, other)
        for _, one in pruned.iterrows() for _, other in grids.iterrows()
    ]  # fmt: skip
    best = min(pairs, key=lambda pair: pair[0], default=None)
    return (best[1], best[2]) if best else None


def _rank(row: pd.Series) -> tuple[bool, float]:
    return bool(row["recovered"]), -float(row["score"])


def _answers(details: Mapping[str, views.Detail], here: str, runs: Sequence[str]) -> None:
    """The question, then a column for each of the runs, dense first."""
    show(each({name: _asked(detail) for name, detail in details.items()}, here))
    reading = answers.reading(answers.READINGS[:3])
    for place, run in zip(st.columns(3), runs, strict=True):
        with place:
            show(each({name: _column(detail, run, runs[0], reading) for name, detail in details.items()}, here))


def _asked(detail: views.Detail) -> Safe:
    return many([answers.box(question(detail)), answers.golden(detail)])


def _column(detail: views.Detail, run: str, dense_run: str, reading: str) -> Safe:
    answer, dense = detail.of(run), detail.of(dense_run)
    if answer is None or dense is None:
        return tag("p", "Not evaluated on this example.", cls="quiet")
    alone = answer is dense and reading == answers.SHARED  # with itself it shares every word
    how = answers.READINGS[0] if alone else reading
    marked = answers.marked(how, said(detail, dense), said(detail, answer))[1]
    note = tag("p", answers.repetition_note(answer), cls="quiet")
    return many([answers.head(answer.label, answer), answers.box(marked), note])
