"""Scores that a guess reaches too: whether there is anything to lose, and the share kept of what lies above chance."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from kick_core.stats.clusters import Clusters, cluster_sums
from kick_core.stats.distributions import normal_quantile
from kick_core.stats.pairs import paired
from kick_core.stats.samples import CONFIDENCE, UNKNOWN, Interval
from kick_core.stats.score_test import bounds, typical, units


def anything_to_lose(dense: Interval, chance: float = 0.0) -> bool:
    """Whether the dense model surely scores above chance: without that, nothing measures what compression took.

    Args:
        dense: The dense score with its interval.
        chance: The score of a guess; 0 for open answers.

    Returns:
        True where the interval lies above chance; False where it includes it, or nothing is known.
    """
    return dense.low > chance


def share_above_chance(
    dense: ArrayLike,
    compressed: ArrayLike,
    chance: float,
    clusters: Clusters | None = None,
    confidence: float = CONFIDENCE,
) -> Interval:
    """The share kept of what is not a guess, (compressed - chance) / (dense - chance), paired.

    The correction for guessing (Abbott 1925, Journal of Economic Entomology 18:265; Lord and Novick 1968, chapter 14),
    with the score interval of `kick_core.stats.score_test`. As Fieller's (1954) interval of any ratio, it has no
    bound on a side where the denominator may well be 0.

    Args:
        dense: Scores of the dense model [n], within [0, 1].
        compressed: Scores of the compressed model on the same examples [n].
        chance: The score of a guess, in [0, 1).
        clusters: The cluster of each example [n]; each its own if absent.
        confidence: Of the interval.

    Returns:
        The share, below 0 where compressed scores worse than a guess; nan where dense does not score above chance.

    Raises:
        ValueError: `chance` is not in [0, 1), or lengths differ.
    """
    if not 0 <= chance < 1:
        raise ValueError(f"chance is {chance}: the score of a guess lies in [0, 1)")
    before, after = paired(dense, compressed)
    n = int(before.size)
    names = np.arange(n) if clusters is None else clusters
    sums_before, sums_after, sizes = cluster_sums(names, before - chance, after - chance)
    if not sums_before.sum() > 0 or not math.isfinite(sums_after.sum()):
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN, n)
    size = typical(sizes)
    wrong, right = -chance * size, (1 - chance) * size
    sample = units(sums_after, sums_before, worst=(wrong, right), best=(right, wrong))
    low, high = bounds(sample, normal_quantile((1 + confidence) / 2), -math.inf if chance else 0.0)
    return Interval(sample.value, low, high, n)
