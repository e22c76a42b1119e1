"""Multiple choice by the options' words: for models that do not answer with letters (MMLU, cloze form)."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from kick_core.records import Example
from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import mmlu
from kick_core.tasks.elicitation import OPTIONS
from kick_core.tasks.option_scorers import BY_WORDS


@cache
def _load(data: str) -> tuple[Example, ...]:
    """MMLU's questions in their order, without shots and letters: the options' words follow the question."""
    return tuple(
        replace(
            example,
            prompt=(f"Question: {example.meta['question']}\nAnswer:",),
            choices=tuple(f" {option}" for option in example.meta["options"]),
        )
        for example in mmlu.load(data)
        if len({option.strip() for option in example.meta["options"]}) == len(example.meta["options"])
    )


OFFICIAL = Task(
    name="multiple_choice_cloze",
    title="Multiple choice (words)",
    about="MMLU, options scored by their words' log-probability per byte; chance is 25 %",
    version=2,
    licence="MIT",
    measures="knowledge",
    order=35,
    colour="#5b2c6f",
    noun="knowledge of school subjects",
    strict=PromptSpec("choose", _load, elicitation=OPTIONS),
    scorers=BY_WORDS,
    headline="accuracy_per_byte",
)
