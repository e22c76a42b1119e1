"""The intervals that benchmarks/coverage.py simulates: those of today, and those of version 0.1 that they replaced."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks._coverage_samples import Floats, Sample
from kick_core import stats
from kick_core.stats import Interval

Z = stats.normal_quantile(0.975)
Method = Callable[[Sample], Interval]


def share(sample: Sample) -> Interval:
    if sample.clusters is None:
        return stats.ratio_of_means(sample.dense, sample.compressed)
    return stats.clustered_ratio(sample.dense, sample.compressed, sample.clusters)


def difference(sample: Sample) -> Interval:
    if sample.clusters is None:
        return stats.paired_difference(sample.dense, sample.compressed)
    return stats.clustered_difference(sample.dense, sample.compressed, sample.clusters)


def score(sample: Sample) -> Interval:
    return (
        stats.score(sample.dense) if sample.clusters is None else stats.clustered_score(sample.dense, sample.clusters)
    )


def perplexity(sample: Sample) -> Interval:
    return stats.perplexity(sample.dense, np.ones(sample.dense.size))


def perplexity_kept(sample: Sample) -> Interval:
    return stats.perplexity_kept(sample.dense, sample.compressed, np.ones(sample.dense.size))


def above_chance(sample: Sample, chance: float) -> Interval:
    return stats.share_above_chance(sample.dense, sample.compressed, chance, sample.clusters)


# --- methods of version 0.1 -----------------------------------------------------------------------------------


def old_share(sample: Sample) -> Interval:
    """Bonett and Price (2006) for right and wrong, Fieller for graded scores; with clusters the wider of it and CR1."""
    dense, compressed, clusters = sample
    counts = stats.flips(dense, compressed)
    is_binary = stats.is_binary(dense) and stats.is_binary(compressed)
    low, high = _bonett_price(counts) if is_binary else _fieller(dense, compressed)
    if clusters is not None:
        wide = _fieller(np.bincount(clusters, dense), np.bincount(clusters, compressed))
        low, high = min(low, wide[0]), max(high, wide[1])
    return Interval(compressed.sum() / dense.sum(), low, high, dense.size)


def _bonett_price(table: stats.Flips) -> tuple[float, float]:
    dense, compressed = table.both_right + table.broke, table.both_right + table.fixed
    n = table.both_right + table.broke + table.fixed
    joint = math.sqrt((table.broke + table.fixed + 2) / ((dense + 1) * (compressed + 1)))
    apart = sum(math.sqrt((1 - (count + 1) / (n + 2)) / (count + 1)) for count in (dense, compressed))
    confidence = 2 * float(stats.distributions.normal_cumulative(Z * joint / apart)) - 1
    top, bottom = stats.wilson(compressed, n, confidence), stats.wilson(dense, n, confidence)
    return top.low / bottom.high, top.high / bottom.low if bottom.low else math.inf


def _fieller(dense: Floats, compressed: Floats) -> tuple[float, float]:
    n, t = dense.size, stats.student_quantile(0.95, dense.size - 1)
    ((spread_dense, both), (_, spread_compressed)) = np.cov(dense, compressed) * t * t / n
    square = dense.mean() ** 2 - spread_dense
    if square <= 0:
        return 0.0, math.inf
    middle = dense.mean() * compressed.mean() - both
    root = math.sqrt(max(middle**2 - square * (compressed.mean() ** 2 - spread_compressed), 0.0))
    return (middle - root) / square, (middle + root) / square


def old_difference(sample: Sample) -> Interval:
    plain = stats.paired_difference(sample.dense, sample.compressed)
    return _cr1(plain, sample.compressed - sample.dense, sample.clusters)


def old_score(sample: Sample) -> Interval:
    return _cr1(stats.score(sample.dense), sample.dense, sample.clusters)


def _cr1(plain: Interval, values: Floats, clusters: NDArray[np.intp] | None) -> Interval:
    if clusters is None:
        return plain
    wide = stats.ratio_of_sums(np.bincount(clusters, values), np.bincount(clusters))
    return Interval(plain.value, min(plain.low, wide.low), max(plain.high, wide.high), plain.n)


def old_perplexity(sample: Sample) -> Interval:
    return stats.perplexity(sample.dense, np.ones(sample.dense.size), neighbours=False)


def old_perplexity_kept(sample: Sample) -> Interval:
    return stats.perplexity_kept(sample.dense, sample.compressed, np.ones(sample.dense.size), neighbours=False)


def student_difference(sample: Sample) -> Interval:
    return stats.mean(sample.compressed - sample.dense)


def student_score(sample: Sample) -> Interval:
    return stats.mean(sample.dense)
