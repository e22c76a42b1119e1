"""Who answers: functions over token ids, with what of it belongs into a run's key."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from torch import Tensor
from transformers import PreTrainedModel

from kick_core.engine.batching import BatchPolicy, Ids
from kick_core.engine.generation import Sampling, generate
from kick_core.engine.padded import Options, OptionScores
from kick_core.engine.refilling import Generated, Stopper
from kick_core.engine.scoring import score_options
from kick_core.engine.windows import TextScore, text_logprobs, window_logprobs


class ScoreOptions(Protocol):
    """As `scoring.score_options` of an open model."""

    def __call__(
        self,
        prompts: Sequence[Ids],
        options: Sequence[Options],
        *,
        plan: BatchPolicy,
        filler: int,
        wanted: Collection[int] | None = None,
    ) -> Iterator[dict[int, OptionScores]]: ...


class Generate(Protocol):
    """As `generation.generate` of an open model."""

    def __call__(
        self,
        prompts: Sequence[Ids],
        *,
        new_tokens: int,
        ends: frozenset[int],
        stops: Stopper,
        plan: BatchPolicy,
        filler: int,
        sampling: Sampling | None = None,
        seeds: Sequence[int] | None = None,
        beginnings: Sequence[Ids] = (),
    ) -> Iterator[dict[int, Generated]]: ...


class WindowLogprobs(Protocol):
    """As `windows.window_logprobs` of an open model."""

    def __call__(
        self, windows: Tensor, *, rows: int, plan: BatchPolicy | None = None
    ) -> Iterator[tuple[int, list[float]]]: ...


class TextLogprobs(Protocol):
    """As `windows.text_logprobs` of an open model."""

    def __call__(
        self, prompts: Sequence[Ids], continuations: Sequence[Ids], *, plan: BatchPolicy, filler: int
    ) -> Iterator[dict[int, TextScore]]: ...


@dataclass(frozen=True, slots=True)
class Engine:
    """The four questions that tasks put to a model, whoever answers them.

    Attributes:
        score_options: Log-probabilities of options after prompts.
        generate: Continuations of prompts.
        window_logprobs: Log-probabilities of windows of running text.
        text_logprobs: Log-probabilities of given continuations (teacher forcing).
        device: The kind of device that computes.
        settings: Part of a run's key, and what dense and variants must share; empty for an open model in one place.
        placed: Which part of the model lies where.
        plan: Puts a batch policy into words, as this engine follows it.
    """

    score_options: ScoreOptions
    generate: Generate
    window_logprobs: WindowLogprobs
    text_logprobs: TextLogprobs
    device: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    placed: Mapping[str, str] = field(default_factory=dict)
    plan: Callable[[BatchPolicy], str] = lambda plan: plan.text


def own(model: PreTrainedModel) -> Engine:
    """This package's engine on an open model."""
    return Engine(
        partial(score_options, model),
        partial(generate, model),
        partial(window_logprobs, model),
        partial(text_logprobs, model),
        model.device.type,
    )
