"""What is unfinished in a cache: staged artifacts and databases of open runs, under their locks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import Timeout

from kick_core.store import Store
from kick_core.store.locks import locked

Result = TypeVar("Result")


def databases(store: Store) -> list[Path]:
    """Folders of the databases in which outputs of open runs are recorded."""
    return sorted(file.parent for file in store.live("x").parent.glob("*/cache.db"))


def unless_busy(store: Store, path: Path, work: Callable[[str], Result], otherwise: Result) -> Result:
    """Do something with what is unfinished, under its lock.

    Args:
        store: The cache.
        path: A staged artifact's or a database's folder.
        work: Gets its key.
        otherwise: What comes of it while a process works on it.
    """
    try:
        with locked(store.lock_path(path.name), timeout=0):
            return work(path.name)
    except Timeout:
        return otherwise
