"""One sweep by several processes of this machine, a recipe each, on the same cache.

Cells are idempotent and every store operation is safe between processes, so nothing else is needed than to
hand out recipes. On a CPU decoding is held up by many small operations, and two processes of one thread do
more than one process of two.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
from collections.abc import Iterator, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from typing import Any

from kick_core.records import Progress
from kick_core.spec import BadRequest, KickError, parse
from kick_core.store import Store, open_store
from kick_core.sweep import Request, Sweep

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
    model = sweep.shop.opened.model
    if sweep.host:
        return 1
    if (gpus := len(devices_for(sweep.request.device))) > 1 and sweep.shop.calibration.propagate != "dense":
        return gpus
    small = model.device.type == "cpu" and sum(p.nbytes for p in model.parameters()) < LARGE
    together = sweep.shop.calibration.propagate == "dense"
    return min(os.cpu_count() or 1, 4) if small and not together else 1


def devices_for(asked: str) -> list[str]:
    """The devices that recipes are dealt out over: the one asked for, or for `all` every GPU of this machine."""
    import torch

    return [f"cuda:{number}" for number in range(torch.cuda.device_count())] if asked == "all" else [asked]


def requests_for(request: Request, processes: int) -> list[dict[str, Any]]:
    """What each process is asked for: the same on its device, GPUs in turn."""
    devices = devices_for(request.device)
    return [{**request.to_json(), "device": devices[number % len(devices)]} for number in range(processes)]


def run(sweep: Sweep, workers: int | None = None) -> Iterator[Progress]:
    """Do what is left of a sweep, by several processes where that pays; yields progress as `Sweep.run` does."""
    left = [cell for cell in sweep.cells() if cell.cost]
    recipes = list(dict.fromkeys(cell.recipe.text for cell in left))
    processes = min(count_for(sweep, workers), len(recipes))
    if processes < 2:
        yield from sweep.run()
        return
    sweep.mend()
    total = sum(cell.cost for cell in left)
    yield Progress("", 0.0, total, f"{len(left)} cells to do, {processes} processes")
    yield from _shared_out(sweep, recipes, processes, total)
    yield from sweep.share(total)
    yield Progress("", total, total, "done")


def _shared_out(sweep: Sweep, recipes: list[str], processes: int, total: float) -> Iterator[Progress]:
    context = multiprocessing.get_context("spawn")
    work, said = context.Queue(), context.Queue()
    for text in recipes:
        work.put(text)
    root = str(sweep.store.root)
    threads = max(1, (os.cpu_count() or 1) // processes)
    team = [
        context.Process(target=_work, args=(request, root, threads, work, said), daemon=True)
        for request in requests_for(sweep.request, processes)
    ]
    for process in team:
        process.start()
    try:
        yield from _collected(said, team, len(recipes), total)
    finally:
        for process in team:
            process.terminate()
            process.join()


def _collected(said: Any, team: Sequence[BaseProcess], recipes: int, total: float) -> Iterator[Progress]:
    done: dict[str, float] = {}
    finished = 0
    while finished < recipes:
        try:
            kind, recipe, content = said.get(timeout=_POLL)
        except queue.Empty:
            if gone := [p for p in team if p.exitcode not in (None, 0)]:
                status = gone[0].exitcode
                raise KickError(f"a worker process ended with status {status}; run the command again") from None
            continue
        if kind == "error":
            raise content
        progress: Progress = content
        done[recipe] = progress.done
        finished += kind == "finished"
        told = progress.message if progress.block is not None else ""
        yield replace(progress, done=min(sum(done.values()), total), total=total, message=told)


def _work(request: dict[str, Any], root: str, threads: int, work: Any, said: Any) -> None:
    import torch

    torch.set_num_threads(threads)
    store: Store = open_store(root)
    try:
        sweep = Sweep(Request.from_json(request), store)
        while True:
            try:
                text = work.get(timeout=_POLL)
            except queue.Empty:
                return
            last = Progress("", 0.0, 0.0)
            for last in sweep.run(parse(text)):
                said.put(("progress", text, last))
            said.put(("finished", text, last))
    except KickError as error:
        said.put(("error", "", error))
    except KeyboardInterrupt:
        return
