"""`kick list`: what the cache holds."""

from __future__ import annotations

import sys
from argparse import Namespace

from kick_core.cli import printing
from kick_core.cli.formats import TABLE
from kick_core.records import Card, RunCard
from kick_core.store import Store, open_store, results, weight_artifacts
from kick_core.units import bytes_text, count_text


def run(args: Namespace) -> int:
    """`kick list`"""
    store = open_store(args.cache)
    cards, stored = weight_artifacts.cards(store), weight_artifacts.sizes(store)
    runs = [(card, results.measured(store, card.key)) for card in results.runs(store)]
    if args.json:
        artifacts = [_document(store, card, stored.get(card.key, 0.0)) for card in cards]
        documents = [card.to_json() | {"n": n} for card, n in runs]
        printing.document({"cache": str(store.root), "artifacts": artifacts, "runs": documents})
        return 0
    print(
        f"{store.root}: {count_text(len(cards), 'artifact')}, {count_text(len(runs), 'run')}",
        file=sys.stdout if args.format == TABLE else sys.stderr,
    )
    printing.table(
        ("artifact", "model", "recipe", "bits/weight", "on disk", "dense copy"),
        (
            (c.key[:20] + (" (pinned)" if weight_artifacts.pinned(store, c.key) else ""), c.model, c.recipe,
             f"{printing.bits(c, stored):.2f}", bytes_text(stored.get(c.key, 0)), bytes_text(c.dense_bytes))
            for c in cards
        ),
        args.format,
    )  # fmt: skip
    if args.format != TABLE:
        print()
    printing.table(
        ("run", "model", "recipe", "task", "version", "n", "of"),
        ((c.key[:16], c.model, _recipe(c), c.task, str(c.task_version), str(n), str(c.total)) for c, n in runs),
        args.format,
    )
    return 0


def _document(store: Store, card: Card, stored: float) -> dict[str, object]:
    return {
        "key": card.key,
        "model": card.model,
        "recipe": card.recipe,
        "bytes": round(stored),
        "dense_bytes": card.dense_bytes,
        "bits_per_weight": printing.bits(card, {card.key: stored}),
        "sparsity": card.sparsity,
        "created": card.created,
        "pinned": weight_artifacts.pinned(store, card.key),
    }


def _recipe(card: RunCard) -> str:
    """The recipe, marked where it was evaluated again for the evaluator's noise."""
    return f"{card.recipe} (noise floor)" if "again" in card.settings else card.recipe
