"""Multiple choice in four disciplines (LLM-KICK's MCR-QA; MMLU in the paper).

The answer is the option with the highest log-probability. The published code generates one token and
compares its last character, which measures form as much as knowledge: magnitude pruning scores 5 % there,
far below chance.
"""

from __future__ import annotations

import json
import math
from functools import cache

from kick_core.pocket import data_path
from kick_core.records import Example, Output
from kick_core.tasks import Judged, Task
from kick_core.tasks._pocket import meta, rows
from kick_core.wording import CHOICE_HEADER, LETTERS, choice


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
            choices=tuple(f" {option}" for option in (row["choices"] if _in_words() else LETTERS)),
            answers=(LETTERS[row["answer"]],),
            meta=meta(row, "question", "subject", "discipline") | {"options": row["choices"]},
        )
        for row in rows("multiple_choice", data)
    )


def accuracy(example: Example, output: Output) -> Judged:
    """1 when the gold option has the highest log-probability. NaN or infinite values are never judged."""
    if not output.logprobs or not all(map(math.isfinite, output.logprobs)):
        return Judged(None, "", "no answer")
    best = LETTERS[max(range(len(output.logprobs)), key=output.logprobs.__getitem__)]
    right = best in example.answers
    return Judged(float(right), best, "right" if right else "wrong")


def gold_probability(example: Example, output: Output) -> Judged:
    """The gold option's probability among the four."""
    if not output.logprobs or not all(map(math.isfinite, output.logprobs)):
        return Judged(None, "", "no answer")
    top = max(output.logprobs)
    shares = [math.exp(value - top) for value in output.logprobs]
    return Judged(shares[LETTERS.index(example.answers[0])] / sum(shares))


TASK = Task(
    name="multiple_choice",
    title="Multiple choice",
    about="four options in four disciplines, scored by their log-probability; chance is 25 %",
    version=1,
    kind="choose",
    load=_load,
    scorers={"accuracy": accuracy, "gold_probability": gold_probability},
    headline="accuracy",
)
