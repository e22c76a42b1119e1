"""Two shares kept, one against the other: has this model lost more of its own score than that one?

Each share has an interval already, paired with its own dense model and honest where little flipped. Their difference
gets its interval from those two (the method of variance estimates recovery: Zou 2007, Psychological Methods 12:399;
Zou and Donner 2008, Statistics in Medicine 27:1693), so it keeps their lopsidedness and is never narrower than what
they know. Models that were asked the same examples do well and badly on the same ones; that correlation enters.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kick_core.stats.clusters import Clusters, cluster_sums
from kick_core.stats.samples import UNKNOWN, Interval


class Ratio(NamedTuple):
    """What a ratio of sums is made of, example by example: sum(sums) / sum(totals)."""

    sums: NDArray[np.float64]
    totals: NDArray[np.float64]


def ratio_correlation(one: Ratio, other: Ratio, clusters: Clusters) -> float:
    """How two ratios over the same examples move together: the correlation of their linearised terms.

    Terms are sums - ratio * totals, added up within clusters (as in `ratio_of_sums`).

    Args:
        one: A ratio of sums over n examples.
        other: Another over the same examples.
        clusters: The cluster of each example [n].

    Returns:
        In [-1, 1]; 0 where one does not vary or there are fewer than three clusters: nothing is known of it then.
    """
    columns = cluster_sums(clusters, *one, *other)[:4]
    first, second = _terms(*columns[:2]), _terms(*columns[2:])
    if first.size < 3 or not (np.ptp(first) > 0 and np.ptp(second) > 0):
        return 0.0
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1.0, 1.0))


def _terms(sums: NDArray[np.float64], totals: NDArray[np.float64]) -> NDArray[np.float64]:
    total = float(totals.sum())
    return sums - float(sums.sum()) / total * totals if total else np.zeros_like(sums)


def share_gap(one: Interval, other: Interval, correlation: float = 0.0) -> Interval:
    """The difference of two shares with the interval that their own intervals imply (Zou and Donner 2008).

    Args:
        one: A share with its interval.
        other: What is subtracted.
        correlation: Of the two estimates; 0 where they are over different examples.

    Returns:
        `one` - `other`; its n is the smaller of theirs, and what is not known is nan.
    """
    gap, n = one.value - other.value, min(one.n, other.n)
    below = _joined(one.value - one.low, other.high - other.value, correlation)
    above = _joined(one.high - one.value, other.value - other.low, correlation)
    return Interval(gap, gap - below, gap + above, n)


def _joined(one: float, other: float, correlation: float) -> float:
    """The half width that two half widths make together."""
    if math.isnan(one) or math.isnan(other):
        return UNKNOWN
    if math.isinf(one) or math.isinf(other):
        return math.inf
    return math.sqrt(max(one * one + other * other - 2 * correlation * one * other, 0.0))
