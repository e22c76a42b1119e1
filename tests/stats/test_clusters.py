"""Clustered intervals against statsmodels' sandwich estimator, and what must hold whatever the data."""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from hypothesis import given
from hypothesis import strategies as st

from kick_core import stats


def passages(groups: int, each: int, *, rho: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Graded dense and compressed scores of questions on passages that share their luck to the degree rho."""
    rng = np.random.default_rng(seed)
    names = [f"passage-{g}" for g in range(groups) for _ in range(each)]
    shared = np.repeat(rng.normal(size=groups), each)
    dense = rng.uniform(0.3, 1, groups * each)
    noise = math.sqrt(rho) * shared + math.sqrt(1 - rho) * rng.normal(size=groups * each)
    return dense, dense - 0.1 + 0.1 * noise, names


def sandwich(values: np.ndarray, names: list[str]) -> tuple[float, float, float]:
    numbers = np.unique(names, return_inverse=True)[1]
    fit = sm.OLS(values, np.ones_like(values)).fit(cov_type="cluster", cov_kwds={"groups": numbers}, use_t=True)
    (low, high), p = fit.conf_int(0.05)[0], fit.pvalues[0]
    return float(low), float(high), float(p)


@pytest.mark.parametrize("rho", [0.3, 0.8])
def test_differences_beyond_one_are_statsmodels_cluster_robust_ones(rho: float) -> None:
    """Ratings are not bounded by 1, so there is no worst case to test against: the sandwich it is."""
    dense, after, names = passages(25, 4, rho=rho)
    dense, after = 10 * dense, 10 * after
    low, high, p = sandwich(after - dense, names)
    clustered, plain = stats.clustered_difference(dense, after, names), stats.paired_difference(dense, after)
    assert high - low > plain.high - plain.low, "these data were made to be clustered"
    assert (clustered.low, clustered.high) == pytest.approx((low, high))
    assert stats.clustered_p(dense, after, names) == pytest.approx(p)
    assert clustered.value == plain.value and clustered.n == plain.n == 100


def test_many_clusters_of_smooth_scores_are_close_to_the_sandwich() -> None:
    """The score test and statsmodels' Wald test are the same in large samples."""
    dense, after, names = passages(2000, 4, rho=0.8)
    dense, after = np.clip(dense, 0, 1), np.clip(after, 0, 1)
    for clustered, values in (
        (stats.clustered_difference(dense, after, names), after - dense),
        (stats.clustered_score(after, names), after),
    ):
        low, high, _ = sandwich(values, names)
        assert (clustered.low, clustered.high) == pytest.approx((low, high), abs=0.02 * (high - low))


def test_the_p_of_clusters_agrees_with_their_interval() -> None:
    dense = np.repeat((np.arange(50) < 30).astype(float), 4)
    for broke in range(12):
        after = dense * np.repeat(np.arange(50) >= broke, 4)
        names = np.repeat(np.arange(50), 4)
        p, interval = stats.clustered_p(dense, after, names), stats.clustered_difference(dense, after, names)
        assert (p < 0.05) == (interval.high < 0) or abs(p - 0.05) < 1e-6


def test_a_few_clusters_that_lost_nothing_prove_little() -> None:
    """The sandwich sees no variance here; the score test knows that one of 13 passages may well be lost."""
    right, names = np.ones(48), np.repeat(np.arange(12), 4)
    kept = stats.clustered_ratio(right, right, names)
    assert kept.low == pytest.approx(12 / (12 + 1.959964**2), rel=1e-5)


PAIRS = st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from("abcdefgh")), min_size=1, max_size=60)


@given(PAIRS)
def test_clusters_never_make_more_certain(rows: list[tuple[bool, bool, str]]) -> None:
    dense, after = (np.array([row[side] for row in rows], dtype=float) for side in (0, 1))
    names = [row[2] for row in rows]
    both = (
        (stats.clustered_difference(dense, after, names), stats.paired_difference(dense, after)),
        (stats.clustered_ratio(dense, after, names), stats.ratio_of_means(dense, after)),
        (stats.clustered_score(after, names), stats.score(after)),
    )
    for clustered, plain in both:
        if math.isnan(plain.value):
            assert math.isnan(clustered.value)
            continue
        assert clustered.value == plain.value and clustered.n == plain.n
        assert clustered.low <= plain.low and clustered.high >= plain.high
    assert stats.clustered_p(dense, after, names) >= stats.paired_p(dense, after)


@given(PAIRS)
def test_clusters_of_one_change_nothing(rows: list[tuple[bool, bool, str]]) -> None:
    dense, after = (np.array([row[side] for row in rows], dtype=float) for side in (0, 1))
    alone = list(range(len(rows)))
    assert stats.clustered_difference(dense, after, alone) == stats.paired_difference(dense, after)
    assert stats.clustered_score(after, alone) == stats.score(after)
    assert stats.clustered_p(dense, after, alone) == stats.paired_p(dense, after)


def test_one_cluster_shows_as_little_as_one_example() -> None:
    """A hundred questions on one passage, none lost, are no evidence about other passages."""
    dense = np.ones(100)
    for found, one in (
        (stats.clustered_ratio(dense, dense, ["a"] * 100), stats.ratio_of_means([1], [1])),
        (stats.clustered_score(dense, ["a"] * 100), stats.score([1])),
    ):
        assert (found.low, found.high) == pytest.approx((one.low, one.high)) and found.n == 100
    tests = [stats.margin_test(dense, dense, ["a"] * 100), stats.margin_test([1], [1])]
    assert tests[0].loses == pytest.approx(tests[1].loses) and tests[0].loses > 0.3


def test_scores_that_are_no_number_have_no_interval() -> None:
    for dense, after in (([math.nan, 1.0], [1.0, 1.0]), ([1.0, 1.0], [math.nan, 1.0])):
        assert math.isnan(stats.ratio_of_means(dense, after).low)
        assert math.isnan(stats.share_above_chance(dense, after, 0.25).low)
        assert math.isnan(stats.margin_test(dense, after).loses)


def test_a_name_is_needed_for_every_score() -> None:
    with pytest.raises(ValueError, match="2 cluster names for 3 scores"):
        stats.clustered_score([1, 0, 1], ["a", "b"])
