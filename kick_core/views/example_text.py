"""An example in words for people: its question, its gold answer, what a model said. All of it is untrusted text."""

from __future__ import annotations

from kick_core.views.example_table import gold_words, lettered
from kick_core.views.examples import Answer, Detail

TAIL = 600
"""Characters of a prompt shown unfolded: its end, where the question stands."""


def prompt(detail: Detail) -> str:
    """What was asked as it was sent; where that is not known, and of dialogues, the turns."""
    return detail.sent or "\n\n".join(detail.example.prompt)


def question(detail: Detail) -> str:
    """The question alone where the data names it, else the end of the prompt."""
    known = detail.example.meta.get("question")
    text = str(known) if known else prompt(detail)
    return text if len(text) <= TAIL else "… " + text[-TAIL:]


def gold(detail: Detail) -> str:
    """The accepted answers; for a choice the letter with its words."""
    return gold_words(detail.example)


def said(detail: Detail, answer: Answer) -> str:
    """What a model answered; for a choice the letter with its words; an empty answer is named."""
    if detail.example.choices and answer.extracted:
        return lettered(detail.example, answer.extracted)
    return answer.text or "(empty answer)"
