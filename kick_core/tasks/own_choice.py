"""A user's own questions with options, scored by the log-probability of their words."""

from __future__ import annotations

from functools import partial

from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import questions
from kick_core.tasks.elicitation import OPTIONS
from kick_core.tasks.option_scorers import BY_WORDS

OFFICIAL = Task(
    name="own_choice",
    title="Your questions, options",
    about="questions of a file with options, scored by their words' log-probability",
    version=2,
    measures="knowledge",
    order=92,
    colour="#955196",
    listed=False,
    strict=PromptSpec("choose", partial(questions.load, form="choice"), elicitation=OPTIONS),
    scorers=BY_WORDS,
    headline="accuracy",
)
