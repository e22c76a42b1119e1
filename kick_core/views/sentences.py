"""What a row of `scores` says, in words: never a bare difference.

A difference is told with its interval and p. Where none is shown, the sentence says how large it still could be;
where "matching" cannot be told, how many examples it would take.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kick_core.stats import CONFIDENCE, MARGIN
from kick_core.views.paired import AT_CHANCE, AT_FLOOR

ALPHA = 1 - CONFIDENCE
_MOST = 10_000_000
"""Beyond so many examples the number that would be needed is not worth naming."""


def sentence(row: Mapping[Any, Any], against: str = "dense") -> str:
    """A row's difference from dense (or from what its numbers are `against`) and its verdict.

    E.g. "worse by 1.0 pp (95 % CI 0.5 to 1.4), p = 2e-05; cannot tell at n = 200 whether 95 % of dense is kept:
    about n = 1,900 would be needed".
    """
    if row["kind"] == "dense":
        return {AT_FLOOR: AT_CHANCE, "dense": "dense"}.get(row["verdict"], "not measured: no answer could be judged")
    if not row["paired"]:
        judged = row.get("n", 1)
        return f"not measured: no {f'{against} answers to the same examples' if judged else 'answer could be judged'}"
    if against != "dense" and shown(row) and _direction(row, row["difference"]) == "better":
        return difference(row, against)  # that a better recipe keeps 95 % of a worse one is no news
    return "; ".join(part for part in (difference(row, against), kept(row, against)) if part)


def shown(row: Mapping[Any, Any]) -> bool:
    """Whether a difference is shown at all: the interval and the test, or the verdict, say that there is one."""
    if row["paired"] < 2 or math.isnan(row["diff_low"]):
        return False
    apart = row["p"] < ALPHA and (row["diff_low"] > 0 or row["diff_high"] < 0)
    return row["verdict"] == "not matching" or bool(apart)


def difference(row: Mapping[Any, Any], against: str = "dense") -> str:
    """Whether a row differs from dense, by how much, and how sure that is."""
    if row["paired"] < 2 or math.isnan(row["diff_low"]):
        return f"cannot tell at n = {row['paired']} whether it differs from {against}"
    value, low, high = _in_units(row)
    if not shown(row):
        most = max(abs(low), abs(high))
        return f"no difference shown (could be up to {_amount(row, most)})" + _chance(row)
    size = (low, high) if value > 0 else (-high, -low)
    return f"{_direction(row, value)} by {_amount(row, abs(value))} ({_bounds(row, *size)})" + _chance(row)


def kept(row: Mapping[Any, Any], against: str = "dense") -> str:
    """The verdict "matching" in words; nothing where there is no score to keep."""
    share = f"{100 * (1 - MARGIN):.0f} % of {against}"
    match row["verdict"]:
        case "nothing to lose":
            return AT_CHANCE.replace("dense", against) + ", so no share of it means anything"
        case "matching":
            return f"matching: at least {share} is kept"
        case "not matching":
            return f"not matching: less than {share} is kept"
        case "cannot tell":
            return f"cannot tell at n = {row['paired']:,} whether {share} is kept{_needed(row['needed'])}"
        case _:
            return ""


def _needed(count: float) -> str:
    if math.isnan(count):
        return ""
    if count > _MOST:
        return ": it stands on the margin"
    return f": about n = {rounded(count):,} would be needed"


def rounded(count: float) -> int:
    """A number of examples with two digits that count, rounded up."""
    step = 10 ** max(0, math.floor(math.log10(count)) - 1) if count >= 1 else 1
    return math.ceil(count / step) * step


def _in_units(row: Mapping[Any, Any]) -> tuple[float, float, float]:
    """The difference and its bounds as they are told: points, a share of the perplexity, or plain numbers."""
    value, low, high = row["difference"], row["diff_low"], row["diff_high"]
    match row["unit"]:
        case "pp":
            return 100 * value, 100 * low, 100 * high
        case "ratio":
            return tuple(100 * part / row["dense_score"] for part in (value, low, high))  # type: ignore[return-value]
        case _:
            return value, low, high


def _amount(row: Mapping[Any, Any], value: float) -> str:
    digits = f"{value:.1f}" if row["unit"] == "pp" else f"{value:.3g}"
    return digits + {"pp": " pp", "ratio": " %"}.get(row["unit"], "")


def _bounds(row: Mapping[Any, Any], low: float, high: float) -> str:
    form = ".1f" if row["unit"] == "pp" else ".3g"
    return f"{100 * CONFIDENCE:.0f} % CI {low:{form}} to {high:{form}}"


def _direction(row: Mapping[Any, Any], value: float) -> str:
    if row["verdict"] not in ("matching", "not matching", "cannot tell"):
        return "higher" if value > 0 else "lower"
    return "better" if (value > 0) == bool(row["higher_is_better"]) else "worse"


def _chance(row: Mapping[Any, Any]) -> str:
    if math.isnan(row["p"]):
        return ""
    plain, adjusted = (_p(row[name]) for name in ("p", "p_holm"))
    return f", p {plain}" + ("" if adjusted in (plain, "= nan") else f", {adjusted.removeprefix('= ')} after Holm")


def _p(value: float) -> str:
    """Below 1e-15 the digits say nothing: no such test is exact to so many places."""
    return "< 1e-15" if value < 1e-15 else f"= {value:.2g}"
