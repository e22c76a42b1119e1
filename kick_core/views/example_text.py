"""An example in words for people: its question, its gold answer, what a model said. All of it is untrusted text."""

from __future__ import annotations

from kick_core.views.examples import Answer, Detail

TAIL = 600
"""Characters of a prompt shown unfolded: its end, where the question stands."""


def prompt(detail: Detail) -> str:
    """What was asked, all turns."""
    return "\n\n".join(detail.example.prompt)


def question(detail: Detail) -> str:
    """The question alone where the data names it, else the end of the prompt."""
    known = detail.example.meta.get("question")
    text = str(known) if known else prompt(detail)
    return text if len(text) <= TAIL else "… " + text[-TAIL:]


def gold(detail: Detail) -> str:
    """The accepted answers; for a choice the letter with its words."""
    return " · ".join(_lettered(detail, answer) if len(answer) == 1 else answer for answer in detail.example.answers)


def said(detail: Detail, answer: Answer) -> str:
    """What a model answered; for a choice the letter with its words; an empty answer is named."""
    if detail.example.choices and answer.extracted:
        return _lettered(detail, answer.extracted)
    return answer.text or "(empty answer)"


def _lettered(detail: Detail, answer: str) -> str:
    """A letter with the words of its option, where there is such an option."""
    options = detail.example.meta.get("options") or detail.example.choices
    at = ord(answer[0]) - ord("A")
    return f"{answer}. {str(options[at]).strip()}" if 0 <= at < len(options) else answer
