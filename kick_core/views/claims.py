"""LLM-KICK's three claims put to the loaded data, part by part.

Nothing here is a slogan: each part of a claim is a rule over measured cells, says how many cells it had, and says "does
not hold" as readily as "holds". A cell is one recipe on one task, and votes by its non-inferiority verdict
(at least 95 % of the dense score is surely kept, surely not, or the interval cannot tell). Where dense itself is at
chance a cell has nothing to lose, and no vote.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from kick_core import tasks
from kick_core.stats import MARGIN
from kick_core.views.findings import percent
from kick_core.views.paired import SILENT
from kick_core.views.scores import DENSE

Word = Literal["holds", "holds in part", "does not hold", "cannot tell", "not measured"]

SIZE = 16
"""Bits of a dense weight, for "equal nominal size"."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a claim: what it says, what the data say of it, and how the cells voted, in words."""

    text: str
    verdict: Word
    because: str


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim of the paper, judged part by part, with the rows that say it.

    `evidence` has the columns of `scores` and `vote`: "for", "against" or "open".
    """

    text: str
    parts: tuple[Part, ...]
    rule: str
    evidence: pd.DataFrame

    @property
    def verdict(self) -> Word:
        """The parts' common verdict; where they differ the claim holds in part, or its worst part counts."""
        words = {part.verdict for part in self.parts} - {"not measured"}
        if len(words) > 1 and "holds" in words:
            return "holds in part"
        worst: tuple[Word, ...] = ("does not hold", "cannot tell", "holds")
        return next((word for word in worst if word in words), "not measured")

    @property
    def because(self) -> tuple[str, ...]:
        """Every part in a line: its votes and its verdict."""
        return tuple(f"{part.text}: {part.because} → {part.verdict}." for part in self.parts)


def claims(frame: pd.DataFrame) -> list[Claim]:
    """The three claims of LLM-KICK over a `current` frame; the paper recovers nothing, so recovered recipes are out."""
    frame = frame[frame["recovered"] == ""]
    return [_knowledge_goes_first(frame), _bits_beat_sparsity(frame), _context_survives(frame)]


def _part(text: str, cells: pd.DataFrame, yes: str, no: str) -> Part:
    return Part(text, _weigh(cells), _count(cells, yes, no))


def _knowledge_goes_first(frame: pd.DataFrame) -> Claim:
    knowledge = tasks.names(measures="knowledge")
    facts = frame[frame["task"].isin(knowledge)]
    early = facts[(facts["kind"] == "ratio") & facts["sparsity"].between(0.25, 0.30)]
    patterns = facts[facts["kind"] == "pattern"]
    early, patterns = (_vote(cells, "not matching", "matching") for cells in (early, patterns))
    return Claim(
        "Pruning loses knowledge already at 25 to 30 % sparsity, and N:M patterns fail on it.",
        (
            _part("Pruned 25 to 30 %", early, "lose knowledge", "keep it"),
            _part("N:M patterns", patterns, "lose knowledge", "keep it"),
        ),
        f"Cells: every pruned recipe on {', '.join(dict.fromkeys(facts['title'])) or 'knowledge'}. "
        f"A cell loses when its interval lies below "
        f"{percent(1 - MARGIN)} of dense. A part holds when more than half of its cells lose, and does not hold "
        f"when more than half surely keep.",
        pd.concat([early, patterns]),
    )


def _bits_beat_sparsity(frame: pd.DataFrame) -> Claim:
    answers = frame[~frame["task"].isin(tasks.names(measures="fluency", unlisted=True))]
    pruned = answers[answers["kind"].isin(("ratio", "pattern")) & answers["sparsity"].between(0.5, 0.75)]
    grids = answers[answers["kind"] == "bits"]
    rows = [row for cell in pruned.to_dict("records") if (row := _duel(cell, grids))]
    cells = pd.DataFrame(rows) if rows else pruned.iloc[:0].assign(vote="")
    kinds = (("50 to 75 % sparsity", "ratio"), ("N:M patterns", "pattern"))
    return Claim(
        "Quantization does better than pruning.",
        tuple(
            _part(f"Against {name} at equal size", cells[cells["kind"] == kind], "do worse", "do better")
            for name, kind in kinds
        ),
        f"Cells: every recipe pruned 50 to 75 % on every task but perplexity, against the widest quantized recipe "
        f"that takes no more bits than its remaining {SIZE}-bit weights (positions not counted). A cell "
        f"votes when the two shares differ by more than their intervals, taken as independent, allow.",
        cells,
    )


def _duel(cell: dict[Any, Any], grids: pd.DataFrame) -> dict[Any, Any] | None:
    fits = grids[(grids["task"] == cell["task"]) & (grids["bits"] <= SIZE * (1 - cell["sparsity"]) + 1e-9)]
    fits = fits[~fits["verdict"].isin(SILENT)]
    if fits.empty or cell["verdict"] in SILENT:
        return None
    widest = fits[fits["bits"] == fits["bits"].max()].sort_values("share_kept").to_dict("records")[-1]
    gap = widest["share_kept"] - cell["share_kept"]
    noise = math.hypot(*((row["share_high"] - row["share_low"]) / 2 for row in (cell, widest)))
    vote = "open" if math.isnan(noise) or abs(gap) <= noise else ("for" if gap > 0 else "against")
    return {**cell, "vote": vote, "rival": widest["label"], "rival_kept": widest["share_kept"]}


def _context_survives(frame: pd.DataFrame) -> Claim:
    in_context = tasks.names(measures="in_context")
    pruned = frame[(frame["kind"] == "ratio") & (frame["sparsity"] >= 0.5) & frame["task"].isin(in_context)]
    cells = _vote(pruned, "matching", "not matching")
    titles = dict(zip(frame["task"], frame["title"], strict=True))
    half = cells["sparsity"] < 0.5 + 1e-9
    parts = [
        _part(f"{titles[task]} {words}", cells[among & (cells["task"] == task)], "match dense", "do not match")
        for task in in_context if task in titles
        for words, among in (("at 50 %", half), ("above 50 %", ~half))
    ]  # fmt: skip
    return Claim(
        "Models pruned by half or more still retrieve from their context and summarize.",
        tuple(parts) or (Part("From 50 % on", "not measured", "no cell"),),
        f"Cells: every method at every sparsity from 50 % on. A cell matches when its interval lies above "
        f"{percent(1 - MARGIN)} of dense. A part holds when more than half of its cells match.",
        cells,
    )


def _vote(cells: pd.DataFrame, yes: str, no: str) -> pd.DataFrame:
    cells = cells[~cells["verdict"].isin((*SILENT, DENSE))]
    return cells.assign(vote=cells["verdict"].map({yes: "for", no: "against"}).fillna("open").astype(str))


def _weigh(cells: pd.DataFrame) -> Word:
    if cells.empty:
        return "not measured"
    shares = cells["vote"].value_counts(normalize=True)
    if shares.get("for", 0) > 0.5:
        return "holds"
    return "does not hold" if shares.get("against", 0) > 0.5 else "cannot tell"


def _count(cells: pd.DataFrame, yes: str, no: str) -> str:
    if cells.empty:
        return "no cell"
    votes = cells["vote"].value_counts()
    words = ((votes.get("for", 0), yes), (votes.get("against", 0), no), (votes.get("open", 0), "cannot tell"))
    return f"of {len(cells)} cells " + ", ".join(f"{count} {word}" for count, word in words if count)
