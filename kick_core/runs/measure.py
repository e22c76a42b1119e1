"""Evaluation runs: what identifies one, what of it is done, and doing the rest.

A run is one model under one recipe asked one task. Its key does not hold how many examples were asked:
examples come in a fixed random order, and asking more of them extends the run.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from kick_core import evaluation, keys
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.planners import searched_on
from kick_core.errors import BadRequest
from kick_core.evaluation import EvalSession, perplexity
from kick_core.evaluation.sent import sent_prompts
from kick_core.keys import canonical
from kick_core.provenance import host, now, versions
from kick_core.records import Example, RunCard
from kick_core.spec import DENSE, Recipe, parse
from kick_core.store import Store, results
from kick_core.tasks import POCKET, PromptSpec, Task
from kick_core.tasks.verdicts import score


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task's examples for one model, their key, and how they are asked.

    `protocol` is "strict" also where the paper's code asks alike: both then share one run. `facts` are what the
    number must be quoted with (perplexity: which text, how many windows and tokens). `reason` says why the prompts have
    the form that they have.
    """

    task: Task
    way: PromptSpec
    examples: tuple[Example, ...]
    key: str
    data: str
    protocol: str
    facts: dict[str, Any]
    reason: str = ""


def task_data(
    task: Task,
    ask: EvalSession,
    data: str = POCKET,
    protocol: str = "strict",
    shots: int | None = None,
    prompting: str = "auto",
) -> TaskData:
    """Load a task's examples and name them by their content.

    Args:
        task: the task, on the kind of data that `data` names.
        ask: the model that is to be evaluated.
        data: `pocket`, `official`, a folder or a file of one's own questions.
        protocol: `strict` or `paper`.
        shots: keeps fewer worked examples of a raw few-shot prompt; None: all.
        prompting: `auto`, `raw`, `chat` or `shots:K`.
    """
    way = evaluation.prompt_spec(task, ask, protocol, prompting)
    strict = evaluation.prompt_spec(task, ask, "strict", prompting)
    alike = way.load is strict.load and ask.settings(way) == ask.settings(strict)
    found = evaluation.examples(task, ask, data, protocol)
    digest = hashlib.sha256()
    for example in found:
        digest.update(canonical(example.to_json()).encode())
    key = keys.key("examples", {"task": task.name, "content": digest.hexdigest()})
    if shots is not None and shots < max(len(example.prompt) - 2 for example in found):
        way = replace(way, shots=shots)
    facts = perplexity.facts(found) if way.kind == "perplexity" else {}
    reason = evaluation.prompt_form(task, ask, protocol, prompting).reason
    return TaskData(task, way, found, key, data, "strict" if alike else protocol, facts, reason)


def asked_otherwise(ask: EvalSession) -> EvalSession:
    """The same model asked in other batches: fewer rows, longer padding. What that changes is the evaluator's noise."""
    plan = ask.plan
    return replace(
        ask,
        plan=replace(
            plan, tokens=plan.tokens // 2, rows=max(1, plan.rows // 3), step=2 * plan.step, shortest=2 * plan.shortest
        ),
    )


def run_card(
    builder: ArtifactBuilder, recipe: Recipe, ask: EvalSession, loaded: TaskData, *, again: bool = False
) -> RunCard:
    """The card of a run, measured or not. Its key holds how it is asked, not how it is scored; `again` marks one that
    repeats another to measure the evaluator's noise."""
    opened, settings = builder.opened, ask.settings(loaded.way) | loaded.facts
    settings |= {"again": "batch plan"} if again else {}
    weights = builder.key(recipe)
    identity = {
        "weights": weights,
        "task": loaded.task.name,
        "examples": loaded.key,
        "settings": settings,
        "plan": ask.plan_text,
        "protocol": loaded.protocol,
        "device": ask.engine.device,
    }
    return RunCard(
        key=keys.key("run", identity),
        model=opened.source.name,
        fingerprint=opened.source.fingerprint,
        recipe=recipe.text,
        weights=weights,
        task=loaded.task.name,
        task_version=loaded.task.version,
        protocol=loaded.protocol,
        data=loaded.data,
        examples=loaded.key,
        total=len(loaded.examples),
        settings=settings,
        plan=ask.plan_text,
        dtype=opened.dtype,
        device=ask.engine.device,
        created=now(),
        versions=versions(),
        decoder=opened.decoder,
        placed=dict(ask.engine.placed),
    )


def wanted(loaded: TaskData, limit: int | None, recipe: Recipe = DENSE) -> tuple[Example, ...]:
    """The examples that a limit asks for: the first ones of the fixed order, and never one that the recipe's own search
    has looked at."""
    if limit is not None and limit < 1:
        raise BadRequest(f"limit {limit}: at least 1 example is needed")
    seen = {example.id for example in searched_on(recipe, loaded.task, loaded.data)}
    return tuple(example for example in loaded.examples if example.id not in seen)[:limit]


def repair(store: Store, card: RunCard, loaded: TaskData) -> None:
    """Write again what `kick verify` set aside of a run and its answers tell: card, questions, verdicts."""
    if results.measured(store, card.key):
        results.keep_card(store, card)
        results.keep_examples(store, card.examples, loaded.examples)
        if results.verdict_file(store, card.key, loaded.task.version) is None:
            score(store, card.key)


def measure(store: Store, ask: EvalSession, card: RunCard, loaded: TaskData, limit: int | None) -> Iterator[int]:
    """Ask what is not answered yet, keep every batch, seal at the end; yields the number of new outputs.

    The model must wear the weights that the card names. A stopped run goes on at its batch.
    """
    asked = wanted(loaded, limit, parse(card.recipe))
    if results.measured(store, card.key) >= len(asked):
        return
    results.keep_examples(store, card.examples, loaded.examples)
    if card.recipe == DENSE.text:
        keep_prompts(store, ask, card, loaded)
    with results.recorder(store, card) as recorder:
        rest = asked[recorder.sealed :]
        done = recorder.recorded([example.id for example in rest])
        if done:
            yield len(done)
        began, tokens = time.perf_counter(), 0
        for batch in evaluation.outputs(ask, loaded.way, [e for e in rest if e.id not in done], loaded.examples):
            recorder.record(batch)
            tokens += sum(output.tokens + output.prompt_tokens for output in batch)
            yield len(batch)
        sitting = results.Timing(len(rest) - len(done), tokens, time.perf_counter() - began, host())
        if rest:
            recorder.seal([example.id for example in rest])
            results.add_timing(store, card.key, sitting)
    score(store, card.key)


def keep_prompts(store: Store, ask: EvalSession, card: RunCard, loaded: TaskData) -> None:
    """Keep the first prompts of a dense run as they are sent; every other recipe is asked the same."""
    if results.prompts(store, card.key) is None:
        results.keep_prompts(store, card.key, sent_prompts(ask, loaded.way, loaded.reason, loaded.examples))
