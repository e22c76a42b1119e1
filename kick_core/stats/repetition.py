"""How repetitive one text is, over words or token ids."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from kick_core.stats.samples import UNKNOWN


class Loop(NamedTuple):
    """From token `onset` on, the last `period` tokens repeat until the end, `times` times at least."""

    onset: int
    period: int
    times: int


class Repetition(NamedTuple):
    """How repetitive one text is.

    Attributes:
        tokens: Its length.
        unique: Different tokens.
        distinct: Different n-grams / n-grams, for n from 1 to 4; nan where it has none.
        repeated: seq-rep-4, see `repeated`.
        loop: The loop that it ends in, if any.
    """

    tokens: int
    unique: int
    distinct: tuple[float, float, float, float]
    repeated: float
    loop: Loop | None


def distinct(tokens: Sequence[Hashable], n: int) -> float:
    """Different n-grams / all n-grams of one sequence; nan where there are none.

    Args:
        tokens: Words or token ids.
        n: Length of the n-grams.
    """
    count = len(tokens) - n + 1
    if count < 1:
        return UNKNOWN
    return len(set(zip(*(tokens[i:] for i in range(n)), strict=False))) / count


def find_loop(tokens: Sequence[Hashable], longest: int = 64, times: int = 3) -> Loop | None:
    """The loop that a text ends in: a period that fills the end several times.

    Of several (a loop of 2 is one of 4 too) the one that began first; of those the shortest period.

    Args:
        tokens: Words or token ids.
        longest: The longest period that counts.
        times: How often it must be there at least.
    """
    n, best = len(tokens), None
    for period in range(1, min(longest, n // times) + 1):
        start = n - period
        while start > 0 and tokens[start - 1] == tokens[start - 1 + period]:
            start -= 1
        if n - start >= times * period and (best is None or start < best.onset):
            best = Loop(start, period, (n - start) // period)
    return best


def repetition(tokens: Sequence[Hashable]) -> Repetition:
    """All repetition measures of one text.

    Args:
        tokens: Words or token ids.
    """
    shares = (distinct(tokens, 1), distinct(tokens, 2), distinct(tokens, 3), distinct(tokens, 4))
    return Repetition(len(tokens), len(set(tokens)), shares, repeated(tokens), find_loop(tokens))


def repeated(tokens: Sequence[Hashable]) -> float:
    """seq-rep-4 of a text, 1 - distinct 4-grams (Welleck et al. 2019, arXiv 1908.04319); 0 for fewer than four tokens.

    Args:
        tokens: Words or token ids.
    """
    share = distinct(tokens, 4)
    return 0.0 if math.isnan(share) else 1 - share


def repeats(tokens: Sequence[Hashable], n: int = 4) -> list[int]:
    """For every token, how often an n-gram that covers it occurred before; pages colour a text by it.

    Args:
        tokens: Words or token ids.
        n: Length of the n-grams.
    """
    heat = [0] * len(tokens)
    counts: Counter[tuple[Hashable, ...]] = Counter()
    for start in range(len(tokens) - n + 1):
        gram = tuple(tokens[start : start + n])
        for i in range(start, start + n):
            heat[i] = max(heat[i], counts[gram])
        counts[gram] += 1
    return heat
