"""The card of an evaluation run, and how far a sweep is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from kick_core.records.json_record import JsonRecord

CHOSEN = "chosen"
"""In the settings of a run that was asked only some examples by id or subject; how they were chosen, of how many."""


@dataclass(frozen=True, slots=True)
class RunCard(JsonRecord):
    """The card of an evaluation run: one model under one recipe asked one task in the way of one protocol.

    `protocol` says how it was asked, not how it is scored: "strict" also where both protocols ask alike.
    `weights` is the artifact's key, or the dense model's. `plan` names the shape policy, so that dense and
    variants are known to have been asked alike. `total` is the number of examples the task has in all. `decoder`
    opened the model where its files were quantized already. `settings["engine"]` is there where another engine than
    this package's was asked; `placed` says which part of the model lay where, when it was not all in one place.
    """

    key: str
    model: str
    fingerprint: str
    recipe: str
    weights: str
    task: str
    task_version: int
    protocol: str
    data: str
    examples: str
    total: int
    settings: dict[str, Any]
    plan: str
    dtype: str
    device: str
    created: str
    versions: dict[str, str]
    decoder: str = ""
    placed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SentPrompt(JsonRecord):
    """One prompt token by token as it was sent.

    Attributes:
        example: The example's id.
        pieces: The prompt's text in order, as (text, whether it is a special token).
        tokens: The prompt's length.
        options: Of a choice, each option's tokens as texts.
    """

    example: str
    pieces: tuple[tuple[str, bool], ...]
    tokens: int
    options: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class SentPrompts(JsonRecord):
    """The first prompts of a run, and which form they have.

    Attributes:
        form: `raw`, `chat` or `shots:K`.
        reason: Why this form was taken, in words.
        context: Tokens that the model has room for.
        prompts: Of the run's first examples.
    """

    form: str
    reason: str
    context: int
    prompts: tuple[SentPrompt, ...]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        prompts = tuple(SentPrompt.from_json(prompt) for prompt in data["prompts"])
        return cls(**{**data, "prompts": prompts})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is, or the answer to a prompt of the user's own (`answer`: the text so far).

    `done` and `total` are in units of work; a cell is one recipe or one task of it. `where` names the machines at work
    when it is not this one alone. `remaining` seconds are None before anything is known of them; `warning` is for
    whoever waits, and stays on the screen.
    """

    cell: str
    done: float
    total: float
    message: str = ""
    block: int | None = None
    blocks: int | None = None
    loss: float | None = None
    answer: str | None = None
    where: str = ""
    remaining: float | None = None
    warning: str = ""
