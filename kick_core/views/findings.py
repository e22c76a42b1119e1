"""The finding in a sentence, and where the pages open: where perplexity and knowledge are furthest apart."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any, Literal

import pandas as pd

from kick_core import tasks
from kick_core.views.paired import AT_CHANCE, AT_FLOOR

Row = Mapping[Any, Any]

OVERLOOKED = 2 / 3
"""Share of dense's perplexity kept above which its rise may be overlooked."""


def percent(share: float, digits: int = 0) -> str:
    """A share for people. What is not known is a dash."""
    if math.isnan(share):
        return "–"
    return "∞" if math.isinf(share) else f"{round(100 * share, digits) + 0.0:.{digits}f} %"  # never "-0 %"


def headline(frame: pd.DataFrame, recipe: str) -> str:
    """The landing page's sentence for one recipe of a `current` frame: raw numbers, in plain words.

    It speaks of the first task that measures fluency and the first that measures knowledge. "but" is only said when
    the intervals of the two shares kept do not touch, and of a loss only beside a perplexity that hardly tells.
    """
    rows = {row["task"]: row for row in frame[frame["recipe"] == recipe].to_dict("records")}
    if not rows:
        return f"{recipe} has not been measured."
    first = next(iter(rows.values()))
    if first["kind"] == "dense":
        return "Dense: nothing is compressed, so everything is kept."
    name = _subject(first)
    measured = {task: row for task, row in rows.items() if not math.isnan(row["share_kept"])}
    text, facts = (measured.get(name) for name in (_first(measured, "fluency"), _first(measured, "knowledge")))
    guessed = rows.get(_first(rows, "knowledge"), {}).get("verdict") == AT_FLOOR
    missing = f"of knowledge there is {AT_CHANCE}" if guessed else "knowledge is not measured"
    if text is None and facts is None:
        return f"{name}: {missing}." if guessed else f"{name}: neither perplexity nor knowledge has been measured."
    if facts is None:
        return f"{name}: {_fluency(text or {})}; {missing}."
    if text is None:
        return f"{name}: {_knowledge(facts)}; perplexity is not measured."
    overlooked = text["share_kept"] > OVERLOOKED
    apart = (overlooked and facts["share_high"] < text["share_low"]) or facts["share_low"] > text["share_high"]
    return f"{name}: {_fluency(text)}{', but' if apart else ' and'} {_knowledge(facts)}."


def widest_gap(frame: pd.DataFrame) -> str:
    """The recipe under which perplexity keeps most more than knowledge does: what the pages open with.

    Of the plain sparsities of a `current` frame; "" where none has both. Where perplexity has itself risen by half,
    nobody would overlook the damage, so such a recipe is taken only where there is no milder one.
    """
    plain = frame[(frame["kind"] == "ratio") & (frame["recovered"] == "") & frame["share_kept"].notna()]
    measured = set(plain["task"])
    kept = [plain[plain["task"] == task].set_index("recipe")["share_kept"] for task in leading(measured)]
    if len(kept) < 2:
        return ""
    gap = (kept[0] - kept[1]).dropna()
    overlooked = gap[kept[0].reindex(gap.index) > OVERLOOKED]
    return str((overlooked if len(overlooked) else gap).idxmax()) if len(gap) else ""


def leading(measured: Container[str]) -> tuple[str, ...]:
    """The first task that measures fluency and the first that measures knowledge, of those measured."""
    names = (_first(measured, "fluency"), _first(measured, "knowledge"))
    return tuple(name for name in names if name)


def _first(measured: Container[str], role: Literal["fluency", "knowledge"]) -> str:
    return next((task for task in tasks.names(measures=role) if task in measured), "")


def _subject(row: Row) -> str:
    """What was done to the weights."""
    method, target = row["method"], row["target_label"]
    match row["kind"]:
        case "ratio":
            part = {"25 %": "A quarter", "50 %": "Half", "75 %": "Three quarters"}.get(target, target)
            return f"{part} of the weights pruned by {method}"
        case "pattern":
            keep, _, every = target.partition(":")
            return f"{keep} of every {every} weights kept by {method}"
        case "bits":
            return f"Weights in {target}s by {method}"
        case _:
            return str(row["label"])


def _fluency(row: Row) -> str:
    """What happened to perplexity: how far it moved, and the two numbers."""
    ratio = 1 / row["share_kept"] if row["share_kept"] else math.inf
    before, after = (f"{value:.2f}" if value < 100 else f"{value:,.0f}" for value in (row["dense_score"], row["score"]))
    if ratio < 1.02:
        moved = "does not move"
    elif ratio < 1.2:
        moved = "barely moves"
    else:
        moved = f"rises by {100 * (ratio - 1):.0f} %" if ratio < 2 else f"rises {ratio:,.0f}-fold"
    return f"perplexity {moved} ({before} → {after})"


def _knowledge(row: Row) -> str:
    """How many of ten right answers are gone, and the two scores."""
    lost = round(10 * (1 - row["share_kept"]))
    much = "next to nothing" if lost <= 0 else "nearly everything" if lost >= 10 else f"{lost} of 10 answers"
    return f"it forgets {much} ({row['title']} {percent(row['dense_score'])} → {percent(row['score'])})"
