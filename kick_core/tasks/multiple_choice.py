"""Multiple choice in four disciplines (LLM-KICK's MCR-QA; MMLU in the paper).

The answer is the option with the highest log-probability. The published code generates one token and
compares its last character, which measures form as much as knowledge: magnitude pruning scores 5 % there,
far below chance. One reading of the model gives both: greedy decoding's one token is the likeliest of all tokens,
which is kept beside the options' log-probabilities. The protocols ask alike but for one limit: the published
code drops shots while a prompt is longer than 2,048 tokens, strict while it is longer than the model's context.
"""

from __future__ import annotations

import json
import math
from functools import cache

from kick_core.pocket import data_path
from kick_core.records import Example, Output
from kick_core.tasks import PromptSpec, Score, Task
from kick_core.tasks.data import mmlu
from kick_core.tasks.data.pocket import meta, rows
from kick_core.tasks.wording import CHOICE_HEADER, LETTERS, choice


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


def accuracy(example: Example, output: Output) -> Score:
    """1 when the gold option has the highest log-probability of the options."""
    if not _scored(output):
        return Score(None, "", "no answer")
    best = chosen(output)
    right = best in example.answers
    return Score(float(right), best, "right" if right else "wrong")


def _scored(output: Output) -> bool:
    """NaN or infinite log-probabilities are never judged."""
    return bool(output.logprobs) and all(map(math.isfinite, output.logprobs))


def chosen(output: Output) -> str:
    """The letter of the likeliest option."""
    return LETTERS[max(range(len(output.logprobs)), key=output.logprobs.__getitem__)]


def shares(output: Output) -> list[float]:
    """The options' probabilities among themselves: the softmax of their log-probabilities."""
    top = max(output.logprobs)
    weights = [math.exp(value - top) for value in output.logprobs]
    return [weight / sum(weights) for weight in weights]


def gold_probability(example: Example, output: Output) -> Score:
    """The gold option's probability among the four."""
    if not _scored(output):
        return Score(None, "", "no answer")
    return Score(shares(output)[LETTERS.index(example.answers[0])])


def free_choice(example: Example, output: Output) -> Score:
    """1 when the likeliest of *all* tokens is the gold letter; any other token than a letter is no answer."""
    if output.argmax is None:
        return Score(None, "", "no answer")
    said = output.argmax.strip()
    if said not in LETTERS:
        return Score(0.0, output.argmax, "no answer")
    return Score(float(said in example.answers), said, "right" if said in example.answers else "wrong")


def letter_given(example: Example, output: Output) -> Score:
    """1 when the likeliest of all tokens is one of the four letters, right or wrong: form without knowledge."""
    if output.argmax is None:
        return Score(None, "", "no answer")
    valid = output.argmax.strip() in LETTERS
    return Score(float(valid), output.argmax, "" if valid else "no answer")


def last_character_as_published(example: Example, output: Output) -> Score:
    """As published: 1 when the last character of the one token written is the gold letter; chance is 0, not 1/4.

    The released code decodes prompt and token and compares `decoded[-1:]`; a token that decodes to nothing leaves the
    prompt's last character, which is a colon.
    """
    if output.argmax is None:
        return Score(None, "", "no answer")
    said = output.argmax[-1:]
    right = said in example.answers
    return Score(float(right), output.argmax, "right" if right else "wrong" if said in LETTERS else "no answer")


TASK = Task(
    name="multiple_choice",
    title="Multiple choice",
    about="four options in four disciplines, scored by their log-probability; chance is 25 %",
    version=1,
    strict=PromptSpec("choose", _load),
    scorers={"accuracy": accuracy, "gold_probability": gold_probability},
    headline="accuracy",
)

OFFICIAL = Task(
    name="multiple_choice",
    title="Multiple choice",
    about="MMLU, five shots, letters scored by their log-probability; chance is 25 %",
    version=1,
    strict=PromptSpec("choose", mmlu.load),
    paper=PromptSpec("choose", mmlu.load, room=2048),
    scorers={
        "accuracy": accuracy,
        "gold_probability": gold_probability,
        "free_choice": free_choice,
        "letter_given": letter_given,
        "last_character_as_published": last_character_as_published,
    },
    headline="accuracy",
    published="last_character_as_published",
)
