"""What was asked, what a model answered, and how that was scored."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kick_core.records.json_record import JsonRecord


@dataclass(frozen=True, slots=True)
class Example(JsonRecord):
    """One question of a task.

    Attributes:
        id: Unique within the task.
        prompt: The text as it is sent (one part; of a few-shot prompt the header, each shot and the question, sent one
            after the other), or the user's turns of a dialogue (chat tasks).
        choices: The options of a multiple-choice question.
        answers: The accepted answers (aliases); for multiple choice the letter of the right option.
        meta: Subject, discipline, bucket, checks, passage …, as plain JSON.
    """

    id: str
    prompt: tuple[str, ...]
    choices: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Output(JsonRecord):
    """What a model answered to one example, raw.

    Attributes:
        example: the example's id.
        prompt_hash: of the prompt as it was sent.
        text: the answer, one part per assistant turn.
        logprobs: natural logarithms: one per option of a multiple choice question; of a perplexity window the sum.
        stop: why generation ended (`eos`, `stop`, `limit`), or `scored`; `rejected`: the prompt exceeds the context,
            `not finite` logits with NaN or infinity.
        tokens: generated tokens, or the tokens (or words) that a perplexity is the mean over.
        prompt_tokens: the prompt's length.
        ids: the generated token ids, one part per turn.
        argmax: multiple choice: the text of the likeliest of all tokens, what the model would have written itself.
        top: that token's log-probability.
        entropy: of the whole next-token distribution, in nats.
        shots_used: how many solved examples were shown before the question.
        metrics: scores that another program gave; which, is in the run's settings.
    """

    example: str
    prompt_hash: str
    text: tuple[str, ...] = ()
    logprobs: tuple[float, ...] = ()
    stop: str = ""
    tokens: int = 0
    prompt_tokens: int = 0
    ids: tuple[tuple[int, ...], ...] = ()
    argmax: str | None = None
    top: float | None = None
    entropy: float | None = None
    shots_used: int | None = None
    metrics: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict(JsonRecord):
    """One scorer's judgement of one output.

    Attributes:
        example: The example's id.
        scorer: Name and version of the scorer.
        score: In [0, 1] unless the scorer says otherwise; None: not judged, which never counts as wrong.
        extracted: The part of the output that was compared with the accepted answers.
        why: The reason, where a score needs one.
    """

    example: str
    scorer: str
    score: float | None
    extracted: str = ""
    why: str = ""
