"""A user's own questions without help (see `kick_core.tasks.data.questions`)."""

from __future__ import annotations

from functools import partial

from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import questions
from kick_core.tasks.elicitation import SHORT_ANSWER
from kick_core.tasks.scorers import STATED

OFFICIAL = Task(
    name="own_questions",
    title="Your questions",
    about="questions of a file; share of answers whose first sentence names the gold",
    version=2,
    measures="knowledge",
    order=90,
    colour="#444e86",
    listed=False,
    strict=PromptSpec(
        "generate", partial(questions.load, form="closed"), new_tokens=32, stop=("\n",), elicitation=SHORT_ANSWER
    ),
    scorers=STATED,
    headline="stated",
)
