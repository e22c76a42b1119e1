"""How a question reads when a model is prompted in its chat template, or with worked examples.

Short-answer tasks share one form of each. The worked examples are fixed and never asked themselves: they belong to the
held-out part of the world facts, whatever benchmark the question comes from.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TypeVar

from kick_core import world_facts
from kick_core.errors import BadRequest
from kick_core.records import Example


@dataclass(frozen=True, slots=True)
class Elicitation:
    """The forms of a task's question beside its raw prompt.

    Attributes:
        question: the question itself, with its passage where it has one.
        worked: (question, answer) pairs to show before it, best first.
        chat_format: the user's message; `{question}` is filled in.
        shot_format: the question after worked examples; ends where the answer begins, without a space.
        chat_tokens: the most tokens of an answer in a chat.
        shot_tokens: the most tokens of an answer after worked examples; it ends at a line's end.
        completes: whether answers are scored as completions (options by their words), for which worked examples suit
            every model, with a chat template or without.
        passages: whether the question has its passage with it.
    """

    question: Callable[[Example], str]
    worked: Callable[[], tuple[tuple[str, str], ...]]
    chat_format: str = "{question}"
    shot_format: str = "Question: {question}\nAnswer:"
    chat_tokens: int = 64
    shot_tokens: int = 32
    completes: bool = False
    passages: bool = False


def parse_prompting(text: str) -> str:
    """Check a requested form. Raises BadRequest for anything but auto, raw, chat and shots:K."""
    form, colon, count = text.partition(":")
    if text in ("auto", "raw", "chat") or (form == "shots" and colon and count.isascii() and count.isdigit()):
        return text
    raise BadRequest(f"prompting {text!r} is not understood: auto, raw, chat or shots:K, e.g. shots:5")


Worked = TypeVar("Worked")


def drawn(worked: Sequence[Worked], count: int, seed: int | None) -> Sequence[Worked]:
    """So many worked examples: the first ones, or those that a seed draws, in its order.

    All questions with the same worked examples get the same draw, so that they share a prefix.
    """
    return worked[:count] if seed is None else random.Random(f"kick few-shot {seed}").sample(worked, count)


@cache
def shot_frame(elicitation: Elicitation, most: int, shots: int, seed: int | None) -> tuple[str, str]:
    """What stands before and after every question under `shots:K`.

    Args:
        elicitation: of the task.
        most: K, so many are drawn.
        shots: the first ones of them that are shown; fewer than K where the context has no room.
        seed: draws them; None: the first ones.
    """
    shown = drawn(elicitation.worked(), most, seed)[:shots]
    worked = "".join(f"{elicitation.shot_format.format(question=q)} {a}\n\n" for q, a in shown)
    head, tail = elicitation.shot_format.split("{question}")
    return worked + head, tail


def _question(example: Example) -> str:
    return str(example.meta["question"])


def _with_shown_passage(example: Example) -> str:
    return _with_passage(example) if example.meta.get("shows") == "passage" else _question(example)


def _with_passage(example: Example) -> str:
    return f"{example.meta['passage']}\n\n{example.meta['question']}"


@cache
def _held_out() -> tuple[world_facts.Fact, ...]:
    """The held-out facts, one of each relation before the second of any: five of them show five kinds of answer."""
    count: dict[str, int] = {}
    place = []
    for fact in world_facts.worked_examples():
        place.append(count.get(fact.relation, 0))
        count[fact.relation] = place[-1] + 1
    ordered = sorted(zip(place, world_facts.worked_examples(), strict=True), key=lambda pair: pair[0])
    return tuple(fact for _, fact in ordered)


@cache
def _worked() -> tuple[tuple[str, str], ...]:
    return tuple((fact.question, fact.answer) for fact in _held_out())


@cache
def _worked_with_passage() -> tuple[tuple[str, str], ...]:
    return tuple((f"{fact.passage}\n\n{fact.question}", fact.answer) for fact in _held_out())


SHORT_ANSWER = Elicitation(_question, _worked)
"""A question whose answer is a name, a number or a few words."""

FROM_PASSAGE = Elicitation(
    _with_passage,
    _worked_with_passage,
    chat_format="Answer the question from the passage.\n\n{question}",
    passages=True,
)
"""The same with the passage that holds the answer."""

OPTIONS = Elicitation(_with_shown_passage, _worked, completes=True)
"""Options scored by their words; after the passage, where the example says that it is shown."""
