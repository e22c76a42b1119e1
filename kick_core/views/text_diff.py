"""Texts as words: what differs between two answers, and what one answer keeps repeating.

rapidfuzz and not difflib: difflib's autojunk drops every frequent token of a long text, which is just what
a looping model writes (29 of 446 equal tokens kept, or seconds without autojunk).
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from rapidfuzz.distance import Levenshtein

from kick_core import stats

_TOKEN = re.compile(r"\w+|\s+|[^\w\s]")
_WORD = re.compile(r"\S+")

LONGEST = 4000
"""Tokens compared at most; beyond them a text is shown as it is."""


class Piece(NamedTuple):
    """A stretch of text and what became of it from A to B."""

    kind: Literal["same", "gone", "new"]
    text: str


class Warm(NamedTuple):
    """A word and how often a 4-gram around it had been said before."""

    text: str
    times: int


def split(text: str) -> list[str]:
    """Words, spaces and marks; joined they are the text again."""
    return _TOKEN.findall(text)


def words(text: str) -> list[str]:
    """Whitespace words, for repetition measures."""
    return text.split()


def difference(before: str, after: str) -> list[Piece]:
    """How to turn one text into the other, word by word."""
    a, b = split(before), split(after)
    if len(a) > LONGEST or len(b) > LONGEST:
        return [Piece("gone", before), Piece("new", after)]
    pieces = []
    for code in Levenshtein.opcodes(a, b):
        gone, new = "".join(a[code.src_start : code.src_end]), "".join(b[code.dest_start : code.dest_end])
        if code.tag == "equal":
            pieces.append(Piece("same", gone))
            continue
        if gone:
            pieces.append(Piece("gone", gone))
        if new:
            pieces.append(Piece("new", new))
    return pieces


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
