"""Examples that are not independent: questions on one passage, turns of one dialogue.

Examples of a cluster succeed and fail together, so n of them know less than n independent ones, and the independent
unit is the cluster (Miller 2024, arXiv 2411.00640). Scores, differences and shares within [0, 1] take the score test of
`kick_core.stats.score_test` over the sums of clusters. The usual sandwich estimator (CR1) was measured against it: with
12 to 50 clusters most of which lose nothing its intervals hold the truth in 77 to 93 % (docs/coverage.md), because it
cannot see the losses that these clusters happen not to show. Few flips may also spread less over clusters than over
examples by luck, so an interval is never narrower, and a p never smaller, than without clusters. Examples that all
share one cluster are one unit, and show as little as one example.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kick_core.stats.distributions import student_p
from kick_core.stats.pairs import (
    difference_units,
    paired,
    paired_difference,
    paired_p,
    ratio_of_means,
    ratio_of_unit_sums,
    score_p,
)
from kick_core.stats.samples import (
    CONFIDENCE,
    Interval,
    is_share,
    ratio_of_sums,
    score,
    score_interval,
    standard_error,
    wider,
)
from kick_core.stats.score_test import Floats, typical, units


class Grouping(NamedTuple):
    """Clusters that are numbered already, for many columns of the same examples.

    Attributes:
        places: The number of each example's cluster, from 0 [n].
        sizes: The examples in each cluster [G].
    """

    places: NDArray[np.intp]
    sizes: Floats

    @property
    def alone(self) -> bool:
        """Whether every example is a cluster of its own, or there is none."""
        return self.sizes.size in (0, self.places.size)


Clusters = Sequence[Hashable] | NDArray[Any] | Grouping
"""For every example the name of its cluster."""


def grouped(clusters: Clusters) -> Grouping:
    """Number the clusters of some examples.

    Args:
        clusters: The cluster of each example [n].
    """
    if isinstance(clusters, Grouping):
        return clusters
    if isinstance(clusters, np.ndarray) and clusters.dtype.kind in "iu":
        places = _numbered(clusters)  # numbers need no dictionary: pages sum thousands of rows
    else:
        numbers: dict[Hashable, int] = {}
        places = np.array([numbers.setdefault(name, len(numbers)) for name in clusters], dtype=np.intp)
    return Grouping(places, np.bincount(places).astype(float))


def cluster_sums(clusters: Clusters, *columns: Floats) -> list[Floats]:
    """Sums of scores within each cluster.

    Args:
        clusters: The cluster of each example [n].
        columns: Scores of each example [n].

    Returns:
        Every column summed within each cluster [G], then the number of examples in each [G].

    Raises:
        ValueError: A column and the clusters differ in length.
    """
    places, sizes = _fitting(clusters, *columns)
    return [*(np.bincount(places, column).astype(float, copy=False) for column in columns), sizes]


def _fitting(clusters: Clusters, *columns: Floats) -> Grouping:
    grouping = grouped(clusters)
    if any(column.size != grouping.places.size for column in columns):
        raise ValueError(f"{grouping.places.size} cluster names for {columns[0].size} scores: name the cluster of each")
    return grouping


def _numbered(clusters: NDArray[Any]) -> NDArray[np.intp]:
    """The place of each number among the different ones in ascending order."""
    least, most = (int(clusters.min()), int(clusters.max())) if clusters.size else (0, -1)
    if most - least > 8 * clusters.size:
        return np.unique(clusters, return_inverse=True)[1]
    shifted = clusters - least
    places: NDArray[np.intp] = np.cumsum(np.bincount(shifted) > 0, dtype=np.intp)[shifted] - 1
    return places


def clustered_score(values: ArrayLike, clusters: Clusters, confidence: float = CONFIDENCE) -> Interval:
    """`score`, for examples in clusters.

    Args:
        values: Scores [n].
        clusters: The cluster of each [n].
        confidence: Of the interval.

    Returns:
        The mean and its interval, inside [0, 1] where all scores are.
    """
    scores = np.asarray(values, dtype=float)
    plain, grouping = score(scores, confidence), _fitting(clusters, scores)
    if grouping.alone:
        return plain
    sums, sizes = cluster_sums(grouping, scores)
    if not is_share(scores):
        return wider(plain, ratio_of_sums(sums, sizes, confidence))
    size = typical(sizes)
    sample = units(sums, sizes, worst=(0.0, size), best=(size, size))
    return wider(plain, score_interval(sample, confidence), 0.0, 1.0)


def clustered_error(values: ArrayLike, clusters: Clusters) -> float:
    """The standard error of a mean of scores in clusters (CR1; each its own cluster: sd / sqrt(n)).

    Args:
        values: Scores [n].
        clusters: The cluster of each [n].

    Returns:
        The standard error; nan below two clusters. Intervals do not follow from it: see `clustered_score`.
    """
    sums, sizes = cluster_sums(clusters, np.asarray(values, dtype=float))
    return standard_error(sums, sizes) if sizes.size > 1 else math.nan


def clustered_difference(
    dense: ArrayLike, compressed: ArrayLike, clusters: Clusters, confidence: float = CONFIDENCE
) -> Interval:
    """`paired_difference`, for examples in clusters.

    Args:
        dense: Scores of the dense model [n].
        compressed: Scores of the compressed model on the same examples [n].
        clusters: The cluster of each example [n].
        confidence: Of the interval.

    Returns:
        Compressed minus dense and its interval.
    """
    before, after = paired(dense, compressed)
    plain, grouping = paired_difference(before, after, confidence), _fitting(clusters, before)
    if grouping.alone:
        return plain
    sums, sizes = cluster_sums(grouping, after - before)
    if not (is_share(before) and is_share(after)):
        return wider(plain, ratio_of_sums(sums, sizes, confidence))
    return wider(plain, score_interval(difference_units(sums, sizes), confidence), -1.0, 1.0)


def clustered_ratio(
    dense: ArrayLike, compressed: ArrayLike, clusters: Clusters, confidence: float = CONFIDENCE
) -> Interval:
    """`ratio_of_means`, for examples in clusters.

    Args:
        dense: Scores of the dense model [n], not negative.
        compressed: Scores of the compressed model on the same examples [n].
        clusters: The cluster of each example [n].
        confidence: Of the interval.

    Returns:
        The share of the dense score that is kept and its interval; nan where dense scores nothing.
    """
    before, after = paired(dense, compressed)
    plain, grouping = ratio_of_means(before, after, confidence), _fitting(clusters, before)
    if grouping.alone or math.isnan(plain.value):
        return plain
    sums_before, sums_after, _ = cluster_sums(grouping, before, after)
    return wider(plain, ratio_of_unit_sums(sums_before, sums_after, int(before.size), confidence))


def clustered_p(dense: ArrayLike, compressed: ArrayLike, clusters: Clusters) -> float:
    """`paired_p`, for examples in clusters: the larger of it and of the test over clusters.

    Args:
        dense: Scores of the dense model [n].
        compressed: Scores of the compressed model on the same examples [n].
        clusters: The cluster of each example [n].

    Returns:
        The two-sided p of "nothing changed".
    """
    before, after = paired(dense, compressed)
    plain, grouping = paired_p(before, after), _fitting(clusters, before)
    if grouping.alone:
        return plain
    sums, sizes = cluster_sums(grouping, after - before)
    if is_share(before) and is_share(after):
        return max(plain, score_p(difference_units(sums, sizes)))
    error = standard_error(sums, sizes) if sizes.size > 1 else 0.0
    return max(plain, student_p(float(sums.sum() / sizes.sum()) / error, sizes.size - 1)) if error else plain
