"""The cache's contents as frozen records: examples, raw outputs, verdicts, block reports and cards.

Outputs are raw and kept for ever; verdicts are derived from them again whenever a scorer changes. A verdict
without a score (`None`) means "not judged" and never counts as wrong.
"""

from kick_core.records.artifacts import BlockReport, Card, LayerPlan, LayerReport, PlanProgress, StructuredMask
from kick_core.records.examples import Example, Output, Verdict
from kick_core.records.judging import JudgingCard, Question, Reply
from kick_core.records.runs import CHOSEN, Progress, RunCard, SentPrompt, SentPrompts

__all__ = [
    "CHOSEN",
    "BlockReport",
    "Card",
    "Example",
    "JudgingCard",
    "LayerPlan",
    "LayerReport",
    "Output",
    "PlanProgress",
    "Progress",
    "Question",
    "Reply",
    "RunCard",
    "SentPrompt",
    "SentPrompts",
    "StructuredMask",
    "Verdict",
]
