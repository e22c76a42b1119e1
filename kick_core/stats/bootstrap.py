"""The paired bootstrap, where no formula is trusted: graded scores that pile up at 0 and 1, and ratios of differences.

Resampling n examples with replacement is drawing how often each *different* value appears, and that is one
multinomial draw. Right and wrong have three different values of the difference, checks and facts some dozens, so
10,000 replicates take milliseconds and no replicate is ever laid out example by example. Scores with hundreds of
different values are drawn in equal bins of their range, each at the mean of its values: the estimate stays what it was,
and an interval narrows by about a thousandth.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kick_core.stats.clusters import Clusters, cluster_sums
from kick_core.stats.distributions import normal_cumulative, normal_quantile
from kick_core.stats.pairs import paired
from kick_core.stats.samples import CONFIDENCE, UNKNOWN, Interval

REPLICATES = 10_000
BINNED_ABOVE, BINS = 200, 64
"""From how many different values on a difference is binned, and the bins of its range."""
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
    """Compressed minus dense with the paired BCa interval (Efron 1987, JASA 82:171).

    BCa corrects the percentiles for bias and skewness. The same seed gives the same interval.

    Args:
        dense: Scores of the dense model [n].
        compressed: Scores of the compressed model on the same examples [n].
        confidence: Of the interval.
        replicates: Resamples.
        seed: Of the draw.

    Returns:
        The difference and its interval. Where all differences are equal the bootstrap knows nothing, and the bounds are
        nan rather than a width of 0.
    """
    before, after = paired(dense, compressed)
    differences = after - before
    n = int(differences.size)
    if n == 0:
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN, 0)
    values, counts = np.unique(differences, return_counts=True)
    estimate = float(differences.mean())
    if values.size == 1:
        return Interval(estimate, UNKNOWN, UNKNOWN, n)
    if values.size > BINNED_ABOVE:
        values, counts = _binned(values, counts)
    means = np.sort(_resampled(values, counts, replicates, np.random.default_rng(seed)))
    low, high = np.quantile(means, _levels(means, differences, confidence))
    return Interval(estimate, float(low), float(high), n)


def bootstrap_recovered(
    dense: ArrayLike,
    compressed: ArrayLike,
    recovered: ArrayLike,
    clusters: Clusters,
    confidence: float = CONFIDENCE,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Interval:
    """The share of a loss that came back, Σ (recovered - compressed) / Σ (dense - compressed), over the same examples.

    Percentiles of resamples of whole clusters, numerator and denominator drawn together. The same seed gives the same
    interval.

    Args:
        dense: Scores of the dense model [n].
        compressed: Scores of the compressed model on the same examples [n].
        recovered: Scores after recovery [n].
        clusters: The cluster of each example [n].
        confidence: Of the interval.
        replicates: Resamples.
        seed: Of the draw.

    Returns:
        The share and its interval: 1 is all of it, below 0 more was lost. Everything is nan where no loss is shown,
        that is where more than the lower tail's share of resamples has none: a part of nothing is not a number.
    """
    before, after = paired(dense, compressed)
    _, again = paired(dense, recovered)
    gained, lost, sizes = cluster_sums(clusters, again - after, before - after)
    n, tail = int(before.size), (1 - confidence) / 2
    unknown = Interval(UNKNOWN, UNKNOWN, UNKNOWN, n)
    if sizes.size < 2 or lost.sum() <= 0:
        return unknown
    values, counts = np.unique(np.stack([gained, lost], axis=1), axis=0, return_counts=True)
    sums = _resampled(values, counts, replicates, np.random.default_rng(seed))
    positive = sums[:, 1] > 0
    if np.mean(~positive) > tail:
        return unknown
    shares = np.where(sums[:, 0] < 0, -math.inf, math.inf)
    np.divide(sums[:, 0], sums[:, 1], out=shares, where=positive)
    low, high = np.quantile(shares, (tail, 1 - tail), method="closest_observation")
    return Interval(float(gained.sum() / lost.sum()), float(low), float(high), n)


def blocks(n: int) -> NDArray[np.intp]:
    """Clusters of neighbours for the block bootstrap of a series (Künsch 1989, Annals of Statistics 17:1217).

    Args:
        n: Length of the series.

    Returns:
        The block of each place [n], of n^(1/3) places each, rounded up.
    """
    return np.arange(n) // max(1, math.ceil(n ** (1 / 3)))


def _binned(values: NDArray[np.float64], counts: NDArray[np.intp]) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Ascending values in equal bins of their range, each at its mean; a value of many examples keeps its own."""
    edges = np.linspace(values[0], values[-1], BINS + 1)[1:-1]
    places = np.searchsorted(edges, values, side="right")
    common = counts * BINS > counts.sum()
    places[common] = BINS + np.arange(common.sum())
    sums = np.bincount(places, counts, minlength=0)
    means = np.bincount(places, counts * values) / np.maximum(sums, 1)
    return means[sums > 0], sums[sums > 0].astype(np.intp)


def _resampled(
    values: NDArray[np.float64], counts: NDArray[np.intp], replicates: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Means of resamples [replicates], of every column where values are rows of several."""
    n, shares = int(counts.sum()), counts / counts.sum()
    each = max(1, _AT_ONCE // len(values))
    sizes = [min(each, replicates - start) for start in range(0, replicates, each)]
    return np.concatenate([rng.multinomial(n, shares, size=size) @ values / n for size in sizes])


def _levels(means: NDArray[np.float64], differences: NDArray[np.float64], confidence: float) -> list[float]:
    """The two quantile levels of BCa: z0 from the share of replicates below, a from the third moment."""
    estimate = differences.mean()
    below = (np.sum(means < estimate) + np.sum(means == estimate) / 2) / means.size
    bias = normal_quantile(min(max(float(below), 0.5 / means.size), 1 - 0.5 / means.size))
    rest = differences - estimate
    skew = float(np.sum(rest**3) / (6 * np.sum(rest**2) ** 1.5))
    tails = ((1 - confidence) / 2, (1 + confidence) / 2)
    shifted = [bias + normal_quantile(tail) for tail in tails]
    return [normal_cumulative(bias + z / max(1 - skew * z, math.ulp(1.0))) for z in shifted]
