"""A user's own questions after their own passages."""

from __future__ import annotations

from functools import partial

from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import questions
from kick_core.tasks.elicitation import FROM_PASSAGE
from kick_core.tasks.scorers import STATED

OFFICIAL = Task(
    name="own_open",
    title="Your questions, open book",
    about="questions of a file after their passages; share of answers whose first sentence names the gold",
    version=2,
    measures="in_context",
    order=94,
    colour="#dd5182",
    listed=False,
    strict=PromptSpec(
        "generate", partial(questions.load, form="open"), new_tokens=32, stop=("\n",), elicitation=FROM_PASSAGE
    ),
    scorers=STATED,
    headline="stated",
)
