"""The finding in a sentence, and LLM-KICK's three claims put to the loaded data.

Nothing here is a slogan: each claim is a rule over measured cells, says how many cells it had, and says "does
not hold" as readily as "holds". A cell is one recipe on one task, and votes by its non-inferiority verdict
(at least 95 % of the dense score is surely kept, surely not, or the interval cannot tell).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from kick_core import tasks
from kick_core.stats import MARGIN
from kick_core.views.scores import DENSE, NOT_MEASURED

Word = Literal["holds", "does not hold", "cannot tell", "not measured"]

SIZE = 16
"""Bits of a dense weight, for "equal nominal size"."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of the paper, what the data say, why in words, and the rows that say it.

    `evidence` has the columns of `scores` and `vote`: "for", "against" or "open".
    """

    text: str
    verdict: Word
    because: tuple[str, ...]
    rule: str
    evidence: pd.DataFrame


def percent(share: float, digits: int = 0) -> str:
    """A share for people. What is not known is a dash."""
    if math.isnan(share):
        return "–"
    return "∞" if math.isinf(share) else f"{100 * share:.{digits}f} %"


def headline(frame: pd.DataFrame, recipe: str) -> str:
    """The landing page's sentence for one recipe of a `current` frame, from the first task of fluency and of knowledge.

    "but" is only said when the intervals of the two shares do not touch.
    """
    rows = {row["task"]: row for row in frame[frame["recipe"] == recipe].to_dict("records")}
    if not rows:
        return f"{recipe} has not been measured."
    first = next(iter(rows.values()))
    if first["kind"] == "dense":
        return "Dense: nothing is compressed, so everything is kept."
    name = _subject(first)
    measured = {task: row for task, row in rows.items() if not math.isnan(row["share_kept"])}
    fluent, known = (
        next((task for task in tasks.names(measures=role) if task in measured), "") for role in ("fluency", "knowledge")
    )
    if not known and not fluent:
        return f"{name}: neither perplexity nor knowledge has been measured."
    if not known:
        return f"{name} keeps {_kept(measured[fluent])} of {_noun(fluent)}; knowledge is not measured."
    if not fluent:
        return f"{name} keeps {_kept(measured[known])} of {_noun(known)}; perplexity is not measured."
    text, facts = measured[fluent], measured[known]
    apart = facts["share_high"] < text["share_low"] or facts["share_low"] > text["share_high"]
    joined = "but" if apart else "and"
    return f"{name} keeps {_kept(text)} of {_noun(fluent)} {joined} {_kept(facts)} of {_noun(known)}."


def _kept(row: dict[Any, Any]) -> str:
    return percent(row["share_kept"])


def _subject(row: dict[Any, Any]) -> str:
    match row["kind"]:
        case "ratio":
            return f"At {row['target_label']} sparsity {row['method']}"
        case "pattern":
            return f"At {row['target_label']} {row['method']}"
        case "joint":
            return str(row["label"])
        case _:
            return f"At {row['target_label']}s {row['method']}"


def _noun(task: str) -> str:
    """What a task finds kept or lost, in a sentence."""
    found = tasks.record(task)
    return found.noun or found.title


# --- claims ------------------------------------------------------------------------------------------------


def claims(frame: pd.DataFrame) -> list[Claim]:
    """The three claims of LLM-KICK over a `current` frame; the paper recovers nothing, so recovered recipes are out."""
    frame = frame[frame["recovered"] == ""]
    return [_knowledge_goes_first(frame), _bits_beat_sparsity(frame), _context_survives(frame)]


def _knowledge_goes_first(frame: pd.DataFrame) -> Claim:
    knowledge = tasks.names(measures="knowledge")
    facts = frame[frame["task"].isin(knowledge)]
    early = facts[(facts["kind"] == "ratio") & facts["sparsity"].between(0.25, 0.30)]
    patterns = facts[facts["kind"] == "pattern"]
    early, patterns = (_vote(cells, "not matching", "matching") for cells in (early, patterns))
    parts = [
        (_weigh(early), _count(early, "pruned 25 to 30 %", "lose knowledge", "keep it")),
        (_weigh(patterns), _count(patterns, "N:M", "lose knowledge", "keep it")),
    ]
    return Claim(
        "Pruning loses knowledge already at 25 to 30 % sparsity, and N:M patterns fail on it.",
        _both([word for word, _ in parts]),
        tuple(f"{because} → {word}." for word, because in parts),
        f"Cells: every pruned recipe on {', '.join(knowledge)}. A cell loses when its interval lies below "
        f"{percent(1 - MARGIN)} of dense. A part holds when more than half of its cells lose, and does not hold "
        f"when more than half surely keep; the claim needs both parts.",
        pd.concat([early, patterns]),
    )


def _bits_beat_sparsity(frame: pd.DataFrame) -> Claim:
    answers = frame[~frame["task"].isin(tasks.names(measures="fluency", unlisted=True))]
    pruned = answers[answers["kind"].isin(("ratio", "pattern")) & answers["sparsity"].between(0.5, 0.75)]
    grids = answers[answers["kind"] == "bits"]
    rows = [row for cell in pruned.to_dict("records") if (row := _duel(cell, grids))]
    cells = pd.DataFrame(rows) if rows else pruned.iloc[:0].assign(vote="")
    return Claim(
        "Quantization does better than pruning.",
        _weigh(cells),
        (_count(cells, "pruned recipes against the quantized one of equal size", "do worse", "do better") + ".",),
        f"Cells: every recipe pruned 50 to 75 % on every task but perplexity, against the widest quantized recipe "
        f"that takes no more bits than its remaining {SIZE}-bit weights (positions not counted). A cell "
        f"votes when the two shares differ by more than their intervals, taken as independent, allow.",
        cells,
    )


def _duel(cell: dict[Any, Any], grids: pd.DataFrame) -> dict[Any, Any] | None:
    fits = grids[(grids["task"] == cell["task"]) & (grids["bits"] <= SIZE * (1 - cell["sparsity"]) + 1e-9)]
    fits = fits[fits["verdict"] != NOT_MEASURED]
    if fits.empty or cell["verdict"] == NOT_MEASURED:
        return None
    widest = fits[fits["bits"] == fits["bits"].max()].sort_values("share_kept").to_dict("records")[-1]
    gap = widest["share_kept"] - cell["share_kept"]
    noise = math.hypot(*((row["share_high"] - row["share_low"]) / 2 for row in (cell, widest)))
    vote = "open" if math.isnan(noise) or abs(gap) <= noise else ("for" if gap > 0 else "against")
    return {**cell, "vote": vote, "rival": widest["label"], "rival_kept": widest["share_kept"]}


def _context_survives(frame: pd.DataFrame) -> Claim:
    in_context = tasks.names(measures="in_context")
    half = frame[(frame["kind"] == "ratio") & (frame["sparsity"] >= 0.5) & frame["task"].isin(in_context)]
    first = half.groupby("method")["sparsity"].transform("min") if len(half) else half["sparsity"]
    cells = _vote(half[half["sparsity"] == first], "matching", "not matching")
    at = ", ".join(sorted(cells["target_label"].unique())) or "50 %"
    return Claim(
        "Models pruned by half or more still retrieve from their context and summarize.",
        _weigh(cells),
        (_count(cells, f"pruned {at}", "still match dense", "do not") + ".",),
        f"Cells: per method its first sparsity from 50 % on, on {', '.join(in_context)}. A cell matches when its "
        f"interval lies above {percent(1 - MARGIN)} of dense. Holds when more than half match.",
        cells,
    )


def _vote(cells: pd.DataFrame, yes: str, no: str) -> pd.DataFrame:
    cells = cells[cells["verdict"].ne(NOT_MEASURED) & cells["verdict"].ne(DENSE)]
    return cells.assign(vote=cells["verdict"].map({yes: "for", no: "against"}).fillna("open").astype(str))


def _weigh(cells: pd.DataFrame) -> Word:
    if cells.empty:
        return "not measured"
    shares = cells["vote"].value_counts(normalize=True)
    if shares.get("for", 0) > 0.5:
        return "holds"
    return "does not hold" if shares.get("against", 0) > 0.5 else "cannot tell"


def _count(cells: pd.DataFrame, who: str, yes: str, no: str) -> str:
    if cells.empty:
        return f"{who[0].upper()}{who[1:]}: no cell"
    votes = cells["vote"].value_counts()
    said = [f"{votes.get('for', 0)} {yes}", f"{votes.get('against', 0)} {no}", f"{votes.get('open', 0)} cannot tell"]
    return f"{who[0].upper()}{who[1:]}: of {len(cells)} cells {', '.join(said)}"


def _both(words: Sequence[Word]) -> Word:
    """Both parts are needed: the worst word of what is measured."""
    worst: tuple[Word, ...] = ("does not hold", "cannot tell", "holds")
    return next((word for word in worst if word in words), "not measured")
