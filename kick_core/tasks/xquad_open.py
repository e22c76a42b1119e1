"""XQuAD's English questions after their passages: reading, where `xquad_closed` is knowing."""

from __future__ import annotations

from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import short_answers
from kick_core.tasks.elicitation import FROM_PASSAGE
from kick_core.tasks.scorers import STATED

OFFICIAL = Task(
    name="xquad_open",
    title="XQuAD, open book",
    about="questions after a Wikipedia passage that holds the answer; share of answers whose first sentence names it",
    version=1,
    measures="in_context",
    order=52,
    colour="#3b7a57",
    context_partner="xquad_closed",
    licence=short_answers.XQUAD_LICENCE,
    strict=PromptSpec("generate", short_answers.with_passage, new_tokens=32, stop=("\n",), elicitation=FROM_PASSAGE),
    scorers=STATED,
    headline="stated",
)
