"""LLM-KICK's comparisons: two ratings from 1 to 10 in one prompt, four pairs of them for summaries (arXiv 2310.01382).

The released code asks with the compressed answer second only; here both orders are asked unless as published.
"""

from __future__ import annotations

from kick_core.judging import reading
from kick_core.judging.prompts import METRICS
from kick_core.judging.reading import Reading
from kick_core.judging.styles.base import FIRST, SECOND, JudgingStyle, PromptForm, Side
from kick_core.judging.styles.mt_bench import ended


def _form_of(in_context: bool, category: str, turn: int, referenced: bool) -> str:
    if in_context:
        return "llm-kick-summary"
    return f"llm-kick-{category if category in ('coding', 'math') else 'general'}"


def _pairs(count: int) -> PromptForm:
    """Two numbers on each of so many lines, which begin the reply."""

    def read(text: str, stop: str) -> Reading | None:
        return reading.lines(text, count)

    def best(side: Side) -> str:
        return "\n".join(["10 1" if side == "first" else "1 10"] * count)

    return PromptForm(read, lambda text: reading.lines_as_published(text, count), best)


_MATH = PromptForm(
    ended(reading.last_pair),
    lambda text: reading.lines_as_published(text, 1),
    lambda side: "(10, 1)" if side == "first" else "(1, 10)",
)

STYLE = JudgingStyle(
    name="llm-kick",
    forms={
        "llm-kick-general": _pairs(1),
        "llm-kick-coding": _pairs(1),
        "llm-kick-math": _MATH,
        "llm-kick-summary": _pairs(len(METRICS)),
    },
    form_of=_form_of,
    settings=lambda in_context: ("0.1" if in_context else "0.2", 1024),
    turns=1,
    orders=(FIRST, SECOND),
    published_orders=(FIRST,),
    scale="rating",
    published_order=FIRST,
)
