"""An example in words for people: its question, its gold answer, what a model said. All of it is untrusted text."""

from __future__ import annotations

from kick_core.views.example_table import gold_words, lettered, one_line
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


def excerpt(text: str, width: int, gold: str = "") -> str:
    """A text on one line of at most `width` characters: its beginning, or the part that holds an accepted answer.

    Args:
        text: what a model said.
        width: how many characters there are.
        gold: the accepted answers as `gold` gives them; "" where the text is no answer to look into.
    """
    line = " ".join(text.split())
    end = min((line.find(name) + len(name) for name in gold.split(" · ") if name in line), default=0)
    if len(line) <= width or end < width:
        return one_line(line, width)
    start = line.find(" ", end - width + 8) + 1 or end - width + 8
    return f"… {line[start:end]}{'…' * (end < len(line))}"


def said(detail: Detail, answer: Answer) -> str:
    """What a model answered; for a choice the letter with its words; an empty answer is named."""
    if detail.example.choices and answer.extracted:
        return lettered(detail.example, answer.extracted)
    return answer.text or "(empty answer)"
