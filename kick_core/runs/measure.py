"""Evaluation runs: what identifies one, what of it is done, and doing the rest.

A run is one model under one recipe on one task. Its key does not hold the number of examples: they come in a fixed
random order, and evaluating more of them extends the run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any

from kick_core import evaluation, keys
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.planners import searched_on
from kick_core.errors import BadRequest, nearest
from kick_core.evaluation import EvalSession, multiple_choice, perplexity
from kick_core.evaluation.sent import sent_prompts
from kick_core.provenance import host, now, versions
from kick_core.records import CHOSEN, Example, RunCard
from kick_core.runs.finishing import at_once, seal
from kick_core.spec import DENSE, Recipe, parse
from kick_core.store import Store, results
from kick_core.tasks import GROUPS, POCKET, PromptSpec, Task
from kick_core.tasks.data import task_files
from kick_core.tasks.verdicts import score
from kick_core.timing import stage

_PARTS = 1024
"""Of an example that is under way; a power of two, so that their sums are exact."""


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


@dataclass(frozen=True, slots=True)
class Draws:
    """What of a task is drawn.

    Attributes:
        shots: worked examples before each question; None: as many as the task shows.
        fewshot_seed: draws which worked examples are shown; None: the first ones.
        repeats: answers to each question of a sampled task, each with draws of its own.
        ids: the only examples that are asked; empty: all.
        subject: the only subject, discipline, bucket or category that is asked about; empty: all.
    """

    shots: int | None = None
    fewshot_seed: int | None = None
    repeats: int = 1
    ids: tuple[str, ...] = ()
    subject: str = ""


def task_data(
    task: Task,
    session: evaluation.Target,
    data: str = POCKET,
    protocol: str = "strict",
    prompting: str = "auto",
    draws: Draws | None = None,
    load: evaluation.Load | None = None,
) -> TaskData:
    """Load a task's examples and name them by their content.

    Args:
        task: The task, on the kind of data that `data` names.
        session: The model that is to be evaluated; its tokenizer and context are enough.
        data: `pocket`, `official`, a folder or file of the user's own questions, or a task file.
        protocol: `strict` or `paper`.
        prompting: `auto`, `raw`, `chat` or `shots:K`.
        draws: how many worked examples and answers, and which.
        load: reads the examples of the data; None: the task's own reader.

    Raises:
        BadRequest: for draws that the task does not have.
    """
    draws = draws or Draws()
    if draws.shots is not None and prompting == "auto" and protocol == "strict" and task.strict.elicitation:
        prompting = f"shots:{draws.shots}"
    spec = evaluation.prompt_spec(task, session, protocol, prompting)
    strict = evaluation.prompt_spec(task, session, "strict", prompting)
    examples = evaluation.examples(task, session, data, protocol, load)
    alike = session.settings(spec) == session.settings(strict) and (
        spec.load is strict.load or examples == evaluation.examples(task, session, data, "strict", load)
    )
    total = len(examples)
    examples = _repeated(task, spec, _chosen(task, examples, draws), draws.repeats)
    key = results.examples_key(task.name, examples)
    facts = perplexity.facts(examples) if spec.kind == "perplexity" else {}
    if task_files.is_file(data):
        facts |= {task_files.SETTING: task_files.read(data).to_json()}
    if draws.ids or draws.subject:
        names = {"ids": len(draws.ids)} if draws.ids else {}
        facts |= {CHOSEN: names | ({"subject": draws.subject} if draws.subject else {}) | {"of": total}}
    spec = _drawn(task, spec, examples, draws)
    reason = evaluation.prompt_form(task, session, protocol, prompting).reason
    return TaskData(task, spec, examples, key, data, "strict" if alike else protocol, facts, reason)


def _drawn(task: Task, spec: PromptSpec, examples: Sequence[Example], draws: Draws) -> PromptSpec:
    """How a task is put with other worked examples than its own."""
    own = max(len(example.prompt) - 2 for example in examples) if spec.kind in ("choose", "generate") else 0
    if spec.prompting == "raw":
        if (draws.shots or 0) > max(own, 0):
            there = f"shows {own} worked examples at most" if own > 0 else "has no worked examples to show"
            raise BadRequest(f"{draws.shots} shots: {task.name} {there}")
        if draws.shots is not None and draws.shots < own:
            spec = replace(spec, shots=draws.shots)
    elif spec.prompting == "chat":
        unused = f"{draws.shots} shots" if draws.shots else f"few-shot seed {draws.fewshot_seed}"
        if draws.shots or draws.fewshot_seed is not None:
            raise BadRequest(
                f"{unused}: {task.name} is asked in the chat template, which shows no worked examples; use "
                f"--prompting shots:{draws.shots or 'K'}"
            )
        own = 0
    else:
        if draws.shots is not None and spec.prompting != f"shots:{draws.shots}":
            raise BadRequest(f"{draws.shots} shots and --prompting {spec.prompting} differ: leave one of them out")
        own = 1
    return replace(spec, fewshot_seed=draws.fewshot_seed) if own > 0 else spec


def _chosen(task: Task, examples: tuple[Example, ...], draws: Draws) -> tuple[Example, ...]:
    """The examples of some ids or of one subject, in the task's order."""
    if not draws.ids and not draws.subject:
        return examples
    if task.kind == "perplexity":
        raise BadRequest(f"{task.name} reads running text: it has no questions to choose by id or subject")
    known = [example.id for example in examples]
    for name in draws.ids:
        if name not in known:
            near = ", ".join(get_close_matches(name, known, n=5, cutoff=0.0))
            raise BadRequest(f"{task.name} has no example {name[:60]!r}; the nearest are {near}")
    groups = {example.id: [str(example.meta[kind]) for kind in GROUPS if kind in example.meta] for example in examples}
    if draws.subject and not any(draws.subject in own for own in groups.values()):
        raise nearest(draws.subject, sorted({group for own in groups.values() for group in own}), "subject")
    chosen = tuple(
        example
        for example in examples
        if (not draws.ids or example.id in draws.ids) and (not draws.subject or draws.subject in groups[example.id])
    )
    if not chosen:
        raise BadRequest(f"no example of {task.name} among {', '.join(draws.ids)} is about {draws.subject!r}")
    return chosen


def _repeated(task: Task, spec: PromptSpec, examples: tuple[Example, ...], repeats: int) -> tuple[Example, ...]:
    """Every example so many times, all of them once before any again; answers to one question are a cluster."""
    if repeats == 1:
        return examples
    if repeats < 1 or not any(spec.temperatures.values()):
        reason = "at least 1 is needed" if repeats < 1 else f"{task.name} is answered greedily, always alike"
        raise BadRequest(f"{repeats} repeats: {reason}")
    return tuple(
        replace(example, id=example.id if n == 1 else f"{example.id}~{n}", meta=example.meta | {"cluster": example.id})
        for n in range(1, repeats + 1)
        for example in examples
    )


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
        "plan": session.plan_text(loaded.spec),
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
        plan=session.plan_text(loaded.spec),
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


def measure(
    store: Store,
    session: EvalSession,
    card: RunCard,
    loaded: TaskData,
    limit: int | None,
    finish: Callable[[Callable[[], None]], None] = at_once,
) -> Iterator[float]:
    """Generate what is missing, keep every batch, seal at the end. A stopped run goes on at its batch.

    Args:
        store: Where outputs are kept.
        session: Whose model has the weights applied that the card names.
        card: Of the run.
        loaded: Its task.
        limit: How many of the first examples; None: all.
        finish: Does what need not be waited for, in its order: keeping the questions, sealing and scoring.

    Yields:
        The number of new outputs; of a batch of texts that is being written, what part of them was done since.
    """
    examples = requested(loaded, limit, parse(card.recipe))
    if results.measured(store, card.key) >= len(examples):
        return
    finish(partial(results.keep_examples, store, card.examples, loaded.examples))
    if card.recipe == DENSE.text:
        keep_prompts(store, session, card, loaded)
    with ExitStack() as stack:
        recorder = stack.enter_context(results.recorder(store, card))
        rest = examples[recorder.sealed :]
        done = recorder.recorded([example.id for example in rest])
        if done:
            yield len(done)
        start, tokens, begun = time.perf_counter(), 0, 0.0
        session.plan.underway.texts = 0.0
        for batch in evaluation.outputs(session, loaded.spec, [e for e in rest if e.id not in done], loaded.examples):
            if batch:
                recorder.record(batch)
            tokens += sum(output.tokens + output.prompt_tokens for output in batch)
            before, begun = begun, int(_PARTS * session.plan.underway.texts) / _PARTS
            yield len(batch) + begun - before
        timing = results.Timing(len(rest) - len(done), tokens, time.perf_counter() - start, host())
        recorder.cache.close()  # this thread's connection; whoever seals opens one of its own
        order = [example.id for example in rest]
        finish(partial(_finish, store, card.key, partial(seal, recorder, order, timing, stack.pop_all())))


def _finish(store: Store, key: str, seal: Callable[[], None]) -> None:
    """Seal a run, and derive its verdicts."""
    seal()
    with stage("score"):
        score(store, key)


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
