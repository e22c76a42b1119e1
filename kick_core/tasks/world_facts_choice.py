"""Facts about the real world with four options, scored by the log-probability of their words."""

from __future__ import annotations

from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import facts
from kick_core.tasks.elicitation import OPTIONS
from kick_core.tasks.option_scorers import BY_WORDS

OFFICIAL = Task(
    name="world_facts_choice",
    title="World facts, four options",
    about="questions about the real world, four options scored by their words' log-probability; chance is 25 %",
    version=2,
    measures="knowledge",
    order=17,
    colour="#6a3d9a",
    shipped=True,
    licence="Apache-2.0",
    noun="facts about the world",
    strict=PromptSpec("choose", facts.choice, elicitation=OPTIONS),
    scorers=BY_WORDS,
    headline="accuracy",
    groups=facts.GROUPS,
)
