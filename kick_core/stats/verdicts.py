"""What may be claimed: non-inferiority, many tests at once, and what a number of examples can show.

"Matching" is a non-inferiority test: the lower bound of a 95 % interval above the margin is a one-sided test at
2.5 %. Of many recipes that all stand on the margin some will match by luck: `false_matching` says how likely that is,
and `match_together` gives the verdicts that hold together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from numpy.typing import ArrayLike

from kick_core.stats.clusters import Clusters, cluster_sums, grouped
from kick_core.stats.distributions import normal_cumulative, normal_quantile, student_cumulative
from kick_core.stats.pairs import paired, share_units
from kick_core.stats.perplexity import perplexity_t
from kick_core.stats.samples import CONFIDENCE, UNKNOWN, Interval
from kick_core.stats.score_test import statistic

MARGIN = 0.05
"""LLM-KICK's "matching": at most this share of the dense score is lost."""

Match = Literal["matching", "not matching", "cannot tell"]


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) adjusted p values, for claims over many variants.

    Args:
        p_values: In any order; nan where nothing was tested, which does not count.

    Returns:
        The adjusted values in the same order; nan stays nan.
    """
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted, worst = [UNKNOWN] * len(p_values), 0.0
    for rank, (p, i) in enumerate(known):
        worst = max(worst, min(1.0, (len(known) - rank) * p))
        adjusted[i] = worst
    return adjusted


def matching(low: float, high: float, margin: float = MARGIN) -> Match:
    """Non-inferiority: is the share of the dense score that is kept surely above 1 - margin, or surely not?

    Args:
        low: Lower bound of the share's interval; nan where it is not known.
        high: Upper bound.
        margin: The share that may be lost.

    Returns:
        The verdict of this one comparison.
    """
    if low >= 1 - margin:
        return "matching"
    return "not matching" if high < 1 - margin else "cannot tell"


# --- many verdicts at once -----------------------------------------------------------------------------------


class MarginTest(NamedTuple):
    """One-sided p values at the margin; nan where nothing is known.

    Attributes:
        loses: Of "no more than the share 1 - margin is kept": small where the recipe matches.
        keeps: Of "at least the share 1 - margin is kept": small where it does not.
    """

    loses: float
    keeps: float


def margin_test(
    dense: ArrayLike, compressed: ArrayLike, clusters: Clusters | None = None, margin: float = MARGIN
) -> MarginTest:
    """The test that `clustered_ratio`'s interval inverts, at the margin.

    Args:
        dense: Scores of the dense model [n], not negative.
        compressed: Scores of the compressed model on the same examples [n].
        clusters: The cluster of each example [n]; each its own if absent.
        margin: The share that may be lost.

    Returns:
        Its two one-sided p values.
    """
    before, after = paired(dense, compressed)
    if not before.sum() > 0 or not math.isfinite(after.sum()):
        return MarginTest(UNKNOWN, UNKNOWN)
    sums = [[before, after]]
    if clusters is not None and not (grouping := grouped(clusters)).alone:
        sums.append(cluster_sums(grouping, before, after)[:2])
    z = [statistic(share_units(*each), 1 - margin) for each in sums]
    return MarginTest(max(normal_cumulative(-each) for each in z), max(normal_cumulative(each) for each in z))


def perplexity_margin_test(
    dense: ArrayLike, compressed: ArrayLike, tokens: ArrayLike, *, neighbours: bool = True, margin: float = MARGIN
) -> MarginTest:
    """The test that `perplexity_kept`'s interval inverts, at the margin.

    Args:
        dense: As in `perplexity_kept`, like `compressed`, `tokens` and `neighbours`.
        margin: The share that may be lost.
    """
    t, freedom = perplexity_t(dense, compressed, tokens, 1 - margin, neighbours=neighbours)
    return MarginTest(student_cumulative(-t, freedom), student_cumulative(t, freedom))


def match_together(tests: Sequence[MarginTest], confidence: float = CONFIDENCE) -> list[Match]:
    """Verdicts over many recipes, so that with this confidence not one false "matching" is among them.

    Holm's closed test (Marcus, Peritz and Gabriel 1976) of "loses more than the margin" over all recipes, at the level
    that one bound of an interval has, and of "loses less" likewise for "not matching".

    Args:
        tests: One per recipe, all of one task.
        confidence: As of the intervals: 95 % leaves 2.5 % for false "matching" and 2.5 % for false "not matching".

    Returns:
        One verdict per test, in the same order.
    """
    tail = (1 - confidence) / 2
    adjusted = zip(holm([test.loses for test in tests]), holm([test.keeps for test in tests]), strict=True)
    return [
        "matching" if loses <= tail else "not matching" if keeps <= tail else "cannot tell" for loses, keeps in adjusted
    ]


def false_matching(recipes: int, confidence: float = CONFIDENCE) -> float:
    """At most how likely it is that one of so many recipes, all on the margin, is falsely called matching (Bonferroni).

    Args:
        recipes: Recipes with a verdict of their own on one task.
        confidence: Of their intervals.

    Returns:
        The bound, at most 1.
    """
    return min(1.0, recipes * (1 - confidence) / 2)


# --- planning ------------------------------------------------------------------------------------------------


def smallest_detectable(flip_rate: float, n: int, power: float = 0.8, confidence: float = CONFIDENCE) -> float:
    """The smallest true difference of accuracies that n paired examples would show.

    Where nothing flipped the true rate may still be above 0: it counts as one flip each way in two more examples, as in
    the interval of the difference.

    Args:
        flip_rate: The share of answers that changed sides.
        n: Examples.
        power: The probability to show it.
        confidence: Of the test.

    Returns:
        A difference of accuracies; nan without examples.
    """
    if n == 0:
        return UNKNOWN
    flip_rate = max(flip_rate, 2 / (n + 2))
    return (normal_quantile((1 + confidence) / 2) + normal_quantile(power)) * math.sqrt(flip_rate / n)


def examples_needed(
    share: Interval, margin: float = MARGIN, power: float = 0.8, confidence: float = CONFIDENCE
) -> float:
    """How many examples it would take to tell "matching" from "not matching", if the share kept is as estimated.

    The width of the interval shrinks with the root of n; needed is the n at which it leaves 1 - margin out.

    Args:
        share: Of the dense score that is kept, with its interval over `n` examples.
        margin: The share that may be lost.
        power: The probability to tell them apart.
        confidence: Of the interval.

    Returns:
        Infinite when the estimate is the margin itself; nan when nothing is known.
    """
    distance = share.value - (1 - margin)
    half = share.value - share.low if distance > 0 else share.high - share.value
    if not math.isfinite(distance) or not math.isfinite(half):
        return UNKNOWN
    if distance == 0:
        return math.inf
    z = normal_quantile((1 + confidence) / 2)
    return share.n * (half / distance * (1 + normal_quantile(power) / z)) ** 2
