"""The process that runs one job: `python -m kick_core.jobs.worker CACHE JOB_ID [LOCK]`, started by `jobs.start`.

This is where torch is loaded. Whatever happens is written into the job's state; the lock that it holds for its
whole life shows everybody else that it lives.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kick_core import jobs, provenance
from kick_core.errors import KickError
from kick_core.jobs import Job, State, specs
from kick_core.jobs.ray_cluster.joining import LOCAL
from kick_core.records import Progress
from kick_core.store import Store, open_store
from kick_core.store.locks import acquire
from kick_core.sweeps.playground import PromptJob
from kick_core.sweeps.request import skipped_text

_TICK = 0.2
"""Seconds between two looks at a lock, and between two states that are written."""
GRACE = 2.0
"""Seconds that a worker gives itself to stop between two steps, and then once more in mid-step, before it just ends."""
_CANCELLED = "cancelled; what was finished is kept"

log = logging.getLogger(__name__)

Run = Callable[[Mapping[str, Any], Store], Iterator[Progress]]


class _Stopped(Exception):
    """The job was cancelled."""


def real(spec: Mapping[str, Any], store: Store) -> Iterator[Progress]:
    """The work of a job. Only a worker calls it: this is where torch is loaded, or Ray.

    A sweep runs as `kick sweep` runs it: on all GPUs of the machine, or in several processes where that pays.

    Args:
        spec: The job's `spec.json`.
        store: The cache.

    Yields:
        How far it is.

    Raises:
        KickError: The work fails, with a reason for people.
    """
    from kick_core.jobs.ray_cluster import driver as cluster
    from kick_core.sweeps import driver, playground

    match specs.read(spec):
        case PromptJob() as job:
            yield from playground.run(job, store)
        case specs.ClusterJob() as job:
            yield from cluster.run(job, store)
        case job:
            keys = yield from driver.run(driver.everywhere(job), store)
            if keys.skipped:
                raise KickError(skipped_text(keys.skipped))


def _elsewhere(spec: Mapping[str, Any]) -> bool:
    """Whether the work is done on a cluster of others, which deals out its devices itself."""
    return specs.kind(spec) == "cluster" and spec["cluster"].get("address", LOCAL) != LOCAL


def work(store: Store, name: str, run: Run = real) -> State:
    """Do a job in this process, which must hold the job's lock. Every end is written into its state.

    Args:
        store: The cache.
        name: The job's id.
        run: The work; tests have their own.

    Returns:
        How it ended.
    """
    folder = jobs.place(store, name)
    state = replace(jobs.job(store, name), pid=os.getpid(), host=provenance.host(), cancelling=False)
    try:
        with contextlib.nullcontext() if _elsewhere(state.spec) else _device(store, folder, state):
            state = replace(state, state="running", started=time.time(), updated=time.time(), message="loading")
            jobs.write(folder, state)
            for step in _steps(folder, state, run(state.spec, store)):
                state = step
                jobs.write(folder, state)
        state = replace(state, state="done", done=state.total, message="done")
    except _Stopped:
        state = replace(state, state="cancelled", message=_CANCELLED)
    except KickError as error:
        state = replace(state, state="failed", message=str(error))
    except Exception as error:
        traceback.print_exc()
        state = replace(state, state="failed", message=f"{type(error).__name__}: {error}")
    state = replace(state, updated=time.time())
    jobs.write(folder, state)
    return state.state


@contextlib.contextmanager
def _device(store: Store, folder: Path, state: Job) -> Iterator[None]:
    """Wait for the one device; jobs that wait can be cancelled."""
    while (handle := acquire(store.root / "locks" / "device.lock")) is None:
        if state.message != "waiting for another job":
            state = replace(state, message="waiting for another job", updated=time.time())
            jobs.write(folder, state)
        _stop_if_cancelled(folder)
        time.sleep(_TICK)
    try:
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
        if step.warning:
            log.warning("%s", step.warning)
            continue
        answers = state.answers if step.answer is None else {**state.answers, step.cell: step.answer}
        state = replace(
            state, cell=step.cell, done=step.done, total=step.total, message=step.message, block=step.block,
            blocks=step.blocks, losses=losses, answers=answers, where=step.where or state.where, left=step.remaining,
            updated=time.time(),
        )  # fmt: skip
        _stop_if_cancelled(folder)
        if fresh or moved or state.updated - last > _TICK:
            last = state.updated
            yield state
    yield state


def _stop_if_cancelled(folder: Path) -> None:
    if (folder / "cancel").exists():
        raise _Stopped


def _watch(store: Store, name: str) -> None:
    """A step may take minutes: see to it that a cancelled worker is gone, and its device free, after twice GRACE."""
    folder = jobs.place(store, name)
    while not (folder / "cancel").exists():
        time.sleep(_TICK)
    time.sleep(GRACE)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    with contextlib.suppress(KickError):
        state = jobs.job(store, name)
        if state.active:
            jobs.write(folder, replace(state, state="cancelled", cancelling=False, message=_CANCELLED))
    os._exit(1)


def _terminate(number: int, frame: object) -> None:
    raise _Stopped


def main(arguments: Sequence[str], run: Run = real) -> int:
    """The worker's process. Without an inherited lock it takes the job's lock itself.

    Args:
        arguments: CACHE_ROOT JOB_ID [LOCK].
        run: The work; tests have their own.

    Returns:
        The exit status: 0 when the job is done, or another worker has it.
    """
    store, name = open_store(arguments[0]), arguments[1]
    folder = jobs.place(store, name)
    handle = int(arguments[2]) if len(arguments) > 2 else jobs.take(folder / "lock")
    if handle is None:
        return 0
    os.set_inheritable(handle, False)  # a child that outlived the worker would seem to be it
    os.nice(10)
    signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_watch, args=(store, name), daemon=True).start()
    return 0 if work(store, name, run) == "done" else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
