"""Two models on the same examples: flips, differences and ratios, paired."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kick_core.stats.distributions import normal_quantile, student_p, student_quantile
from kick_core.stats.samples import CONFIDENCE, UNKNOWN, Interval, is_binary, mean, wilson, wilson_bounds


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
    """Count flips. Graded scores count as right from `threshold` on."""
    before = np.asarray(dense, dtype=float) >= threshold
    after = np.asarray(compressed, dtype=float) >= threshold
    return Flips(
        int((before & after).sum()),
        int((before & ~after).sum()),
        int((~before & after).sum()),
        int((~before & ~after).sum()),
    )


def mcnemar(broke: int, fixed: int) -> float:
    """Exact two-sided McNemar p: how often a fair coin splits broke + fixed at least this unevenly."""
    n, k = broke + fixed, min(broke, fixed)
    if n == 0:
        return 1.0
    log_half = n * math.log(2)
    tail = sum(
        math.exp(math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) - log_half) for i in range(k + 1)
    )
    return min(1.0, 2 * tail)


def paired_difference(dense: ArrayLike, compressed: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Compressed minus dense, paired.

    Right and wrong: Bonett and Price's (2012) adjusted Wald interval, whose width does not shrink to nothing
    when no answer flipped. Graded scores: Student's interval of the differences.
    """
    before, after = paired(dense, compressed)
    if not (is_binary(before) and is_binary(after)) or before.size == 0:
        return mean(after - before, confidence)
    table = flips(before, after)
    lost, won, n = (table.broke + 1) / (table.n + 2), (table.fixed + 1) / (table.n + 2), table.n
    half = normal_quantile((1 + confidence) / 2) * math.sqrt((lost + won - (won - lost) ** 2) / (n + 2))
    low, high = won - lost - half, won - lost + half
    return Interval((table.fixed - table.broke) / n, max(low, -1.0), min(high, 1.0), n)


def paired_p(dense: ArrayLike, compressed: ArrayLike) -> float:
    """p of "nothing changed": exact McNemar for right and wrong, paired t for graded scores."""
    before, after = paired(dense, compressed)
    if is_binary(before) and is_binary(after):
        table = flips(before, after)
        return mcnemar(table.broke, table.fixed)
    moved = after - before
    if moved.size < 2:
        return UNKNOWN
    error = float(moved.std(ddof=1)) / math.sqrt(moved.size)
    if error == 0:
        return 1.0 if float(moved.mean()) == 0 else 0.0
    return student_p(float(moved.mean()) / error, moved.size - 1)


def ratio_of_means(dense: ArrayLike, compressed: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The share of the dense score that is kept: mean(compressed) / mean(dense), paired.

    Right and wrong: Bonett and Price (2006), which stays honest at 0 flips and at 0 right. Graded scores:
    Fieller's interval. nan when dense scores nothing.
    """
    before, after = paired(dense, compressed)
    total = float(before.sum())
    if before.size == 0 or total <= 0:
        return Interval(UNKNOWN, UNKNOWN, UNKNOWN, int(before.size))
    ratio = float(after.sum()) / total
    if is_binary(before) and is_binary(after):
        low, high = _ratio_bounds(flips(before, after), normal_quantile((1 + confidence) / 2))
        return Interval(ratio, low, high, int(before.size))
    if before.size < 2:
        return Interval(ratio, UNKNOWN, UNKNOWN, 1)
    low, high = fieller(before, after, confidence)
    return Interval(ratio, low, high, int(before.size))


def fieller(
    before: NDArray[np.float64], after: NDArray[np.float64], confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Fieller's (1954) bounds of sum(after) / sum(before) over at least two units, both sums not negative.

    They hold exactly those ratios r which a t test of after - r x before does not refuse, so they leave 1 out when
    the paired t test sees a difference, however few the units. Where `before` may well be 0 nothing is ruled out.
    """
    t = student_quantile(confidence, before.size - 1)
    ((spread_before, both), (_, spread_after)) = np.cov(before, after) * t * t / before.size
    mean_before, mean_after = float(before.mean()), float(after.mean())
    square = mean_before**2 - spread_before
    if square <= 0:
        return 0.0, math.inf
    middle = mean_before * mean_after - both
    root = math.sqrt(max(middle**2 - square * (mean_after**2 - spread_after), 0.0))
    return max(float(middle - root) / square, 0.0), float(middle + root) / square


def _ratio_bounds(table: Flips, z: float) -> tuple[float, float]:
    """Bonett and Price's interval of (right after) / (right before); both-wrong examples say nothing."""
    before, after = table.both_right + table.broke, table.both_right + table.fixed
    n = table.both_right + table.broke + table.fixed
    joint = math.sqrt((table.broke + table.fixed + 2) / ((before + 1) * (after + 1)))
    apart = sum(math.sqrt((1 - (count + 1) / (n + 2)) / (count + 1)) for count in (before, after))
    shrunk = z * joint / apart
    low_after, high_after = wilson_bounds(after, n, shrunk)
    low_before, high_before = wilson_bounds(before, n, shrunk)
    return low_after / high_before, (high_after / low_before if low_before else math.inf)


def changed(before: Sequence[Hashable], after: Sequence[Hashable], confidence: float = CONFIDENCE) -> Interval:
    """The share of answers that are another answer now, wrong to wrong included, with Wilson's interval.

    At least the share of flips: a model that answers another wrong option has changed, though no score moved.
    """
    if len(before) != len(after):
        raise ValueError(f"{len(before)} dense and {len(after)} compressed answers: pair them by example first")
    return wilson(sum(a != b for a, b in zip(before, after, strict=True)), len(before), confidence)


def common_prefix(before: Sequence[Hashable], after: Sequence[Hashable]) -> int:
    """How many tokens (or words) two texts share from the start: tokens until they diverge."""
    for at, (a, b) in enumerate(zip(before, after, strict=False)):
        if a != b:
            return at
    return min(len(before), len(after))


def paired(dense: ArrayLike, compressed: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    before, after = np.asarray(dense, dtype=float), np.asarray(compressed, dtype=float)
    if before.shape != after.shape:
        raise ValueError(f"{before.size} dense and {after.size} compressed scores: pair them by example first")
    return before, after
