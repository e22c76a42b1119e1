"""Facts about the real world with four lettered options: whether a model answers by letter at all, as MMLU asks."""

from __future__ import annotations

from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import facts
from kick_core.tasks.option_scorers import accuracy, free_choice, gold_probability, letter_given

OFFICIAL = Task(
    name="world_facts_letters",
    title="World facts, by letter",
    about="questions about the real world, five shots, letters scored by their log-probability; chance is 25 %",
    version=1,
    licence="Apache-2.0",
    measures="knowledge",
    order=22,
    colour="#a0522d",
    shipped=True,
    noun="facts about the world",
    strict=PromptSpec("choose", facts.letters),
    scorers={
        "accuracy": accuracy,
        "gold_probability": gold_probability,
        "free_choice": free_choice,
        "letter_given": letter_given,
    },
    headline="accuracy",
    groups=facts.GROUPS,
)
