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
def test_differences_are_statsmodels_cluster_robust_ones(rho: float) -> None:
    dense, after, names = passages(25, 4, rho=rho)
    low, high, p = sandwich(after - dense, names)
    found, plain = stats.clustered_difference(dense, after, names), stats.paired_difference(dense, after)
    assert high - low > plain.high - plain.low, "these data were made to be clustered"
    assert (found.low, found.high) == pytest.approx((low, high))
    assert stats.clustered_p(dense, after, names) == pytest.approx(p)
    assert found.value == plain.value and found.n == plain.n == 100


def test_scores_are_statsmodels_cluster_robust_ones() -> None:
    _, after, names = passages(25, 4, rho=0.9)
    low, high, _ = sandwich(after, names)
    found = stats.clustered_score(after, names)
    assert (found.low, found.high) == pytest.approx((max(low, 0), min(high, 1)))


def test_a_ratio_over_clusters_covers_the_truth() -> None:
    """Of 400 experiments with few large clusters 92 % must hold the truth; unclustered ones miss it far oftener."""
    hits = np.zeros(2)
    for seed in range(400):
        dense, after, names = passages(30, 6, rho=0.7, seed=seed)
        truth = (0.65 - 0.1) / 0.65
        for at, found in enumerate((stats.clustered_ratio(dense, after, names), stats.ratio_of_means(dense, after))):
            hits[at] += found.low <= truth <= found.high
    assert hits[0] / 400 >= 0.92 and hits[1] / 400 < 0.75, hits


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


def test_one_cluster_keeps_the_plain_bounds() -> None:
    found = stats.clustered_difference([1, 1, 0], [1, 0, 0], ["a"] * 3)
    assert found == stats.paired_difference([1, 1, 0], [1, 0, 0])


def test_a_name_is_needed_for_every_score() -> None:
    with pytest.raises(ValueError, match="2 cluster names for 3 scores"):
        stats.clustered_score([1, 0, 1], ["a", "b"])
