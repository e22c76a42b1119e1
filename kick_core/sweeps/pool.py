"""One sweep by several processes of this machine, a recipe each at a time, on the same cache.

Cells are idempotent and every store operation is safe between processes, so nothing else is needed than to hand out
recipes, and of the last ones some tasks. On a CPU decoding is held up by many small operations, and two processes of
one thread do more than one process of two.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

from kick_core.errors import BadRequest, KickError
from kick_core.records import Progress
from kick_core.spec import DENSE, parse
from kick_core.store import Store, open_store
from kick_core.sweeps.grid import Cell, Sweep
from kick_core.sweeps.request import Request

LARGE = 1 << 30
"""Bytes of weights from which a second copy of the model is not made without being asked for."""

_POLL = 0.5


def count_for(sweep: Sweep, asked: int | None) -> int:
    """How many processes a sweep gets: what was asked for, else a core each for small models on a CPU."""
    if asked is not None:
        if asked < 1:
            raise BadRequest(f"--workers {asked}: at least 1")
        if sweep.host and asked > 1:
            raise BadRequest(f"--workers {asked}: what --engine or --device-map names takes the machine for itself")
        return asked
    model = sweep.builder.opened.model
    if sweep.host:
        return 1
    if (gpus := len(devices_for(sweep.request.device))) > 1 and sweep.builder.calibration.propagate != "dense":
        return gpus
    small = model.device.type == "cpu" and sum(p.nbytes for p in model.parameters()) < LARGE
    together = sweep.builder.calibration.propagate == "dense"
    return min(os.cpu_count() or 1, 4) if small and not together else 1


def devices_for(asked: str) -> list[str]:
    """The devices that recipes are dealt out over: the one asked for, or for `all` every GPU of this machine."""
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if asked == "all" else [asked]


def requests_for(request: Request, processes: int) -> list[dict[str, Any]]:
    """What each process is asked for: the same on its device, GPUs in turn."""
    devices = devices_for(request.device)
    return [{**request.to_json(), "device": devices[number % len(devices)]} for number in range(processes)]


class Unit(NamedTuple):
    """What is handed out: a recipe, all that is left of it or its cells of some tasks."""

    recipe: str
    tasks: tuple[str, ...] = ()


def units_for(cells: Sequence[Cell], processes: int) -> list[Unit]:
    """What is left, in the order in which it is handed out: dense, which others are compared with, then the dearest
    recipe first. The last ones are cut in two by their tasks, so that no process waits long for the others' end."""
    cost: dict[str, float] = {}
    tasks: dict[str, dict[str, float]] = {}
    for cell in cells:
        text = cell.recipe.text
        cost[text] = cost.get(text, 0.0) + cell.cost
        if cell.task is not None:
            own = tasks.setdefault(text, {})
            own[cell.task] = own.get(cell.task, 0.0) + cell.cost
    order = sorted(cost, key=lambda text: (text != DENSE.text, -cost[text]))
    units = [Unit(text) for text in order[:-processes]]
    for text in order[-processes:]:
        names = sorted(tasks.get(text, ()), key=lambda name: -tasks[text][name])
        halves = [half for half in (tuple(names[::2]), tuple(names[1::2])) if half]
        units += [Unit(text, half) for half in halves] if len(halves) == 2 else [Unit(text)]
    return units


def run(sweep: Sweep, workers: int | None = None) -> Iterator[Progress]:
    """Do what is left of a sweep, by several processes where that pays; yields progress as `Sweep.run` does."""
    left = [cell for cell in sweep.cells() if cell.cost]
    processes = min(count_for(sweep, workers), len({cell.recipe for cell in left}))
    if processes < 2:
        yield from sweep.run()
        return
    sweep.repair()
    total = sum(cell.cost for cell in left)
    yield Progress("", 0.0, total, f"{len(left)} cells to do, {processes} processes")
    yield from _shared_out(sweep, units_for(left, processes), processes, total)
    yield from sweep.share(total)
    yield Progress("", total, total, "done")


def _shared_out(sweep: Sweep, units: list[Unit], processes: int, total: float) -> Iterator[Progress]:
    """Hand the units out to processes. On a CPU this one is one of them: it has the model open already."""
    context = multiprocessing.get_context("spawn")
    work, said = context.Queue(), context.Queue()
    for unit in units:
        work.put(unit)
    root = str(sweep.store.root)
    threads = max(1, (os.cpu_count() or 1) // processes)
    here = sweep.builder.opened.model.device.type == "cpu"
    team = [
        context.Process(target=_work, args=(request, root, threads, work, said), daemon=True)
        for request in requests_for(sweep.request, processes - here)
    ]
    for process in team:
        process.start()
    told = _Told({}, 0, total)
    try:
        if here:
            yield from _worked_here(sweep, threads, work, said, told)
        while told.finished < len(units):
            yield from _collected(said, team, told)
    finally:
        for process in team:
            process.terminate()
            process.join()


@dataclass(slots=True)
class _Told:
    """What is known of all units: how much of each is done, and how many are finished."""

    done: dict[Unit, float]
    finished: int
    total: float

    def take(self, kind: str, unit: Unit, content: Any) -> Progress:
        """The progress of the whole after a message. Raises what a process has failed with."""
        if kind == "error":
            raise content
        progress: Progress = content
        self.done[unit] = progress.done
        self.finished += kind == "finished"
        words = progress.message if progress.block is not None else ""
        return replace(progress, done=min(sum(self.done.values()), self.total), total=self.total, message=words)


def _worked_here(sweep: Sweep, threads: int, work: Any, said: Any, told: _Told) -> Iterator[Progress]:
    """Take units in this process, and tell between steps what the others said."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for message in _units_of(sweep, work):
            yield told.take(*message)
            while not said.empty():
                yield told.take(*said.get())
    finally:
        torch.set_num_threads(before)


def _collected(said: Any, team: Sequence[BaseProcess], told: _Told) -> Iterator[Progress]:
    try:
        yield told.take(*said.get(timeout=_POLL))
    except queue.Empty:
        if gone := [p for p in team if p.exitcode not in (None, 0)]:
            status = gone[0].exitcode
            raise KickError(f"a worker process ended with status {status}; run the command again") from None


def _units_of(sweep: Sweep, work: Any) -> Iterator[tuple[str, Unit, Progress]]:
    """Do units as long as there are any; yields messages for `_Told`."""
    while True:
        try:
            unit = work.get(timeout=_POLL)
        except queue.Empty:
            return
        last = Progress("", 0.0, 0.0)
        for last in sweep.run(parse(unit.recipe), unit.tasks):
            yield "progress", unit, last
        yield "finished", unit, last


def _work(request: dict[str, Any], root: str, threads: int, work: Any, said: Any) -> None:
    import torch

    torch.set_num_threads(threads)
    store: Store = open_store(root)
    try:
        for message in _units_of(Sweep(Request.from_json(request), store), work):
            said.put(message)
    except KickError as error:
        said.put(("error", Unit(""), error))
    except KeyboardInterrupt:
        return
