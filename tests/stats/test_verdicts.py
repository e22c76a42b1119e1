"""How many examples a verdict would take, answers that changed, and where two texts part."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kick_core import stats


@given(
    st.floats(0.5, 1.2).filter(lambda ratio: abs(ratio - 0.95) > 1e-3), st.floats(0.01, 0.5), st.integers(10, 10_000)
)
def test_with_the_examples_needed_the_interval_leaves_the_margin_out(ratio: float, half: float, n: int) -> None:
    kept = stats.Interval(ratio, ratio - half, ratio + half, n)
    needed = stats.examples_needed(kept, power=0.5)
    shrunk = half * math.sqrt(n / needed)
    assert shrunk == pytest.approx(abs(ratio - 0.95))
    assert stats.examples_needed(kept, power=0.8) == pytest.approx(needed * (1 + 0.841621 / 1.959964) ** 2, rel=1e-4)


def test_the_examples_needed_have_the_power_they_claim() -> None:
    """Simulated: from what 200 examples say, the n that is named tells "not matching" at least four times of five.

    Somewhat more often, because the test at the margin expects fewer flips than a model that keeps 88 % shows.
    """
    truth, rng = 0.88, np.random.default_rng(11)

    def ask(n: int) -> stats.Interval:
        dense = (rng.random(n) < 0.8).astype(float)
        return stats.ratio_of_means(dense, np.where(rng.random(n) < 1 - truth, 0, dense))

    large = ask(20_000)
    typical = stats.Interval(
        truth, truth - (large.value - large.low) * 10, truth + (large.high - large.value) * 10, 200
    )
    needed = round(stats.examples_needed(typical))
    told = np.mean([stats.matching(*ask(needed)[1:3]) == "not matching" for _ in range(600)])
    assert 0.76 <= told <= 0.95, (needed, told)


def test_nothing_known_and_on_the_margin() -> None:
    assert math.isnan(stats.examples_needed(stats.Interval(math.nan, math.nan, math.nan, 0)))
    assert math.isnan(stats.examples_needed(stats.Interval(0.97, math.nan, math.nan, 1)))
    assert stats.examples_needed(stats.Interval(0.95, 0.9, 1.0, 50)) == math.inf


@given(st.lists(st.tuples(st.sampled_from("ABCD"), st.sampled_from("ABCD"), st.sampled_from("ABCD")), min_size=1))
def test_at_least_the_flips_have_changed(rows: list[tuple[str, str, str]]) -> None:
    gold, before, after = zip(*rows, strict=True)
    right = [[float(a == g) for a, g in zip(side, gold, strict=True)] for side in (before, after)]
    changed = stats.changed(before, after)
    assert changed.value >= stats.flips(*right).share
    assert changed.value == np.mean([a != b for a, b in zip(before, after, strict=True)])


def test_wrong_to_wrong_is_a_change() -> None:
    assert stats.changed("BBBB", "CCBB").value == 0.5
    with pytest.raises(ValueError, match="2 dense and 1 compressed"):
        stats.changed("AB", "A")


@given(st.lists(st.integers(0, 3)), st.lists(st.integers(0, 3)))
def test_the_common_prefix_is_common_and_ends(one: list[int], other: list[int]) -> None:
    n = stats.common_prefix(one, other)
    assert one[:n] == other[:n]
    assert n in (len(one), len(other)) or one[n] != other[n]


def test_ratio_of_sums_of_equal_units_is_the_mean() -> None:
    values = np.random.default_rng(0).random(40)
    ratio, plain = stats.ratio_of_sums(values * 16, np.full(40, 16)), stats.mean(values)
    assert ratio[:3] == pytest.approx(plain[:3]) and ratio.n == 40
    assert math.isnan(stats.ratio_of_sums([], []).value)
    assert math.isnan(stats.ratio_of_sums([1.0], [2.0]).low)


def test_the_margin_test_is_the_interval() -> None:
    """One-sided 2.5 % is where the interval ends on the margin, with and without clusters."""
    rng = np.random.default_rng(5)
    dense = (rng.random(120) < 0.8).astype(float)
    after = np.where(rng.random(120) < 0.1, 0.0, dense)
    for clusters in (None, np.arange(120) // 3):
        names = np.arange(120) if clusters is None else clusters
        kept = stats.clustered_ratio(dense, after, names)
        low = stats.margin_test(dense, after, clusters, margin=1 - kept.low)
        high = stats.margin_test(dense, after, clusters, margin=1 - kept.high)
        assert low.loses == pytest.approx(0.025, rel=1e-6) and high.keeps == pytest.approx(0.025, rel=1e-6)


def test_together_means_holm_on_either_side() -> None:
    tests = [stats.MarginTest(p, 1 - p) for p in (0.004, 0.011, 0.02, 0.5, 0.999)]
    alone = ["matching" if test.loses <= 0.025 else "open" for test in tests]
    assert alone.count("matching") == 3
    assert stats.match_together(tests) == ["matching", "cannot tell", "cannot tell", "cannot tell", "not matching"]
    assert stats.match_together(tests[:1]) == ["matching"]
    unknown = stats.MarginTest(math.nan, math.nan)
    assert stats.match_together([unknown, *tests[:1]]) == ["cannot tell", "matching"]


def test_many_recipes_on_the_margin_bound() -> None:
    assert stats.false_matching(1) == pytest.approx(0.025)
    assert stats.false_matching(17) == pytest.approx(0.425)
    assert stats.false_matching(100) == 1.0
