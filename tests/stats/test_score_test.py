"""The score test against independent implementations, and what must hold whatever the data."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize
from statsmodels.stats.proportion import proportion_confint

from kick_core import stats
from kick_core.stats.pairs import share_units
from kick_core.stats.score_test import _HALVINGS, _halved, bounds, statistic, units

Z = 1.959963984540054


def nam_blackwelder(broke: int, fixed: int, both: int, ratio: float) -> float:
    """z of the ratio of paired proportions, its variance at the restricted maximum of the multinomial likelihood."""
    n = both + broke + fixed

    def loss(share_broke: float) -> float:
        share_fixed = (share_broke - (1 - ratio)) / ratio
        cells = (1 - share_broke - share_fixed, share_broke, share_fixed)
        return -sum(
            count * math.log(max(share, 1e-300)) for count, share in zip((both, broke, fixed), cells, strict=True)
        )

    least, most = max(0.0, 1 - ratio), 1 / (1 + ratio)
    best = optimize.minimize_scalar(loss, bounds=(least, most), method="bounded", options={"xatol": 1e-13}).x
    variance = n * ratio * (best + (best - (1 - ratio)) / ratio)
    return float(((both + fixed) - ratio * (both + broke)) / math.sqrt(variance))


@pytest.mark.parametrize("counts", [(3, 1, 60), (0, 0, 40), (9, 0, 30), (0, 7, 20), (25, 20, 11), (1, 1, 0)])
@pytest.mark.parametrize("ratio", [0.7, 0.95, 1.3])
def test_right_and_wrong_is_nam_and_blackwelders_test(counts: tuple[int, int, int], ratio: float) -> None:
    broke, fixed, both = counts
    dense = np.repeat([1.0, 0.0, 1.0, 0.0], [broke, fixed, both, 5])
    after = np.repeat([0.0, 1.0, 1.0, 0.0], [broke, fixed, both, 5])
    expected = nam_blackwelder(broke, fixed, both, ratio)
    assert statistic(share_units(dense, after), ratio) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
@settings(deadline=None)
def test_one_proportion_is_wilsons(counts: tuple[int, int]) -> None:
    right, n = counts
    sample = units(np.repeat([1.0, 0.0], [right, n - right]), np.ones(n), worst=(0.0, 1.0), best=(1.0, 1.0))
    assert bounds(sample, Z) == pytest.approx(proportion_confint(right, n, method="wilson"), abs=1e-9)


def test_graded_scores_take_the_empirical_likelihoods_variance() -> None:
    """Weights found by a general optimiser: the likeliest law on the terms and the worst one whose mean is 0."""
    dense, after = np.array([1.0, 0.75, 1.0, 1.0, 0.5, 1.0]), np.array([1.0, 0.75, 0.5, 1.0, 0.25, 1.0])
    for ratio in (0.6, 0.8, 0.98):
        sample = share_units(dense, after)
        terms = np.append(after - ratio * dense, -ratio * sample.worst[1])
        fit = optimize.minimize(
            lambda w: -np.log(np.maximum(w[:6], 1e-12)).sum(), np.full(7, 1 / 7), method="SLSQP",
            bounds=[(0, 1)] * 7, options={"ftol": 1e-14, "maxiter": 1000},
            constraints=[{"type": "eq", "fun": lambda w: w.sum() - 1},
                         {"type": "eq", "fun": lambda w, terms=terms: w @ terms}],
        )  # fmt: skip
        expected = terms[:6].sum() / math.sqrt(6 * (fit.x @ terms**2))
        if expected > 0:  # else the other end would be the worst
            assert statistic(sample, ratio) == pytest.approx(expected, rel=1e-4)


GRADED = st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 1.0]), st.sampled_from([0, 0.3, 0.5, 1.0])), min_size=1)


@given(GRADED)
@settings(deadline=None)
def test_the_interval_is_what_the_test_does_not_reject(rows: list[tuple[float, float]]) -> None:
    dense, after = (np.array(side) for side in zip(*rows, strict=True))
    if dense.sum() == 0:
        return
    sample = share_units(dense, after)
    low, high = bounds(sample, Z, 0.0)
    assert 0 <= low <= sample.value <= high < math.inf
    for share in np.linspace(0.02, 0.98, 9):
        assert abs(statistic(sample, low + share * (high - low))) <= Z + 1e-6
    assert abs(statistic(sample, high * 1.001 + 1e-6)) >= Z - 1e-3
    if low > 1e-3:
        assert abs(statistic(sample, low * 0.999)) >= Z - 1e-3


def test_the_published_share_of_nothing_lost() -> None:
    """n / (n + z²), as Wilson's: 73 kept answers are the fewest that show 95 %."""
    for n in (10, 72, 73, 500):
        assert stats.ratio_of_means(np.ones(n), np.ones(n)).low == pytest.approx(n / (n + Z * Z))
    assert stats.matching(*stats.ratio_of_means(np.ones(72), np.ones(72))[1:3]) == "cannot tell"
    assert stats.matching(*stats.ratio_of_means(np.ones(73), np.ones(73))[1:3]) == "matching"


def test_one_story_hurt_is_not_better_news_than_none() -> None:
    none = stats.ratio_of_means(np.ones(48), np.ones(48))
    one = stats.ratio_of_means(np.ones(48), np.r_[0.75, np.ones(47)])
    assert one.low <= none.low


def test_scale_does_not_matter() -> None:
    """Ratings of 1 to 10 keep the share that the same ratings of 0.1 to 1 keep."""
    rng = np.random.default_rng(0)
    dense = rng.integers(5, 11, 60) / 10
    after = np.clip(dense - rng.integers(0, 4, 60) / 10, 0.1, 1)
    assert stats.ratio_of_means(10 * dense, 10 * after)[:3] == pytest.approx(stats.ratio_of_means(dense, after)[:3])


@pytest.mark.parametrize("left, right", [(0.0, 3.0), (5.0, -1.0)])
@pytest.mark.parametrize("finite_from", [-math.inf, 0.3])
def test_a_bracket_is_halved_as_without_guesses(left: float, right: float, finite_from: float) -> None:
    way = 1 if right > left else -1
    for root in np.random.default_rng(3).uniform(min(left, right), max(left, right), 20):
        value = lambda x: math.inf if way * x < finite_from else way * (math.expm1(root) - math.expm1(x))  # noqa: B023, E731
        low, high = left, right
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if value(middle) < 0 else (middle, high)
        seen: list[float] = []
        assert _halved(lambda x: seen.append(x) or value(x), left, right) == (low, high)  # noqa: B023
        assert len(seen) < _HALVINGS * 0.8 or finite_from > -math.inf
