"""From stored outputs to verdicts: no model, no torch, so scorers can change and every curve moves at once."""

from __future__ import annotations

from kick_core import tasks
from kick_core.records import Verdict
from kick_core.store import Store, results


def score(store: Store, key: str) -> list[Verdict]:
    """Derive the verdicts of a run from its sealed outputs, and keep them in place of older ones."""
    card = results.run(store, key)
    task = tasks.get(card.task, card.data)
    by_id = {example.id: example for example in results.examples(store, card.examples)}
    found = [
        verdict
        for output in results.outputs(store, key)
        for verdict in tasks.judge(task, by_id[output.example], output)
    ]
    results.keep_verdicts(store, key, task.version, found)
    return found
