"""The paired bootstrap, where no formula is trusted: graded scores that pile up at 0 and 1.

Resampling n examples with replacement is drawing how often each *different* value appears, and that is one
multinomial draw. Right and wrong have three different values of the difference, checks and facts some dozens, so
10,000 replicates take milliseconds and no replicate is ever laid out example by example.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kick_core.stats.distributions import normal_cumulative, normal_quantile
from kick_core.stats.pairs import paired
from kick_core.stats.samples import CONFIDENCE, UNKNOWN, Interval

REPLICATES = 10_000
_AT_ONCE = 4_000_000
"""Counts drawn at a time, so that memory stays below 64 MB whatever n is."""


def bootstrap_difference(
    dense: ArrayLike,
    compressed: ArrayLike,
    confidence: float = CONFIDENCE,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Interval:
    """Compressed minus dense with the paired BCa interval (Efron 1987); the same seed gives the same interval.

    BCa corrects the percentiles for bias and skewness. Where all differences are equal the bootstrap knows
    nothing and the bounds are nan, not a width of 0.
    """
    before, after = paired(dense, compressed)
    moved = after - before
    n = int(moved.size)
    if n == 0:
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN, 0)
    values, counts = np.unique(moved, return_counts=True)
    middle = float(moved.mean())
    if values.size == 1:
        return Interval(middle, UNKNOWN, UNKNOWN, n)
    means = np.sort(_resampled(values, counts, replicates, np.random.default_rng(seed)))
    low, high = np.quantile(means, _levels(means, moved, confidence))
    return Interval(middle, float(low), float(high), n)


def _resampled(
    values: NDArray[np.float64], counts: NDArray[np.intp], replicates: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means of resamples [replicates]."""
    n, shares = int(counts.sum()), counts / counts.sum()
    each = max(1, _AT_ONCE // values.size)
    sizes = [min(each, replicates - start) for start in range(0, replicates, each)]
    return np.concatenate([rng.multinomial(n, shares, size=size) @ values / n for size in sizes])


def _levels(means: NDArray[np.float64], moved: NDArray[np.float64], confidence: float) -> list[float]:
    """The two quantile levels of BCa: z0 from the share of replicates below, a from the third moment."""
    middle = moved.mean()
    below = (np.sum(means < middle) + np.sum(means == middle) / 2) / means.size
    bias = normal_quantile(min(max(float(below), 0.5 / means.size), 1 - 0.5 / means.size))
    rest = moved - middle
    skew = float(np.sum(rest**3) / (6 * np.sum(rest**2) ** 1.5))
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    shifted = [bias + normal_quantile(tail) for tail in tails]
    return [normal_cumulative(bias + z / max(1 - skew * z, math.ulp(1.0))) for z in shifted]
