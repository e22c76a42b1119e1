"""One sweep on a Ray cluster: the same idempotent cells as on one machine, a Ray task a recipe, on one shared cache.

What goes over the wire is texts and small numbers: a task gets the sweep's request and hands back where it is. Weights
and outputs go to the cache, which lies on a disk that all nodes see (write-once files; SQLite stays on each node).
What is done already is planned away, so a sweep that is done starts no Ray. A worker that dies is replaced, on the
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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from kick_core import jobs, methods, provenance
from kick_core import tasks as catalogue
from kick_core.errors import BadRequest, KickError
from kick_core.jobs.ray_cluster import joining, tasks
from kick_core.jobs.ray_cluster.joining import LOCAL, Cluster
from kick_core.records import Progress
from kick_core.store import Store, results
from kick_core.store.files import replace_file
from kick_core.sweeps import cost, known_keys
from kick_core.sweeps.request import Request
from kick_core.tasks.verdicts import score

RETRIES = 3
"""How often a recipe is begun again after its worker died."""
_POLL = 1.0
"""Seconds without news after which the driver says that it lives."""

_TELL = 0.2
"""Seconds between two reports of the driver, however many tasks speak."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Spread:
    """A sweep, and the cluster that it runs on: what a job's spec.json holds.

    `address` is HOST:PORT, or `local` for a cluster of this machine alone that ends with the sweep. `workers` is how
    many tasks run at once (None: as many as there is room for), `gpus` how many GPUs each gets.
    """

    request: Request
    address: str = LOCAL
    workers: int | None = None
    gpus: int = 1

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise BadRequest(f"--workers {self.workers}: at least 1")
        if self.gpus < 1:
            raise BadRequest(f"--gpus-per-task {self.gpus}: at least 1 (on a cluster without GPUs none is taken)")
        if self.request.device not in ("auto", "all", "cpu", "cuda"):
            raise BadRequest(f"--device {self.request.device} with --ray: auto, cpu or cuda; Ray deals out single GPUs")
        joining.check(self.address)

    def to_json(self) -> dict[str, Any]:
        about = {"address": self.address, "workers": self.workers, "gpus": self.gpus}
        return {**self.request.to_json(), "cluster": about}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        given = dict(data)
        about = given.pop("cluster")
        return cls(Request.from_json(given), **about)


def spread(request: Request, asked: str, workers: int | None = None, gpus: int = 1) -> Spread:
    """The sweep on the cluster that `--ray` names. `auto` is the one in RAY_ADDRESS, else one of this machine.

    Raises BadRequest for what no cluster could do.
    """
    request.parsed()
    catalogue.protocol_of(request.protocol)
    for name in request.tasks:
        catalogue.get(name, request.data)
    return Spread(request, joining.address(asked), workers, gpus)


def planned(spread: Spread, store: Store) -> dict[str, Any] | None:
    """The sweep's keys, when everything in it is done already; needs neither Ray nor torch. None when something is
    left, or nobody knows: which keys a cluster of others has follows from its devices."""
    request = spread.request
    if request.device in ("auto", "all"):
        if spread.address != LOCAL:
            return None
        request = replace(request, device=known_keys.device("auto"))
    known = known_keys.recall(store, request)
    return known if known is not None and not left(request, store, known) else None


def left(request: Request, store: Store, known: dict[str, Any]) -> list[str]:
    """The recipes with something left to do. Verdicts that a killed process did not come to are derived on the way."""
    cells = [line.recipe for line in cost.lines(request, store, known) if not line.cached]
    return list(dict.fromkeys([*cells, *_not_scored(request, store, known)]))


def _not_scored(request: Request, store: Store, known: dict[str, Any]) -> Iterator[str]:
    """Score sealed runs that have no verdicts; yields the recipes of those whose card or questions must be mended by
    who has the model open."""
    for name in request.tasks:
        version = catalogue.get(name, request.data).version
        for recipe in request.parsed():
            key = known["runs"][name][recipe.text]
            if results.measured(store, key) and results.verdict_file(store, key, version) is None:
                try:
                    score(store, key)
                except KickError:
                    yield recipe.text


def keys_of(store: Store, job: str) -> dict[str, Any] | None:
    """The keys of what a job on a cluster makes, as its driver noted them; None before it knew."""
    try:
        found: dict[str, Any] = json.loads(_note(store, job).read_text())
        return found
    except (OSError, ValueError):
        return None


def _note(store: Store, job: str) -> Path:
    return jobs.place(store, job) / "plan.json"


def run(spread: Spread, store: Store) -> Iterator[Progress]:
    """Do what is left of a sweep, yielding progress in recipes. Raises KickError naming what failed, at the end."""
    job = jobs.job_id(spread)
    done = planned(spread, store)
    if done is not None:
        _keep(store, job, done)
        yield Progress("", 1.0, 1.0, "everything is done already; no cluster was needed")
        return
    yield Progress("", 0.0, 1.0, f"joining {joining.called(spread.address)}")
    with joining.joined(spread.address, job, spread.workers) as cluster:
        request = replace(spread.request, device=cluster.device(spread.request.device, spread.gpus))
        team = _Team(cluster, spread, _order(request, store, job, spread, cluster))
        known = known_keys.recall(store, request)
        if known is None:
            yield from team.work([_Task(request.recipes, plan=True)])
            team.refuse_failures()
            known = team.known
        _keep(store, job, known)
        recipes = left(request, store, known)
        yield from team.work([_Task(group) for group in together(request, recipes)])
        team.refuse_failures()
        yield Progress("", 1.0, 1.0, "done", where=team.where())


def _keep(store: Store, job: str, known: dict[str, Any]) -> None:
    replace_file(_note(store, job), json.dumps(known, sort_keys=True).encode())


def _order(request: Request, store: Store, job: str, spread: Spread, cluster: Cluster) -> dict[str, Any]:
    """What every task is told."""
    return {
        "request": request.to_json(),
        "root": str(store.root.resolve()),
        "job": job,
        "local": spread.address == LOCAL,
        "cores": cluster.cores(request.device, spread.gpus, spread.workers),
        "versions": provenance.versions(),
    }


def together(request: Request, recipes: Sequence[str]) -> list[tuple[str, ...]]:
    """Which recipes make one task: one each, but with dense propagation all that look at data, made in one pass."""
    if request.calibration.propagate != "dense":
        return [(text,) for text in recipes]
    needs = {recipe.text: methods.needs(recipe) for recipe in request.parsed()}
    passed = tuple(text for text in recipes if needs[text] != "nothing")
    return ([passed] if passed else []) + [(text,) for text in recipes if needs[text] == "nothing"]


# --- handing out ---------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Task:
    """Recipes that one Ray task does, or the planning of them; where it runs and how far it is."""

    recipes: tuple[str, ...]
    plan: bool = False
    attempts: int = 0
    stream: Any = None
    node: str = ""
    host: str = ""
    share: float = 0.0
    ended: bool = False

    @property
    def text(self) -> str:
        return "planning" if self.plan else ", ".join(self.recipes)


@dataclass(slots=True)
class _Team:
    """The tasks of one sweep on one cluster."""

    cluster: Cluster
    spread: Spread
    order: dict[str, Any]
    known: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _running: list[_Task] = field(default_factory=list)

    def work(self, found: Sequence[_Task]) -> Iterator[Progress]:
        """Work tasks off, at most `workers` at once; yields at least every second."""
        waiting = deque(found)
        most = self.spread.workers or len(found)
        last, told_at = Progress("", 0.0, 1.0), 0.0
        while waiting or self._running:
            while waiting and len(self._running) < most:
                self._begin(waiting.popleft())
            for task in self.cluster.news([task.stream for task in self._running], _POLL, self._running):
                told = self._listen(task)
                last = told or last
                if task.ended:
                    self._running.remove(task)
            if time.monotonic() - told_at < _TELL:
                continue
            told_at, done = time.monotonic(), sum(task.share for task in found if not task.plan) / len(found)
            yield replace(last, done=done, total=1.0, message=self._said(last), where=self.where())

    def _begin(self, task: _Task) -> None:
        order = {**self.order, "request": {**self.order["request"], "recipes": task.recipes}}
        gpus = self.spread.gpus if order["request"]["device"] == "cuda" else 0
        task.attempts, task.ended = task.attempts + 1, False
        task.stream = self.cluster.begin(tasks.plan if task.plan else tasks.work, order, gpus, task.node)
        if task not in self._running:
            self._running.append(task)

    def _listen(self, task: _Task) -> Progress | None:
        """Take in what a task says next."""
        try:
            said = self.cluster.next(task.stream)
        except joining.Died as error:
            if task.attempts <= RETRIES:
                log.warning("%s: %s; begun again, %d of %d", task.text, error, task.attempts, RETRIES)
                self._begin(task)
            else:
                self._fail(task, f"its worker died {task.attempts} times, last: {error}")
            return None
        match said:
            case {"at": {"node": node, "host": host}}:
                task.node, task.host = node, host
            case {"known": known}:
                self.known = known
            case {"failed": message, "trace": trace}:
                log.error("%s on %s: %s", task.text, task.host or "no node", trace or message)
                self._fail(task, message)
            case {"progress": progress}:
                found = Progress(**progress)
                task.share = max(task.share, found.done / found.total if found.total else 0.0)
                return found
            case {"done": _}:
                task.share, task.ended = 1.0, True
        return None

    def _fail(self, task: _Task, message: str) -> None:
        task.share, task.ended = 1.0, True
        self.failed |= dict.fromkeys(task.recipes, message)

    def _said(self, last: Progress) -> str:
        failed = f"{len(self.failed)} failed" if self.failed else ""
        starting = self._running and not any(task.host for task in self._running)
        waits = "waiting for room on the cluster" if starting else ""
        return ", ".join(word for word in (last.message if last.block is not None else "", waits, failed) if word)

    def where(self) -> str:
        """The machines at work, in words."""
        hosts = sorted({task.host for task in self._running if task.host})
        named = f" on {', '.join(hosts[:4])}{' …' if len(hosts) > 4 else ''}" if hosts else ""
        count = len([task for task in self._running if task.host])
        at = f": {count} task{'s' * (count != 1)}{named}" if count else ""
        return f"Ray, {self.cluster.address}{at}"

    def refuse_failures(self) -> None:
        """Raise KickError with everything that failed, each message once."""
        if not self.failed:
            return
        by_message: dict[str, list[str]] = {}
        for recipe, message in self.failed.items():
            by_message.setdefault(message, []).append(recipe)
        told = "; ".join(f"{', '.join(recipes)}: {message}" for message, recipes in by_message.items())
        count = len(self.order["request"]["recipes"])
        raise KickError(f"{len(self.failed)} of {count} recipes failed ({told}); everything else is done and kept")
