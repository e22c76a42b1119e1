"""Running a sweep: its cells handed out to this process, or to several of this machine, on one cache.

The command line and the jobs that pages start run sweeps by `run`; a Ray cluster hands out the same groups of cells
(`cells.phases`) to its nodes. Cells are idempotent and every store operation is safe between processes, so nothing
else is needed than to hand them out. On a CPU decoding is held up by many small operations, and two processes of one
thread do more than one process of two; with several GPUs each gets a process.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.context import SpawnContext
from typing import TYPE_CHECKING, Any

from kick_core import timing
from kick_core.errors import BadRequest, KickError
from kick_core.models.source import find, located
from kick_core.records import Progress
from kick_core.spec import DENSE
from kick_core.store import Store, open_store
from kick_core.store.nested_masks import sharing
from kick_core.sweeps import sweep_keys
from kick_core.sweeps.cells import Cell, Group, Step, cells, phases, unscored
from kick_core.sweeps.cost import Rates
from kick_core.sweeps.opening import Opening, Questions, begin
from kick_core.sweeps.request import SweepJob
from kick_core.sweeps.sweep_keys import SweepKeys
from kick_core.sweeps.tracker import Tracker
from kick_core.units import bytes_text, count_text

if TYPE_CHECKING:
    from kick_core.sweeps.grid import Sweep

LARGE = 1 << 30
"""Bytes of weights from which a second copy of the model is not made without being asked for."""
_TICK = 0.5
"""Seconds without news after which the remaining time is told anew."""

Run = Generator[Progress, None, SweepKeys]


def processes(job: SweepJob, store: Store, workers: int | None = None) -> int:
    """How many processes a sweep gets at most.

    Args:
        job: The sweep.
        store: Where its files' fingerprints are remembered.
        workers: What the user asked for. None: one per GPU for `all`, one per core (4 at most) for small models on a
            CPU, else one.

    Raises:
        BadRequest: For a number below 1, or several where a backend takes the machine for itself.
    """
    if workers is not None:
        if workers < 1:
            raise BadRequest(f"--workers {workers}: at least 1")
        if job.hosted and workers > 1:
            raise BadRequest(f"--workers {workers}: what --engine or --device-map names takes the machine for itself")
        return workers
    if job.hosted:
        return 1
    if job.device == "all":
        return max(1, sweep_keys.gpus())
    small = sum(path.stat().st_size for path in find(job.reference, store).weight_files) < LARGE
    return min(os.cpu_count() or 1, 4) if small and sweep_keys.device(job.device) == "cpu" else 1


def devices(job: SweepJob, count: int) -> list[str]:
    """The device of each process: the one that was named, or every GPU in turn."""
    if job.device != "all":
        return [job.device] * count
    there = max(1, sweep_keys.gpus())
    return [f"cuda:{number % there}" for number in range(count)]


def everywhere(job: SweepJob) -> SweepJob:
    """The job on all GPUs of this machine, if it has several and the job names none."""
    return replace(job, device="all") if job.device == "auto" and sweep_keys.gpus() > 1 else job


def run(job: SweepJob, store: Store, workers: int | None = None) -> Run:
    """Do what is left of a sweep.

    Args:
        job: The sweep.
        store: Where everything is kept.
        workers: Number of processes; None as `processes` says.

    Yields:
        Progress, the first before anything is opened; the last has `done` equal to `total`.

    Returns:
        The keys of all cells, with the tasks whose data cannot be read as `skipped`.

    Raises:
        BadRequest: For what cannot be evaluated.
        KickError: For what fails; everything finished is kept.
    """
    yield Progress("", 0.0, 1.0, f"opening {job.model}")
    job.check()
    questions = Questions()
    opening = yield from _found(job, store, workers, questions)
    skipped = questions.unreadable(job) if sweep_keys.recall(store, job) is None else {}
    for name, reason in skipped.items():
        yield Progress("", 0.0, 1.0, warning=f"{name} is left out: {reason}")
    left = replace(job, tasks=tuple(name for name in job.tasks if name not in skipped))
    keys = yield from _run(left, store, workers, questions, opening)
    return replace(keys, skipped=skipped) if skipped else keys


def _run(job: SweepJob, store: Store, workers: int | None, questions: Questions, opening: Opening | None) -> Run:
    """A sweep whose data can be read."""
    count = processes(job, store, workers)
    keys = sweep_keys.recall(store, job)
    if keys is not None:
        listed, repairs = cells(job, keys, store), unscored(job, keys, store)
        if not repairs and all(cell.cached for cell in listed):
            yield Progress("", 0.0, 1.0, "everything is done already")
            return (yield from _finish(keys, store, job, None))
        count = min(count, len({cell.recipe for cell in listed if not cell.cached} | set(repairs)))
    else:
        count = min(count, len(job.parsed()))
    if count < 2:
        return (yield from _alone(job, store, questions, opening))
    return (yield from _together(job, store, keys, devices(job, count)))


def _found(
    job: SweepJob, store: Store, workers: int | None, questions: Questions
) -> Generator[Progress, None, Opening | None]:
    """Find the model, and hash its files where that was not done before, telling how far that is. A large model, which
    one process will open, is opened meanwhile."""
    read, stopped = [0, 0], False
    alone = job.device != "all" and (workers or 1) == 1
    source = located(job.reference, store)

    def hear(done: int, total: int) -> None:
        read[:] = done, total
        if stopped:
            raise KickError("stopped")

    opening: Future[Opening | None] | None = None
    with ThreadPoolExecutor(2) as pool:
        hashing = pool.submit(find, job.reference, store, hear)
        try:
            tick = _TICK / 10  # by then it is known how much there is to hash
            while not wait((hashing,), timeout=tick).done:
                tick = _TICK
                if opening is None and alone and read[1] > LARGE:
                    opening = pool.submit(begin, job, source, questions)
                if read[0] < read[1]:
                    size, share = bytes_text(read[1]), read[0] / read[1]
                    yield Progress("", 0.0, 1.0, f"reading {size} of {job.model}, once: {share:.0%}")
            hashing.result()
            while opening is not None and not wait((opening,), timeout=_TICK).done:
                yield Progress("", 0.0, 1.0, f"opening {job.model}")
        finally:
            stopped = True
    return opening.result() if opening is not None else None


def _finish(keys: SweepKeys, store: Store, job: SweepJob, tracker: Tracker | None) -> Run:
    """Let nested masks share their files, once all of them are built: nothing but their size on disk changes."""
    built = {keys.artifacts[recipe.text] for recipe in job.parsed() if recipe != DENSE}
    for shared in sharing.share(store, built):
        # a series of one artifact has nothing to share, but its file may have been shared with others that are gone
        message = f"files shared by {shared.masks} nested masks" if shared.masks > 1 else "a file of its own for a mask"
        yield Progress("", 1.0, 1.0, message, shared.block, shared.blocks)
    yield tracker.finish() if tracker else Progress("", 1.0, 1.0, "done", remaining=0.0)
    return keys


def _alone(job: SweepJob, store: Store, questions: Questions, opening: Opening | None) -> Run:
    """The sweep in this process."""
    from kick_core.sweeps.grid import open_sweep

    sweep = open_sweep(job, store, questions=questions, opening=opening)
    new = not job.hosted and sweep_keys.recall(store, job) is None
    with timing.stage("keys"):
        keys = sweep.keys if job.hosted else sweep_keys.remember(store, sweep)
    if sweep.backend and sweep.backend.warning:
        yield Progress("", 0.0, 1.0, warning=sweep.backend.warning)
    if new and (advice := sweep.advice()):
        yield Progress("", 0.0, 1.0, warning=advice)
    tracker, plan = _planned(job, store, keys, 1, halves=0, products=sweep.products())
    yield tracker.at("", _done_already(job, store, keys))
    for step in sweep.run(*(group for phase in plan for group in phase)):
        yield tracker.take(step)
    return (yield from _finish(keys, store, job, tracker))


def _planned(
    job: SweepJob, store: Store, keys: SweepKeys, count: int, halves: int, products: float = 0.0
) -> tuple[Tracker, list[list[Group]]]:
    """What is left by the cache as it is now: its tracker, and its groups in their order."""
    listed = cells(job, keys, store)
    rates = Rates(store, keys.model, count, products)
    tracker = Tracker([cell for cell in listed if not cell.cached], keys, rates, count)
    priced = [(cell, tracker.seconds(cell)) for cell in listed]
    return tracker, phases(job, priced, unscored(job, keys, store), halves)


def _done_already(job: SweepJob, store: Store, keys: SweepKeys) -> str:
    listed = cells(job, keys, store)
    return f"{sum(cell.cached for cell in listed)} of {count_text(len(listed), 'cell')} done already"


# --- several processes ---------------------------------------------------------------------------------------


def _together(job: SweepJob, store: Store, keys: SweepKeys | None, named: list[str]) -> Run:
    """The sweep in a process per device name; this one hands out, and opens nothing itself."""
    with _pool(job, store, named) as (pool, news):
        opened: list[Future[Any]] = []
        products = 0.0
        if keys is None:  # who opens the model anyhow finds the keys; all do, so that none waits for another
            opened = [pool.submit(_keys) for _ in named]
            yield from _wait_for_one(opened, job)
            keys_json, advice, products = _result(next(future for future in opened if future.done()))
            keys = SweepKeys.from_json(keys_json)
            if advice:
                yield Progress("", 0.0, 1.0, warning=advice)
        tracker, plan = _planned(job, store, keys, len(named), len(named), products)
        yield tracker.at("", f"{_done_already(job, store, keys)}, {len(named)} processes")
        for phase in plan:
            left = {pool.submit(_work, [cell.to_json() for cell in group]) for group in phase}
            while left:
                ended, left = wait(left, timeout=_TICK if news.empty() else 0, return_when=FIRST_COMPLETED)
                yield from _heard(news, tracker)
                for future in ended:
                    _result(future)
        yield from _heard(news, tracker)
        return (yield from _finish(keys, store, job, tracker))


def _wait_for_one(futures: Sequence[Future[Any]], job: SweepJob) -> Iterator[Progress]:
    while not wait(futures, timeout=_TICK, return_when=FIRST_COMPLETED).done:
        yield Progress("", 0.0, 1.0, f"{len(futures)} processes open {job.model}")


def _heard(news: Any, tracker: Tracker) -> Iterator[Progress]:
    """All that the processes said; where they said nothing, the remaining time."""
    heard = False
    while True:
        try:
            step: Step = news.get_nowait()
        except queue.Empty:
            break
        heard = True
        progress = tracker.take(step)
        # messages of several processes would flicker: only those of blocks, which have a loss beside them, are shown
        yield replace(progress, message=progress.message if progress.block is not None else "")
    if not heard:
        yield tracker.at()


def _result(future: Future[Any]) -> Any:
    """What a process came to. Raises what it failed with; one that is gone, or was interrupted, is a failure too."""
    try:
        return future.result()
    except KeyboardInterrupt:
        raise KickError(
            "a worker process was interrupted; everything finished is kept, run the command again"
        ) from None
    except BrokenProcessPool as error:
        raise KickError(f"a worker process ended abruptly ({error}); run the command again") from error


@contextmanager
def _pool(job: SweepJob, store: Store, named: list[str]) -> Iterator[tuple[ProcessPoolExecutor, Any]]:
    """Processes that open the sweep on their device when they get their first work, and the queue of their news."""
    context: SpawnContext = multiprocessing.get_context("spawn")
    news, places = context.Queue(), context.Queue()
    for name in named:
        places.put(name)
    threads = max(1, (os.cpu_count() or 1) // len(named))
    before = set(multiprocessing.active_children())
    arguments = (job.to_json(), str(store.root), threads, places, news)
    pool = ProcessPoolExecutor(len(named), mp_context=context, initializer=_begin, initargs=arguments)
    try:
        with _uninterrupted():
            for _ in named:  # each starts a process
                pool.submit(_ready)
        yield pool, news
    finally:
        # a cell may take minutes: whoever stops does not wait for it, everything on disk may be cut off anywhere;
        # and with nothing left to do, taking torch down in order would only cost seconds
        for process in set(multiprocessing.active_children()) - before:
            process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes started in here ignore Ctrl-C until `_begin`: it is this one's to say what became of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Place:
    """What a worker process has: a job on its device, a queue for its news, the sweep once it is open."""

    job: SweepJob
    root: str
    news: Any
    sweep: Sweep | None = None

    @classmethod
    def opened(cls) -> Sweep:
        if cls.sweep is None:
            from kick_core.sweeps.grid import open_sweep

            cls.sweep = open_sweep(cls.job, open_store(cls.root))
        return cls.sweep


def _begin(job: dict[str, Any], root: str, threads: int, places: Any, news: Any) -> None:
    """The beginning of a worker process. It ends when its parent does, however that ended."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # dies of it, so that it cannot look done
    news.cancel_join_thread()  # nothing that was not heard keeps it from ending
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch

    torch.set_num_threads(threads)
    _Place.job, _Place.root, _Place.news = SweepJob.from_json({**job, "device": places.get()}), root, news


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _ready() -> None:
    """Nothing: what a process is started with."""


def _keys() -> tuple[dict[str, Any], str, float]:
    """The keys of the sweep's cells, what to say of the model on this machine, and how fast its products are."""
    sweep = _Place.opened()
    return sweep_keys.remember(sweep.store, sweep).to_json(), sweep.advice(), sweep.products()


def _work(group: Sequence[dict[str, Any]]) -> None:
    for step in _Place.opened().run([Cell(**values) for values in group]):
        _Place.news.put(step)
