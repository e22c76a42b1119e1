"""What a whole run shows and no single example does, beside the same of dense: `scoring.details` as frames."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pandas as pd

from kick_core.store import Store, results
from kick_core.tasks import verdicts
from kick_core.views import load
from kick_core.views.load import Asked

_KEYS = {
    "health": [],
    "failures": ["why"],
    "protocols": ["strict", "as_published"],
    "letters": ["letter"],
    "calibration": [],
    "shots": ["shots"],
    "ties": [],
    "bytes": [],
    "context": ["answer_in_context"],
}
"""What names a row of each table; the groups of all others are in `group`."""


def details(store: Store, run_key: str, dense_key: str = "") -> dict[str, pd.DataFrame]:
    """The tables of a run by name, with dense's values in `dense_*` columns; without a dense run those are missing.

    Each column counts all that its own run was asked. Open-book answers count as remembered where the same weights
    answer the same question closed-book.
    """
    mine = _tables(store, run_key)
    base = _tables(store, dense_key) if dense_key and dense_key != run_key else None
    found = {}
    for name, table in mine.items():
        frame = pd.DataFrame(table)
        if base is not None:
            frame = _beside(frame, pd.DataFrame(base.get(name, [])), _KEYS.get(name, ["group"]))
        found[name] = frame
    return found


def _beside(frame: pd.DataFrame, dense: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Rows of both under the same name, in the run's order; what dense alone has comes last. A count of none is 0."""
    if dense.empty:
        return frame
    named = dense.rename(columns={name: f"dense_{name}" for name in dense.columns if name not in by})
    if not by:
        return frame.join(named)
    order = pd.concat([frame[by], dense[by]]).drop_duplicates()
    both = order.merge(frame, on=by, how="left").merge(named, on=by, how="left")
    return both.fillna({name: 0 for name in ("count", "dense_count") if name in both})


def _tables(store: Store, key: str) -> dict[str, list[dict[str, Any]]]:
    closed = context_partner(store, load.one(store, key))
    measured = (results.measured(store, key), results.measured(store, closed) if closed else 0)
    return _details(store, key, closed, measured)


@lru_cache(maxsize=128)
def _details(store: Store, key: str, closed: str | None, measured: tuple[int, int]) -> dict[str, list[dict[str, Any]]]:
    return verdicts.details(store, key, closed)


def context_partner(store: Store, run: Asked) -> str | None:
    """The newest run of an open-book run's weights on the task that asks the same without the evidence.

    Args:
        store: the cache.
        run: any run.

    Returns:
        The key of the run, asked on the same data, by the same protocol and engine; None where the task has no such
        partner, or it was not asked.
    """
    partner = run.task.context_partner
    alike = [
        other.card
        for other in load.asked(store)
        if partner == other.card.task
        and load.is_result(other)
        and (other.card.weights, other.card.data, other.card.protocol, load.engine_of(other))
        == (run.card.weights, run.card.data, run.card.protocol, load.engine_of(run))
    ]
    return max(alike, key=lambda card: card.created).key if alike else None
