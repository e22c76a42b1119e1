"""Scorers of multiple choice with any number of options: `Example.choices` in order, lettered A, B, C …

The gold answer of an example is its letter. Two readings of the model are kept beside one another: the options'
log-probabilities, and the likeliest of *all* tokens (`Output.argmax`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from string import ascii_uppercase

from kick_core.records import Example, Output
from kick_core.tasks.base import Score
from kick_core.tasks.wording import lettered

GUESSED = frozenset(
    ("accuracy", "accuracy_per_character", "accuracy_per_byte", "gold_probability", "acc", "acc_norm", "acc_bytes")
)
"""Scorers for which a blind guess scores one over the number of options; for every other one it scores 0."""


def letters_of(example: Example) -> tuple[str, ...]:
    """The letters of an example's options: A, B, C and D where there are four."""
    return tuple(lettered(example.choices))


def chosen(output: Output) -> str:
    """The letter of the likeliest option."""
    return ascii_uppercase[max(range(len(output.logprobs)), key=output.logprobs.__getitem__)]


def shares(output: Output) -> list[float]:
    """The options' probabilities among themselves: the softmax of their log-probabilities."""
    top = max(output.logprobs)
    weights = [math.exp(value - top) for value in output.logprobs]
    return [weight / sum(weights) for weight in weights]


def _scored(output: Output) -> bool:
    """NaN or infinite log-probabilities are never judged."""
    return bool(output.logprobs) and all(map(math.isfinite, output.logprobs))


def accuracy(example: Example, output: Output) -> Score:
    """1 when the gold option has the highest log-probability of the options."""
    if not _scored(output):
        return Score(None, "", "no answer")
    best = chosen(output)
    right = best in example.answers
    return Score(float(right), best, "right" if right else "wrong")


def accuracy_per_character(example: Example, output: Output) -> Score:
    """1 when the gold option has the highest log-probability per character of its words (lm-eval's acc_norm).

    Long options are not unlikelier for being long; the leading space does not count, as there.
    """
    return _normalised(example, output, len)


def accuracy_per_byte(example: Example, output: Output) -> Score:
    """1 when the gold option has the highest log-probability per UTF-8 byte of its words (lm-eval's acc_bytes)."""
    return _normalised(example, output, lambda option: len(option.encode()))


def _normalised(example: Example, output: Output, length: Callable[[str], int]) -> Score:
    if not _scored(output):
        return Score(None, "", "no answer")
    lengths = [max(1, length(option.strip())) for option in example.choices]
    values = [value / length for value, length in zip(output.logprobs, lengths, strict=True)]
    best = ascii_uppercase[max(range(len(values)), key=values.__getitem__)]
    return Score(float(best in example.answers), best, "right" if best in example.answers else "wrong")


def gold_probability(example: Example, output: Output) -> Score:
    """The gold option's probability among the options."""
    if not _scored(output):
        return Score(None, "", "no answer")
    return Score(shares(output)[ascii_uppercase.index(example.answers[0])])


def free_choice(example: Example, output: Output) -> Score:
    """1 when the likeliest of *all* tokens is the gold letter; any other token than a letter is no answer."""
    if output.argmax is None:
        return Score(None, "", "no answer")
    token = output.argmax.strip()
    if token not in letters_of(example):
        return Score(0.0, output.argmax, "no answer")
    return Score(float(token in example.answers), token, "right" if token in example.answers else "wrong")


def letter_given(example: Example, output: Output) -> Score:
    """1 when the likeliest of all tokens is the letter of an option, right or wrong: form without knowledge."""
    if output.argmax is None:
        return Score(None, "", "no answer")
    valid = output.argmax.strip() in letters_of(example)
    return Score(float(valid), output.argmax, "" if valid else "no answer")


def last_character_as_published(example: Example, output: Output) -> Score:
    """As published: 1 when the last character of the one token written is the gold letter; chance is 0, not 1/4.

    The released code decodes prompt and token and compares `decoded[-1:]`; a token that decodes to nothing leaves the
    prompt's last character, which is a colon.
    """
    if output.argmax is None:
        return Score(None, "", "no answer")
    last = output.argmax[-1:]
    right = last in example.answers
    reason = "right" if right else "wrong" if last in letters_of(example) else "no answer"
    return Score(float(right), output.argmax, reason)


BY_WORDS = {
    "accuracy": accuracy,
    "accuracy_per_character": accuracy_per_character,
    "accuracy_per_byte": accuracy_per_byte,
    "gold_probability": gold_probability,
}
"""How options are scored by the log-probability of their words."""
