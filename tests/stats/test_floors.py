"""Chance: whether there is anything to lose, and the share of what lies above it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kick_core import stats


def test_a_dense_score_at_chance_has_nothing_to_lose() -> None:
    assert not stats.anything_to_lose(stats.wilson(27, 100), 0.25)
    assert not stats.anything_to_lose(stats.wilson(0, 100))
    assert not stats.anything_to_lose(stats.wilson(0, 0), 0.25), "not measured is not above chance"
    assert stats.anything_to_lose(stats.wilson(1, 100)) and stats.anything_to_lose(stats.wilson(40, 100), 0.25)


def test_a_guesser_is_rarely_taken_for_one_who_knows() -> None:
    rng = np.random.default_rng(1)
    right = rng.binomial(200, 0.25, 4000)
    rate = np.mean([stats.anything_to_lose(stats.wilson(int(count), 200), 0.25) for count in right])
    assert 0.01 <= rate <= 0.035


def test_without_chance_it_is_the_share_kept() -> None:
    rng = np.random.default_rng(2)
    dense = (rng.random(80) < 0.7).astype(float)
    after = np.where(rng.random(80) < 0.2, 1 - dense, dense)
    assert stats.share_above_chance(dense, after, 0.0)[:3] == pytest.approx(stats.ratio_of_means(dense, after)[:3])
    names = np.arange(80) // 4
    clustered = stats.share_above_chance(dense, after, 0.25, names)
    plain = stats.share_above_chance(dense, after, 0.25)
    assert clustered.value == pytest.approx(plain.value) and clustered.n == plain.n == 80


def test_chance_counts_for_nothing() -> None:
    dense = np.repeat([1.0, 0.0], [70, 30])
    half = np.repeat([1.0, 0.0, 0.0], [47, 23, 30])
    above = stats.share_above_chance(dense, half, 0.25)
    assert above.value == pytest.approx((0.47 - 0.25) / (0.70 - 0.25))
    assert above.low < above.value < above.high < stats.ratio_of_means(dense, half).high
    guess = stats.share_above_chance(dense, np.repeat([0.0, 1.0], [75, 25]), 0.25)
    assert guess.value == pytest.approx(0.0) and guess.low < 0 < guess.high


def test_a_share_of_nothing_is_no_number() -> None:
    dense = np.repeat([1.0, 0.0], [25, 75])
    assert math.isnan(stats.share_above_chance(dense, dense, 0.25).value)
    assert math.isnan(stats.share_above_chance([], [], 0.25).value)
    hardly = stats.share_above_chance(np.repeat([1.0, 0.0], [27, 73]), np.repeat([0.0, 1.0], [74, 26]), 0.25)
    assert math.isinf(hardly.low) or math.isinf(hardly.high), "where dense may be at chance, no share is ruled out"
    with pytest.raises(ValueError, match="chance is 1"):
        stats.share_above_chance(dense, dense, 1.0)
