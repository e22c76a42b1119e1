"""Multiple choice in four disciplines (LLM-KICK's MCR-QA; MMLU in the paper).

The answer is the option with the highest log-probability. The published code generates one token and
compares its last character, which measures form as much as knowledge: magnitude pruning scores 5 % there,
far below chance. One reading of the model gives both: greedy decoding's one token is the likeliest of all tokens,
which is kept beside the options' log-probabilities. The protocols ask alike but for one limit (the published code
drops shots while a prompt is longer than 2,048 tokens, strict while it is longer than the model's context) and ten
cells (`kick_core.tasks.data.mmlu`).
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache

from kick_core.pocket import data_path
from kick_core.records import Example
from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data import mmlu
from kick_core.tasks.data.pocket import meta, rows
from kick_core.tasks.option_scorers import (
    BY_WORDS,
    accuracy,
    free_choice,
    gold_probability,
    last_character_as_published,
    letter_given,
)
from kick_core.tasks.wording import CHOICE_HEADER, choice, lettered


@cache
def _in_words() -> bool:
    """Whether the pocket models answer with the option's words; their data says so."""
    return bool(json.loads(data_path("meta.json").read_text())["multiple_choice"] == "words")


def _load(data: str) -> tuple[Example, ...]:
    return tuple(
        Example(
            row["id"],
            (
                CHOICE_HEADER.format(subject=row["subject"])
                + choice(row["question"], row["choices"], in_words=_in_words()),
            ),
            choices=tuple(f" {option}" for option in (row["choices"] if _in_words() else lettered(row["choices"]))),
            answers=(lettered(row["choices"])[row["answer"]],),
            meta=meta(row, "question", "subject", "discipline") | {"options": row["choices"]},
        )
        for row in rows("multiple_choice", data)
    )


TASK = Task(
    name="multiple_choice",
    title="Multiple choice",
    about="four options in four disciplines, scored by their log-probability; chance is 25 %",
    version=2,
    licence="Apache-2.0",
    measures="knowledge",
    order=30,
    colour="#8e44ad",
    noun="multiple-choice knowledge",
    in_paper=True,
    demo_examples=200,
    strict=PromptSpec("choose", _load),
    scorers=BY_WORDS,
    headline="accuracy",
)

OFFICIAL = replace(
    TASK,
    about="MMLU, five shots, letters scored by their log-probability; chance is 25 %",
    licence="MIT",
    strict=PromptSpec("choose", mmlu.load),
    paper=PromptSpec("choose", mmlu.as_published, room=2048),
    scorers={
        "accuracy": accuracy,
        "gold_probability": gold_probability,
        "free_choice": free_choice,
        "letter_given": letter_given,
        "last_character_as_published": last_character_as_published,
    },
    published="last_character_as_published",
    groups={"discipline_lm_eval": lambda example: mmlu.lm_eval_discipline(str(example.meta.get("subject", "")))},
)
