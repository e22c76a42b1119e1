"""From stored outputs to verdicts: no model, no torch, so scorers can change and every curve moves at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kick_core import tasks
from kick_core.records import Example, RunCard, Verdict
from kick_core.store import Store, results
from kick_core.tasks import breakdowns


def score(store: Store, key: str) -> list[Verdict]:
    """Derive the verdicts of a run from its sealed outputs, and keep them in place of older ones."""
    card = results.run(store, key)
    verdicts = _derived(store, card)
    results.keep_verdicts(store, key, tasks.of_run(card).version, verdicts)
    return verdicts


def _derived(store: Store, card: RunCard) -> list[Verdict]:
    """The verdicts of today's scorers on a run's sealed outputs."""
    task = tasks.of_run(card)
    outputs = results.outputs(store, card.key)
    examples = results.examples(store, card.examples, {output.example for output in outputs})
    by_id = {example.id: example for example in examples}
    return [
        verdict
        for output in outputs
        if output.example in by_id
        for verdict in tasks.judge(task, by_id[output.example], output)
    ]


def details(
    store: Store, key: str, closed: str | None = None, examples: Sequence[Example] | None = None
) -> dict[str, list[dict[str, Any]]]:
    """A run's tables beyond its scores: failures, letters, calibration, subjects, use of the context … Writes nothing.

    `closed` is the closed-book run of the same weights, for telling what an open-book answer was read from; it
    tells nothing where it was asked other questions, as in the pocket world. `examples` are the run's questions, where
    the caller has them already.
    """
    card = results.run(store, key)
    task = tasks.of_run(card)
    verdicts = results.verdicts(store, key, task.version) or _derived(store, card)
    outputs = results.outputs(store, key, ids=False)
    known = _known(store, closed) if closed else {}
    shared = known if any(output.example in known for output in outputs) else None
    shown = results.examples(store, card.examples) if examples is None else examples
    return breakdowns.details(task, shown, outputs, verdicts, shared)


def _known(store: Store, key: str) -> dict[str, bool]:
    """Example -> whether a run's headline scorer found its answer right."""
    card = results.run(store, key)
    task = tasks.of_run(card)
    verdicts = results.verdicts(store, key, task.version) or _derived(store, card)
    return {v.example: v.score >= 1 for v in verdicts if v.scorer == task.headline and v.score is not None}
