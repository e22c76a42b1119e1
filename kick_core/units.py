"""Numbers, bytes, durations and scores as people read them, on the command line, in the explorer and in reports."""

from __future__ import annotations

import math

MISSING = "–"
"""What stands where nothing was measured."""


def count_text(count: int, noun: str) -> str:
    """A number of things: `1 example`, `14,042 examples`.

    Args:
        count: How many.
        noun: Their name in the singular, with a regular plural.
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def bytes_text(count: float) -> str:
    """Bytes in decimal units, as hubs, disks and papers give them: `999 B`, `1.5 kB`, `13.5 GB`."""
    if math.isnan(count):
        return MISSING
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB"):
        count /= 1000
        if count < 999.95:
            return f"{count:.1f} {unit}"
    return f"{count / 1000:.1f} TB"


def duration_text(seconds: float) -> str:
    """A duration: `8 s`, `12 min`, `3 h 5 min`, `2 d 4 h`."""
    if math.isnan(seconds):
        return MISSING
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def score_text(value: float, higher_is_better: bool) -> str:
    """A score: shares in percent, perplexity as it is."""
    if math.isnan(value):
        return MISSING
    if higher_is_better:
        return f"{100 * value:.{1 if value < 0.9995 else 0}f} %"
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}" if value < 1e6 else f"{value:.2g}"
