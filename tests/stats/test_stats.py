"""Every formula of kick_core.stats against an independent implementation, and its edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft
from scipy import stats as oracle
from statsmodels.stats.contingency_tables import mcnemar as statsmodels_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from kick_core import stats


@pytest.mark.parametrize("freedom", [1, 2, 3, 5, 9, 30, 199, 5000, 100_000])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_student_is_scipys(freedom: int, confidence: float) -> None:
    expected = oracle.t.ppf((1 + confidence) / 2, freedom)
    assert stats.student_quantile(confidence, freedom) == pytest.approx(expected, rel=1e-9)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_is_statsmodels(counts: tuple[int, int]) -> None:
    right, n = counts
    low, high = proportion_confint(right, n, method="wilson")
    found = stats.wilson(right, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(st.integers(0, 400), st.integers(0, 400))
def test_mcnemar_is_exact(broke: int, fixed: int) -> None:
    found = stats.mcnemar(broke, fixed)
    table = [[7, broke], [fixed, 3]]
    assert found == pytest.approx(min(1.0, statsmodels_mcnemar(table, exact=True).pvalue), rel=1e-9)
    assert found == stats.mcnemar(fixed, broke)


def test_mcnemar_does_not_overflow() -> None:
    assert stats.mcnemar(9000, 2000) < 1e-300 or stats.mcnemar(9000, 2000) == 0
    assert stats.mcnemar(7000, 7000) == pytest.approx(1.0)


GRADED = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=60)


@settings(deadline=None)
@given(GRADED)
def test_graded_difference_is_the_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    """Of scores without bounds; of those within [0, 1] it is never more certain than that."""
    dense, compressed = (np.array(side) for side in zip(*pairs, strict=True))
    moved = compressed - dense
    if moved.std() < 1e-6 or (stats.is_binary(dense) and stats.is_binary(compressed)):
        return
    test = oracle.ttest_rel(compressed, dense)
    bounds = test.confidence_interval(0.95)
    found = stats.paired_difference(dense + 1, compressed + 1)
    assert (found.low, found.high) == pytest.approx((bounds.low, bounds.high), rel=1e-6, abs=1e-9)
    assert stats.paired_p(dense + 1, compressed + 1) == pytest.approx(test.pvalue, rel=1e-6, abs=1e-12)
    shares, p = stats.paired_difference(dense, compressed), stats.paired_p(dense, compressed)
    assert shares.low <= max(bounds.low, -1.0) + 1e-9 and shares.high >= min(bounds.high, 1.0) - 1e-9
    assert p >= test.pvalue * (1 - 1e-6) and (p >= 0.05 or shares.low > 0 or shares.high < 0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80))
def test_binary_pairs_hold_together(pairs: list[tuple[bool, bool]]) -> None:
    dense, compressed = (np.array(side, dtype=float) for side in zip(*pairs, strict=True))
    table = stats.flips(dense, compressed)
    assert table.n == len(pairs)
    difference = stats.paired_difference(dense, compressed)
    assert difference.value == pytest.approx((table.fixed - table.broke) / table.n)
    assert difference.low <= difference.value <= difference.high
    assert difference.low < difference.high, "no flips in few examples is not certainty"
    ratio = stats.ratio_of_means(dense, compressed)
    if dense.sum():
        assert ratio.value == pytest.approx(compressed.mean() / dense.mean())
        assert 0 <= ratio.low <= ratio.value <= ratio.high
        assert ratio.low < ratio.high
    else:
        assert math.isnan(ratio.value)


@pytest.mark.parametrize(("dense_right", "broke", "fixed"), [(0.9, 0.1, 0.1), (0.5, 0.5, 0.05), (0.95, 0.02, 0.3)])
@pytest.mark.parametrize("n", [40, 200])
def test_intervals_cover(dense_right: float, broke: float, fixed: float, n: int) -> None:
    """Of 1,000 simulated experiments, 93 % of the intervals must hold the truth; rare flips may give more."""
    rng = np.random.default_rng(7)
    truth_after = dense_right * (1 - broke) + (1 - dense_right) * fixed
    inside = np.zeros(2)
    for _ in range(1000):
        dense = (rng.random(n) < dense_right).astype(float)
        after = np.where(dense > 0, rng.random(n) >= broke, rng.random(n) < fixed).astype(float)
        ratio, difference = stats.ratio_of_means(dense, after), stats.paired_difference(dense, after)
        inside += [
            ratio.low <= truth_after / dense_right <= ratio.high,
            difference.low <= truth_after - dense_right <= difference.high,
        ]
    assert all(share >= 0.93 for share in inside / 1000), inside / 1000


def test_graded_ratio_is_the_bootstraps() -> None:
    rng = np.random.default_rng(3)
    dense = rng.uniform(0.4, 1, 300)
    compressed = np.clip(dense * 0.8 + rng.normal(0, 0.1, 300), 0, 1)
    found = stats.ratio_of_means(dense, compressed)
    bootstrap = oracle.bootstrap(
        (dense, compressed),
        lambda d, c, axis: c.mean(axis=axis) / d.mean(axis=axis),
        paired=True,
        rng=np.random.default_rng(1),
        n_resamples=4000,
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((bootstrap.low, bootstrap.high), abs=2e-3)


def test_perplexity_by_hand() -> None:
    tokens = np.array([100, 100, 50, 100, 100, 50])
    nlls = np.array([120.0, 90.0, 60.0, 120.0, 90.0, 60.0])
    interval = stats.perplexity(nlls, tokens)
    assert interval.value == pytest.approx(math.exp(270 / 250))
    assert interval.low < interval.value < interval.high
    assert stats.perplexity_kept(nlls, nlls, tokens)[:3] == (1.0, 1.0, 1.0)
    worse = stats.perplexity_kept(nlls, nlls + tokens * 0.1, tokens)
    assert worse.value == pytest.approx(math.exp(-0.1))
    assert (worse.low, worse.high) == pytest.approx((worse.value, worse.value))


def test_perplexity_of_pages_is_the_t_interval_of_their_means() -> None:
    nlls = np.random.default_rng(0).normal(200, 20, 30)
    rates = nlls / 128
    bounds = oracle.t.interval(0.95, 29, loc=rates.mean(), scale=oracle.sem(rates))
    interval = stats.perplexity(nlls, np.full(30, 128), neighbours=False)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.exp(bounds)))


@pytest.mark.parametrize("n", [6, 50, 166])
def test_neighbouring_windows_take_the_long_run_variance_of_the_cosine_transform(n: int) -> None:
    rng = np.random.default_rng(n)
    nlls, tokens = rng.normal(200, 20, n).cumsum(), rng.integers(50, 128, n)
    rate = nlls.sum() / tokens.sum()
    freedom = max(1, int(0.4 * n ** (2 / 3)))
    variance = n * (fft.dct(nlls - rate * tokens, norm="ortho")[1 : freedom + 1] ** 2).mean()
    half = oracle.t.ppf(0.975, freedom) * math.sqrt(variance) / tokens.sum()
    interval = stats.rate_of_windows(nlls, tokens)
    assert (interval.low, interval.high) == pytest.approx((rate - half, rate + half))


def test_too_few_neighbours_have_no_interval() -> None:
    interval = stats.perplexity_kept([5.0] * 5, [5.0, 5.1, 5.0, 5.2, 5.3], [10] * 5)
    assert interval.value < 1 and math.isnan(interval.low) and stats.matching(*interval[1:3]) == "cannot tell"
    assert math.isnan(stats.perplexity_p([5.0] * 5, [6.0] * 5, [10] * 5))


@pytest.mark.parametrize("neighbours", [True, False])
def test_the_p_of_perplexity_and_of_the_margin_agree_with_the_interval(neighbours: bool) -> None:
    """A p of 5 % is where the interval ends on 1, a one-sided 2.5 % where it ends on the margin."""
    rng = np.random.default_rng(4)
    tokens = rng.integers(50, 128, 40)
    dense = tokens * rng.normal(3, 0.3, 40)
    gone = tokens * rng.normal(0.05, 0.1, 40)
    kept = stats.perplexity_kept(dense, dense + gone, tokens, neighbours=neighbours)
    for end in (kept.low, kept.high):
        shifted = gone + math.log(end) * tokens
        p = stats.perplexity_p(dense, dense + shifted, tokens, neighbours=neighbours)
        assert p == pytest.approx(0.05, rel=1e-9)
        margin = stats.perplexity_margin_test(dense, dense + gone, tokens, neighbours=neighbours, margin=1 - end)
        assert min(margin) == pytest.approx(0.025, rel=1e-9) and sum(margin) == pytest.approx(1)


def test_perplexity_of_a_broken_model_is_infinite_and_not_an_error() -> None:
    assert stats.perplexity([1e6, 1e6], [10, 10]).value == math.inf
    assert stats.perplexity_kept([10, 10], [1e6, 1e6], [10, 10]).value == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_holm_is_statsmodels(p_values: list[float]) -> None:
    assert stats.holm(p_values) == pytest.approx(list(multipletests(p_values, method="holm")[1]))


def test_holm_leaves_unmeasured_out() -> None:
    assert stats.holm([0.01, math.nan, 0.04])[0] == pytest.approx(0.02)
    assert math.isnan(stats.holm([0.01, math.nan, 0.04])[1])


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.96, 1.01, "matching"),
        (0.95, 0.99, "matching"),
        (0.80, 0.94, "not matching"),
        (0.90, 0.97, "cannot tell"),
        (math.nan, math.nan, "cannot tell"),
    ],
)
def test_matching(low: float, high: float, verdict: str) -> None:
    assert stats.matching(low, high) == verdict


def test_smallest_detectable_matches_the_published_figure() -> None:
    assert stats.smallest_detectable(0.10, 100) == pytest.approx(2.8 * math.sqrt(0.1 / 100), rel=0.01)


def test_no_flips_do_not_make_everything_detectable() -> None:
    assert stats.smallest_detectable(0.0, 6) > 0.5
    assert stats.smallest_detectable(0.0, 200) == pytest.approx(2.8 * math.sqrt(2 / 202 / 200), rel=0.01)


def test_no_examples_is_unknown_not_zero() -> None:
    for found in (stats.wilson(0, 0), stats.mean([]), stats.score([]), stats.perplexity([], [])):
        assert math.isnan(found.value) and found.n == 0
    assert math.isnan(stats.mean([0.5]).low)


def test_scores_beyond_one_are_not_cut() -> None:
    found = stats.score([40.0, 50.0, 60.0])
    assert found.low < 40 and found.high > 60
    shares = stats.score([0.9, 1.0, 1.0, 0.95])
    assert 0 <= shares.low <= shares.high <= 1


def test_unpaired_scores_are_refused() -> None:
    with pytest.raises(ValueError, match="3 dense and 2 compressed"):
        stats.paired_difference([1, 0, 1], [1, 0])


WORDS = st.lists(st.sampled_from("abcd"), max_size=60)


@given(WORDS)
def test_repetition_by_definition(words: list[str]) -> None:
    found = stats.repetition(words)
    assert found.tokens == len(words) and found.unique == len(set(words))
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    assert found.repeated == pytest.approx(1 - len(set(grams)) / len(grams) if grams else 0.0)
    assert all(0 < share <= 1 for share in found.distinct if not math.isnan(share))


@given(WORDS, st.lists(st.sampled_from("xyz"), min_size=1, max_size=5), st.integers(3, 6))
@settings(max_examples=200)
def test_a_planted_loop_is_found(head: list[str], unit: list[str], times: int) -> None:
    found = stats.find_loop(head + unit * times)
    assert found is not None
    assert found.onset <= len(head) and found.times >= 3
    text = head + unit * times
    assert all(text[i] == text[i + found.period] for i in range(found.onset, len(text) - found.period))


@given(WORDS)
def test_a_loop_reported_is_a_loop(words: list[str]) -> None:
    found = stats.find_loop(words)
    if found:
        assert len(words) - found.onset >= 3 * found.period
        assert all(words[i] == words[i + found.period] for i in range(found.onset, len(words) - found.period))
        assert found.onset == 0 or words[found.onset - 1] != words[found.onset - 1 + found.period]


def test_loop_examples() -> None:
    assert stats.find_loop("ababab") == (0, 2, 3)
    assert stats.find_loop("xabab") is None
    assert stats.find_loop([]) is None
    assert stats.find_loop(list(range(65)) * 3) is None, "longer periods are text, not loops"


def test_heat_counts_earlier_sayings() -> None:
    assert stats.repeats("abcdabcdabcd") == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]
    assert stats.repeats("ab") == [0, 0]
