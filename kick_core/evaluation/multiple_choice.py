"""Multiple choice by log-probability, with few-shot prompts that lose shots until they fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from typing import NamedTuple

from kick_core.engine import OptionScores
from kick_core.evaluation.prompting import fitted, most_shots, text
from kick_core.evaluation.session import EvalSession, prompt_hash, rejected
from kick_core.models.tokenization import Options, all_option_ids
from kick_core.records import Example, Output
from kick_core.tasks import PromptSpec


class _Shown(NamedTuple):
    """One question as token ids: the prompt, and every option's own tokens. `shots` None: it never had any."""

    prompt: list[int]
    endings: list[list[int]]
    shots: int | None


def choose(ask: EvalSession, way: PromptSpec, wanted: Set[str], among: Sequence[Example]) -> Iterator[list[Output]]:
    """Every option's log-probability. A letter is one token; an option of several is the sum of its tokens'."""
    asked = _all_shown(ask, way, among)
    # the last token of an option is predicted and never read
    fits = [len(one.prompt) + max(map(len, one.endings)) - 1 <= ask.context for one in asked]
    refused = [
        rejected(example, one.prompt)
        for example, one, there in zip(among, asked, fits, strict=True)
        if example.id in wanted and not there
    ]
    if refused:
        yield refused
    fit = [i for i, there in enumerate(fits) if there]
    prompts, endings = [asked[i].prompt for i in fit], [asked[i].endings for i in fit]
    now = [n for n, i in enumerate(fit) if among[i].id in wanted]
    for batch in ask.engine.score_options(prompts, endings, plan=ask.plan, filler=ask.filler, wanted=now):
        yield [_output(ask, among[fit[n]], asked[fit[n]], found) for n, found in batch.items()]


def _all_shown(ask: EvalSession, way: PromptSpec, among: Sequence[Example]) -> list[_Shown]:
    """All questions as token ids; a sweep asks many models the same ones, so they are kept with the asker."""
    key = (id(among), ask.room(way), way.shots, way.prompting)
    if key not in ask.prepared:
        ask.prepared[key] = (among, shown(ask, way, among))
    found: list[_Shown] = ask.prepared[key][1]
    return found


def shown(ask: EvalSession, way: PromptSpec, among: Sequence[Example]) -> list[_Shown]:
    """Each question with as many shots as there is room for; the first ones stay."""
    few = way.prompting.startswith("shots:")

    def encode(pending: Sequence[int], shots: Sequence[int]) -> list[Options]:
        texts = [text(ask.tokenizer, way, among[i], count) for i, count in zip(pending, shots, strict=True)]
        return all_option_ids(ask.tokenizer, texts, [_choices(way, among[i]) for i in pending])

    most = [most_shots(way, example) for example in among]
    fitting = fitted(most, ask.room(way), encode, lambda options: len(options[0]))
    return [
        _Shown(prompt, endings, left if few or len(example.prompt) > 2 else None)
        for example, ((prompt, endings), left) in zip(among, fitting, strict=True)
    ]


def _choices(way: PromptSpec, example: Example) -> tuple[str, ...]:
    """The options as they continue the prompt: a chat's answer begins without a space."""
    return tuple(choice.lstrip() for choice in example.choices) if way.prompting == "chat" else example.choices


def _output(ask: EvalSession, example: Example, shown: _Shown, found: OptionScores) -> Output:
    """A scored output. Logits that are not finite give no log-probabilities: they can never be judged."""
    plain = Output(example.id, prompt_hash(shown.prompt), prompt_tokens=len(shown.prompt), shots_used=shown.shots)
    if not found.finite:
        return replace(plain, stop="not finite")
    return replace(
        plain,
        logprobs=found.logprobs,
        stop="scored",
        argmax=ask.tokenizer.decode([found.argmax], skip_special_tokens=True),
        top=found.top,
        entropy=found.entropy if math.isfinite(found.entropy) else None,
    )
