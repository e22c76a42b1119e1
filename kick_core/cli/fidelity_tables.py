"""The comparison with dense beyond scores that `kick evaluate` and `kick sweep` print: fidelity, texts, noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kick_core import views
from kick_core.cli import printing
from kick_core.store import Store
from kick_core.sweeps.request import SweepJob


@dataclass(frozen=True, slots=True)
class Fidelity:
    """What was measured beside the scores: distributions, dense's texts, and the evaluator's noise."""

    fidelity: pd.DataFrame
    texts: pd.DataFrame
    noise: pd.DataFrame


def measured(job: SweepJob, store: Store, fingerprint: str, weights: set[str]) -> Fidelity:
    """Rows of these weights, and noise rows of the model, on the tasks asked."""
    close, texts = views.fidelity(store, fingerprint), views.texts(store, fingerprint)
    noise = views.noise(store, fingerprint)
    texts = texts[texts["weights"].isin(weights) & texts["task"].isin(job.tasks)]
    return Fidelity(close[close["weights"].isin(weights)], texts, noise[noise["task"].isin(job.tasks)])


def documents(tables: Fidelity) -> dict[str, Any]:
    """All of it as plain data; lists are empty where nothing was measured."""
    return {
        "fidelity": [_close(row) for row in tables.fidelity.to_dict("records")],
        "fidelity_bounds": views.BOUNDS,
        "dense_texts": [_text(row) for row in tables.texts.to_dict("records")],
        "noise_floor": [_noise(row) for row in tables.noise.to_dict("records")],
    }


def _text(row: Mapping[Any, Any]) -> dict[str, Any]:
    document = {name: row[name] for name in ("recipe", "task", "n", "faithful", "weights")}
    for name in ("lost", "until", "never"):
        document |= {name: row[name], f"{name}_interval": [row[f"{name}_low"], row[f"{name}_high"]]}
    return document


def _close(row: Mapping[Any, Any]) -> dict[str, Any]:
    document = {
        name: row[name] for name in ("recipe", "n", "unjudged", "tokens", "kl_median", "kl_99", "top", "weights")
    }
    for name in ("kl", "same", "overlap"):
        document |= {name: row[name], f"{name}_interval": [row[f"{name}_low"], row[f"{name}_high"]]}
    return document


def _noise(row: Mapping[Any, Any]) -> dict[str, Any]:
    names = ("task", "scorer", "broke", "fixed", "flips", "flips_high", "changed", "changed_high", "difference")
    document = {name: row[name] for name in (*names, "words", "plan", "plan_again", "dtype", "device", "run")}
    return {"recipe": "noise floor", "n": row["paired"], **document, "interval": [row["diff_low"], row["diff_high"]]}


def print_tables(measured: Fidelity) -> None:
    """All of it for people; nothing where nothing was measured."""
    close, noise = measured.fidelity, measured.noise
    if len(close):
        print(f"\nfidelity to dense, over windows of running text. {views.BOUNDS}")
        header = ("recipe", "windows", "KL ≥", "95 % interval", "KL 99 %", "same top-1", "95 % interval", "overlap ≤")
        printing.table(header, (_close_row(row) for row in close.itertuples()))
    if len(measured.texts):
        print("\ndense's own answers, read by the variant: nats lost per token; tokens until its first choice differs")
        header = ("recipe", "task", "texts", "lost", "95 % interval", "tokens until", "95 % interval", "to the end")
        printing.table(header, (_text_row(row) for row in measured.texts.itertuples()))
    shown = noise[noise["headline"]]
    if len(shown):
        print("\nnoise floor: dense against dense, asked again in other batches")
        printing.table(
            ("task", "n", "difference", "95 % interval", "in words"), (_noise_row(row) for row in shown.itertuples())
        )


def _close_row(row: Any) -> tuple[str, ...]:
    return (
        row.recipe,
        str(row.n),
        printing.blank_as(row.kl, ".4g"),
        _bounds(row.kl_low, row.kl_high, ".4g"),
        printing.blank_as(row.kl_99, ".3g"),
        printing.blank_as(row.same, ".1%"),
        _bounds(row.same_low, row.same_high, ".1%"),
        printing.blank_as(row.overlap, ".1%"),
    )


def _bounds(low: float, high: float, form: str) -> str:
    """An interval; dashes where a value of its sample is not finite."""
    return f"{printing.blank_as(low, form)} … {printing.blank_as(high, form)}"


def _text_row(row: Any) -> tuple[str, ...]:
    return (
        row.recipe,
        row.task,
        str(row.n),
        printing.blank_as(row.lost, ".3g"),
        _bounds(row.lost_low, row.lost_high, ".3g"),
        printing.blank_as(row.until, ".1f"),
        _bounds(row.until_low, row.until_high, ".1f"),
        f"{printing.blank_as(row.never, '.1%')} of {row.faithful}",
    )


def _noise_row(row: Any) -> tuple[str, ...]:
    bounds = _bounds(row.diff_low, row.diff_high, "+.4f")
    return row.task, str(row.paired), printing.blank_as(row.difference, "+.4f"), bounds, row.words


def bootstrap(store: Store, row: Mapping[Any, Any]) -> dict[str, Any]:
    """The bootstrap's interval of a graded difference. Right and wrong have an exact test and need none."""
    if row["kind"] == "dense" or not row["paired"] or row["unit"] == "ratio":
        return {}
    found = views.bootstrap(store, row["run"], row["dense_run"], row["scorer"])
    return {} if found is None else {"bootstrap_interval": [found.low, found.high]}


def divergence(store: Store, row: Mapping[Any, Any]) -> dict[str, Any] | None:
    """How many words a variant's texts share with dense's from the start; None where there are no texts."""
    if row["kind"] == "dense" or not row["dense_run"]:
        return None
    found = views.until_divergence(store, row["run"], row["dense_run"])
    return None if math.isnan(found.value) else {"mean": found.value, "interval": [found.low, found.high], "n": found.n}
