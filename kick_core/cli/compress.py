"""`kick compress MODEL RECIPE...`: artifacts, and their cards as a table."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterable, Mapping
from typing import Any

from kick_core.cli import printing
from kick_core.cli.requests import sweep_job
from kick_core.cli.running import run_sweep
from kick_core.records import Card
from kick_core.store import Store, open_store, weight_artifacts
from kick_core.sweeps.request import SweepJob
from kick_core.sweeps.sweep_keys import SweepKeys
from kick_core.units import bytes_text


def run(args: Namespace) -> int:
    """`kick compress MODEL RECIPE...`"""
    store = open_store(args.cache)
    job = sweep_job(args, tuple(args.recipes))
    print_artifacts(store, artifact_keys(job, run_sweep(job, store)), args.json)
    return 0


def artifact_keys(job: SweepJob, keys: SweepKeys) -> list[str]:
    """The weights keys of a job's recipes, dense left out."""
    return [keys.artifacts[recipe.text] for recipe in job.parsed() if recipe.target]


def print_artifacts(store: Store, keys: Iterable[str], as_json: bool) -> None:
    """Print the cards of those that are there, and on standard error their warnings."""
    cards = [weight_artifacts.card(store, key) for key in keys if weight_artifacts.has(store, key)]
    if as_json:
        printing.document({"artifacts": [_document(card) for card in cards]})
    else:
        stored = weight_artifacts.sizes(store)
        printing.table(
            ("recipe", "key", "sparsity", "bits/weight", "on disk", "dense copy"),
            (_row(card, stored) for card in cards),
        )
    for warning in sorted({f"{card.recipe}: {warning}" for card in cards for warning in card.warnings}):
        print(f"kick: {warning}", file=sys.stderr)


def _document(card: Card) -> dict[str, Any]:
    return card.to_json() | {"bits_per_weight": card.bits_per_weight, "sparsity": card.sparsity}


def _row(card: Card, stored: Mapping[str, float]) -> tuple[str, ...]:
    return (
        card.recipe,
        card.key,
        f"{card.sparsity:.4f}",
        f"{printing.bits(card, stored):.2f}",
        bytes_text(stored.get(card.key, 0)),
        bytes_text(card.dense_bytes),
    )
