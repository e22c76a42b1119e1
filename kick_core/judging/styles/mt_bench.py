"""MT-Bench's single ratings: every answer alone, from 1 to 10 (Zheng et al. 2023, arXiv 2306.05685; FastChat)."""

from __future__ import annotations

from collections.abc import Callable

from kick_core.judging import reading
from kick_core.judging.reading import Reading
from kick_core.judging.styles.base import ALONE, JudgingStyle, PromptForm


def ended(read: Callable[[str], Reading | None]) -> Callable[[str, str], Reading | None]:
    """A reading of a verdict that ends the reply: a reply that was cut off has none.

    Args:
        read: The reading of a whole reply.
    """
    return lambda text, stop: None if stop == "length" else read(text)


def form_of(plain: str, math: str) -> Callable[[bool, str, int, bool], str]:
    """The names of MT-Bench's prompts; those for math have a reference answer, turn 2 has prompts of its own.

    Args:
        plain: The name for other categories.
        math: The name for categories with a reference answer.
    """

    def name(in_context: bool, category: str, turn: int, referenced: bool) -> str:
        return f"{math if referenced else plain}{'-multi-turn' if turn == 2 else ''}"

    return name


_FORM = PromptForm(ended(reading.rating), reading.rating_as_published, lambda side: "Rating: [[10]]")

STYLE = JudgingStyle(
    name="mt-bench",
    forms={f"single-{kind}{turn}": _FORM for kind in ("v1", "math-v1") for turn in ("", "-multi-turn")},
    form_of=form_of("single-v1", "single-math-v1"),
    settings=lambda in_context: ("0", 2048),
    turns=2,
    orders=(ALONE,),
    published_orders=(ALONE,),
    scale="rating",
    published_order=ALONE,
)
