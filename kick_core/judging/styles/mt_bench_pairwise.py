"""MT-Bench's comparisons: both answers in one prompt, in both orders; a winner, or a tie (Zheng et al. 2023)."""

from __future__ import annotations

from kick_core.judging import reading
from kick_core.judging.styles.base import FIRST, SECOND, JudgingStyle, PromptForm
from kick_core.judging.styles.mt_bench import STYLE as MT_BENCH
from kick_core.judging.styles.mt_bench import ended, form_of

_FORM = PromptForm(
    ended(reading.choice), reading.choice_as_published, lambda side: "[[A]]" if side == "first" else "[[B]]"
)

STYLE = JudgingStyle(
    name="mt-bench-pairwise",
    forms={f"pair-{kind}{turn}": _FORM for kind in ("v2", "math-v1") for turn in ("", "-multi-turn")},
    form_of=form_of("pair-v2", "pair-math-v1"),
    settings=MT_BENCH.settings,
    turns=2,
    orders=(FIRST, SECOND),
    published_orders=(FIRST, SECOND),
    scale="wins",
    published_order=None,
)
