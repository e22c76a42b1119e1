"""How many examples a verdict would take, answers that changed, and where two texts part."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kick_core import stats
from kick_core.stats import pairs


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
    """Simulated: from what 200 examples say, the n that is named tells "not matching" about four times of five."""
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
    assert 0.74 <= told <= 0.88, (needed, told)


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


@given(st.lists(st.tuples(st.floats(0.05, 1), st.floats(0, 1)), min_size=4, max_size=40))
def test_the_graded_ratio_leaves_one_out_when_the_t_test_does(rows: list[tuple[float, float]]) -> None:
    dense, after = (np.array(side) for side in zip(*rows, strict=True))
    if np.std(after - dense) < 1e-6 or (stats.is_binary(dense) and stats.is_binary(after)):
        return
    p, kept = stats.paired_p(dense, after), stats.ratio_of_means(dense, after)
    assert kept.low <= kept.value * (1 + 1e-9) and kept.value <= kept.high * (1 + 1e-9)
    if abs(p - 0.05) > 1e-6 and kept.high < math.inf:
        assert (p < 0.05) == (kept.low > 1 or kept.high < 1)


def test_fieller_covers_the_truth_with_six_examples() -> None:
    rng, hits = np.random.default_rng(2), 0
    for _ in range(1500):
        dense = rng.normal(0.5, 0.15, 6)
        after = 0.8 * dense + rng.normal(0, 0.1, 6)
        found = pairs.fieller(dense, after)
        hits += found[0] <= 0.8 <= found[1]
    assert 0.93 <= hits / 1500 <= 0.97, hits / 1500
