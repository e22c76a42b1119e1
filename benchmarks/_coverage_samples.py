"""Simulated experiments with a known truth, for benchmarks/coverage.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kick_core import stats

Floats = NDArray[np.float64]
ON_MARGIN = 1 - stats.MARGIN


class Sample(NamedTuple):
    """One experiment: scores [n], and what kind of unit they come in."""

    dense: Floats
    compressed: Floats
    clusters: NDArray[np.intp] | None = None


Draw = Callable[[np.random.Generator], Sample]


def binary(rng: np.random.Generator, n: int, right: float, agreement: float) -> Sample:
    """Right and wrong at a true share of 95 %; with an agreement of 1 answers only break, with 0 they are redrawn."""
    both_right = ON_MARGIN * right
    fixes = (1 - agreement) * both_right
    keeps = (both_right - (1 - right) * fixes) / right
    dense = rng.random(n) < right
    return Sample(dense.astype(float), np.where(dense, rng.random(n) < keeps, rng.random(n) < fixes).astype(float))


def facts(rng: np.random.Generator, n: int, hit: float) -> Sample:
    """Four facts a story, all kept by dense; a share `hit` of stories loses so many that 95 % is kept."""
    lost = rng.binomial(4, stats.MARGIN / hit, n) / 4
    return Sample(np.ones(n), np.where(rng.random(n) < hit, 1 - lost, 1.0))


def zeros_and_ones(rng: np.random.Generator, n: int) -> Sample:
    """F1 of short answers: mostly none or all, and what is lost is lost whole."""
    dense = rng.choice([0.0, 0.5, 0.67, 0.8, 1.0], size=n, p=[0.3, 0.1, 0.1, 0.1, 0.4])
    return Sample(dense, np.where(rng.random(n) < stats.MARGIN, 0.0, dense))


def mostly_ones(rng: np.random.Generator, n: int) -> Sample:
    """Scores of which 60 % are 1 and the others anything; what is lost is lost whole."""
    dense = np.where(rng.random(n) < 0.6, 1.0, rng.random(n))
    return Sample(dense, np.where(rng.random(n) < stats.MARGIN, 0.0, dense))


def rouge(rng: np.random.Generator, n: int) -> Sample:
    """Smooth scores around 0.35, a little of each lost or won."""
    dense = np.clip(rng.normal(0.35, 0.1, n), 0.02, 1)
    return Sample(dense, np.clip(dense * (ON_MARGIN + rng.normal(0, 0.2, n)), 0, 1))


class Passages(NamedTuple):
    """Questions on passages: `size` of each (or its least and most), and how alike those of one passage are.

    With `pareto` most passages are small and a few large.
    """

    number: int
    size: tuple[int, int]
    alike: float
    right: float
    breaks: float
    fixes: float
    pareto: bool = False

    @property
    def kept(self) -> float:
        return self.right * (1 - self.breaks) + (1 - self.right) * self.fixes


def passages(rng: np.random.Generator, law: Passages) -> Sample:
    """Beta-binomial: every passage has rates of its own of right, broken and fixed answers, of one intraclass
    correlation."""
    sizes = rng.integers(law.size[0], law.size[1] + 1, law.number)
    if law.pareto:
        sizes = np.minimum(1 + 3 * rng.pareto(1.2, law.number), law.size[1]).astype(int)
    clusters = np.repeat(np.arange(law.number), sizes)
    right, breaks, fixes = (
        _beta(rng, mean, law.alike, law.number)[clusters] for mean in (law.right, law.breaks, law.fixes)
    )
    dense = rng.random(clusters.size) < right
    luck = rng.random(clusters.size)
    return Sample(dense.astype(float), np.where(dense, luck >= breaks, luck < fixes).astype(float), clusters)


def _beta(rng: np.random.Generator, mean: float, alike: float, number: int) -> Floats:
    if mean in (0.0, 1.0):
        return np.full(number, mean)
    strength = (1 - alike) / alike
    return rng.beta(mean * strength, (1 - mean) * strength, number)


def windows(rng: np.random.Generator, n: int, neighbours: float, asked: int | None = None) -> Sample:
    """Nats per token of windows in a row: hard pages are hard for both models, and so is what compression costs.

    `neighbours` is the correlation of one window with the next. Of a text's n windows `asked` are drawn at random.
    """
    dense = 3 + 0.4 * _series(rng, n, neighbours)
    compressed = dense - math.log(ON_MARGIN) + 0.08 * _series(rng, n, neighbours)
    places = np.arange(n) if asked is None else np.sort(rng.permutation(n)[:asked])
    return Sample(dense[places], compressed[places])


def _series(rng: np.random.Generator, n: int, neighbours: float) -> Floats:
    """An autoregressive series of variance 1."""
    shocks = rng.normal(size=n) * math.sqrt(1 - neighbours**2)
    values = np.empty(n)
    values[0] = rng.normal()
    for i in range(1, n):
        values[i] = neighbours * values[i - 1] + shocks[i]
    return values
