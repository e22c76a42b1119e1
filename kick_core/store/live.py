"""The database of something that goes on: outputs of a run, replies of a judge. Damaged, it is set aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kick_core.spec import KickError
from kick_core.store import Store, checks
from kick_core.store.files import no_space
from kick_core.store.plaindisk import DamagedRow, open_cache


def not_written(place: Path, size: int, error: Exception) -> KickError:
    """What to say when a batch of `size` bytes could not be kept."""
    if "full" in str(error) or "No space" in str(error):
        return no_space(place, size)
    return KickError(f"what was said could not be written to {place} ({error}): run the same command again")


def open_live(store: Store, key: str) -> Any:
    """Open or make it; of a damaged one, what it held is asked again."""
    live = store.live(key)
    try:
        if not checks.database_faults(live, deep=False):
            return open_cache(live)
    except DamagedRow:
        pass
    except (KickError, OSError) as error:
        raise not_written(live, 1 << 16, error) from error
    checks.set_aside(store, live)
    return open_cache(live)
