"""A language model as judge: questions, replies, and the card of one judging."""

from __future__ import annotations

from dataclasses import dataclass

from kick_core.records.json_record import JsonRecord


@dataclass(frozen=True, slots=True)
class Question(JsonRecord):
    """One question to a judge, whole: what it reads and whose answer that is.

    Attributes:
        key: Names everything that can change the reply (judge, words, order, repeat), so equal keys are asked once.
        subject: "recipe", "dense" or a control ("null", "injection", "same").
        example: The example's id.
        turn: Of a dialogue, from 1.
        order: "alone", "dense first" or "dense second".
        repeat: From 1.
        form: The name of the prompt.
        system: The system message.
        user: The user's message.
        cut: Whether an answer in it was shortened.
        defused: Whether chat-template tokens in an answer were broken up.
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
    """A judge's reply, raw. Verdicts are read out of it again and again.

    Attributes:
        key: Of the question.
        text: As it was generated.
        stop: The endpoint's finish reason.
        model: The name that the endpoint gives itself.
        prompt_tokens: By the endpoint's own count; 0 where it gives none.
        tokens: Likewise, of the reply.
    """

    key: str
    text: str
    stop: str = ""
    model: str = ""
    prompt_tokens: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class JudgingCard(JsonRecord):
    """One run judged by one judge in one style, beside dense.

    Attributes:
        key: The content key.
        replies: The judge's key in the store.
        judge: The judge's model name.
        host: Of its endpoint.
        temperature: As text; None: the endpoint's own.
        max_tokens: Of a reply.
        style: As `--style` takes it.
        as_published: Whether the published prompts were used as they are.
        wording: A hash of all words around the answers.
        task: Of the run.
        model: Of the run.
        fingerprint: SHA-256 of the model's files.
        recipe: Of the run.
        run: The run's key.
        dense_run: The key of dense's run on the same examples.
        created: UTC, ISO 8601.
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
