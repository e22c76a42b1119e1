"""Two models on the same examples: flips, differences and ratios, paired."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kick_core.stats.distributions import fair_coin, normal_cumulative, normal_quantile, student_p
from kick_core.stats.samples import (
    CONFIDENCE,
    UNKNOWN,
    Interval,
    is_binary,
    is_share,
    mean,
    score_interval,
    wider,
    wilson,
)
from kick_core.stats.score_test import Floats, Units, bounds, statistic, typical, units


class Flips(NamedTuple):
    """How answers moved from dense to compressed."""

    both_right: int
    broke: int
    fixed: int
    both_wrong: int

    @property
    def n(self) -> int:
        return sum(self)

    @property
    def share(self) -> float:
        """The share of answers that changed sides: equal accuracies can hide many (arXiv 2407.09141)."""
        return (self.broke + self.fixed) / self.n if self.n else UNKNOWN


def flips(dense: ArrayLike, compressed: ArrayLike, threshold: float = 0.5) -> Flips:
    """Count flips.

    Args:
        dense: Scores of the dense model [n].
        compressed: Scores of the compressed model on the same examples [n].
        threshold: Graded scores count as right from here on.
    """
    before = np.asarray(dense, dtype=float) >= threshold
    after = np.asarray(compressed, dtype=float) >= threshold
    both, first, second = (int(np.count_nonzero(each)) for each in (before & after, before, after))
    return Flips(both, first - both, second - both, before.size - first - second + both)


def mcnemar(broke: int, fixed: int) -> float:
    """Exact two-sided McNemar p: how often a fair coin splits broke + fixed at least this unevenly.

    Args:
        broke: Answers that were right and are wrong now.
        fixed: Answers that were wrong and are right now.
    """
    return min(1.0, 2 * fair_coin(min(broke, fixed), broke + fixed))


def paired_difference(dense: ArrayLike, compressed: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Compressed minus dense, paired.

    Right and wrong: Bonett and Price's (2012, Journal of Educational and Behavioral Statistics 37:479) adjusted Wald
    interval, whose width does not shrink to nothing when no answer flipped. Graded scores within [0, 1]: the score
    interval of `kick_core.stats.score_test`, for the same reason. Others: Student's.

    Args:
        dense: Scores of the dense model [n].
        compressed: Scores of the compressed model on the same examples [n].
        confidence: Of the interval.

    Raises:
        ValueError: The two differ in length.
    """
    before, after = paired(dense, compressed)
    if not (is_binary(before) and is_binary(after)) or before.size == 0:
        differences = after - before
        plain = mean(differences, confidence)
        if before.size < 2 or not (is_share(before) and is_share(after)):
            return plain
        return wider(plain, score_interval(_graded_units(before, after), confidence), -1.0, 1.0)
    table = flips(before, after)
    lost, won, n = (table.broke + 1) / (table.n + 2), (table.fixed + 1) / (table.n + 2), table.n
    half = normal_quantile((1 + confidence) / 2) * math.sqrt((lost + won - (won - lost) ** 2) / (n + 2))
    low, high = won - lost - half, won - lost + half
    return Interval((table.fixed - table.broke) / n, max(low, -1.0), min(high, 1.0), n)


def paired_p(dense: ArrayLike, compressed: ArrayLike) -> float:
    """Two-sided p of "nothing changed": exact McNemar for right and wrong, for graded scores the larger of the paired t
    test's and, within [0, 1], the score test's.

    Args:
        dense: Scores of the dense model [n].
        compressed: Scores of the compressed model on the same examples [n].

    Returns:
        p; nan for fewer than two graded scores.
    """
    before, after = paired(dense, compressed)
    if is_binary(before) and is_binary(after):
        table = flips(before, after)
        return mcnemar(table.broke, table.fixed)
    differences = after - before
    if differences.size < 2:
        return UNKNOWN
    error = float(differences.std(ddof=1)) / math.sqrt(differences.size)
    if error == 0:
        p = 1.0 if float(differences.mean()) == 0 else 0.0
    else:
        p = student_p(float(differences.mean()) / error, differences.size - 1)
    if is_share(before) and is_share(after):
        p = max(p, score_p(_graded_units(before, after)))
    return p


def difference_units(sums: Floats, sizes: Floats) -> Units:
    """The units of a mean difference of scores within [0, 1]. One not in the sample may lose or win all that it has.

    Args:
        sums: Compressed minus dense, summed over the examples of each unit [units].
        sizes: Examples of each unit [units].
    """
    size = typical(sizes)
    return units(sums, sizes, worst=(-size, size), best=(size, size))


def _graded_units(before: Floats, after: Floats) -> Units:
    """The units of the mean difference of graded scores; one not in the sample may lose or win a typical score."""
    size = typical(np.maximum(before, after))
    return units(after - before, np.ones_like(before), worst=(-size, 1.0), best=(size, 1.0))


def score_p(sample: Units) -> float:
    """The two-sided p of "the ratio is 0", by the test that `score_interval` inverts.

    Args:
        sample: Units of a ratio of sums.
    """
    return 2 * normal_cumulative(-abs(statistic(sample, 0.0)))


def ratio_of_means(dense: ArrayLike, compressed: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The share of the dense score that is kept, mean(compressed) / mean(dense), paired.

    The score interval of `kick_core.stats.score_test`: Nam and Blackwelder's (2002) for right and wrong answers. Where
    nothing was lost in n examples its lower bound is n / (n + z²), so 73 must be kept before 95 % is shown.

    Args:
        dense: Scores of the dense model [n], not negative.
        compressed: Scores of the compressed model on the same examples [n].
        confidence: Of the interval.

    Returns:
        The share and its interval; nan where dense scores nothing.

    Raises:
        ValueError: The two differ in length.
    """
    before, after = paired(dense, compressed)
    return ratio_of_unit_sums(before, after, int(before.size), confidence)


def ratio_of_unit_sums(before: Floats, after: Floats, n: int, confidence: float) -> Interval:
    """`ratio_of_means` over the sums of independent units.

    Args:
        before: Sums of dense scores of each unit [units].
        after: Sums of compressed scores [units].
        n: Examples in all units together.
        confidence: Of the interval.
    """
    if not before.sum() > 0 or not math.isfinite(after.sum()):
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN, n)
    sample = share_units(before, after)
    least = 0.0 if min(before.min(), after.min()) >= 0 else -math.inf
    return Interval(sample.value, *bounds(sample, normal_quantile((1 + confidence) / 2), least), n)


def share_units(before: Floats, after: Floats) -> Units:
    """The units of a share kept. One not in the sample may lose all that a unit has, or win as much from nothing.

    Args:
        before: Sums of dense scores of each unit [units].
        after: Sums of compressed scores [units].
    """
    size = typical(np.maximum(np.abs(before), np.abs(after)))
    return units(after, before, worst=(0.0, size), best=(size, 0.0))


def changed(
    before: Sequence[Hashable] | NDArray[Any], after: Sequence[Hashable] | NDArray[Any], confidence: float = CONFIDENCE
) -> Interval:
    """The share of answers that are another answer now, wrong to wrong included, with Wilson's interval.

    At least the share of flips: a model that answers another wrong option has changed, though no score moved.

    Args:
        before: Answers of the dense model [n].
        after: Answers of the compressed model to the same examples [n].
        confidence: Of the interval.

    Raises:
        ValueError: The two differ in length.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} dense and {len(after)} compressed answers: pair them by example first")
    if isinstance(before, np.ndarray) and isinstance(after, np.ndarray):
        return wilson(int(np.count_nonzero(before != after)), len(before), confidence)
    return wilson(sum(a != b for a, b in zip(before, after, strict=True)), len(before), confidence)


def common_prefix(before: Sequence[Hashable], after: Sequence[Hashable]) -> int:
    """How many tokens (or words) two texts share from the start: tokens until they diverge.

    Args:
        before: One text.
        after: The other.
    """
    for at, (a, b) in enumerate(zip(before, after, strict=False)):
        if a != b:
            return at
    return min(len(before), len(after))


def paired(dense: ArrayLike, compressed: ArrayLike) -> tuple[Floats, Floats]:
    """Two columns of scores as float64 arrays of one shape.

    Args:
        dense: Scores of the dense model [n].
        compressed: Scores of the compressed model on the same examples [n].

    Raises:
        ValueError: The two differ in length.
    """
    before, after = np.asarray(dense, dtype=float), np.asarray(compressed, dtype=float)
    if before.shape != after.shape:
        raise ValueError(f"{before.size} dense and {after.size} compressed scores: pair them by example first")
    return before, after
