"""Perplexity and the share of it that is kept, with intervals over windows."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kick_core.stats.pairs import paired
from kick_core.stats.samples import CONFIDENCE, Interval, ratio_of_sums


def perplexity(nlls: ArrayLike, tokens: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """exp(sum of window NLLs / sum of tokens), with the interval over windows (tokens of one are not alone)."""
    return _exponential(np.asarray(nlls, dtype=float), np.asarray(tokens, dtype=float), confidence)


def perplexity_kept(
    dense: ArrayLike, compressed: ArrayLike, tokens: ArrayLike, confidence: float = CONFIDENCE
) -> Interval:
    """Dense perplexity / compressed perplexity over the same windows: 1 means nothing was lost."""
    before, after = paired(dense, compressed)
    return _exponential(before - after, np.asarray(tokens, dtype=float), confidence)


def _exponential(sums: NDArray[np.float64], tokens: NDArray[np.float64], confidence: float) -> Interval:
    rate, low, high, n = ratio_of_sums(sums, tokens, confidence)
    return Interval(_exp(rate), _exp(low), _exp(high), n)


def _exp(value: float) -> float:
    """exp without overflow: a broken model's perplexity may be beyond all floats."""
    return math.inf if value >= 709 else math.exp(value)
