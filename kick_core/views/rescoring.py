"""Runs whose stored verdicts are not those of today's scorers: which they are, and scoring them once for all."""

from __future__ import annotations

import contextlib

from kick_core.errors import KickError
from kick_core.store import Store, results
from kick_core.tasks import verdicts
from kick_core.views import load


def outdated(store: Store) -> list[str]:
    """The keys of the runs that have to be scored before they can be shown."""
    return [run.key for run in load.asked(store) if not results.verdict_file(store, run.key, run.task.version)]


def rescore(store: Store, key: str, *, keep: bool) -> None:
    """Score a run's answers by today's rules.

    Args:
        store: the cache.
        key: the run's.
        keep: whether the verdicts are written beside the outputs, so that no later start scores them again. Where they
            cannot be (a cache on a disk that is read only, a run of the gallery) they stay in memory.
    """
    with contextlib.suppress(KickError, OSError):
        if keep and store.own("results", key):
            with contextlib.suppress(OSError):
                verdicts.score(store, key)
                return
        load.verdicts(store, load.one(store, key))
