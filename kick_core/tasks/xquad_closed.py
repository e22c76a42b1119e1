"""XQuAD's English questions without their passages: what a model knows of Wikipedia by heart."""

from __future__ import annotations

from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import short_answers
from kick_core.tasks.elicitation import SHORT_ANSWER
from kick_core.tasks.scorers import STATED

OFFICIAL = Task(
    name="xquad_closed",
    title="XQuAD, closed book",
    about="questions on Wikipedia passages that are not shown; share of answers whose first sentence names a gold",
    version=1,
    measures="knowledge",
    order=42,
    colour="#a52a5a",
    licence=short_answers.XQUAD_LICENCE,
    strict=PromptSpec("generate", short_answers.without_passage, new_tokens=32, stop=("\n",), elicitation=SHORT_ANSWER),
    scorers=STATED,
    headline="stated",
)
