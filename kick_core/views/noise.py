"""The evaluator's own noise: dense against dense, asked again in other batches.

In half precision the last bits of a logit depend on a batch's shape, and a near tie may fall the other way. Flips
and differences of this size are not compression. `kick sweep --noise-floor` measures it; what was not measured has
no row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from kick_core import stats
from kick_core.records import CHOSEN
from kick_core.store import Store
from kick_core.views import load, paired
from kick_core.views.load import AGAIN, Asked

NOISE = {
    "model": "str",
    "task": "str",
    "title": "str",
    "scorer": "str",
    "headline": "bool",
    "paired": "int",
    "broke": "float",
    "fixed": "float",
    "flips": "float",
    "flips_high": "float",
    "changed": "float",
    "changed_high": "float",
    "difference": "float",
    "diff_low": "float",
    "diff_high": "float",
    "unit": "str",
    "words": "str",
    "plan": "str",
    "plan_again": "str",
    "dtype": "str",
    "device": "str",
    "run": "str",
    "dense_run": "str",
    "fingerprint": "str",
}


def noise(store: Store, model: str | None = None) -> pd.DataFrame:
    """One row per model, task and scorer of which dense was asked twice.

    `flips` and `changed` are shares of the examples, with the upper ends of their 95 % intervals: 0 flips in 200
    still allow 1.9 %.
    """
    among = load.asked(store)
    names = load.model_names(among)
    rows = []
    for run in (run for run in among if CHOSEN not in run.card.settings):
        if AGAIN in run.card.settings and model in (None, run.card.model, run.card.fingerprint):
            rows += _rows(store, run, [other for other in among if load.is_result(other)], names)
    frame = pd.DataFrame(rows, columns=list(NOISE)).astype(NOISE)
    return frame.sort_values(["model", "task"], kind="stable").reset_index(drop=True)


def _rows(store: Store, run: Asked, among: list[Asked], names: dict[str, str]) -> list[dict[str, Any]]:
    once = {name: value for name, value in run.card.settings.items() if name != AGAIN}
    dense = load.dense_of(replace(run, card=replace(run.card, settings=once)), among)
    if dense is None:
        return []
    base = load.verdicts(store, dense)
    rows = []
    for scorer, mine in load.verdicts(store, run).items():
        if scorer in base:
            row = paired.numbers(store, run, scorer, mine, base[scorer])
            rows.append(
                {name: {**row, **_about(run, dense, scorer, names), **_shares(row)}.get(name) for name in NOISE}
            )
    return rows


def _about(run: Asked, dense: Asked, scorer: str, names: dict[str, str]) -> dict[str, Any]:
    card = run.card
    return {
        "model": names[card.fingerprint],
        "task": card.task,
        "title": run.task.title,
        "scorer": scorer,
        "headline": scorer == run.task.headline,
        "plan": dense.card.plan,
        "plan_again": card.plan,
        "dtype": card.dtype,
        "device": card.device,
        "run": card.key,
        "dense_run": dense.key,
        "fingerprint": card.fingerprint,
    }


def _shares(row: dict[str, Any]) -> dict[str, Any]:
    """Flips as a share with its upper bound, and the whole row in words."""
    n, moved = row["paired"], row["broke"] + row["fixed"]
    if moved != moved:  # nan: nothing is right or wrong here
        off = row["difference"] / row["dense_score"] if row["unit"] == "ratio" else row["difference"]
        form = f"{100 * off:+.2g} %" if row["unit"] == "ratio" else f"{off:+.3g}"
        return {"flips": moved, "flips_high": moved, "words": f"{form} between dense and dense, over {n}"}
    flips = stats.wilson(moved, n)
    words = f"{moved:.0f} of {n} answers flipped between dense and dense (at most {100 * flips.high:.1f} %)"
    return {"flips": flips.value, "flips_high": flips.high, "words": words}
