"""What may be claimed: many tests at once, non-inferiority, and what a number of examples can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from kick_core.stats.distributions import normal_quantile
from kick_core.stats.samples import CONFIDENCE, UNKNOWN, Interval

MARGIN = 0.05
"""LLM-KICK's "matching": at most this share of the dense score is lost."""

Match = Literal["matching", "not matching", "cannot tell"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the given order: for claims over many variants. nan stays nan."""
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, worst = [UNKNOWN] * len(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        worst = max(worst, min(1.0, (len(known) - rank) * p))
        adjusted[i] = worst
    return adjusted


def matching(low: float, high: float, margin: float = MARGIN) -> Match:
    """Non-inferiority: is the share of the dense score that is kept surely above 1 - margin, or surely not?"""
    if low >= 1 - margin:
        return "matching"
    return "not matching" if high < 1 - margin else "cannot tell"


def smallest_detectable(flip_rate: float, n: int, power: float = 0.8, confidence: float = CONFIDENCE) -> float:
    """The smallest true difference of accuracies that n paired examples would show with this power.

    Where nothing flipped the rate is not known to be nothing: it counts as one flip each way in two more examples,
    as in the interval of the difference.
    """
    if n == 0:
        return UNKNOWN
    flip_rate = max(flip_rate, 2 / (n + 2))
    return (normal_quantile((1 + confidence) / 2) + normal_quantile(power)) * math.sqrt(flip_rate / n)


def examples_needed(
    kept: Interval, margin: float = MARGIN, power: float = 0.8, confidence: float = CONFIDENCE
) -> float:
    """How many examples it would take to tell "matching" from "not matching", if the share kept is what it seems.

    `kept` is the share of the dense score with its interval over `n` examples. Its width shrinks with the root
    of n; needed is the n at which the interval leaves 1 - margin out with this power. Infinite when the
    estimate stands on the margin itself; nan when nothing is known.
    """
    away = kept.value - (1 - margin)
    half = kept.value - kept.low if away > 0 else kept.high - kept.value
    if not math.isfinite(away) or not math.isfinite(half):
        return UNKNOWN
    if away == 0:
        return math.inf
    z = normal_quantile((1 + confidence) / 2)
    return kept.n * (half / away * (1 + normal_quantile(power) / z)) ** 2
