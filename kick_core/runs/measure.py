"""Evaluation runs: what identifies one, what of it is done, and doing the rest.

A run is one model under one recipe on one task. Its key does not hold the number of examples: they come in a fixed
random order, and evaluating more of them extends the run.
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
from kick_core.evaluation import EvalSession, multiple_choice, perplexity
from kick_core.evaluation.sent import sent_prompts
from kick_core.keys import canonical
from kick_core.provenance import host, now, versions
from kick_core.records import Example, RunCard
from kick_core.spec import DENSE, Recipe, parse
from kick_core.store import Store, results
from kick_core.tasks import POCKET, PromptSpec, Task
from kick_core.tasks.verdicts import score
from kick_core.timing import stage


@dataclass(frozen=True, slots=True)
class TaskData:
    """A task's examples for one model, and how they become prompts.

    Attributes:
        task: The task.
        spec: Prompts and decoding.
        examples: In their fixed random order.
        key: Names the examples by their content.
        data: `pocket`, `official`, or the user's own folder or file.
        protocol: "strict" also where the paper's code does the same: both then share one run.
        facts: What the number must be quoted with (perplexity: which text, how many windows and tokens).
        reason: Why the prompts have their form, for people.
    """

    task: Task
    spec: PromptSpec
    examples: tuple[Example, ...]
    key: str
    data: str
    protocol: str
    facts: dict[str, Any]
    reason: str = ""


def task_data(
    task: Task,
    session: EvalSession,
    data: str = POCKET,
    protocol: str = "strict",
    shots: int | None = None,
    prompting: str = "auto",
) -> TaskData:
    """Load a task's examples and name them by their content.

    Args:
        task: The task, on the kind of data that `data` names.
        session: The model that is to be evaluated.
        data: `pocket`, `official`, or a folder or file of the user's own questions.
        protocol: `strict` or `paper`.
        shots: Keeps fewer worked examples of a raw few-shot prompt; None: all.
        prompting: `auto`, `raw`, `chat` or `shots:K`.
    """
    spec = evaluation.prompt_spec(task, session, protocol, prompting)
    strict = evaluation.prompt_spec(task, session, "strict", prompting)
    alike = spec.load is strict.load and session.settings(spec) == session.settings(strict)
    examples = evaluation.examples(task, session, data, protocol)
    digest = hashlib.sha256()
    for example in examples:
        digest.update(canonical(example.to_json()).encode())
    key = keys.key("examples", {"task": task.name, "content": digest.hexdigest()})
    if shots is not None and shots < max(len(example.prompt) - 2 for example in examples):
        spec = replace(spec, shots=shots)
    facts = perplexity.facts(examples) if spec.kind == "perplexity" else {}
    reason = evaluation.prompt_form(task, session, protocol, prompting).reason
    return TaskData(task, spec, examples, key, data, "strict" if alike else protocol, facts, reason)


def other_batching(session: EvalSession) -> EvalSession:
    """The same model in other batches: fewer rows, longer padding. What that changes is the evaluator's noise.

    Args:
        session: The evaluation of the open model.
    """
    plan = session.plan
    return replace(
        session,
        plan=replace(
            plan, tokens=plan.tokens // 2, rows=max(1, plan.rows // 3), step=2 * plan.step, shortest=2 * plan.shortest
        ),
    )


def run_card(
    builder: ArtifactBuilder, recipe: Recipe, session: EvalSession, loaded: TaskData, *, again: bool = False
) -> RunCard:
    """The card of a run, measured or not. Its key depends on how the task is evaluated, not on how answers are scored.

    Args:
        builder: Of the model.
        recipe: What is applied.
        session: Of the backend that generates.
        loaded: The task.
        again: Whether the run repeats another to measure the evaluator's noise.
    """
    opened, settings = builder.opened, session.settings(loaded.spec) | loaded.facts
    if loaded.spec.kind == "choose" and session.other is None:
        settings |= multiple_choice.span_settings(len(loaded.examples))
    settings |= {"again": "batch plan"} if again else {}
    weights = builder.key(recipe)
    identity = {
        "weights": weights,
        "task": loaded.task.name,
        "examples": loaded.key,
        "settings": settings,
        "plan": session.plan_text,
        "protocol": loaded.protocol,
        "device": session.engine.device,
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
        plan=session.plan_text,
        dtype=opened.dtype,
        device=session.engine.device,
        created=now(),
        versions=versions(),
        decoder=opened.decoder,
        placed=dict(session.engine.placed),
    )


def requested(loaded: TaskData, limit: int | None, recipe: Recipe = DENSE) -> tuple[Example, ...]:
    """The first examples of the fixed order, without those that the recipe's own search has looked at.

    Args:
        loaded: The task.
        limit: How many; None: all.
        recipe: Whose search may have looked at examples.

    Raises:
        BadRequest: The limit is below 1.
    """
    if limit is not None and limit < 1:
        raise BadRequest(f"limit {limit}: at least 1 example is needed")
    searched = {example.id for example in searched_on(recipe, loaded.task, loaded.data)}
    return tuple(example for example in loaded.examples if example.id not in searched)[:limit]


def repair(store: Store, card: RunCard, loaded: TaskData) -> None:
    """Write again what `kick verify` set aside of a run and its outputs still determine: card, questions, verdicts.

    Args:
        store: Where the run is.
        card: Its card.
        loaded: Its task.
    """
    if results.measured(store, card.key):
        results.keep_card(store, card)
        results.keep_examples(store, card.examples, loaded.examples)
        if results.verdict_file(store, card.key, loaded.task.version) is None:
            score(store, card.key)


def measure(store: Store, session: EvalSession, card: RunCard, loaded: TaskData, limit: int | None) -> Iterator[int]:
    """Generate what is missing, keep every batch, seal at the end. A stopped run goes on at its batch.

    Args:
        store: Where outputs are kept.
        session: Whose model has the weights applied that the card names.
        card: Of the run.
        loaded: Its task.
        limit: How many of the first examples; None: all.

    Yields:
        The number of new outputs.
    """
    examples = requested(loaded, limit, parse(card.recipe))
    if results.measured(store, card.key) >= len(examples):
        return
    results.keep_examples(store, card.examples, loaded.examples)
    if card.recipe == DENSE.text:
        keep_prompts(store, session, card, loaded)
    with results.recorder(store, card) as recorder:
        rest = examples[recorder.sealed :]
        done = recorder.recorded([example.id for example in rest])
        if done:
            yield len(done)
        start, tokens = time.perf_counter(), 0
        for batch in evaluation.outputs(session, loaded.spec, [e for e in rest if e.id not in done], loaded.examples):
            recorder.record(batch)
            tokens += sum(output.tokens + output.prompt_tokens for output in batch)
            yield len(batch)
        timing = results.Timing(len(rest) - len(done), tokens, time.perf_counter() - start, host())
        if rest:
            with stage("seal", outputs=len(rest)):
                recorder.seal([example.id for example in rest])
            results.add_timing(store, card.key, timing)
    with stage("score"):
        score(store, card.key)


def keep_prompts(store: Store, session: EvalSession, card: RunCard, loaded: TaskData) -> None:
    """Keep the first prompts of a dense run as they are sent; every other recipe gets the same.

    Args:
        store: Where they are kept.
        session: The evaluation of the dense model.
        card: Of the run.
        loaded: Its task.
    """
    if results.prompts(store, card.key) is None:
        results.keep_prompts(store, card.key, sent_prompts(session, loaded.spec, loaded.reason, loaded.examples))
