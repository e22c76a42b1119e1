"""The commands that compute: compress, evaluate, sweep."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kick_core import tasks, views
from kick_core.cli import fidelity, printing
from kick_core.cli.requests import request, sweep_request
from kick_core.records import Card
from kick_core.spec import ModelRef, parse
from kick_core.store import Store, open_store, results, weight_artifacts
from kick_core.sweeps import known_keys, pool
from kick_core.sweeps.grid import Sweep
from kick_core.sweeps.request import Request
from kick_core.tasks.verdicts import details
from kick_core.views import load


def compress(given: Namespace) -> int:
    """`kick compress MODEL RECIPE...`"""
    store = open_store(given.cache)
    opened = _run(request(given, tuple(given.recipes)), store)
    artifacts_made(store, [opened.builder.key(recipe) for recipe in opened.recipes if recipe.target], given.json)
    return 0


def artifacts_made(store: Store, keys: Sequence[str], as_json: bool) -> None:
    """Print the cards of those that are there, and on standard error what they warn of."""
    cards = [weight_artifacts.card(store, key) for key in keys if weight_artifacts.has(store, key)]
    if as_json:
        printing.document({"artifacts": [_card(card) for card in cards]})
    else:
        stored = weight_artifacts.sizes(store)
        printing.table(
            ("recipe", "key", "sparsity", "bits/weight", "on disk", "dense copy"),
            (_card_row(card, stored) for card in cards),
        )
    for warning in sorted({f"{card.recipe}: {warning}" for card in cards for warning in card.warnings}):
        print(f"kick: {warning}", file=sys.stderr)


def _run(request: Request, store: Store, processes: int | None = 1) -> Sweep:
    opened = Sweep(request, store)
    if opened.builder.opened.decoder:
        decoder = opened.builder.opened.decoder
        print(f"kick: {request.model} holds codes, not plain weights; decoder: {decoder}", file=sys.stderr)
    if opened.host and opened.host.warning:
        print(f"kick: {opened.host.warning}", file=sys.stderr)
    printing.bar(pool.run(opened, processes))
    return opened


def _card(card: Card) -> dict[str, Any]:
    return card.to_json() | {"bits_per_weight": card.bits_per_weight, "sparsity": card.sparsity}


def _card_row(card: Card, stored: Mapping[str, float]) -> tuple[str, ...]:
    return (
        card.recipe,
        card.key,
        f"{card.sparsity:.4f}",
        f"{printing.bits(card, stored):.2f}",
        printing.size(stored.get(card.key, 0)),
        printing.size(card.dense_bytes),
    )


def export(given: Namespace) -> int:
    """`kick export MODEL RECIPE DIR --format F`"""
    from kick_core.artifacts.export import export as write
    from kick_core.artifacts.loaded_model import open_for

    store = open_store(given.cache)
    opened = _run(request(given, (given.recipe,)), store)
    opened.builder.opened = open_for(ModelRef(given.model, given.revision, given.dtype), store, given.device)
    done = write(opened.builder, opened.recipes[0], Path(given.folder), given.format)
    if given.json:
        printing.document(
            {
                "folder": str(done.folder),
                "format": done.format,
                "bytes": done.bytes,
                "logits_difference": done.difference,
            }
        )
    else:
        size = printing.size(done.bytes)
        print(f"{done.folder}: {size} as {done.format}; reloaded, logits differ by {done.difference:.2g}")
    return 0


def evaluate(given: Namespace) -> int:
    """`kick evaluate MODEL RECIPE... --task T...`: dense is measured too, for the comparison."""
    store = open_store(given.cache)
    recipes = tuple(parse(text).text for text in given.recipes)
    asked = request(given, tuple(dict.fromkeys(("dense", *recipes))), tuple(dict.fromkeys(given.tasks)))
    return report(asked, known_keys.remember(store, _run(asked, store)), store, recipes, given.json)


def sweep(given: Namespace) -> int:
    """`kick sweep MODEL --preset demo` or `--recipe R --task T`."""
    store, asked = open_store(given.cache), sweep_request(given)
    opened = _run(asked, store, given.workers)
    known = known_keys.recall(store, asked)
    if known is None:
        known = known_keys.remember(store, opened)
    return report(asked, known, store, tuple(recipe.text for recipe in opened.recipes), given.json)


def report(request: Request, known: Mapping[str, Any], store: Store, recipes: tuple[str, ...], as_json: bool) -> int:
    """Print what is there of a sweep whose keys are `known` (`plans.remember`); opens no model."""
    runs = {known["runs"][task][recipe] for task in request.tasks for recipe in recipes}
    frame = views.scores(store)
    frame = frame[frame["run"].isin(runs)]
    protocol = request.protocol
    reported = {name: tasks.get(name, request.data).headline_of(protocol) for name in request.tasks}
    frame = frame.assign(headline=frame["scorer"] == frame["task"].map(reported))
    model = known["model"]
    weights = set(frame["weights"]) | {known["artifacts"][recipe] for recipe in recipes}
    close = fidelity.measured(request, store, model["fingerprint"], weights)
    if as_json:
        facts = {"model": model["name"], "fingerprint": model["fingerprint"], "decoder": model["decoder"] or None}
        found = [one | {"protocol": protocol} for one in _results(frame, store)]
        printing.document(facts | {"results": found} | fidelity.documents(close))
        return 0
    shown = frame[frame["headline"]]
    printing.table(_HEADER, (_score_row(row) for row in shown.itertuples()))
    for row in shown.itertuples():
        _say_unjudged(row)
    print("\nagainst dense, on the same examples")
    printing.table(
        ("recipe", "task", "in words"),
        (tuple(map(str, row)) for row in shown.loc[shown["kind"] != "dense", ["recipe", "task", "words"]].to_numpy()),
    )
    fidelity.tables(close)
    return 0


_HEADER = ("recipe", "task", "n", "score", "95 % interval", "of dense", "broke", "fixed", "p", "matching (5 %)")


def _say_unjudged(row: Any) -> None:
    if row.unjudged:
        what = f"{row.recipe}, {row.task}: {row.unjudged} of {row.n + row.unjudged} not judged"
        print(f"kick: {what} (no room in the context, or logits that are not finite)", file=sys.stderr)


def _score_row(row: Any) -> tuple[str, ...]:
    return (
        row.recipe,
        row.task,
        str(row.n),
        f"{row.score:.3f}",
        f"{row.low:.3f} … {row.high:.3f}",
        printing.blank_as(row.share_kept, ".1%"),
        printing.blank_as(row.broke, ".0f"),
        printing.blank_as(row.fixed, ".0f"),
        printing.blank_as(row.p, ".2g"),
        row.verdict,
    )


def _results(frame: pd.DataFrame, store: Store) -> list[dict[str, Any]]:
    """One object per recipe and task, with every scorer of the task."""
    found = []
    for key, rows in frame.groupby("run", sort=False):
        first = rows.iloc[0]
        sittings = results.timings(store, str(key))
        seconds = sum(sitting.seconds for sitting in sittings)
        tokens = sum(sitting.tokens for sitting in sittings)
        found.append(
            {
                "recipe": first["recipe"],
                "task": first["task"],
                "n": int(rows[rows["headline"]]["n"].iloc[0]),
                "total": int(first["total"]),
                "headline": str(rows[rows["headline"]]["scorer"].iloc[0]),
                "scorers": {str(row["scorer"]): _scorer(row, store) for row in rows.to_dict("records")},
                "words_until_divergence": fidelity.divergence(store, first.to_dict()),
                "artifact": first["weights"],
                "run": key,
                "asked": first["protocol"],
                "details": details(store, str(key), views.context_partner(store, load.one(store, str(key)))),
                "tokens_per_second": tokens / seconds if seconds else None,
                "seconds": seconds,
            }
        )
    return found


def _scorer(row: Mapping[Any, Any], store: Store) -> dict[str, Any]:
    against = {
        "n": row["paired"],
        "dense": row["dense_score"],
        "share_kept": row["share_kept"],
        "share_kept_interval": [row["share_low"], row["share_high"]],
        "difference": row["difference"],
        "interval": [row["diff_low"], row["diff_high"]],
        "broke": row["broke"],
        "fixed": row["fixed"],
        "p": row["p"],
        "p_holm": row["p_holm"],
        "matching": row["verdict"],
        "words": row["words"],
        "changed": row["changed"],
        "changed_interval": [row["changed_low"], row["changed_high"]],
        "needed": row["needed"],
        "detectable": row["detectable"],
    } | fidelity.bootstrap(store, row)
    return {
        "n": row["n"],
        "unjudged": row["unjudged"],
        "clusters": row["clusters"],
        "mean": row["score"],
        "interval": [row["low"], row["high"]],
        "against_dense": None if row["recipe"] == "dense" else against,
    }
