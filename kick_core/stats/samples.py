"""One sample of scores: an estimate with its interval."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kick_core.stats.distributions import normal_quantile, student_quantile
from kick_core.stats.score_test import Units, bounds, typical, units

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate with its confidence interval over `n` examples. Not enough data: nan."""

    value: float
    low: float
    high: float
    n: int


UNKNOWN = math.nan


def wilson(right: float, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's (1927, JASA 22:209) interval of a share, which holds at 0 of n, at n of n and for small n.

    Args:
        right: How many of n; fractions are allowed.
        n: Examples.
        confidence: Of the interval.
    """
    if n == 0:
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN, 0)
    low, high = wilson_bounds(right, n, normal_quantile((1 + confidence) / 2))
    return Interval(right / n, low, high, n)


def wilson_bounds(right: float, n: float, z: float) -> tuple[float, float]:
    """The bounds of `wilson` for a normal quantile.

    Args:
        right: How many of n.
        n: Examples, more than 0.
        z: The quantile, 1.96 for 95 %.
    """
    middle = right + z * z / 2
    half = z * math.sqrt(max(right * (n - right) / n, 0.0) + z * z / 4)
    low, high = (middle - half) / (n + z * z), (middle + half) / (n + z * z)
    return (0.0 if right == 0 else low), (1.0 if right == n else high)


def mean(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """A mean with Student's interval.

    Args:
        values: Scores [n].
        confidence: Of the interval.

    Returns:
        The bounds are nan below two scores.
    """
    scores = np.asarray(values, dtype=float)
    if scores.size == 0:
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN, 0)
    estimate = float(scores.mean())
    if scores.size == 1:
        return Interval(estimate, UNKNOWN, UNKNOWN, 1)
    half = student_quantile(confidence, scores.size - 1) * float(scores.std(ddof=1)) / math.sqrt(scores.size)
    return Interval(estimate, estimate - half, estimate + half, int(scores.size))


def is_binary(values: ArrayLike) -> bool:
    """Whether all scores are 0 or 1, so that counts say everything.

    Args:
        values: Scores [n].
    """
    scores = np.asarray(values, dtype=float)
    return bool(np.all((scores == 0) | (scores == 1)))


def is_share(values: ArrayLike) -> bool:
    """Whether all scores lie between 0 and 1.

    Args:
        values: Scores [n].
    """
    scores = np.asarray(values, dtype=float)
    return bool(np.all((scores >= 0) & (scores <= 1)))


def score(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The mean of scores: Wilson's interval for right and wrong.

    Graded scores within [0, 1] take the wider of Student's and the score interval of `kick_core.stats.score_test`: near
    a ceiling Student's alone holds the mean in 90 %, because a rare loss may not have occurred yet. Others: Student's.

    Args:
        values: Scores [n].
        confidence: Of the interval.

    Returns:
        The mean and its interval, inside [0, 1] where all scores are.
    """
    scores = np.asarray(values, dtype=float)
    if is_binary(scores):
        return wilson(float(scores.sum()), int(scores.size), confidence)
    plain = mean(scores, confidence)
    if scores.size < 2 or not is_share(scores):
        return plain
    sample = units(scores, np.ones_like(scores), worst=(0.0, 1.0), best=(typical(scores), 1.0))
    return wider(plain, score_interval(sample, confidence), 0.0, 1.0)


def score_interval(sample: Units, confidence: float) -> Interval:
    """The interval of a ratio of sums by the score test of `kick_core.stats.score_test`.

    Args:
        sample: Its units.
        confidence: Of the interval.
    """
    low, high = bounds(sample, normal_quantile((1 + confidence) / 2))
    return Interval(sample.value, low, high, int(sample.counts.sum()))


def wider(one: Interval, other: Interval, least: float = -math.inf, most: float = math.inf) -> Interval:
    """The estimate and n of `one` within the wider bounds of both. Bounds that are not known (nan) do not count.

    Args:
        one: The interval.
        other: Of the same quantity.
        least: The smallest value that is possible.
        most: The largest.
    """
    low, high = np.fmin(one.low, other.low), np.fmax(one.high, other.high)
    return Interval(one.value, max(float(low), least), min(float(high), most), one.n)


def ratio_of_sums(sums: ArrayLike, totals: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """sum(sums) / sum(totals) with its interval over independent units.

    Linearised (Cochran 1977, Sampling Techniques, chapter 6), with G / (G - 1) and Student's t of G - 1.

    Args:
        sums: Of each unit: log-probabilities of a window, scores of a cluster [G].
        totals: Of each unit: its tokens, its examples [G].
        confidence: Of the interval.

    Returns:
        The ratio and its interval; `n` is G.
    """
    numerators, denominators = np.asarray(sums, dtype=float), np.asarray(totals, dtype=float)
    n, total = int(numerators.size), float(denominators.sum())
    if n == 0 or total <= 0:
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN, n)
    value = float(numerators.sum()) / total
    if n == 1:
        return Interval(value, UNKNOWN, UNKNOWN, 1)
    half = student_quantile(confidence, n - 1) * standard_error(numerators, denominators)
    return Interval(value, value - half, value + half, n)


def standard_error(sums: NDArray[np.float64], totals: NDArray[np.float64]) -> float:
    """The standard error of sum(sums) / sum(totals) over at least two units.

    Args:
        sums: Of each unit [G].
        totals: Of each unit [G].
    """
    n, total = sums.size, float(totals.sum())
    rest = sums - float(sums.sum()) / total * totals
    return math.sqrt(n / (n - 1) * float((rest**2).sum())) / total
