"""The state of a job on disk: what pages and commands read of it, and how a worker writes it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kick_core import provenance
from kick_core.errors import BadRequest, KickError
from kick_core.jobs.specs import Kind, kind
from kick_core.store import Store, is_key
from kick_core.store.files import Damaged, read_sealed_json, replace_file, seal_json
from kick_core.store.locks import acquire

State = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
ACTIVE: tuple[State, ...] = ("queued", "running")

SILENCE = 60.0
"""Seconds without news after which a job of another machine, whose lock tells nothing here, counts as lost."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands now.

    Attributes:
        id: The content key of its request.
        spec: The request, as in `spec.json`.
        state: Queued, running or how it ended; "lost" where its process is gone without a word.
        cell: What it works on: one recipe, or one task of it.
        done: Units of work done.
        total: Units of work in all.
        message: For people.
        block: The decoder block it works on, from 0; None where it works on none.
        blocks: How many the model has.
        losses: Relative output errors of the current cell's blocks so far.
        answers: Recipe -> text so far, of a prompt.
        created: Seconds since the epoch, like `started` and `updated`.
        started: When it got its device.
        updated: When its worker last wrote.
        left: Seconds to go, as the work itself estimates them.
        pid: Of its process.
        host: The machine of its process.
        where: The machines that work for it, if others do.
        cancelling: It is active and was told to stop.
    """

    id: str
    spec: dict[str, Any]
    state: State = "queued"
    cell: str = ""
    done: float = 0.0
    total: float = 0.0
    message: str = ""
    block: int | None = None
    blocks: int | None = None
    losses: tuple[float, ...] = ()
    answers: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    started: float = 0.0
    updated: float = 0.0
    left: float | None = None
    pid: int = 0
    host: str = ""
    where: str = ""
    cancelling: bool = False

    @property
    def active(self) -> bool:
        """Whether it waits for its device or works."""
        return self.state in ACTIVE

    @property
    def local(self) -> bool:
        """Whether its process is, or will be, on this machine."""
        return self.host in ("", provenance.host())

    @property
    def share(self) -> float:
        """Its progress in [0, 1]."""
        if self.state == "done":
            return 1.0
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0

    @property
    def kind(self) -> Kind:
        """A sweep, a prompt, or a sweep on a cluster."""
        return kind(self.spec)

    def remaining(self) -> float | None:
        """Seconds to go: what the work itself says, else by the speed so far; None before there is one."""
        if self.state != "running":
            return None
        if self.left is not None:
            return self.left
        spent = self.updated - self.started
        return spent * (1 - self.share) / self.share if self.share >= 0.02 and spent >= 2 else None


def place(store: Store, name: str) -> Path:
    """The folder of a job.

    Args:
        store: The cache.
        name: The job's id.

    Raises:
        BadRequest: The name cannot be a job's id.
    """
    if not is_key(name):
        raise BadRequest(f"{name[:80]!r} is not a job's id")
    return store.root / "jobs" / name


def write(folder: Path, state: Job) -> None:
    """Replace a job's state in one step.

    Args:
        folder: Of the job.
        state: As it stands now.
    """
    replace_file(folder / "state.json", seal_json(asdict(state)))


children: list[subprocess.Popen[bytes]] = []
"""Workers that this process started. One that has ended stays in the process table until its parent looks."""


def job(store: Store, name: str) -> Job:
    """One job as it stands now.

    Args:
        store: The cache.
        name: The job's id.

    Raises:
        KickError: There is none, or its state is damaged.
    """
    folder = place(store, name)
    children[:] = [child for child in children if child.poll() is None]
    try:
        data = read_sealed_json(folder / "state.json")
        state = Job(**{**data, "losses": tuple(data["losses"])})
    except FileNotFoundError:
        raise KickError(f"no job {name!r} in {store.root}") from None
    except (Damaged, ValueError, TypeError, KeyError) as error:
        raise KickError(f"the state of job {name!r} is damaged ({error})") from error
    if state.active and not _alive(state, folder):
        state = replace(state, state="lost", message="its process is gone; start it again, it goes on where it was")
    return replace(state, cancelling=state.active and (folder / "cancel").exists())


def _alive(state: Job, folder: Path) -> bool:
    """Whether its process lives. Some network disks do not show locks of other machines: there its last news counts."""
    return _held(folder / "lock") or (not state.local and time.time() - state.updated < SILENCE)


def _held(path: Path) -> bool:
    if not path.exists():  # `acquire` would make it, in a folder that may be about to be removed
        return False
    try:
        handle = acquire(path, shared=True)
    except OSError:  # a disk without locks: nothing says that it ended
        return True
    if handle is None:
        return True
    os.close(handle)
    return False


def jobs(store: Store) -> list[Job]:
    """All jobs, active ones first, then the newest.

    Args:
        store: The cache; damaged jobs are left out.
    """
    states = []
    for path in (store.root / "jobs").glob("*/state.json"):
        with contextlib.suppress(KickError):
            states.append(job(store, path.parent.name))
    return sorted(states, key=lambda job: (not job.active, -job.created))


def log(store: Store, name: str, lines: int = 30) -> str:
    """The last lines that the worker printed.

    Args:
        store: The cache.
        name: The job's id.
        lines: How many at most.
    """
    try:
        text = (place(store, name) / "log.txt").read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
