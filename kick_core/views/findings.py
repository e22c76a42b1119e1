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

from kick_core.stats import MARGIN
from kick_core.views.scores import DENSE, NOT_MEASURED

Word = Literal["holds", "does not hold", "cannot tell", "not measured"]

KNOWLEDGE = ("factoid_qa", "multiple_choice", "retrieval_qa_closed")
"""Tasks whose answers must come out of the weights."""

IN_CONTEXT = ("retrieval_qa_open", "summarization")
"""Tasks whose answers stand in the prompt."""

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
    """The landing page's sentence for one recipe of a `current` frame, from its perplexity and factoid rows.

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
    known = next((task for task in KNOWLEDGE if task in measured), None)
    if known is None and "perplexity" not in measured:
        return f"{name}: neither perplexity nor knowledge has been measured."
    if known is None:
        return f"{name} keeps {_kept(measured['perplexity'])} of perplexity; knowledge is not measured."
    if "perplexity" not in measured:
        return f"{name} keeps {_kept(measured[known])} of {_noun(known)}; perplexity is not measured."
    fluent, facts = measured["perplexity"], measured[known]
    apart = facts["share_high"] < fluent["share_low"] or facts["share_low"] > fluent["share_high"]
    return f"{name} keeps {_kept(fluent)} of perplexity {'but' if apart else 'and'} {_kept(facts)} of {_noun(known)}."


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
    return {"factoid_qa": "factoid knowledge", "multiple_choice": "multiple-choice knowledge"}.get(
        task, "closed-book knowledge"
    )


# --- claims ------------------------------------------------------------------------------------------------


def claims(frame: pd.DataFrame) -> list[Claim]:
    """The three claims of LLM-KICK over a `current` frame; the paper recovers nothing, so recovered recipes are out."""
    frame = frame[frame["recovered"] == ""]
    return [_knowledge_goes_first(frame), _bits_beat_sparsity(frame), _context_survives(frame)]


def _knowledge_goes_first(frame: pd.DataFrame) -> Claim:
    facts = frame[frame["task"].isin(KNOWLEDGE)]
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
        f"Cells: every pruned recipe on {', '.join(KNOWLEDGE)}. A cell loses when its interval lies below "
        f"{percent(1 - MARGIN)} of dense. A part holds when more than half of its cells lose, and does not hold "
        f"when more than half surely keep; the claim needs both parts.",
        pd.concat([early, patterns]),
    )


def _bits_beat_sparsity(frame: pd.DataFrame) -> Claim:
    tasks = frame[~frame["task"].isin(("perplexity", "word_perplexity"))]
    pruned = tasks[tasks["kind"].isin(("ratio", "pattern")) & tasks["sparsity"].between(0.5, 0.75)]
    grids = tasks[tasks["kind"] == "bits"]
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
    half = frame[(frame["kind"] == "ratio") & (frame["sparsity"] >= 0.5) & frame["task"].isin(IN_CONTEXT)]
    first = half.groupby("method")["sparsity"].transform("min") if len(half) else half["sparsity"]
    cells = _vote(half[half["sparsity"] == first], "matching", "not matching")
    at = ", ".join(sorted(cells["target_label"].unique())) or "50 %"
    return Claim(
        "Models pruned by half or more still retrieve from their context and summarize.",
        _weigh(cells),
        (_count(cells, f"pruned {at}", "still match dense", "do not") + ".",),
        f"Cells: per method its first sparsity from 50 % on, on {', '.join(IN_CONTEXT)}. A cell matches when its "
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
