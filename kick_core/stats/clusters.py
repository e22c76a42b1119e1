"""Examples that are not independent: questions on one passage, turns of one dialogue, windows of one article.

A cluster's examples rise and fall together, so n examples know less than n independent ones: intervals come
from the spread of whole clusters (CR1: the sandwich estimator with G / (G - 1), Student's t with G - 1 degrees
of freedom; Miller 2024, arXiv 2411.00640). With few flips that spread can be small by luck or nothing
at all, so an interval is never narrower, and a p never smaller, than without clusters.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kick_core.stats.distributions import student_p
from kick_core.stats.pairs import fieller, paired, paired_difference, paired_p, ratio_of_means
from kick_core.stats.samples import CONFIDENCE, Interval, ratio_of_sums, score, standard_error

Clusters = Sequence[Hashable] | NDArray[Any]
"""For every example the name of its cluster."""


def cluster_sums(clusters: Clusters, *columns: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Every column summed within each cluster, and last the number of examples in each."""
    numbers: dict[Hashable, int] = {}
    where = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)
    if any(column.size != where.size for column in columns):
        raise ValueError(f"{where.size} cluster names for {columns[0].size} scores: name the cluster of each")
    return [*(np.bincount(where, column) for column in columns), np.bincount(where).astype(float)]


def _wider(one: Interval, other: Interval) -> Interval:
    """The estimate and n of `one` within the wider bounds of both. Bounds that are not known (nan) do not count."""
    low, high = np.fmin(one.low, other.low), np.fmax(one.high, other.high)
    return Interval(one.value, float(low), float(high), one.n)


def clustered_score(values: ArrayLike, clusters: Clusters, confidence: float = CONFIDENCE) -> Interval:
    """`score`, for examples in clusters."""
    found = np.asarray(values, dtype=float)
    plain = score(found, confidence)
    sums, sizes = cluster_sums(clusters, found)
    if sizes.size == found.size:
        return plain
    value, low, high, n = _wider(plain, ratio_of_sums(sums, sizes, confidence))
    inside = bool(np.all((found >= 0) & (found <= 1)))
    return Interval(value, max(low, 0.0) if inside else low, min(high, 1.0) if inside else high, n)


def clustered_difference(
    dense: ArrayLike, compressed: ArrayLike, clusters: Clusters, confidence: float = CONFIDENCE
) -> Interval:
    """`paired_difference`, for examples in clusters."""
    before, after = paired(dense, compressed)
    plain = paired_difference(before, after, confidence)
    moved, sizes = cluster_sums(clusters, after - before)
    return plain if sizes.size == before.size else _wider(plain, ratio_of_sums(moved, sizes, confidence))


def clustered_ratio(
    dense: ArrayLike, compressed: ArrayLike, clusters: Clusters, confidence: float = CONFIDENCE
) -> Interval:
    """`ratio_of_means`, for examples in clusters."""
    before, after = paired(dense, compressed)
    plain = ratio_of_means(before, after, confidence)
    sums_before, sums_after, sizes = cluster_sums(clusters, before, after)
    if sizes.size == before.size or math.isnan(plain.value):
        return plain
    if sizes.size < 2:
        return plain
    return _wider(plain, Interval(plain.value, *fieller(sums_before, sums_after, confidence), plain.n))


def clustered_p(dense: ArrayLike, compressed: ArrayLike, clusters: Clusters) -> float:
    """`paired_p`, for examples in clusters: the larger of it and of the t test over clusters."""
    before, after = paired(dense, compressed)
    plain = paired_p(before, after)
    moved, sizes = cluster_sums(clusters, after - before)
    if sizes.size == before.size or sizes.size < 2:
        return plain
    error = standard_error(moved, sizes)
    if error == 0:
        return plain
    return max(plain, student_p(float(moved.sum() / sizes.sum()) / error, sizes.size - 1))
