"""The paired bootstrap against scipy's, and the multinomial short cut against laying every resample out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as oracle

from kick_core import stats
from kick_core.stats import bootstrap


def facts(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Shares of eight facts kept, skewed: most are whole, some lose much."""
    rng = np.random.default_rng(seed)
    dense = rng.binomial(8, 0.95, n) / 8
    return dense, np.where(rng.random(n) < 0.25, rng.binomial(8, 0.2, n) / 8, dense)


@pytest.mark.parametrize("n", [30, 200])
def test_graded_interval_is_scipys_bca(n: int) -> None:
    dense, after = facts(n)
    found = stats.bootstrap_difference(dense, after, replicates=40_000)
    expected = oracle.bootstrap(
        (after - dense,), np.mean, method="BCa", n_resamples=40_000, rng=np.random.default_rng(5)
    ).confidence_interval
    width = expected.high - expected.low
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03 * width)


def test_right_and_wrong_is_scipys_too() -> None:
    rng = np.random.default_rng(1)
    dense = (rng.random(150) < 0.7).astype(float)
    after = np.where(rng.random(150) < 0.15, 1 - dense, dense)
    found = stats.bootstrap_difference(dense, after, replicates=40_000)
    expected = oracle.bootstrap(
        (after - dense,), np.mean, method="BCa", n_resamples=40_000, rng=np.random.default_rng(5)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1 / 150 + 1e-9)
    plain = stats.paired_difference(dense, after)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.02)


def test_one_draw_of_counts_is_a_resample() -> None:
    """The counts of values in resamples laid out one by one have the moments of the multinomial draw."""
    values, counts = np.array([-1.0, 0.0, 1.0]), np.array([7, 30, 3])
    rng = np.random.default_rng(2)
    plain = rng.choice(np.repeat(values, counts), size=(20_000, 40)).mean(axis=1)
    short = bootstrap._resampled(values, counts, 20_000, rng)
    assert short.size == 20_000
    assert oracle.ks_2samp(plain, short).pvalue > 0.01


def test_many_different_values_are_drawn_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    dense, after = rng.random(500), rng.random(500)
    whole = stats.bootstrap_difference(dense, after, replicates=500)
    monkeypatch.setattr(bootstrap, "_AT_ONCE", 10_000)
    parts = stats.bootstrap_difference(dense, after, replicates=500)
    assert (parts.low, parts.high) == (whole.low, whole.high), "a seed means one interval, however memory is cut"


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=30))
@settings(max_examples=50, deadline=None)
def test_it_is_reproducible_and_in_order(pairs: list[tuple[float, float]]) -> None:
    dense, after = [a for a, _ in pairs], [b for _, b in pairs]
    found = stats.bootstrap_difference(dense, after, replicates=200)
    again = stats.bootstrap_difference(dense, after, replicates=200)
    assert repr(found) == repr(again)
    assert found.n == len(pairs)
    assert math.isnan(found.low) or found.low <= found.high


def test_equal_differences_are_not_certainty() -> None:
    found = stats.bootstrap_difference([1, 1, 1], [1, 1, 1])
    assert found.value == 0 and math.isnan(found.low) and math.isnan(found.high)
    assert math.isnan(stats.bootstrap_difference([], []).value)


def three(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right and wrong: dense, compressed, and recovered, which brings about half of the loss back."""
    rng = np.random.default_rng(seed)
    dense = (rng.random(n) < 0.9).astype(float)
    compressed = np.where(rng.random(n) < 0.4, 0.0, dense)
    return dense, compressed, np.where(rng.random(n) < 0.5, dense, compressed)


def test_the_share_that_came_back_is_scipys_percentile_interval() -> None:
    dense, compressed, recovered = three(200)

    def share(gained: np.ndarray, lost: np.ndarray, axis: int) -> np.ndarray:
        return gained.sum(axis) / lost.sum(axis)

    found = stats.bootstrap_recovered(dense, compressed, recovered, range(200), replicates=40_000)
    expected = oracle.bootstrap(
        (recovered - compressed, dense - compressed), share, paired=True, vectorized=True, method="percentile",
        n_resamples=20_000, rng=np.random.default_rng(3),
    ).confidence_interval  # fmt: skip
    width = expected.high - expected.low
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.05 * width)
    assert found.value == pytest.approx((recovered - compressed).sum() / (dense - compressed).sum()) and found.n == 200


def test_the_share_of_a_loss_that_is_not_shown_is_no_number() -> None:
    dense, compressed, recovered = three(200)
    nothing = stats.bootstrap_recovered(dense, dense, recovered, range(200))
    better = stats.bootstrap_recovered(compressed, dense, recovered, range(200))
    one = np.zeros(60)
    one[0] = 1  # a single example lost: 37 % of resamples have none
    hardly = stats.bootstrap_recovered(np.ones(60), 1 - one, np.ones(60), range(60))
    assert all(math.isnan(part) for found in (nothing, better, hardly) for part in found[:3]) and hardly.n == 60


def test_shares_of_clusters_are_wider_and_whole_or_worse_than_nothing_are_told() -> None:
    dense, compressed, recovered = (np.repeat(part, 5) for part in three(60))
    apart = stats.bootstrap_recovered(dense, compressed, recovered, range(300))
    together = stats.bootstrap_recovered(dense, compressed, recovered, np.arange(300) // 5)
    assert together.value == apart.value
    assert together.high - together.low > 1.5 * (apart.high - apart.low)
    assert stats.bootstrap_recovered(dense, compressed, dense, range(300))[:3] == (1.0, 1.0, 1.0)
    worse = stats.bootstrap_recovered(dense, compressed, np.zeros(300), range(300))
    assert worse.high < 0


def test_scores_of_many_values_are_binned_without_moving_what_they_say():
    rng = np.random.default_rng(5)
    dense = rng.beta(0.6, 0.6, 3000)
    after = np.clip(dense - np.where(rng.random(3000) < 0.5, rng.beta(0.5, 4, 3000), 0), 0, 1)
    values, counts = np.unique(after - dense, return_counts=True)
    bins, sizes = bootstrap._binned(values, counts)
    assert values.size > 1000 and bins.size <= bootstrap.BINS + 1 and sizes.sum() == 3000
    assert bins @ sizes == pytest.approx(values @ counts, rel=1e-12)
    assert bins[sizes.argmax()] == 0.0  # the half that did not move stays where it is
    spread = [math.sqrt(np.average(v**2, weights=c)) for v, c in ((values, counts), (bins, sizes))]
    assert spread[1] == pytest.approx(spread[0], rel=5e-3)
