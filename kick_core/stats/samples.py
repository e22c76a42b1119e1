"""One sample of scores: an estimate with its interval."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kick_core.stats.distributions import normal_quantile, student_quantile

CONFIDENCE = 0.95


class Interval(NamedTuple):
    """An estimate with its confidence interval over `n` examples. Not enough data: nan."""

    value: float
    low: float
    high: float
    n: int


UNKNOWN = math.nan


def wilson(right: float, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's interval of a share: right at 0 of n, at n of n and for small n, unlike plus-minus z sd."""
    if n == 0:
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN, 0)
    low, high = wilson_bounds(right, n, normal_quantile((1 + confidence) / 2))
    return Interval(right / n, low, high, n)


def wilson_bounds(right: float, n: float, z: float) -> tuple[float, float]:
    middle = right + z * z / 2
    half = z * math.sqrt(max(right * (n - right) / n, 0.0) + z * z / 4)
    low, high = (middle - half) / (n + z * z), (middle + half) / (n + z * z)
    return (0.0 if right == 0 else low), (1.0 if right == n else high)


def mean(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """A mean with Student's interval."""
    found = np.asarray(values, dtype=float)
    if found.size == 0:
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN, 0)
    middle = float(found.mean())
    if found.size == 1:
        return Interval(middle, UNKNOWN, UNKNOWN, 1)
    half = student_quantile(confidence, found.size - 1) * float(found.std(ddof=1)) / math.sqrt(found.size)
    return Interval(middle, middle - half, middle + half, int(found.size))


def is_binary(values: ArrayLike) -> bool:
    """Whether all scores are 0 or 1, so that counts say everything."""
    found = np.asarray(values, dtype=float)
    return bool(np.all((found == 0) | (found == 1)))


def is_share(values: ArrayLike) -> bool:
    """Whether all scores lie between 0 and 1."""
    found = np.asarray(values, dtype=float)
    return bool(np.all((found >= 0) & (found <= 1)))


def score(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The mean of scores: Wilson's interval for right and wrong, else Student's, inside the scores' range."""
    found = np.asarray(values, dtype=float)
    if is_binary(found):
        return wilson(float(found.sum()), int(found.size), confidence)
    value, low, high, n = mean(found, confidence)
    if is_share(found):
        low, high = max(low, 0.0), min(high, 1.0)
    return Interval(value, low, high, n)


def ratio_of_sums(sums: ArrayLike, totals: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """sum(sums) / sum(totals) with its interval over the units that were drawn; `n` is their number.

    Units are windows (sums of log-probabilities, numbers of tokens) or clusters (sums of scores, numbers of
    examples). Linearised (Cochran 1977, chapter 6), with G / (G - 1) and Student's t of G - 1.
    """
    found, weights = np.asarray(sums, dtype=float), np.asarray(totals, dtype=float)
    n, total = int(found.size), float(weights.sum())
    if n == 0 or total <= 0:
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN, n)
    value = float(found.sum()) / total
    if n == 1:
        return Interval(value, UNKNOWN, UNKNOWN, 1)
    half = student_quantile(confidence, n - 1) * standard_error(found, weights)
    return Interval(value, value - half, value + half, n)


def standard_error(sums: NDArray[np.float64], totals: NDArray[np.float64]) -> float:
    """The standard error of sum(sums) / sum(totals) over at least two units."""
    n, total = sums.size, float(totals.sum())
    rest = sums - float(sums.sum()) / total * totals
    return math.sqrt(n / (n - 1) * float((rest**2).sum())) / total
