"""Work that outlives the page that asked for it: one detached process per request, its state on disk.

    jobs/<id>/  spec.json   what was asked (jobs.specs)
                state.json  how far it is, replaced in one step
                log.txt     whatever the worker printed
                cancel      present: please stop
                lock        held by the worker for its whole life

A worker that Streamlit's script thread ran would die at the next move of a slider; a process survives reloads,
page changes and restarts of the server. Whether it lives is told by its lock alone: the kernel lets go when a
process ends, however it ends, so there are no stale process numbers. The lock is taken *before* the worker
starts and handed to it, so of eight people who press the button at once one starts it and seven join. Jobs
queue for the one device behind a second lock. An id is the content key of its request.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from kick_core import provenance, tasks
from kick_core.errors import BadRequest, KickError
from kick_core.jobs.specs import JobSpec as JobSpec
from kick_core.jobs.specs import Kind, kind
from kick_core.jobs.specs import job_id as job_id
from kick_core.models.source import ALIASES, settled
from kick_core.spec import Calibration
from kick_core.store import Store, is_key
from kick_core.store.fault_injection import point
from kick_core.store.files import Damaged, no_space_named, read_sealed_json, replace_file, require_space, seal_json
from kick_core.sweeps.playground import PromptJob
from kick_core.sweeps.request import SweepJob, check_job, check_tasks, data_for, preset
from kick_core.tasks.data import questions

State = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
ACTIVE: tuple[State, ...] = ("queued", "running")

WORKER = (sys.executable, "-m", "kick_core.jobs.worker")
PATIENCE = 10.0
"""Seconds between the polite request to stop and a signal from who asks again."""
SILENCE = 60.0
"""Seconds after which a job of another machine, whose lock tells nothing here, counts as lost if it says nothing."""
SPACE = 1 << 20
"""Bytes that must be free before a job begins; its worker, who knows the model, asks for what artifacts take."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands now.

    `share` is its progress in [0, 1], `left` the seconds that it says remain, `losses` those of the current cell's
    blocks, `answers` those to a prompt so far, by recipe. `host` is the machine of its process `pid`, `where` names
    those that work for it, if others do.
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
    cancelling: bool = field(default=False)

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def share(self) -> float:
        if self.state == "done":
            return 1.0
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0

    @property
    def kind(self) -> Kind:
        """What it does: a sweep, a prompt, or a sweep on a cluster."""
        return kind(self.spec)

    def remaining(self) -> float | None:
        """Seconds to go: what the work itself says, else by the speed so far; None before there is one."""
        if self.state != "running":
            return None
        if self.left is not None:
            return self.left
        spent = self.updated - self.started
        return spent * (1 - self.share) / self.share if self.share >= 0.02 and spent >= 2 else None


# --- what pages ask for --------------------------------------------------------------------------------------


def request(
    model: str,
    recipes: Sequence[str],
    *,
    tasks: Sequence[str] = (),
    counts: Mapping[str, int] | None = None,
    **more: Any,
) -> SweepJob:
    """A sweep of these recipes on these tasks, all else as in the demo sweep.

    The same calibration and the same numbers of examples make the results comparable with those of
    `kick sweep --preset demo`, and an artifact that it made is not made again.

    Args:
        model: As in `SweepJob`.
        recipes: Recipe texts.
        tasks: Names of tasks.
        counts: Numbers of examples of single tasks.
        more: Other fields of `SweepJob`.
    """
    demo = preset("demo", model, data_for(model, tasks))
    limits = {name: n for name, n in {**demo.limits, **(counts or {})}.items() if name in tasks}
    return replace(demo, recipes=tuple(recipes), tasks=tuple(tasks), limits=limits, **more)


def check(model: str, tasks: Sequence[str] = (), **more: Any) -> SweepJob:
    """Dense on a few examples per task, as `kick check` asks; `more` are other fields of `SweepJob`."""
    data = data_for(model, tasks, more.pop("data", "auto"))
    return check_job(SweepJob(model, (), tuple(tasks) or check_tasks(model, data), data=data, **more))


QUESTIONS = questions.UPLOAD
"""Bytes of a file of questions that a page takes."""


def keep_questions(store: Store, name: str, data: bytes) -> tuple[Path, str, int]:
    """Keep a user's questions in the cache. Takes, returns and raises as `kick_core.tasks.data.questions.keep`."""
    _refuse_if_read_only()
    return questions.keep(store.root.resolve() / "questions", name, data)


def demo(model: str, **more: Any) -> SweepJob:
    """The demo sweep of a model; `more` overrules single fields."""
    return replace(preset("demo", model), **more)


def prompt(model: str, recipes: Sequence[str], text: str, **more: Any) -> PromptJob:
    """A prompt of one's own to a model under these recipes, compressed as in the demo sweep where it must be.

    Raises:
        BadRequest: For what cannot be asked.
    """
    return PromptJob(model, tuple(recipes), text, **{"calibration": calibration(model), **more})


def calibration(model: str) -> Calibration:
    """The calibration that `request` uses unless it is overruled."""
    return settled(preset("demo", model).calibration, ALIASES.get(model, model))


def task_names(model: str) -> tuple[str, ...]:
    """All tasks that a model is evaluated on where nothing else is said.

    Args:
        model: As in `SweepJob`.
    """
    return tasks.names(data_for(model))


# --- starting ------------------------------------------------------------------------------------------------

_children: list[subprocess.Popen[bytes]] = []

READ_ONLY = "KICK_READ_ONLY"
"""Set in the environment of `kick app --read-only`: nothing is started, stopped or forgotten from there."""


def read_only() -> bool:
    return bool(os.environ.get(READ_ONLY))


def _refuse_if_read_only() -> None:
    if read_only():
        raise BadRequest("this explorer is read-only: start it without --read-only to run or stop jobs")


def again(store: Store, name: str, *, worker: Sequence[str] = WORKER) -> Job:
    """Start a job that has ended once more, by the spec that it was made of; it goes on where it was."""
    return _start(store, name, job(store, name).spec, worker)


def start(store: Store, spec: JobSpec, *, worker: Sequence[str] = WORKER) -> Job:
    """Start a job, or join the one that is queued or running for the same spec. Returns at once.

    Args:
        store: Where it works and leaves its state.
        spec: What it should do.
        worker: The command that does it; it gets the cache, the id and the lock's file descriptor.
    """
    return _start(store, job_id(spec), spec.to_json(), worker)


def _start(store: Store, name: str, spec: dict[str, Any], worker: Sequence[str]) -> Job:
    _refuse_if_read_only()
    folder = place(store, name)
    with no_space_named(folder, 1 << 12):
        folder.mkdir(parents=True, exist_ok=True)
        handle = _take_from_ended(store, name)
    if handle is None:
        return job(store, name)
    try:
        require_space(store.root, SPACE)
        for left in ("cancel", "log.txt"):
            (folder / left).unlink(missing_ok=True)
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
        _children.append(child)
        point("worker started")
    finally:
        os.close(handle)
    return job(store, name)


def take(path: Path) -> int | None:
    """The lock's file descriptor, or None when someone holds it. A short wait passes over lookers."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(20):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except OSError:
            time.sleep(0.01)
    os.close(handle)
    return None


def _take_from_ended(store: Store, name: str) -> int | None:
    """As `take`; but a worker that has said its last word is waited for, because it takes its time to end."""
    path = place(store, name) / "lock"
    until = time.monotonic() + PATIENCE
    while (handle := take(path)) is None and time.monotonic() < until:
        with contextlib.suppress(KickError):
            if job(store, name).active:
                return None
    return handle


def _held(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError:
        return True
    finally:
        os.close(handle)


def job(store: Store, name: str) -> Job:
    """One job as it stands now. Raises KickError when there is none."""
    folder = place(store, name)
    _children[:] = [child for child in _children if child.poll() is None]
    try:
        data = read_sealed_json(folder / "state.json")
        found = Job(**{**data, "losses": tuple(data["losses"])})
    except FileNotFoundError:
        raise KickError(f"no job {name!r} in {store.root}") from None
    except (Damaged, ValueError, TypeError, KeyError) as error:
        raise KickError(f"the state of job {name!r} is damaged ({error})") from error
    if found.active and not _alive(found, folder):
        found = replace(found, state="lost", message="its process is gone; start it again, it goes on where it was")
    return replace(found, cancelling=found.active and (folder / "cancel").exists())


def _alive(found: Job, folder: Path) -> bool:
    """Whether its process lives. Some network disks do not show locks of other machines: there its last word counts."""
    return _held(folder / "lock") or (not _here(found) and time.time() - found.updated < SILENCE)


def _here(found: Job) -> bool:
    return found.host in ("", provenance.host())


def jobs(store: Store) -> list[Job]:
    """All jobs, active ones first, then the newest."""
    found = []
    for path in (store.root / "jobs").glob("*/state.json"):
        with contextlib.suppress(KickError):
            found.append(job(store, path.parent.name))
    return sorted(found, key=lambda job: (not job.active, -job.created))


def log(store: Store, name: str, lines: int = 30) -> str:
    """The last lines that the worker printed."""
    try:
        text = (place(store, name) / "log.txt").read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def cancel(store: Store, name: str) -> Job:
    """Ask a job to stop. Asked again after ten seconds, its process group gets a signal."""
    _refuse_if_read_only()
    found = job(store, name)
    flag = place(store, name) / "cancel"
    if not found.active:
        return found
    if not flag.exists():
        flag.touch()
    elif found.pid and _here(found) and _waited(flag):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(found.pid, signal.SIGTERM)
    return job(store, name)


def _waited(flag: Path) -> bool:
    return abs(time.time() - flag.stat().st_mtime) > PATIENCE  # the clock may have been set back


def forget(store: Store, name: str) -> None:
    """Remove the traces of a job that has ended; what it computed stays."""
    _refuse_if_read_only()
    found = job(store, name)
    if found.active:
        raise BadRequest(f"job {name!r} is {found.state}: cancel it first")
    folder = place(store, name)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def place(store: Store, name: str) -> Path:
    """The folder of a job. Raises BadRequest for what cannot be one's id."""
    if not is_key(name):
        raise BadRequest(f"{name[:80]!r} is not a job's id")
    return store.root / "jobs" / name


def write(folder: Path, state: Job) -> None:
    """Replace a job's state in one step."""
    replace_file(folder / "state.json", seal_json(asdict(state)))
