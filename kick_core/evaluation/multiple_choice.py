"""Multiple choice by log-probability, with few-shot prompts that lose shots until they fit.

A long task is tokenised and laid out in spans of its fixed order, so that a limit costs little more than the questions
that it asks, and an answer still depends on nothing but its own span.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from typing import Any, NamedTuple

from kick_core import timing
from kick_core.engine import OptionScores
from kick_core.evaluation.prompting import fitted, most_shots, text
from kick_core.evaluation.session import EvalSession, prompt_hash, rejected
from kick_core.models.tokenization import Options, all_option_ids
from kick_core.records import Example, Output
from kick_core.tasks import PromptSpec

FIRST_SPAN, SPAN_GROWTH = 1024, 4
"""Examples of the first span, and how much longer a task is at the end of each next one: reading the few-shot prompts
once per span adds under a tenth to all of MMLU (57 prompts, 3 spans)."""


class _Shown(NamedTuple):
    """One question as token ids: the prompt, and every option's own tokens. `shots` None: it never had any."""

    prompt: list[int]
    endings: list[list[int]]
    shots: int | None


def spans(total: int) -> list[range]:
    """The places in a task's fixed order that are laid out together: 0 to 1,023, to 4,095, to 16,383 …"""
    found, start, stop = list[range](), 0, FIRST_SPAN
    while start < total:
        found.append(range(start, min(stop, total)))
        start, stop = stop, stop * SPAN_GROWTH
    return found


def span_settings(total: int) -> dict[str, Any]:
    """What a run's settings say of its spans; nothing for a task that is one."""
    return {"spans": f"{FIRST_SPAN}, then {SPAN_GROWTH} times as far"} if len(spans(total)) > 1 else {}


def choose(ask: EvalSession, way: PromptSpec, wanted: Set[str], among: Sequence[Example]) -> Iterator[list[Output]]:
    """Every option's log-probability. A letter is one token; an option of several is the sum of its tokens'.

    Args:
        ask: the model.
        way: how the task is put.
        wanted: ids of the examples to answer now.
        among: all of the task's examples in their fixed order; only the spans that hold a wanted one are read.

    Yields:
        Outputs, one list per batch.
    """
    for span in spans(len(among)):
        if any(among[i].id in wanted for i in span):
            yield from _choose_in_span(ask, way, wanted, among, span)


def prepare(ask: EvalSession, way: PromptSpec, wanted: Set[str], among: Sequence[Example]) -> None:
    """Tokenise what `choose` will ask, with the same arguments."""
    for span in spans(len(among)):
        if any(among[i].id in wanted for i in span):
            _encoded(ask, way, among, span)


def _choose_in_span(
    ask: EvalSession, way: PromptSpec, wanted: Set[str], whole: Sequence[Example], span: range
) -> Iterator[list[Output]]:
    among, questions = whole[span.start : span.stop], _encoded(ask, way, whole, span)
    asked, fit = questions.shown, questions.fit
    too_long = set(range(len(asked))) - set(fit)
    if refused := [rejected(among[i], asked[i].prompt) for i in sorted(too_long) if among[i].id in wanted]:
        yield refused
    now = [n for n, i in enumerate(fit) if among[i].id in wanted]
    for batch in ask.engine.score_options(
        questions.prompts, questions.endings, plan=ask.plan_for(way), filler=ask.filler, wanted=now
    ):
        yield [_output(ask, among[fit[n]], asked[fit[n]], found) for n, found in batch.items()]


class _Questions(NamedTuple):
    """A span's questions as token ids; those that `fit` the context as the engine takes them."""

    shown: list[_Shown]
    fit: list[int]
    prompts: list[list[int]]
    endings: list[list[list[int]]]


def _encoded(ask: EvalSession, way: PromptSpec, whole: Sequence[Example], span: range) -> _Questions:
    """A span as token ids; a sweep asks many models the same questions, so they are kept with the session."""
    key = (id(whole), span, ask.room(way), way.shots, way.fewshot_seed, way.prompting)
    if key not in ask.prepared:
        with timing.stage("tokenise", prompts=len(span)):
            asked = shown(ask, way, whole[span.start : span.stop])
        # the last token of an option is predicted and never read
        fit = [i for i, one in enumerate(asked) if len(one.prompt) + max(map(len, one.endings)) - 1 <= ask.context]
        questions = _Questions(asked, fit, [asked[i].prompt for i in fit], [asked[i].endings for i in fit])
        ask.prepared[key] = (whole, questions)
    found: _Questions = ask.prepared[key][1]
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
