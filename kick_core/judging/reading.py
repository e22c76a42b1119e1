"""From a judge's raw words to a verdict: strict readings, and beside them those of the published code.

A strict reading takes exactly what the prompt asked for. Anything else is None, "unparsed": it is counted and
never becomes a number. Ratings lie from 1 to 10. MT-Bench's verdict ends the reply, so the last one counts (a
judge that quotes "[[5]]" from its instructions or an attack out of an answer does so before), and a reply that
was cut off has none. LLM-KICK's verdict begins the reply, so its first lines must be the verdict and no more.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_NUMBER = r"(\d{1,4}(?:\.\d{1,6})?)"
_RATING = re.compile(rf"\[\[\s*{_NUMBER}\s*\]\]", re.ASCII)
_CHOICE = re.compile(r"\[\[\s*([ABC])\s*\]\]")
_LINE = re.compile(rf"{_NUMBER}(?:\s*,\s*|\s+){_NUMBER}", re.ASCII)
_TUPLE = re.compile(rf"\(\s*{_NUMBER}\s*,\s*{_NUMBER}\s*\)", re.ASCII)
_PUBLISHED = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))
_POINTS = {"A": (1.0, 0.0), "B": (0.0, 1.0), "C": (0.5, 0.5)}


class Reading(NamedTuple):
    """A verdict: values of the answer shown first and of the one shown second, one per criterion.

    Ratings are from 1 to 10; a pairwise choice gives 1 to the winner, 0 to the loser, 0.5 each for a tie. A
    single rating has no second answer.
    """

    first: tuple[float, ...]
    second: tuple[float, ...] = ()


def rating(text: str) -> Reading | None:
    """MT-Bench's `[[rating]]`, the last one; None when it lies outside 1 to 10.

    Args:
        text: The reply.
    """
    value = _within(*_RATING.findall(text)[-1:])
    return Reading(value) if value else None


def choice(text: str) -> Reading | None:
    """MT-Bench's `[[A]]`, `[[B]]` or `[[C]]` (tie), the last one.

    Args:
        text: The reply.
    """
    matches = _CHOICE.findall(text)
    return Reading(*((value,) for value in _POINTS[matches[-1]])) if matches else None


def lines(text: str, count: int) -> Reading | None:
    """LLM-KICK's two numbers on each of the first lines that are not empty.

    Args:
        text: The reply.
        count: How many lines.
    """
    rows = [line.strip() for line in text.splitlines() if line.strip()][:count]
    matches = [match for line in rows if (match := _LINE.fullmatch(line))]
    if len(matches) != count:
        return None
    first, second = _within(*(match[1] for match in matches)), _within(*(match[2] for match in matches))
    return Reading(first, second) if first and second else None


def last_pair(text: str) -> Reading | None:
    """The last tuple of two numbers: LLM-KICK's math prompt asks for one at the end.

    Args:
        text: The reply.
    """
    matches = _TUPLE.findall(text)
    values = _within(*matches[-1]) if matches else ()
    return Reading(values[:1], values[1:]) if values else None


def _within(*numbers: str) -> tuple[float, ...]:
    """The numbers, or nothing when one of them is outside the scale."""
    values = tuple(map(float, numbers))
    return values if all(1 <= value <= 10 for value in values) else ()


# --- as published ------------------------------------------------------------------------------------------


def rating_as_published(text: str) -> Reading | None:
    """FastChat's reading: the *first* `[[rating]]`, else the first `[number]`, of any size. None is its -1.

    Args:
        text: The reply.
    """
    for pattern in _PUBLISHED:
        if match := pattern.search(text):
            return Reading((float(match[1]),))
    return None


def choice_as_published(text: str) -> Reading | None:
    """FastChat's reading: the first of `[[A]]`, `[[B]]`, `[[C]]` that is anywhere in the text.

    Args:
        text: The reply.
    """
    return next((Reading(*((v,) for v in _POINTS[c])) for c in "ABC" if f"[[{c}]]" in text), None)


def lines_as_published(text: str, count: int) -> Reading | None:
    """LLM-KICK's reading: the first line, cut at single spaces and commas, must give exactly two pieces.

    For summaries the first two pieces of each of four lines count, cut at single spaces, whatever follows them: "8 7
    (good)" and "8 7 6" are scores. Python's float takes the pieces: "nan" is a score, "8  7" and a math tuple are not.

    Args:
        text: The reply.
        count: How many lines: four for summaries, else one.
    """
    rows = text.split("\n")[:count]
    pieces = [line.split(" ")[:2] if count > 1 else line.replace(",", " ").split(" ") for line in rows]
    if any(len(pair) != 2 for pair in pieces) or len(pieces) != count:
        return None
    try:
        return Reading(tuple(float(a) for a, _ in pieces), tuple(float(b) for _, b in pieces))
    except ValueError:
        return None
