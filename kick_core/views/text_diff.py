"""Texts as words: what differs between two answers, and what one answer keeps repeating.

rapidfuzz and not difflib: difflib's autojunk drops every frequent token of a long text, which is just what
a looping model writes (29 of 446 equal tokens kept, or seconds without autojunk).
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Literal, NamedTuple

from rapidfuzz.distance import Levenshtein, Opcodes

from kick_core import stats

_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\S+")

LONGEST = 4000
"""Tokens compared at most; beyond them a text is shown as it is."""


class Piece(NamedTuple):
    """A stretch of text and what became of it from A to B; "shared": both texts have it."""

    kind: Literal["same", "gone", "new", "shared"]
    text: str


class Warm(NamedTuple):
    """A word and how often a 4-gram around it had been said before."""

    text: str
    times: int


def words(text: str) -> list[str]:
    """Whitespace words, for repetition measures."""
    return text.split()


def likeness(before: str, after: str) -> float:
    """The share of words that two texts have in common and in the same order, in [0, 1]."""
    a, b = _spans(before), _spans(after)
    if not a or not b:
        return float(a == b)
    equal = sum(code.src_end - code.src_start for code in _opcodes(before, a, after, b) if code.tag == "equal")
    return 2 * equal / (len(a) + len(b))


def difference(before: str, after: str) -> list[Piece]:
    """How to turn one text into the other, word by word.

    Words are aligned, gaps are not: changes that only a gap separates are one change, "gone" before "new", with a
    space between where the texts have one. Without the pieces that are gone it is the second text again.
    """
    a, b = _spans(before), _spans(after)
    if len(a) > LONGEST or len(b) > LONGEST:
        return [Piece("gone", before), Piece("new", after)]
    pieces: list[Piece] = []
    for code in _opcodes(before, a, after, b):
        gone, new = _slice(before, a, code.src_start, code.src_end), _slice(after, b, code.dest_start, code.dest_end)
        if code.tag == "equal":
            pieces.append(Piece("same", new))
            continue
        if gone:
            pieces.append(Piece("gone", gone if gone[-1:].isspace() or not new else gone + " "))
        if new:
            pieces.append(Piece("new", new))
    return _merged(pieces)


def shared(before: str, after: str, least: int = 3) -> tuple[list[Piece], list[Piece]]:
    """Both texts whole, with the runs of at least `least` words that stand in both, in the same order, marked."""
    a, b = _spans(before), _spans(after)
    first, second = [], []
    for code in _opcodes(before, a, after, b):
        kind: Literal["same", "shared"] = (
            "shared" if code.tag == "equal" and code.src_end - code.src_start >= least else "same"
        )
        first.append(Piece(kind, _slice(before, a, code.src_start, code.src_end)))
        second.append(Piece(kind, _slice(after, b, code.dest_start, code.dest_end)))
    return _merged(first), _merged(second)


def _spans(text: str) -> list[tuple[int, int]]:
    """Every word or mark with the gap after it; the first one has the gap before it too."""
    starts = [match.start() for match in _TOKEN.finditer(text)]
    if not starts:
        return []
    starts[0] = 0
    return list(zip(starts, [*starts[1:], len(text)], strict=True))


def _opcodes(before: str, a: list[tuple[int, int]], after: str, b: list[tuple[int, int]]) -> Opcodes:
    words_ = ([text[start:stop].strip() for start, stop in spans] for text, spans in ((before, a), (after, b)))
    return Levenshtein.opcodes(*words_)


def _slice(text: str, spans: list[tuple[int, int]], start: int, stop: int) -> str:
    return text[spans[start][0] : spans[stop - 1][1]] if stop > start else ""


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Neighbours of one kind as one piece; within a change what is gone comes first."""
    merged: list[Piece] = []
    for changed, run in groupby(pieces, key=lambda piece: piece.kind in ("gone", "new")):
        group = list(run)
        for kind in ("gone", "new") if changed else dict.fromkeys(piece.kind for piece in group):
            if changed and (text := "".join(piece.text for piece in group if piece.kind == kind)):
                merged.append(Piece(kind, text))  # type: ignore[arg-type]
        if not changed:
            merged += [
                Piece(kind, "".join(one.text for one in same)) for kind, same in groupby(group, lambda one: one.kind)
            ]
    return [piece for piece in merged if piece.text]


def heat(text: str) -> list[Warm]:
    """The text in words and gaps with each word's repetition; joined it is the text again."""
    spans = [match.span() for match in _WORD.finditer(text)]
    times = stats.repeats([text[start:stop] for start, stop in spans])
    found, at = [], 0
    for (start, stop), count in zip(spans, times, strict=True):
        if start > at:
            found.append(Warm(text[at:start], 0))
        found.append(Warm(text[start:stop], count))
        at = stop
    if at < len(text):
        found.append(Warm(text[at:], 0))
    return found


def repetition(text: str) -> stats.Repetition:
    """Repetition measures of a text by its whitespace words."""
    return stats.repetition(words(text))
