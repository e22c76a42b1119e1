"""Statistics of dense against compressed on the same examples: numbers in, numbers out.

Everything here is paired where it can be. Two models that answer the same questions agree on most of them, so
the interval of their difference is two to three times narrower than two separate intervals suggest, and a
test on the answers that changed sides sees what a difference of accuracies hides. Where nothing changed at
all the formulas still give an interval of honest width: 0 flips in 20 questions prove little. Examples that
share a passage are not independent; intervals that are told so are never narrower than without.

Standard library and numpy only; scipy and statsmodels are the oracles of the tests.
"""

from kick_core.stats.bootstrap import bootstrap_difference, bootstrap_recovered
from kick_core.stats.clusters import clustered_difference, clustered_p, clustered_ratio, clustered_score
from kick_core.stats.distributions import incomplete_beta, normal_quantile, student_p, student_quantile
from kick_core.stats.gaps import Ratio, ratio_correlation, share_gap
from kick_core.stats.pairs import (
    Flips,
    changed,
    common_prefix,
    flips,
    mcnemar,
    paired_difference,
    paired_p,
    ratio_of_means,
)
from kick_core.stats.perplexity import perplexity, perplexity_kept
from kick_core.stats.repetition import Loop, Repetition, distinct, find_loop, repeats, repetition
from kick_core.stats.samples import CONFIDENCE, Interval, is_binary, is_share, mean, ratio_of_sums, score, wilson
from kick_core.stats.verdicts import MARGIN, Match, examples_needed, holm, matching, smallest_detectable

__all__ = [
    "CONFIDENCE",
    "MARGIN",
    "Flips",
    "Interval",
    "Loop",
    "Match",
    "Ratio",
    "Repetition",
    "bootstrap_difference",
    "bootstrap_recovered",
    "changed",
    "clustered_difference",
    "clustered_p",
    "clustered_ratio",
    "clustered_score",
    "common_prefix",
    "distinct",
    "examples_needed",
    "find_loop",
    "flips",
    "holm",
    "incomplete_beta",
    "is_binary",
    "is_share",
    "matching",
    "mcnemar",
    "mean",
    "normal_quantile",
    "paired_difference",
    "paired_p",
    "perplexity",
    "perplexity_kept",
    "ratio_correlation",
    "ratio_of_means",
    "ratio_of_sums",
    "repeats",
    "repetition",
    "score",
    "share_gap",
    "smallest_detectable",
    "student_p",
    "student_quantile",
    "wilson",
]
