"""The database of something that goes on: outputs of a run, replies of a judge. Damaged, it is set aside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil

from kick_core.errors import KickError
from kick_core.store import Store, checks
from kick_core.store.files import no_space
from kick_core.store.plaindisk import DamagedRow, open_cache


def not_written(place: Path, size: int, error: Exception) -> KickError:
    """What to say when a batch of `size` bytes could not be kept."""
    if "full" in str(error) or "No space" in str(error):
        return no_space(place, size)
    return KickError(f"what was said could not be written to {place} ({error}): run the same command again")


NETWORK = ("nfs", "cifs", "smb", "lustre", "gpfs", "ceph", "beegfs", "glusterfs", "afs", "ocfs", "gfs", "fuse.")
"""How the types of file systems begin that several machines may share: there SQLite's locks and memory do not hold."""


def file_system(path: Path) -> str:
    """The type of the file system that holds `path`, or would hold it."""
    resolved = path.resolve()
    types = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    return next((types[place] for place in (resolved, *resolved.parents) if place in types), "")


def refuse_network(folder: Path) -> None:
    """Raises KickError where no database of SQLite can be."""
    kind = file_system(folder)
    if kind.startswith(NETWORK):
        raise KickError(
            f"{folder} is on a network disk ({kind}), and the outputs of a run that goes on are a database that must "
            f"not be there: set KICK_LOCAL_CACHE to a folder of this machine; finished runs go to the cache as ever"
        )


def open_live(store: Store, key: str) -> Any:
    """Open or make it; of a damaged one, what it held is asked again. Raises KickError on a network disk."""
    live = store.live(key)
    refuse_network(live)
    try:
        if not checks.database_faults(live, deep=False):
            return open_cache(live)
    except DamagedRow:
        pass
    except (KickError, OSError) as error:
        raise not_written(live, 1 << 16, error) from error
    checks.set_aside(store, live)
    return open_cache(live)
