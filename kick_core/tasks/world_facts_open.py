"""Facts about the real world after a passage that holds the answer: reading, where `world_facts` is knowing."""

from __future__ import annotations

from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import facts
from kick_core.tasks.elicitation import FROM_PASSAGE
from kick_core.tasks.scorers import STATED

OFFICIAL = Task(
    name="world_facts_open",
    title="World facts, open book",
    about="questions about the real world after a passage; share of answers whose first sentence names the gold",
    version=2,
    measures="in_context",
    order=18,
    colour="#2a7f62",
    shipped=True,
    licence="Apache-2.0",
    context_partner="world_facts",
    strict=PromptSpec("generate", facts.passage, new_tokens=32, stop=("\n",), elicitation=FROM_PASSAGE),
    scorers=STATED,
    headline="stated",
    groups=facts.GROUPS,
)
