"""A language model as judge: questions, replies, and the card of one judging."""

from __future__ import annotations

from dataclasses import dataclass

from kick_core.records.json_record import JsonRecord


@dataclass(frozen=True, slots=True)
class Question(JsonRecord):
    """One question to a judge, whole: what it was shown and whose answer that was.

    `key` names everything that can change the reply (judge, words, order, repeat), so equal keys are asked
    once. `subject` is "recipe", "dense" or a control ("null", "injection", "same"); `order` is "alone", "dense
    first" or "dense second"; `turn` and `repeat` count from 1. `cut` marks an answer that was shortened,
    `defused` one whose chat-template tokens were broken up.
    """

    key: str
    subject: str
    example: str
    turn: int
    order: str
    repeat: int
    form: str
    system: str
    user: str
    cut: bool = False
    defused: bool = False


@dataclass(frozen=True, slots=True)
class Reply(JsonRecord):
    """What a judge said to the question `key`, raw. Verdicts are read out of it again and again.

    `stop` is the endpoint's finish reason, `model` the name that the endpoint gives itself; tokens are the
    endpoint's own count, 0 where it gives none.
    """

    key: str
    text: str
    stop: str = ""
    model: str = ""
    prompt_tokens: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class JudgingCard(JsonRecord):
    """One run shown to one judge in one style, beside dense. `replies` is the judge's key in the store.

    `judge`, `host`, `temperature` (as text; None: the endpoint's own) and `max_tokens` say who judged and how.
    """

    key: str
    replies: str
    judge: str
    host: str
    temperature: str | None
    max_tokens: int
    style: str
    as_published: bool
    wording: str
    task: str
    model: str
    fingerprint: str
    recipe: str
    run: str
    dense_run: str
    created: str
