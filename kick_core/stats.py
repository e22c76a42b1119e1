"""Statistics of dense against compressed on the same examples: numbers in, numbers out.

Everything here is paired where it can be. Two models that answer the same questions agree on most of them, so
the interval of their difference is two to three times narrower than two separate intervals suggest, and a
test on the answers that changed sides sees what a difference of accuracies hides. Where nothing changed at
all the formulas still give an interval of honest width: 0 flips in 20 questions prove little.

Standard library and numpy only; scipy and statsmodels are the oracles of the tests.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from functools import cache
from statistics import NormalDist
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
MARGIN = 0.05
"""LLM-KICK's "matching": at most this share of the dense score is lost."""

Match = Literal["matching", "not matching", "cannot tell"]


class Interval(NamedTuple):
    """An estimate with its confidence interval over `n` examples. Not enough data: nan."""

    value: float
    low: float
    high: float
    n: int


_UNKNOWN = math.nan


# --- distributions -----------------------------------------------------------------------------------------


def normal_quantile(p: float) -> float:
    return NormalDist().inv_cdf(p)


def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function (modified Lentz; DLMF 8.17.22)."""
    tiny = 1e-300
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1) or tiny)
    value = d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value


def incomplete_beta(a: float, b: float, x: float) -> float:
    """The regularized incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(a, b, x) / a
    return 1 - front * _beta_fraction(b, a, 1 - x) / b


def student_p(t: float, freedom: float) -> float:
    """Two-sided p of Student's t."""
    return incomplete_beta(freedom / 2, 0.5, freedom / (freedom + t * t))


@cache
def student_quantile(confidence: float, freedom: int) -> float:
    """The t that a share `confidence` of Student's distribution lies within, found by bisection."""
    low, high = 0.0, 1.0
    while student_p(high, freedom) > 1 - confidence:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        if student_p(middle, freedom) > 1 - confidence:
            low = middle
        else:
            high = middle
    return (low + high) / 2


# --- one sample --------------------------------------------------------------------------------------------


def wilson(right: float, n: int, confidence: float = CONFIDENCE) -> Interval:
    """Wilson's interval of a share: right at 0 of n, at n of n and for small n, unlike plus-minus z sd."""
    if n == 0:
        return Interval(_UNKNOWN, _UNKNOWN, _UNKNOWN, 0)
    low, high = _wilson_bounds(right, n, normal_quantile((1 + confidence) / 2))
    return Interval(right / n, low, high, n)


def _wilson_bounds(right: float, n: float, z: float) -> tuple[float, float]:
    middle = right + z * z / 2
    half = z * math.sqrt(max(right * (n - right) / n, 0.0) + z * z / 4)
    low, high = (middle - half) / (n + z * z), (middle + half) / (n + z * z)
    return (0.0 if right == 0 else low), (1.0 if right == n else high)


def mean(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """A mean with Student's interval."""
    found = np.asarray(values, dtype=float)
    if found.size == 0:
        return Interval(_UNKNOWN, _UNKNOWN, _UNKNOWN, 0)
    middle = float(found.mean())
    if found.size == 1:
        return Interval(middle, _UNKNOWN, _UNKNOWN, 1)
    half = student_quantile(confidence, found.size - 1) * float(found.std(ddof=1)) / math.sqrt(found.size)
    return Interval(middle, middle - half, middle + half, int(found.size))


def is_binary(values: ArrayLike) -> bool:
    """Whether all scores are 0 or 1, so that counts say everything."""
    found = np.asarray(values, dtype=float)
    return bool(np.all((found == 0) | (found == 1)))


def is_share(values: ArrayLike) -> bool:
    """Whether all scores lie between 0 and 1."""
    found = np.asarray(values, dtype=float)
    return bool(np.all((found >= 0) & (found <= 1)))


def score(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The mean of scores: Wilson's interval for right and wrong, else Student's, inside the scores' range."""
    found = np.asarray(values, dtype=float)
    if is_binary(found):
        return wilson(float(found.sum()), int(found.size), confidence)
    value, low, high, n = mean(found, confidence)
    if is_share(found):
        low, high = max(low, 0.0), min(high, 1.0)
    return Interval(value, low, high, n)


# --- two models, the same examples -------------------------------------------------------------------------


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
        return (self.broke + self.fixed) / self.n if self.n else _UNKNOWN


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
    before, after = _paired(dense, compressed)
    if not (is_binary(before) and is_binary(after)) or before.size == 0:
        return mean(after - before, confidence)
    table = flips(before, after)
    lost, won, n = (table.broke + 1) / (table.n + 2), (table.fixed + 1) / (table.n + 2), table.n
    half = normal_quantile((1 + confidence) / 2) * math.sqrt((lost + won - (won - lost) ** 2) / (n + 2))
    low, high = won - lost - half, won - lost + half
    return Interval((table.fixed - table.broke) / n, max(low, -1.0), min(high, 1.0), n)


def paired_p(dense: ArrayLike, compressed: ArrayLike) -> float:
    """p of "nothing changed": exact McNemar for right and wrong, paired t for graded scores."""
    before, after = _paired(dense, compressed)
    if is_binary(before) and is_binary(after):
        table = flips(before, after)
        return mcnemar(table.broke, table.fixed)
    moved = after - before
    if moved.size < 2:
        return _UNKNOWN
    error = float(moved.std(ddof=1)) / math.sqrt(moved.size)
    if error == 0:
        return 1.0 if float(moved.mean()) == 0 else 0.0
    return student_p(float(moved.mean()) / error, moved.size - 1)


def ratio_of_means(dense: ArrayLike, compressed: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The share of the dense score that is kept: mean(compressed) / mean(dense), paired.

    Right and wrong: Bonett and Price (2006), which stays honest at 0 flips and at 0 right. Graded scores: the
    delta method on the residuals compressed - ratio x dense. nan when dense scores nothing.
    """
    before, after = _paired(dense, compressed)
    total = float(before.sum())
    if before.size == 0 or total <= 0:
        return Interval(_UNKNOWN, _UNKNOWN, _UNKNOWN, int(before.size))
    ratio = float(after.sum()) / total
    if is_binary(before) and is_binary(after):
        low, high = _ratio_bounds(flips(before, after), normal_quantile((1 + confidence) / 2))
        return Interval(ratio, low, high, int(before.size))
    if before.size < 2:
        return Interval(ratio, _UNKNOWN, _UNKNOWN, 1)
    rest = after - ratio * before
    half = student_quantile(confidence, before.size - 1) * float(rest.std(ddof=1)) * math.sqrt(before.size) / total
    return Interval(ratio, max(ratio - half, 0.0), ratio + half, int(before.size))


def _ratio_bounds(table: Flips, z: float) -> tuple[float, float]:
    """Bonett and Price's interval of (right after) / (right before); both-wrong examples say nothing."""
    before, after = table.both_right + table.broke, table.both_right + table.fixed
    n = table.both_right + table.broke + table.fixed
    joint = math.sqrt((table.broke + table.fixed + 2) / ((before + 1) * (after + 1)))
    apart = sum(math.sqrt((1 - (count + 1) / (n + 2)) / (count + 1)) for count in (before, after))
    shrunk = z * joint / apart
    low_after, high_after = _wilson_bounds(after, n, shrunk)
    low_before, high_before = _wilson_bounds(before, n, shrunk)
    return low_after / high_before, (high_after / low_before if low_before else math.inf)


def _paired(dense: ArrayLike, compressed: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    before, after = np.asarray(dense, dtype=float), np.asarray(compressed, dtype=float)
    if before.shape != after.shape:
        raise ValueError(f"{before.size} dense and {after.size} compressed scores: pair them by example first")
    return before, after


# --- perplexity --------------------------------------------------------------------------------------------


def perplexity(nlls: ArrayLike, tokens: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """exp(sum of window NLLs / sum of tokens), with the interval over windows (tokens of one are not alone)."""
    return _exponential(np.asarray(nlls, dtype=float), np.asarray(tokens, dtype=float), confidence)


def perplexity_kept(
    dense: ArrayLike, compressed: ArrayLike, tokens: ArrayLike, confidence: float = CONFIDENCE
) -> Interval:
    """Dense perplexity / compressed perplexity over the same windows: 1 means nothing was lost."""
    before, after = _paired(dense, compressed)
    return _exponential(before - after, np.asarray(tokens, dtype=float), confidence)


def _exponential(sums: NDArray[np.float64], tokens: NDArray[np.float64], confidence: float) -> Interval:
    n, total = int(sums.size), float(tokens.sum())
    if n == 0 or total <= 0:
        return Interval(_UNKNOWN, _UNKNOWN, _UNKNOWN, n)
    rate = float(sums.sum()) / total
    if n == 1:
        return Interval(_exp(rate), _UNKNOWN, _UNKNOWN, 1)
    rest = sums - rate * tokens
    half = student_quantile(confidence, n - 1) * math.sqrt(n / (n - 1) * float((rest**2).sum())) / total
    return Interval(_exp(rate), _exp(rate - half), _exp(rate + half), n)


def _exp(value: float) -> float:
    """exp without overflow: a broken model's perplexity may be beyond all floats."""
    return math.exp(value) if value < 709 else math.inf


# --- many tests, verdicts, power ---------------------------------------------------------------------------


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the given order: for claims over many variants. nan stays nan."""
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, worst = [_UNKNOWN] * len(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        worst = max(worst, min(1.0, (len(known) - rank) * p))
        adjusted[i] = worst
    return adjusted


def matching(low: float, high: float, margin: float = MARGIN) -> Match:
    """Non-inferiority: is the share of the dense score that is kept surely above 1 - margin, or surely not?"""
    if low >= 1 - margin:
        return "matching"
    return "not matching" if high < 1 - margin else "cannot tell"


def smallest_detectable(flip_rate: float, n: int, power: float = 0.8, confidence: float = CONFIDENCE) -> float:
    """The smallest true difference of accuracies that n paired examples would show with this power."""
    if n == 0:
        return _UNKNOWN
    return (normal_quantile((1 + confidence) / 2) + normal_quantile(power)) * math.sqrt(flip_rate / n)


# --- repetition --------------------------------------------------------------------------------------------


class Loop(NamedTuple):
    """From token `onset` on, the last `period` tokens repeat until the end, `times` times at least."""

    onset: int
    period: int
    times: int


class Repetition(NamedTuple):
    """How repetitive one text is. `distinct[n-1]` = different n-grams / n-grams; nan when it has none.

    `repeated` is seq-rep-4, 1 - distinct 4-grams; texts shorter than four tokens repeat nothing (0).
    """

    tokens: int
    unique: int
    distinct: tuple[float, float, float, float]
    repeated: float
    loop: Loop | None


def distinct(tokens: Sequence[Hashable], n: int) -> float:
    """Different n-grams / all n-grams of one sequence."""
    count = len(tokens) - n + 1
    if count < 1:
        return _UNKNOWN
    return len(set(zip(*(tokens[i:] for i in range(n)), strict=False))) / count


def find_loop(tokens: Sequence[Hashable], longest: int = 64, times: int = 3) -> Loop | None:
    """The loop a text ends in: a period <= `longest` that fills the end at least `times` times.

    Of several (a loop of 2 is one of 4 too) the one that began first; of those the shortest period.
    """
    n, best = len(tokens), None
    for period in range(1, min(longest, n // times) + 1):
        start = n - period
        while start > 0 and tokens[start - 1] == tokens[start - 1 + period]:
            start -= 1
        if n - start >= times * period and (best is None or start < best.onset):
            best = Loop(start, period, (n - start) // period)
    return best


def repetition(tokens: Sequence[Hashable]) -> Repetition:
    """All repetition measures of one text, given as words or token ids."""
    shares = (distinct(tokens, 1), distinct(tokens, 2), distinct(tokens, 3), distinct(tokens, 4))
    repeated = 0.0 if math.isnan(shares[3]) else 1 - shares[3]
    return Repetition(len(tokens), len(set(tokens)), shares, repeated, find_loop(tokens))


def repeats(tokens: Sequence[Hashable], n: int = 4) -> list[int]:
    """For every token, how often an n-gram that covers it had been said before: the heat of a text."""
    heat = [0] * len(tokens)
    said: Counter[tuple[Hashable, ...]] = Counter()
    for start in range(len(tokens) - n + 1):
        gram = tuple(tokens[start : start + n])
        for i in range(start, start + n):
            heat[i] = max(heat[i], said[gram])
        said[gram] += 1
    return heat
