"""Starting jobs, stopping and forgetting them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kick_core.errors import BadRequest, KickError
from kick_core.jobs.specs import JobSpec, job_id
from kick_core.jobs.state import Job, children, job, place, write
from kick_core.store import Store
from kick_core.store.fault_injection import point
from kick_core.store.files import no_space_named, replace_file, require_space, seal_json
from kick_core.store.locks import acquire

WORKER = (sys.executable, "-m", "kick_core.jobs.worker")
PATIENCE = 10.0
"""Seconds between the polite request to stop and the signal that a second request sends."""
SPACE = 1 << 20
"""Bytes that must be free before a job begins; its worker, who knows the model, checks for what artifacts take."""
_LOOKERS = 20
"""How often a lock is tried again, a hundredth of a second later: readers of the state hold it for a moment."""

READ_ONLY = "KICK_READ_ONLY"
"""Set in the environment of `kick app --read-only`: nothing is started, stopped or forgotten from there."""


def read_only() -> bool:
    """Whether this process may neither start nor stop jobs."""
    return bool(os.environ.get(READ_ONLY))


def refuse_if_read_only() -> None:
    """Raise BadRequest where this process may neither start nor stop jobs."""
    if read_only():
        raise BadRequest("this explorer is read-only: start it without --read-only to run or stop jobs")


def start(store: Store, spec: JobSpec, *, worker: Sequence[str] = WORKER) -> Job:
    """Start a job, or join the one that is queued or running for the same spec. Returns at once.

    Args:
        store: Where it works and leaves its state.
        spec: What it should do.
        worker: The command that does it; it gets the cache, the id and the lock's file descriptor.

    Raises:
        BadRequest: This process is read-only.
        KickError: The disk is full.
    """
    return _start(store, job_id(spec), spec.to_json(), worker)


def again(store: Store, name: str, *, worker: Sequence[str] = WORKER) -> Job:
    """Start a job that has ended once more, by its own spec; it goes on where it was.

    Args:
        store: The cache.
        name: The job's id.
        worker: As for `start`.

    Raises:
        BadRequest: This process is read-only.
        KickError: There is no such job, or the disk is full.
    """
    return _start(store, name, job(store, name).spec, worker)


def _start(store: Store, name: str, spec: dict[str, Any], worker: Sequence[str]) -> Job:
    refuse_if_read_only()
    folder = place(store, name)
    with no_space_named(folder, 1 << 12):
        handle = _take_from_ended(store, name)
    if handle is None:
        return job(store, name)
    try:
        require_space(store.root, SPACE)
        for leftover in ("cancel", "log.txt"):
            (folder / leftover).unlink(missing_ok=True)
        replace_file(folder / "spec.json", seal_json(spec))
        write(folder, Job(name, spec, created=time.time(), message="starting"))
        point("job written")
        with no_space_named(folder, 1 << 12), open(folder / "log.txt", "ab") as log:
            child = subprocess.Popen(
                [*worker, str(store.root.resolve()), name, str(handle)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).resolve().parents[2],
                pass_fds=[handle],
                start_new_session=True,
            )
        children.append(child)
        point("worker started")
    finally:
        os.close(handle)  # the worker has inherited the lock
    return job(store, name)


def take(path: Path) -> int | None:
    """Take a job's lock.

    Args:
        path: The lock file.

    Returns:
        Its open descriptor; None when a worker holds it.
    """
    for _ in range(_LOOKERS):
        if (handle := acquire(path)) is not None:
            return handle
        time.sleep(0.01)
    return None


def _take_from_ended(store: Store, name: str) -> int | None:
    """As `take`; but a worker that has written its last state is waited for, because it takes its time to end."""
    path = place(store, name) / "lock"
    until = time.monotonic() + PATIENCE
    while (handle := take(path)) is None and time.monotonic() < until:
        with contextlib.suppress(KickError):
            if job(store, name).active:
                return None
    return handle


def cancel(store: Store, name: str) -> Job:
    """Tell a job to stop. A second call, `PATIENCE` seconds later, sends its process group a signal.

    Args:
        store: The cache.
        name: The job's id.

    Raises:
        BadRequest: This process is read-only.
        KickError: There is no such job.
    """
    refuse_if_read_only()
    state = job(store, name)
    flag = place(store, name) / "cancel"
    if not state.active:
        return state
    if not flag.exists():
        flag.touch()
    elif state.pid and state.local and abs(time.time() - flag.stat().st_mtime) > PATIENCE:  # the clock may go back
        with contextlib.suppress(ProcessLookupError):
            os.killpg(state.pid, signal.SIGTERM)
    return job(store, name)


def forget(store: Store, name: str) -> None:
    """Remove the traces of a job that has ended; what it computed stays.

    Args:
        store: The cache.
        name: The job's id.

    Raises:
        BadRequest: It is active, or this process is read-only.
        KickError: There is no such job.
    """
    refuse_if_read_only()
    state = job(store, name)
    if state.active:
        raise BadRequest(f"job {name!r} is {state.state}: cancel it first")
    folder = place(store, name)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
