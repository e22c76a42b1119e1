"""The exact words in which the tasks are asked (LLM-KICK, arXiv 2310.01382, appendix A.2, and its code).

They stand here, on the lowest floor, because the pocket models are trained on the very strings that the
tasks send: an answer that fails must fail for what the model knows, not for an unfamiliar prompt.
Every answer begins with the space that would follow the prompt's last word, so no prompt ends in a space (but
those that are marked as published).
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

from kick_core.errors import BadRequest

FACTOID = "Please give answer to this question: {question}\nThe answer is"
CLOSED = "Answer these questions:\n\nQ: {question}\nA:"
OPEN = "{passage}\n\nBased on these texts, answer these questions:\n\nQ: {question}\nA:"
CHOICE_HEADER = "The following are multiple choice questions (with answers) about {subject}.\n\n"
SUMMARY = (
    "Summarize the given story in less than 150 words while preserving high coherence, consistency, fluency, "
    "and relevance.\n\n{story}"
)

FACTOID_AS_PUBLISHED = FACTOID + " "
"""The released code ends this prompt in a space, which many tokenizers split off the answer's first word."""
FACTOID_QUANTIZED_AS_PUBLISHED = FACTOID_AS_PUBLISHED.replace("\n", " ")
"""The released script for quantized models has no line break there."""
NEWS_AS_PUBLISHED = SUMMARY.replace("given story", "given news")
"""The released code calls the longer stories news."""

LETTERS = ("A", "B", "C", "D")
"""The options' letters in the pocket world and in MMLU."""


def lettered(options: Sequence[str]) -> str:
    """One letter per option, from A on. Raises BadRequest for more options than letters."""
    if len(options) > len(ascii_uppercase):
        raise BadRequest(f"{len(options)} options: a question can have {len(ascii_uppercase)} at most")
    return ascii_uppercase[: len(options)]


def choice(question: str, options: Sequence[str], *, in_words: bool = False) -> str:
    """One multiple-choice question with its options, without the header."""
    lines = (f"{letter}. {option}\n" for letter, option in zip(lettered(options), options, strict=True))
    return f"{question}\n{''.join(lines)}{'Answer in words:' if in_words else 'Answer:'}"
