"""The score test of a ratio under the restricted hypothesis, for bounded scores of any distribution.

A ratio of sums θ = Σu / Σv (a share of the dense score, a mean, a difference) over n independent units is tested by
the terms d_i = u_i - θ v_i, whose mean is 0 where θ is true. A Wald or t test takes the variance that the sample
shows, and that fails near a ceiling: where a rare but whole loss has not occurred yet, there is no variance to see
and the test is certain of what it cannot know. A score test takes the variance under the hypothesis instead, from
the most likely distribution that has mean 0: the empirical likelihood's (Owen 2001, Empirical Likelihood, chapter 2)
with weights w_i = 1 / (n (1 + λ d_i)) and, where no reweighting of the observed terms brings their mean to 0, mass on
the worst term that a unit can have (which bounds λ: Honda and Takemura 2010, COLT). Under these weights
Σ w d² = mean(d) / λ, so that the statistic is

    z(θ)² = n · mean(d) · λ,    λ = min(the root of Σ d_i / (1 + λ d_i) = 0, 1 / |worst term|).

For right and wrong answers this is the score test of the literature: Wilson's (1927) for one proportion, and Nam and
Blackwelder's (2002, Statistics in Medicine 21:689) for the ratio of two paired proportions. For graded scores and
clusters it is the same test with the data's own values in place of 0 and 1. docs/coverage.md shows what it holds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_HALVINGS = 44
"""Of a bracket: after these it is known to 13 digits."""

_GUESSES, _NEAR = 16, 2.0**-40
"""Of false position at most; the share of the bracket that is near enough."""

_FARTHEST = 1e12
"""A bound beyond this is called infinite."""


class Units(NamedTuple):
    """The sample that a ratio of sums is made of, one entry per distinct unit.

    Attributes:
        numerators: u of each distinct unit [k].
        denominators: v of each distinct unit [k].
        counts: How often it occurs [k]; they sum to n.
        worst: (u, v) of a unit not in the sample that would lower the ratio most.
        best: (u, v) of one that would raise it most.
    """

    numerators: Floats
    denominators: Floats
    counts: Floats
    worst: tuple[float, float]
    best: tuple[float, float]

    @property
    def value(self) -> float:
        """The ratio in the sample, Σu / Σv."""
        return float(self.counts @ self.numerators) / float(self.counts @ self.denominators)

    def terms(self, theta: float, side: int) -> tuple[Floats, float]:
        """The terms d of the test, turned so that they support the ratio being larger than `theta`.

        Args:
            theta: The hypothetical ratio.
            side: 1 to test against a larger ratio, -1 against a smaller one.

        Returns:
            side · d of each distinct unit [k], and how far below 0 the term of an unobserved unit can lie.
        """
        u, v = self.worst if side > 0 else self.best
        return side * (self.numerators - theta * self.denominators), -side * (u - theta * v)


_FEW = 16
"""Whole numbers from -16 to 15 are counted in a table."""


def _few_whole(values: Floats) -> NDArray[np.int16] | None:
    """The values as integers where all are few whole numbers."""
    if not values.size or not (values.min() >= -_FEW and values.max() < _FEW):
        return None
    whole = values.astype(np.int16)
    return whole if np.array_equal(whole, values) else None


def units(numerators: Floats, denominators: Floats, worst: tuple[float, float], best: tuple[float, float]) -> Units:
    """Merge equal units: right and wrong answers have at most four different ones, however many there are.

    Args:
        numerators: u of each unit [n].
        denominators: v of each unit [n].
        worst: As in `Units`.
        best: As in `Units`.
    """
    first, second = _few_whole(numerators), _few_whole(denominators)
    if first is not None and second is not None:  # right and wrong: counted ten times as fast as sorted
        table = np.bincount((first + _FEW) * (2 * _FEW) + (second + _FEW))
        codes = np.flatnonzero(table)
        u, v = (part.astype(float) - _FEW for part in np.divmod(codes, 2 * _FEW))
        return Units(u, v, table[codes].astype(float), worst, best)
    # one complex number per unit: ten times as fast as finding equal rows
    pairs, counts = np.unique(numerators + 1j * denominators, return_counts=True)
    return Units(pairs.real, pairs.imag, counts.astype(float), worst, best)


def typical(sizes: Floats) -> float:
    """The mean size of the unit that an example falls into, Σs² / Σs; 1 where there is none.

    It is the size of the unit not in the sample: losses that fall on whole units at random have this ratio of variance
    to mean (a compound Poisson's). For right and wrong answers it is 1, the only size there is.

    Args:
        sizes: Of the units [n].
    """
    total = float(sizes.sum())
    return float((sizes**2).sum()) / total if total > 0 else 1.0


def statistic(sample: Units, theta: float) -> float:
    """z(θ) of the module's formula: standard normal where θ is true, positive where the ratio appears larger.

    Args:
        sample: At least one unit, with a positive sum of denominators.
        theta: The hypothetical ratio.

    Returns:
        The statistic; ±inf where the hypothesis cannot be true.
    """
    total = float(sample.counts @ (sample.numerators - theta * sample.denominators))
    if total == 0:
        return 0.0
    side = 1 if total > 0 else -1
    terms, bound = sample.terms(theta, side)
    # λ may reach 1 / bound, but must stay below 1 / |term| of every observed unit: its weight must be positive
    bound = max(bound, 0.0)
    least = max(-float(terms.min()), 0.0)
    if bound == least == 0:
        return side * math.inf
    high = 1 / max(bound, least)
    if bound > least and _slope(sample, terms, high) >= 0:
        return side * math.sqrt(abs(total) * high)
    low, _ = _halved(lambda multiplier: _slope(sample, terms, multiplier), 0.0, high)
    return side * math.sqrt(abs(total) * low)


def bounds(sample: Units, z: float, least: float = -math.inf) -> tuple[float, float]:
    """The interval of all ratios that the two-sided test with critical value `z` does not reject.

    Args:
        sample: At least one unit, with a positive sum of denominators.
        z: The normal quantile of the confidence, 1.96 for 95 %.
        least: The smallest ratio that is possible.

    Returns:
        Lower and upper bound; infinite where nothing is rejected on that side.
    """
    return _bound(sample, z, 1, least), _bound(sample, z, -1, least)


def _bound(sample: Units, z: float, side: int, least: float) -> float:
    accepted = sample.value
    reach = max(abs(accepted), 1.0) / 16
    while not _excess(sample, rejected := max(accepted - side * reach, least), z, side) < 0:
        if side > 0 and rejected == least:
            return least
        if reach > _FARTHEST:
            return -side * math.inf
        reach *= 2
    return _halved(lambda theta: _excess(sample, theta, z, side), accepted, rejected)[0]


def _excess(sample: Units, theta: float, z: float, side: int) -> float:
    """Below 0 where side · z(θ) > z. The λ at which z(θ) = z is known, so it is enough to see if λ can be that large.
    Infinite where it cannot whatever the sample."""
    terms, bound = sample.terms(theta, side)
    total = float(sample.counts @ terms)
    if total <= 0 or (needed := z * z / total) * bound >= 1 or not 1 + needed * np.minimum.reduce(terms) > 0:
        return math.inf
    return -_slope(sample, terms, needed)


def _halved(value: Callable[[float], float], left: float, right: float) -> tuple[float, float]:
    """A bracket halved `_HALVINGS` times; beyond where its sign changes, towards the right end, `value` is below 0.

    False position (the Illinois variant: Dowell and Jarratt 1971, BIT 11:168) finds that place first, so that `value`
    is asked only of middles that are near it: half of the evaluations, and the very same bracket.
    """
    way, unsure, (low, high) = math.copysign(1.0, right - left), _NEAR * abs(right - left), (left, right)
    at_low, at_high, last = math.inf, -math.inf, 0
    for _ in range(_GUESSES):
        guess = (low + high) / 2
        if math.isfinite(at_low - at_high):
            guess = min(max(high - at_high * (high - low) / (at_high - at_low), min(low, high)), max(low, high))
        at_guess = value(guess)
        if at_guess < 0:
            at_low = at_low / 2 if last < 0 else at_low
            high, at_high, last = guess, at_guess, -1
        else:
            at_high = at_high / 2 if last > 0 else at_high
            low, at_low, last = guess, at_guess, 1
        if abs(high - low) <= unsure:
            break
    for _ in range(_HALVINGS):
        middle = (left + right) / 2
        beyond = way * (middle - high) >= unsure or (way * (middle - low) > -unsure and value(middle) < 0)
        left, right = (left, middle) if beyond else (middle, right)
    return left, right


def _slope(sample: Units, terms: Floats, multiplier: float) -> float:
    """Σ d / (1 + λ d), which falls with λ: positive below the root, negative above."""
    return float(sample.counts @ (terms / (1 + multiplier * terms)))
