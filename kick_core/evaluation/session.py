"""An open model, ready to be asked, and what every way of asking shares."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kick_core import engine
from kick_core.engine import BatchPolicy, Engine
from kick_core.evaluation import prompting
from kick_core.models import chat_template
from kick_core.models.source import context_of
from kick_core.models.tokenization import begins_with, template_name
from kick_core.records import Example, Output
from kick_core.tasks import PromptSpec


@dataclass(frozen=True, slots=True)
class PromptTarget:
    """What examples and prompts follow from of a model; known before its weights are read.

    Attributes:
        tokenizer: The model's own.
        context: The longest sequence that the model was made for, in tokens.
    """

    tokenizer: PreTrainedTokenizerBase
    context: int

    @property
    def window(self) -> int:
        """Tokens in a perplexity window."""
        return min(2048, self.context)

    def room(self, way: PromptSpec) -> int:
        """Tokens that a few-shot prompt may have."""
        return min(way.room or self.context, self.context)

    def settings(self, way: PromptSpec) -> dict[str, Any]:
        """How examples are asked of this model, beside their prompts."""
        base: dict[str, Any] = {
            "kind": way.kind,
            "context": self.context,
            "template": template_name(self.tokenizer, way.template),
            "bos": begins_with(self.tokenizer),
        }
        if "tokenizer" in (base["template"], template_name(self.tokenizer, way.prompting)):
            base |= chat_template.fixed(self.tokenizer) | {"bos": begins_with(self.tokenizer, chat=True)}
        base |= prompting.settings(self.tokenizer, way)
        if way.kind in ("generate", "dialogue"):
            length = f"{way.times_prompt} x prompt" if way.times_prompt else way.new_tokens
            length = f"{length}, or what the context leaves" if way.fills_context else length
            base |= {"new_tokens": length, "stop": list(way.stop), "decoding": decoding(way)}
        if way.kind == "choose":
            base |= {"room": self.room(way)}
        if way.shots is not None:
            base |= {"shots": way.shots}
        if way.fewshot_seed is not None:
            base |= {"fewshot_seed": way.fewshot_seed}
        if way.kind == "perplexity":
            base |= {"window": self.context if way.unit == "word" else self.window, "variant": _VARIANTS[way.unit]}
        if way.faults:
            base |= {"as_published": list(way.faults)}
        return base


@dataclass(frozen=True, slots=True)
class EvalSession:
    """One model, ready to be asked: everything that the ways of asking share.

    `model` is asked by this package's engine, unless `other` answers: then it only tells the config.
    `prepared` remembers prompts as token ids, with the examples that they were made of.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    plan: BatchPolicy
    prepared: dict[Any, tuple[Any, Any]] = field(default_factory=dict, compare=False, repr=False)
    other: Engine | None = None

    @property
    def engine(self) -> Engine:
        """Who answers."""
        return self.other or engine.own(self.model)

    @property
    def filler(self) -> int:
        tokenizer = self.tokenizer
        return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if isinstance(i, int)), 0)

    def plan_for(self, way: PromptSpec) -> BatchPolicy:
        """The shape policy for a task: where there are kernels, long texts of all lengths are written together, windows
        are read by them, and prompts of many lengths are read by attention that takes any length at once. Prompts are
        read in packs before texts alone."""
        if not self.plan.kernels:
            return replace(self.plan, packed=self.plan.packed and way.kind in ("generate", "dialogue"))
        return replace(self.plan, paged=way.long, windows=way.kind == "perplexity", varied=way.varied)

    def plan_text(self, way: PromptSpec) -> str:
        """What keys and pages say of the shape policy for a task."""
        windows = way.kind == "choose" and self.other is None and engine.sees_windows(self.model)
        return self.engine.plan(self.plan_for(way)) + "; in packs under sliding windows" * windows

    @property
    def target(self) -> PromptTarget:
        """The model as prompts are made for it."""
        return PromptTarget(self.tokenizer, context_of(self.model.config))

    @property
    def context(self) -> int:
        return self.target.context

    @property
    def ends(self) -> frozenset[int]:
        listed = self.model.generation_config.eos_token_id if self.model.generation_config else None
        found = {self.tokenizer.eos_token_id} | set(listed if isinstance(listed, list) else [listed])
        return frozenset(token for token in found if isinstance(token, int))

    @property
    def window(self) -> int:
        """Tokens in a perplexity window."""
        return self.target.window

    def room(self, way: PromptSpec) -> int:
        """Tokens that a few-shot prompt may have."""
        return self.target.room(way)

    def settings(self, way: PromptSpec) -> dict[str, Any]:
        """How examples are asked of this model, beside their prompts: part of the run's key."""
        return self.target.settings(way) | dict(self.engine.settings)


_VARIANTS = {
    "token": "per token, windows without overlap (GPTQ, SparseGPT, Wanda)",
    "word": "per word, page by page in rolling windows (lm-eval)",
}


def open_session(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> EvalSession:
    """A model with the shape policy of its device."""
    return EvalSession(model, tokenizer, engine.plan_for(model.device))


def decoding(way: PromptSpec) -> str:
    """How tokens are chosen, in words."""
    drawn: Mapping[str, float] = {name: value for name, value in way.temperatures.items() if value}
    if not drawn:
        return "greedy"
    by = ", ".join(f"{name} {value:g}".strip() for name, value in sorted(drawn.items()))
    return f"sampled at temperature {by} (else greedy), top_k {way.top_k}, seeded by example"


def prompt_hash(ids: Sequence[int]) -> str:
    """What a prompt is known by in outputs."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:16]


def rejected(example: Example, ids: Sequence[int]) -> Output:
    """The output of an example whose prompt does not fit."""
    return Output(example.id, prompt_hash(ids), stop="rejected", prompt_tokens=len(ids))
