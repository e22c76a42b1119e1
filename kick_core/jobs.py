"""Work that outlives the page that asked for it: one detached process per request, its state on disk.

    jobs/<id>/  spec.json   what was asked (a sweep.Request)
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
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from kick_core import keys
from kick_core.spec import BadRequest, Calibration, KickError
from kick_core.store import Store, open_store
from kick_core.store.faults import here
from kick_core.store.files import Damaged, no_space_named, read_sealed_json, replace_file, require_space, seal_json

State = Literal["queued", "running", "done", "failed", "cancelled", "lost"]
ACTIVE: tuple[State, ...] = ("queued", "running")

WORKER = (sys.executable, "-m", "kick_core.jobs")
PATIENCE = 10.0
"""Seconds between the polite request to stop and a signal from who asks again."""
GRACE = 2.0
"""Seconds that a worker gives itself to stop between two steps, and then once more in mid-step, before it just ends."""
ROOM = 1 << 20
"""Bytes that must be free before a job begins; its worker, who knows the model, asks for what artifacts take."""
_TICK = 0.2


class Request(Protocol):
    """What a sweep is asked; `kick_core.sweep.Request` is one."""

    def to_json(self) -> dict[str, Any]: ...


class Progress(Protocol):
    """One step of a sweep; `kick_core.sweep.Progress` is one."""

    @property
    def cell(self) -> str: ...
    @property
    def done(self) -> float: ...
    @property
    def total(self) -> float: ...
    @property
    def message(self) -> str: ...
    @property
    def block(self) -> int | None: ...
    @property
    def blocks(self) -> int | None: ...
    @property
    def loss(self) -> float | None: ...


Run = Callable[[Mapping[str, Any], Store], Iterator[Progress]]


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it stands now. `share` is its progress in [0, 1]; `losses` those of the current cell's blocks."""

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
    created: float = 0.0
    started: float = 0.0
    updated: float = 0.0
    pid: int = 0
    cancelling: bool = field(default=False)

    @property
    def active(self) -> bool:
        return self.state in ACTIVE

    @property
    def share(self) -> float:
        if self.state == "done":
            return 1.0
        return min(1.0, self.done / self.total) if self.total > 0 else 0.0

    def remaining(self) -> float | None:
        """Seconds to go at the speed so far; None before there is one."""
        spent = self.updated - self.started
        if self.state != "running" or self.share < 0.02 or spent < 2:
            return None
        return spent * (1 - self.share) / self.share


# --- asking ------------------------------------------------------------------------------------------------


def request(model: str, recipes: Sequence[str], *, tasks: Sequence[str] = (), **more: Any) -> Request:
    """What the pages ask: these recipes on these tasks, all else as in the demo sweep.

    The same calibration and the same numbers of examples make the results comparable with those of
    `kick sweep --preset demo`, and an artifact that it made is not made again. `more` overrules single fields.
    """
    from kick_core import sweep  # planning only: torch is loaded by the worker

    found: Request = replace(sweep.preset("demo", model), recipes=tuple(recipes), tasks=tuple(tasks), **more)
    return found


def calibration(model: str) -> Calibration:
    """The calibration that `request` uses unless it is overruled."""
    from kick_core import sweep

    return sweep.preset("demo", model).calibration


def task_names() -> tuple[str, ...]:
    """All tasks that a request may name."""
    from kick_core import tasks

    return tasks.names()


def job_id(wanted: Request) -> str:
    """The content key of a request: the same question is the same job."""
    return keys.key("job", _texts(wanted.to_json()))


def _texts(value: Any) -> Any:
    """Fractional numbers as text, as keyed payloads want them."""
    match value:
        case float():
            return repr(value)
        case Mapping():
            return {name: _texts(one) for name, one in value.items()}
        case list() | tuple():
            return [_texts(one) for one in value]
        case _:
            return value


_children: list[subprocess.Popen[bytes]] = []


def start(store: Store, wanted: Request, *, worker: Sequence[str] = WORKER) -> Job:
    """Start a job, or join the one that is queued or running for the same request. Returns at once.

    `worker` is the command that works it off; it gets the cache, the id and the lock's file descriptor.
    """
    name = job_id(wanted)
    folder = _folder(store, name)
    with no_space_named(folder, 1 << 12):
        folder.mkdir(parents=True, exist_ok=True)
        handle = _take(folder / "lock")
    if handle is None:
        return job(store, name)
    try:
        require_space(store.root, ROOM)
        for left in ("cancel", "log.txt"):
            (folder / left).unlink(missing_ok=True)
        replace_file(folder / "spec.json", seal_json(wanted.to_json()))
        _write(folder, Job(name, wanted.to_json(), created=time.time(), message="starting"))
        here("job written")
        with no_space_named(folder, 1 << 12), open(folder / "log.txt", "ab") as log:
            child = subprocess.Popen(
                [*worker, str(store.root.resolve()), name, str(handle)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=Path(__file__).resolve().parents[1],
                pass_fds=[handle],
                start_new_session=True,
            )
        _children.append(child)
        here("worker started")
    finally:
        os.close(handle)
    return job(store, name)


def _take(path: Path) -> int | None:
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
    folder = _folder(store, name)
    _children[:] = [child for child in _children if child.poll() is None]
    alive = _held(folder / "lock")
    try:
        data = read_sealed_json(folder / "state.json")
        found = Job(**{**data, "losses": tuple(data["losses"])})
    except FileNotFoundError:
        raise KickError(f"no job {name!r} in {store.root}") from None
    except (Damaged, ValueError, TypeError, KeyError) as error:
        raise KickError(f"the state of job {name!r} is damaged ({error})") from error
    if found.active and not alive:
        found = replace(found, state="lost", message="its process is gone; start it again, it goes on where it was")
    return replace(found, cancelling=found.active and (folder / "cancel").exists())


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
        text = (_folder(store, name) / "log.txt").read_text(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def cancel(store: Store, name: str) -> Job:
    """Ask a job to stop. Asked again after ten seconds, its process group gets a signal."""
    found = job(store, name)
    flag = _folder(store, name) / "cancel"
    if not found.active:
        return found
    if not flag.exists():
        flag.touch()
    elif found.pid and abs(time.time() - flag.stat().st_mtime) > PATIENCE:  # the clock may have been set back
        with contextlib.suppress(ProcessLookupError):
            os.killpg(found.pid, signal.SIGTERM)
    return job(store, name)


def forget(store: Store, name: str) -> None:
    """Remove the traces of a job that has ended; what it computed stays."""
    found = job(store, name)
    if found.active:
        raise BadRequest(f"job {name!r} is {found.state}: cancel it first")
    folder = _folder(store, name)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def _folder(store: Store, name: str) -> Path:
    digest = name.rpartition("-")[2]
    if not digest.isalnum() or "/" in name or name.startswith("."):
        raise BadRequest(f"{name!r} is not a job's id")
    return store.root / "jobs" / name


def _write(folder: Path, state: Job) -> None:
    replace_file(folder / "state.json", seal_json(asdict(state)))


# --- working -----------------------------------------------------------------------------------------------


_CANCELLED = "cancelled; what was finished is kept"


class _Stopped(Exception):
    """The job was cancelled."""


def sweep(spec: Mapping[str, Any], store: Store) -> Iterator[Progress]:
    """The real work. Only a worker calls it: this is where torch is loaded."""
    from kick_core import sweep as real

    steps: Iterator[Progress] = real.run(real.Request.from_json(spec), store)
    return steps


def work(store: Store, name: str, run: Run = sweep) -> State:
    """Work a job off in this process, which must hold the job's lock. Every end is written down."""
    folder = _folder(store, name)
    state = replace(job(store, name), pid=os.getpid(), cancelling=False)
    try:
        with _device(store, folder, state):
            state = replace(state, state="running", started=time.time(), updated=time.time(), message="loading")
            _write(folder, state)
            for step in _steps(folder, state, run(state.spec, store)):
                state = step
                _write(folder, state)
        state = replace(state, state="done", done=state.total, message="done")
    except _Stopped:
        state = replace(state, state="cancelled", message=_CANCELLED)
    except KickError as error:
        state = replace(state, state="failed", message=str(error))
    except Exception as error:
        traceback.print_exc()
        state = replace(state, state="failed", message=f"{type(error).__name__}: {error}")
    state = replace(state, updated=time.time())
    _write(folder, state)
    return state.state


@contextlib.contextmanager
def _device(store: Store, folder: Path, state: Job) -> Iterator[None]:
    """Wait for the one device; jobs that wait can be cancelled."""
    path = store.root / "locks" / "device.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.set_inheritable(handle, False)
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if state.message != "waiting for another job":
                    state = replace(state, message="waiting for another job", updated=time.time())
                    _write(folder, state)
                _stop_if_asked(folder)
                time.sleep(_TICK)
        yield
    finally:
        os.close(handle)


def _steps(folder: Path, state: Job, steps: Iterator[Progress]) -> Iterator[Job]:
    """The states worth writing: at most one in a fifth of a second, and each new cell or block."""
    last = 0.0
    for step in steps:
        fresh = step.cell not in ("", state.cell)
        moved = step.block is not None and (fresh or step.block != state.block)
        losses = () if fresh else state.losses
        if moved and step.loss is not None:
            losses = (*losses, step.loss)
        state = replace(
            state, cell=step.cell, done=step.done, total=step.total, message=step.message, block=step.block,
            blocks=step.blocks, losses=losses, updated=time.time(),
        )  # fmt: skip
        _stop_if_asked(folder)
        if fresh or moved or state.updated - last > _TICK:
            last = state.updated
            yield state
    yield state


def _stop_if_asked(folder: Path) -> None:
    if (folder / "cancel").exists():
        raise _Stopped


def _watch(store: Store, name: str) -> None:
    """A step may take minutes: see to it that a cancelled worker is gone, and its device free, after twice GRACE."""
    flag = _folder(store, name) / "cancel"
    while not flag.exists():
        time.sleep(_TICK)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    with contextlib.suppress(KickError):
        left = job(store, name)
        if left.active:
            _write(_folder(store, name), replace(left, state="cancelled", cancelling=False, message=_CANCELLED))
    os._exit(1)


def _terminate(number: int, frame: object) -> None:
    raise _Stopped


def main(arguments: Sequence[str], run: Run = sweep) -> int:
    """CACHE_ROOT JOB_ID [LOCK]: the worker. Without an inherited lock it takes the job's lock itself."""
    store, name = open_store(arguments[0]), arguments[1]
    folder = _folder(store, name)
    handle = int(arguments[2]) if len(arguments) > 2 else _take(folder / "lock")
    if handle is None:
        return 0
    os.set_inheritable(handle, False)
    os.nice(10)
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_watch, args=(store, name), daemon=True).start()
    return 0 if work(store, name, run) == "done" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
