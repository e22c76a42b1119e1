"""What was found: examples, raw outputs, verdicts, block reports and cards.

Outputs are raw and kept for ever; verdicts are derived from them again whenever a scorer changes. A verdict
without a score (`None`) means "not judged" and never counts as wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields
from typing import Any, Self


class _Json:
    """Records travel as plain JSON objects; unknown names are an error, so old readers notice new fields."""

    __slots__ = ()

    def to_json(self) -> dict[str, Any]:
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}  # type: ignore[arg-type]

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        names = {f.name for f in fields(cls)}  # type: ignore[arg-type]
        if unknown := set(data) - names:
            raise ValueError(f"{cls.__name__} has no field {', '.join(sorted(unknown))}")
        return cls(**{name: _frozen(value) for name, value in data.items()})


def _plain(value: Any) -> Any:
    """As `dataclasses.asdict`, which looks into every single number and takes ten times as long."""
    if isinstance(value, _Json):
        return value.to_json()
    if isinstance(value, tuple) and any(isinstance(item, _Json | tuple) for item in value):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict) and any(isinstance(item, _Json) for item in value.values()):
        return {name: _plain(item) for name, item in value.items()}
    return deepcopy(value) if isinstance(value, dict | list) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


@dataclass(frozen=True, slots=True)
class Example(_Json):
    """One question of a task.

    `prompt` holds the text sent as it is (one part; of a few-shot prompt the header, each shot and the question, sent
    one after the other) or the user's turns of a dialogue (chat tasks).
    `choices` are the options of a multiple-choice question; `answers` the accepted golds (aliases), and for
    multiple choice the gold option's letter. `meta` carries subject, discipline, bucket, checks, passage …
    """

    id: str
    prompt: tuple[str, ...]
    choices: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Output(_Json):
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


@dataclass(frozen=True, slots=True)
class Verdict(_Json):
    """One scorer's judgement of one output. `score` is in [0, 1] unless the scorer says otherwise."""

    example: str
    scorer: str
    score: float | None
    extracted: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class LayerReport(_Json):
    """What happened to one linear. `loss` is the relative output error ‖(W-Ŵ)X‖²/‖WX‖² where inputs are known.

    `note` records anything that departed from the plain procedure, such as a Cholesky retry.
    """

    name: str
    rows: int
    cols: int
    zeros: int
    loss: float | None = None
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True)
class BlockReport(_Json):
    """One decoder block after compression.

    Attributes:
        block: its number, from 0 to `blocks` - 1.
        blocks: how many the model has.
        layers: one report per matrix.
        seconds: wall clock.
        loss: the relative output error ‖f̂(X̂) - f(X̂)‖² / ‖f(X̂)‖² on the first batch of calibration windows, X̂ being
            the inputs it was calibrated on; None where the method looks at no data.
        resumed: whether it came from the cache.
        note: what was done when memory ran out.
        fit: where the block was fitted to the dense one afterwards, the relative output error
            ‖f̂(X̂) - f(X)‖² / ‖f(X)‖² over all windows before and after, X being the dense model's own activations.
    """

    block: int
    blocks: int
    layers: tuple[LayerReport, ...]
    seconds: float
    loss: float | None = None
    resumed: bool = False
    note: str = ""
    fit: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class PlanProgress(_Json):
    """A recipe looks at the whole model before its first block: `done` of `total` looks; `note` tells the last one."""

    done: int
    total: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class StructuredMask(_Json):
    """What structured pruning drops of one matrix [out, in]: whole rows and whole columns, by number."""

    rows: tuple[int, ...] = ()
    cols: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerPlan(_Json):
    """What a recipe that looks at the whole model does to every matrix, found before the walk.

    Matrices are named "block.name". `recipes` holds the text of what compresses each one, or `lines` what is dropped
    of it; one that is in neither stays dense. `facts` tell how it was found, for the card: they are kept as JSON.
    """

    recipes: dict[str, str] = field(default_factory=dict)
    lines: dict[str, StructuredMask] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        lines = {name: StructuredMask.from_json(found) for name, found in data["lines"].items()}
        return cls(dict(data["recipes"]), lines, dict(data["facts"]))


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a sweep is, or an answer to a prompt of one's own (`answer`: the text so far).

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


@dataclass(frozen=True, slots=True)
class Card(_Json):
    """What a finished weight artifact is, where it came from and what it weighs.

    Attributes:
        key: the content key.
        model: the model's name as it was given.
        fingerprint: SHA-256 of the model's files.
        recipe: the text form as it was given.
        resolved: the recipe with every default filled in, and the method's version.
        calibration: source, windows, length, seed and the SHA-256 of the token ids; None where no data was read.
        dtype: of the model.
        device: the kind of device that computed it.
        blocks: decoder blocks.
        weights: the number of weights in the compressed matrices.
        zeros: how many of them are zero.
        bytes: of its files as they were written; less on disk where artifacts share files.
        dense_bytes: of a dense copy of the same matrices.
        seconds: wall clock.
        created: UTC, ISO 8601.
        versions: of the packages that decide the numbers.
        layers: one report per matrix.
        warnings: departures from the plain procedure.
        decoder: what opened the model, where its files were quantized already.
        host: the machine that sealed it; empty on older cards.
        recovery: what was trained after compression, and how the loss went.
        plan: what a search over the whole model chose, and by which objective.
    """

    key: str
    model: str
    fingerprint: str
    recipe: str
    resolved: dict[str, Any]
    calibration: dict[str, Any] | None
    dtype: str
    device: str
    blocks: int
    weights: int
    zeros: int
    bytes: int
    dense_bytes: int
    seconds: float
    created: str
    versions: dict[str, str]
    layers: tuple[LayerReport, ...] = ()
    warnings: tuple[str, ...] = ()
    decoder: str = ""
    host: str = ""
    recovery: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / self.weights if self.weights else 0.0

    @property
    def sparsity(self) -> float:
        return self.zeros / self.weights if self.weights else 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        layers = tuple(LayerReport.from_json(layer) for layer in data.get("layers", ()))
        names = {f.name for f in fields(cls)}
        if unknown := set(data) - names:
            raise ValueError(f"Card has no field {', '.join(sorted(unknown))}")
        plain = {name: _frozen(value) for name, value in data.items() if name != "layers"}
        return cls(**plain, layers=layers)


@dataclass(frozen=True, slots=True)
class RunCard(_Json):
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


# --- judging -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Question(_Json):
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
class Reply(_Json):
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
class JudgingCard(_Json):
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
