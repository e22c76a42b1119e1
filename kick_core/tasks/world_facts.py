"""Facts about the real world, closed book: capitals, elements, authors and the like, each with how well known it is."""

from __future__ import annotations

from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import facts
from kick_core.tasks.elicitation import SHORT_ANSWER
from kick_core.tasks.scorers import STATED

OFFICIAL = Task(
    name="world_facts",
    title="World facts",
    about="questions about the real world, closed book; share of answers whose first sentence names the gold",
    version=2,
    measures="knowledge",
    order=16,
    colour="#b8560f",
    shipped=True,
    licence="Apache-2.0",
    noun="facts about the world",
    strict=PromptSpec("generate", facts.closed, new_tokens=32, stop=("\n",), elicitation=SHORT_ANSWER),
    scorers=STATED,
    headline="stated",
    groups=facts.GROUPS,
)
