"""NQ-open: real questions from a search engine, closed book."""

from __future__ import annotations

from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import short_answers
from kick_core.tasks.elicitation import SHORT_ANSWER
from kick_core.tasks.scorers import STATED

OFFICIAL = Task(
    name="nq_open",
    title="NQ-open",
    about="real questions from a search engine, closed book; share of answers whose first sentence names a gold",
    version=1,
    measures="knowledge",
    order=25,
    colour="#9a6324",
    licence=short_answers.NQ_LICENCE,
    strict=PromptSpec(
        "generate", short_answers.natural_questions, new_tokens=32, stop=("\n",), elicitation=SHORT_ANSWER
    ),
    scorers=STATED,
    headline="stated",
)
