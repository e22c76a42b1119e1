"""File locks, which the kernel lifts when the process that holds them ends, however it ends.

They save work and never decide what is correct: where a lock fails (network disks), two processes do the same work and
the second result is dropped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from kick_core.store.files import no_space_named


@contextmanager
def locked(path: Path, *, timeout: float = -1) -> Iterator[None]:
    """Hold the lock file `path` inside the `with` block.

    Args:
        path: The lock file; it and its folder are made where they are missing.
        timeout: Seconds to wait for another process; negative: as long as it takes.

    Raises:
        filelock.Timeout: Another process kept the lock for longer.
        KickError: The disk has no space left for the file.
    """
    lock = FileLock(path, timeout=timeout, thread_local=False)  # another thread may leave the block than entered it
    with no_space_named(path, 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def acquire(path: Path, *, shared: bool = False, wait: bool = False) -> int | None:
    """Take the lock file `path` until its descriptor is closed, which may be in a child that inherits it.

    Args:
        path: The lock file; it and its folder are made where they are missing.
        shared: Others may hold it too, if they share it as well.
        wait: Wait for those who hold it, instead of giving up.

    Returns:
        The open descriptor, or None where others hold the lock.

    Raises:
        KickError: The disk has no space left for the file.
        OSError: The file cannot be opened, or the disk knows no locks.
    """
    with no_space_named(path, 0):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise
    return handle
