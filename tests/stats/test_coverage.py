"""A short version of benchmarks/coverage.py: where the promises were broken, and that their bars can be missed."""

from __future__ import annotations

import math

import pytest

from benchmarks import coverage
from benchmarks.coverage import Row

DRAWS = 500

ROWS = {(row.group, row.name): row for row in coverage.rows()}

SHORT = [
    (coverage.MATCHING, "n 48, dense 0.95, agreement 0.999"),
    (coverage.MATCHING, "n 48, dense 0.98, agreement 0.999"),
    (coverage.GRADED, "n 48, F1, zeros and ones"),
    (coverage.GRADED, "n 100, facts kept, 10% of stories hit"),
    (coverage.CLUSTERED, "25 of 4, correlation 0.7, dense 0.8, 5% break, share"),
    (coverage.UNEQUAL, "50 of 1 to 12, correlation 0.3, dense 0.95, 5% break, share"),
    (coverage.WINDOWS, "16 windows, share"),
    (coverage.WINDOWS, "50 windows, perplexity"),
    (coverage.FLOOR, "n 200, dense 0.6"),
    (coverage.GRADED_MEANS, "n 30, 60% ones, the others uniform, lost whole, difference"),
]


def misses(row: Row, rate: float) -> bool:
    """Whether a rate lies beyond the bar by more than three of its standard errors."""
    room = 3 * math.sqrt(row.bar * (1 - row.bar) / DRAWS)
    return rate > row.bar + room if row.margin else rate < row.bar - room


@pytest.mark.parametrize("name", SHORT, ids=lambda name: name[1])
def test_intervals_and_verdicts_hold_what_they_promise(name: tuple[str, str]) -> None:
    row = ROWS[name]
    result = coverage.measure(row, DRAWS)
    assert not misses(row, result.rate(row)), result
    if row.before is not None:  # the bar can be missed
        assert misses(row, result.rate(row, before=True)), result


def test_verdicts_together_are_right_together() -> None:
    before, alone, together = coverage.sweeps(60, 200, 0.98)
    assert before > 0.4 and alone > together and together <= 0.025 + 3 * math.sqrt(0.025 / 60)
