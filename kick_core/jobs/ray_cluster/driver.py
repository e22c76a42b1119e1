"""One sweep on a Ray cluster: the same idempotent cells as on one machine, a Ray task per recipe, on one shared cache.

What goes over the wire is texts and small numbers: a task gets the sweep's request and reports its progress. Weights
and outputs go to the cache, which is on a disk that all nodes mount (write-once files; SQLite stays on each node).
Cells that are done already are left out, so a sweep that is done starts no Ray. A worker that dies is replaced, on the
same node if that lives, where its unfinished outputs are; a block or a batch is repeated, no more. What would fail
again the same way is not tried again: the rest goes on, and the sweep ends by naming what failed.

The driver, whoever calls `run`, is a detached job (`kick_core.jobs`). When it dies its tasks stop at once, and
started again it goes on where they were.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from kick_core import jobs, provenance
from kick_core.errors import KickError
from kick_core.jobs.ray_cluster import joining, tasks
from kick_core.jobs.ray_cluster.joining import LOCAL, Cluster
from kick_core.jobs.specs import ClusterJob
from kick_core.records import Progress
from kick_core.store import Store
from kick_core.store.files import replace_file
from kick_core.sweeps import sweep_keys
from kick_core.sweeps.cells import Group, Step, cells, phases, unscored
from kick_core.sweeps.cost import Rates
from kick_core.sweeps.request import SweepJob
from kick_core.sweeps.sweep_keys import SweepKeys
from kick_core.sweeps.tracker import Tracker
from kick_core.units import count_text

RETRIES = 3
"""How often a recipe is started again after its worker died."""
_POLL = 1.0
"""Seconds without news after which the driver reports that it lives."""
_PAUSE = 0.2
"""Seconds between two reports of the driver, however many tasks speak."""

log = logging.getLogger(__name__)


def cluster_job(sweep: SweepJob, address: str, workers: int | None = None, gpus: int = 1) -> ClusterJob:
    """The sweep on the cluster that `--ray` names.

    Args:
        sweep: The sweep.
        address: HOST:PORT; `auto` is the cluster in RAY_ADDRESS, else one of this machine.
        workers: How many tasks run at once; None: as many as there are resources for.
        gpus: GPUs of each task.

    Raises:
        BadRequest: No cluster could do it.
    """
    sweep.check()
    return ClusterJob(sweep, joining.address(address), workers, gpus)


def done_already(job: ClusterJob, store: Store) -> SweepKeys | None:
    """The keys of a sweep in which everything is done; needs neither Ray nor torch.

    Args:
        job: The sweep and its cluster.
        store: The shared cache.

    Returns:
        None when something is left, or nobody knows: which keys a cluster of others has follows from its devices.
    """
    sweep = job.sweep
    if sweep.device in ("auto", "all"):
        if job.address != LOCAL:
            return None
        sweep = replace(sweep, device=sweep_keys.device("auto"))
    keys = sweep_keys.recall(store, sweep)
    return keys if keys is not None and not unfinished(sweep, keys, store) else None


def unfinished(job: SweepJob, keys: SweepKeys, store: Store) -> list[str]:
    """The recipes with something left to do.

    Args:
        job: The sweep.
        keys: Its keys.
        store: The shared cache.
    """
    open_cells = [cell.recipe for cell in cells(job, keys, store) if not cell.cached]
    return list(dict.fromkeys([*open_cells, *unscored(job, keys, store)]))


def keys_of(store: Store, job: str) -> SweepKeys | None:
    """The keys of what a job on a cluster computes, as its driver noted them; None before it knew.

    Args:
        store: The shared cache.
        job: The job's id.
    """
    try:
        return SweepKeys.from_json(json.loads(_note(store, job).read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _note(store: Store, job: str) -> Path:
    return jobs.place(store, job) / "plan.json"


def run(job: ClusterJob, store: Store) -> Iterator[Progress]:
    """Do what is left of a sweep on a cluster.

    Args:
        job: The sweep and its cluster.
        store: The shared cache.

    Yields:
        Progress, at least every second.

    Raises:
        KickError: At the end, naming everything that failed.
    """
    name = jobs.job_id(job)
    keys = done_already(job, store)
    if keys is not None:
        _keep(store, name, keys)
        yield Progress("", 1.0, 1.0, "everything is done already; no cluster was needed")
        return
    yield Progress("", 0.0, 1.0, f"joining {joining.described(job.address)}")
    with joining.joined(job.address, name, job.workers) as cluster:
        sweep = replace(job.sweep, device=cluster.device(job.sweep.device, job.gpus))
        team = _Team(cluster, job, _order(sweep, store, name, job, cluster))
        keys = sweep_keys.recall(store, sweep)
        if keys is None:
            yield from team.work([_Task((), sweep.recipes, plan=True)])
            team.refuse_failures()
            keys = team.keys
        assert keys is not None
        _keep(store, name, keys)
        rates = Rates(store, keys.model, job.workers or 1)
        listed = cells(sweep, keys, store)
        team.tracker = Tracker([cell for cell in listed if not cell.cached], keys, rates, job.workers or 1)
        priced = [(cell, team.tracker.seconds(cell)) for cell in listed]
        for phase in phases(sweep, priced, unscored(sweep, keys, store), halves=0):
            yield from team.work([_Task(group, tuple(dict.fromkeys(cell.recipe for cell in group))) for group in phase])
        team.refuse_failures()
        yield replace(team.tracker.finish(), where=team.where())


def _keep(store: Store, job: str, keys: SweepKeys) -> None:
    replace_file(_note(store, job), json.dumps(keys.to_json(), sort_keys=True).encode())


def _order(sweep: SweepJob, store: Store, name: str, job: ClusterJob, cluster: Cluster) -> dict[str, Any]:
    """What every task gets."""
    return {
        "sweep": sweep.to_json(),
        "root": str(store.root.resolve()),
        "job": name,
        "local": job.address == LOCAL,
        "cores": cluster.cores(sweep.device, job.gpus, job.workers),
        "versions": provenance.versions(),
    }


# --- handing out ---------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Task:
    """Cells that one Ray task does, or the planning of a sweep; where it runs, and whether it has ended."""

    cells: Group
    recipes: tuple[str, ...]
    plan: bool = False
    attempts: int = 0
    stream: Any = None
    node: str = ""
    host: str = ""
    ended: bool = False

    @property
    def text(self) -> str:
        return "planning" if self.plan else ", ".join(self.recipes)


@dataclass(slots=True)
class _Team:
    """The tasks of one sweep on one cluster."""

    cluster: Cluster
    job: ClusterJob
    order: dict[str, Any]
    tracker: Tracker | None = None
    keys: SweepKeys | None = None
    failed: dict[str, str] = field(default_factory=dict)
    _running: list[_Task] = field(default_factory=list)

    def work(self, queued: Sequence[_Task]) -> Iterator[Progress]:
        """Do tasks, at most `workers` at once; yields at least every second."""
        waiting = deque(queued)
        most = self.job.workers or len(queued)
        last, reported = Progress("", 0.0, 1.0), 0.0
        while waiting or self._running:
            while waiting and len(self._running) < most:
                self._begin(waiting.popleft())
            for task in self.cluster.news([task.stream for task in self._running], _POLL, self._running):
                last = self._listen(task) or last
                if task.ended:
                    self._running.remove(task)
            if time.monotonic() - reported >= _PAUSE:
                reported = time.monotonic()
                now = self.tracker.at() if self.tracker else last
                yield replace(
                    last, done=now.done, total=now.total, remaining=now.remaining, message=self._message(last),
                    where=self.where(),
                )  # fmt: skip

    def _begin(self, task: _Task) -> None:
        order = {**self.order, "cells": [cell.to_json() for cell in task.cells]}
        gpus = self.job.gpus if order["sweep"]["device"] == "cuda" else 0
        task.attempts, task.ended = task.attempts + 1, False
        task.stream = self.cluster.begin(tasks.plan if task.plan else tasks.work, order, gpus, task.node)
        if task not in self._running:
            self._running.append(task)

    def _listen(self, task: _Task) -> Progress | None:
        """Take in the next news of a task."""
        try:
            news = self.cluster.next(task.stream)
        except joining.Died as error:
            if task.attempts <= RETRIES:
                log.warning("%s: %s; started again, %d of %d", task.text, error, task.attempts, RETRIES)
                self._begin(task)
            else:
                self._fail(task, f"its worker died {task.attempts} times, last: {error}")
            return None
        match news:
            case {"at": {"node": node, "host": host}}:
                task.node, task.host = node, host
            case {"keys": keys}:
                self.keys = SweepKeys.from_json(keys)
            case {"failed": message, "trace": trace}:
                log.error("%s on %s: %s", task.text, task.host or "no node", trace or message)
                self._fail(task, message)
            case {"step": step} if self.tracker:
                return self.tracker.take(Step(**step))
            case {"done": _}:
                task.ended = True
        return None

    def _fail(self, task: _Task, message: str) -> None:
        task.ended = True
        self.failed |= dict.fromkeys(task.recipes, message)

    def _message(self, last: Progress) -> str:
        failed = f"{len(self.failed)} failed" if self.failed else ""
        starting = self._running and not any(task.host for task in self._running)
        waits = "waiting for free resources on the cluster" if starting else ""
        return ", ".join(word for word in (last.message if last.block is not None else "", waits, failed) if word)

    def where(self) -> str:
        """The machines at work, for people."""
        hosts = sorted({task.host for task in self._running if task.host})
        named = f" on {', '.join(hosts[:4])}{' …' if len(hosts) > 4 else ''}" if hosts else ""
        count = len([task for task in self._running if task.host])
        at = f": {count_text(count, 'task')}{named}" if count else ""
        return f"Ray, {self.cluster.address}{at}"

    def refuse_failures(self) -> None:
        """Raise KickError with everything that failed, each message once."""
        if not self.failed:
            return
        by_message: dict[str, list[str]] = {}
        for recipe, message in self.failed.items():
            by_message.setdefault(message, []).append(recipe)
        reasons = "; ".join(f"{', '.join(recipes)}: {message}" for message, recipes in by_message.items())
        count = len(self.job.sweep.recipes)
        share = f"{len(self.failed)} of {count_text(count, 'recipe')}"
        raise KickError(f"{share} failed ({reasons}); everything else is done and kept")
