"""Statistics of dense against compressed on the same examples: numbers in, numbers out.

Everything here is paired where it can be. Two models that answer the same questions agree on most of them, so
the interval of their difference is two to three times narrower than two separate intervals suggest, and a
test on the answers that changed sides sees what a difference of accuracies hides. Where nothing changed at
all the formulas still give an interval of honest width: 0 flips in 20 questions prove little. Examples that
share a passage are not independent; intervals that know their clusters are never narrower than without.

How often each interval and verdict is right is simulated by benchmarks/coverage.py and written to docs/coverage.md.
Needs numpy and scipy.special; scipy.stats and statsmodels are the references of the tests.
"""

from kick_core.stats.bootstrap import blocks, bootstrap_difference, bootstrap_recovered
from kick_core.stats.clusters import (
    Grouping,
    clustered_difference,
    clustered_error,
    clustered_p,
    clustered_ratio,
    clustered_score,
    grouped,
)
from kick_core.stats.distributions import normal_quantile, student_p, student_quantile
from kick_core.stats.floors import anything_to_lose, share_above_chance
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
from kick_core.stats.perplexity import perplexity, perplexity_kept, perplexity_p, rate_of_windows
from kick_core.stats.repetition import Loop, Repetition, distinct, find_loop, repeated, repeats, repetition
from kick_core.stats.samples import CONFIDENCE, Interval, is_binary, is_share, mean, ratio_of_sums, score, wilson
from kick_core.stats.verdicts import (
    MARGIN,
    MarginTest,
    Match,
    examples_needed,
    false_matching,
    holm,
    margin_test,
    match_together,
    matching,
    perplexity_margin_test,
    smallest_detectable,
)

__all__ = [
    "CONFIDENCE",
    "MARGIN",
    "Flips",
    "Grouping",
    "Interval",
    "Loop",
    "MarginTest",
    "Match",
    "Ratio",
    "Repetition",
    "anything_to_lose",
    "blocks",
    "bootstrap_difference",
    "bootstrap_recovered",
    "changed",
    "clustered_difference",
    "clustered_error",
    "clustered_p",
    "clustered_ratio",
    "clustered_score",
    "common_prefix",
    "distinct",
    "examples_needed",
    "false_matching",
    "find_loop",
    "flips",
    "grouped",
    "holm",
    "is_binary",
    "is_share",
    "margin_test",
    "match_together",
    "matching",
    "mcnemar",
    "mean",
    "normal_quantile",
    "paired_difference",
    "paired_p",
    "perplexity",
    "perplexity_kept",
    "perplexity_margin_test",
    "perplexity_p",
    "rate_of_windows",
    "ratio_correlation",
    "ratio_of_means",
    "ratio_of_sums",
    "repeated",
    "repeats",
    "repetition",
    "score",
    "share_above_chance",
    "share_gap",
    "smallest_detectable",
    "student_p",
    "student_quantile",
    "wilson",
]
