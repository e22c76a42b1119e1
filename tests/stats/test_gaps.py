"""The difference of two shares kept: closed forms, and how often its interval holds the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kick_core import stats
from kick_core.stats import Interval, Ratio

TRUTH = (0.9, 0.7)
"""Shares kept by two models whose answers are drawn below."""


def asked(n: int, seed: int) -> tuple[np.ndarray, ...]:
    """Right and wrong of two models, dense and compressed, on the same examples: hard ones are hard for both."""
    rng = np.random.default_rng(seed)
    hard = rng.uniform(size=n)
    luck = rng.uniform(size=(2, n)) * 0.15 + hard * 0.85
    spread = np.sort(rng.uniform(size=(200_000, 2)) @ np.array([0.85, 0.15]))
    level = [np.quantile(spread, share) for share in (0.8, 0.8 * TRUTH[0], 0.8 * TRUTH[1])]
    return luck[0] < level[0], luck[0] < level[1], luck[1] < level[0], luck[1] < level[2]


def gap(n: int, seed: int, *, paired: bool) -> tuple[Interval, float]:
    before, after, other_before, other_after = (part.astype(float) for part in asked(n, seed))
    one, other = stats.ratio_of_means(before, after), stats.ratio_of_means(other_before, other_after)
    moved = stats.ratio_correlation(Ratio(after, before), Ratio(other_after, other_before), np.arange(n))
    return stats.share_gap(one, other, moved if paired else 0.0), moved


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    found = [gap(100, seed, paired=True)[0] for seed in range(300)]
    hits = np.mean([one.low <= TRUTH[0] - TRUTH[1] <= one.high for one in found])
    assert 0.92 <= hits <= 0.995, hits


def test_the_same_examples_tell_more_than_others_would() -> None:
    pairs = [(gap(100, seed, paired=True), gap(100, seed, paired=False)) for seed in range(40)]
    assert np.mean([moved for (_, moved), _ in pairs]) > 0.1
    widths = np.array([[one.high - one.low for one, _ in pair] for pair in pairs])
    assert widths[:, 0].mean() < widths[:, 1].mean()


def test_symmetric_intervals_join_as_variances_do() -> None:
    one, other = Interval(0.9, 0.84, 0.96, 100), Interval(0.5, 0.42, 0.58, 80)
    assert stats.share_gap(one, other) == pytest.approx((0.4, 0.3, 0.5, 80))
    assert stats.share_gap(one, other, 1.0)[1:3] == pytest.approx((0.38, 0.42))
    mirrored = stats.share_gap(other, one)
    assert (mirrored.low, mirrored.high) == pytest.approx((-0.5, -0.3))


def test_an_interval_never_shrinks_to_nothing_where_nothing_flipped() -> None:
    right = np.ones(40)
    kept = stats.ratio_of_means(right, right)
    still = Ratio(right, right)
    found = stats.share_gap(kept, kept, stats.ratio_correlation(still, still, np.arange(40)))
    assert found.value == 0 and found.low < -0.02 and found.high > 0.02


def test_what_is_not_known_stays_unknown() -> None:
    known, unknown = Interval(0.9, 0.8, 1.0, 9), Interval(math.nan, math.nan, math.nan, 0)
    assert all(math.isnan(part) for part in stats.share_gap(known, unknown)[:3])
    endless = stats.share_gap(known, Interval(0.9, 0.8, math.inf, 9))
    assert endless.low == -math.inf and math.isfinite(endless.high)


def test_clusters_move_together_and_are_counted_once() -> None:
    rng = np.random.default_rng(1)
    passage = np.repeat(np.arange(20), 5)
    shared = np.repeat(rng.uniform(size=20), 5)
    one = Ratio((shared < 0.6).astype(float), np.ones(100))
    other = Ratio((shared < 0.5).astype(float), np.ones(100))
    found = stats.ratio_correlation(one, other, passage)
    expected = np.corrcoef(one.sums[::5], other.sums[::5])[0, 1]
    assert found == pytest.approx(expected)
    assert stats.ratio_correlation(one, other, np.zeros(100)) == 0.0
