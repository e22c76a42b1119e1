"""Who answers: functions over token ids, with what of it belongs into a run's key."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from transformers import PreTrainedModel

from kick_core.engine.batching import BatchPolicy
from kick_core.engine.generation import generate
from kick_core.engine.padded import OptionScores
from kick_core.engine.refilling import Generated
from kick_core.engine.scoring import score_options
from kick_core.engine.windows import TextScore, text_logprobs, window_logprobs


@dataclass(frozen=True, slots=True)
class Engine:
    """The four questions that tasks put, as `score_options`, `generate`, `window_logprobs` and `text_logprobs` of
    this package without their first argument.

    `device` is the kind of device that computes. `settings` are part of a run's key, and what dense and variants must
    share; they are empty for an open model in one place. `placed` says where which part of the model lies. `plan` puts
    a shape policy into words, as this engine follows it.
    """

    score_options: Callable[..., Iterator[dict[int, OptionScores]]]
    generate: Callable[..., Iterator[dict[int, Generated]]]
    window_logprobs: Callable[..., Iterator[tuple[int, list[float]]]]
    text_logprobs: Callable[..., Iterator[dict[int, TextScore]]]
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
