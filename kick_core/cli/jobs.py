"""Sweeps that are jobs: started on a cluster, looked at from any terminal, stopped. Needs neither torch nor Ray."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from kick_core import jobs
from kick_core.cli import printing
from kick_core.cli.requests import sweep_request
from kick_core.errors import BadRequest, KickError
from kick_core.jobs import ray_cluster
from kick_core.records import Progress
from kick_core.store import Store, open_store
from kick_core.sweeps import grid, known_keys
from kick_core.sweeps.request import Request

_TICK = 0.3


def start(given: Namespace) -> int:
    """`kick sweep MODEL … --ray ADDRESS`: start the job, or join it, and show it until it ends."""
    ray_cluster.joining.available()
    store = open_store(given.cache)
    wanted = ray_cluster.spread(sweep_request(given), given.ray, given.workers, given.gpus_per_task or 1)
    known = ray_cluster.planned(wanted, store)
    if known is not None:
        print("kick: everything is done already; no cluster was needed", file=sys.stderr)
        return _report(wanted.request, known, store, given.json)
    return _follow(store, jobs.start(store, wanted).id, given.json)


def attach(given: Namespace) -> int:
    """`kick sweep --attach ID`: a job's progress, whoever started it. One that lost its process goes on."""
    store = open_store(given.cache)
    found = named(store, given.attach)
    if found.state == "lost":
        print("kick: its process is gone; started again, it goes on where it was", file=sys.stderr)
        found = jobs.again(store, found.id)
    return _follow(store, found.id, given.json)


def stop(given: Namespace) -> int:
    """`kick sweep --stop ID`"""
    store = open_store(given.cache)
    found = named(store, given.stop)
    if found.active:
        jobs.cancel(store, found.id)
    while found.active:
        time.sleep(_TICK)
        found = jobs.job(store, found.id)
    if given.json:
        printing.document({"job": found.id, "state": found.state})
    else:
        print(f"job {found.id}: {found.state}")
    return 0


def named(store: Store, text: str) -> jobs.Job:
    """The job of an id, or of the beginning or end of one. Raises BadRequest that lists the jobs there are."""
    there = jobs.jobs(store)
    found = [job for job in there if job.id == text] or [
        job for job in there if job.id.startswith(text) or job.id.endswith(text)
    ]
    if len(found) != 1:
        listed = "; ".join(f"{job.id} ({job.state}, {job.spec.get('model', '?')})" for job in there[:10]) or "none"
        word = "names several jobs" if found else "is no job"
        raise BadRequest(f"{printing.clean(text[:80])!r} {word} of {store.root}. Jobs: {printing.clean(listed)}")
    return found[0]


def _follow(store: Store, name: str, as_json: bool) -> int:
    """Show a job until it ends, then report. Ctrl-C leaves it running."""
    print(f"kick: job {name}; Ctrl-C leaves it running", file=sys.stderr)
    try:
        printing.bar(_states(store, name))
    except KeyboardInterrupt:
        print(
            f"\nkick: left; the job goes on. Back to it: kick sweep --attach {name}; end it: kick sweep --stop {name}",
            file=sys.stderr,
        )
        return 130
    found = jobs.job(store, name)
    if found.state in ("done", "failed") and "prompt" not in found.spec:
        _report_of(store, found, as_json)
    elif found.state == "done":
        _answers(found, as_json)
    if found.state == "failed":
        raise KickError(f"job {name} failed: {found.message}")
    if found.state != "done":
        raise KickError(f"job {name} is {found.state} ({found.message})")
    return 0


def _states(store: Store, name: str) -> Iterator[Progress]:
    while True:
        found = jobs.job(store, name)
        done, total = (found.share, 1.0) if found.total == 0 else (found.done, found.total)
        words = " · ".join(word for word in (found.message, found.where) if word)
        loss = found.losses[-1] if found.losses and found.active else None
        yield Progress(found.cell, done, total, words, found.block, found.blocks, loss)
        if not found.active:
            return
        time.sleep(_TICK)


def _report_of(store: Store, found: jobs.Job, as_json: bool) -> None:
    """What is there of a job's sweep; nothing when it failed before anybody knew its keys."""
    spec = {name: value for name, value in found.spec.items() if name != "cluster"}
    request = Request.from_json(spec)
    known = ray_cluster.keys_of(store, found.id) or known_keys.recall(store, request)
    if known is None and found.state == "done":
        known = known_keys.remember(store, grid.Sweep(request, store, plan_only=True))
    if known is not None:
        _report(request, known, store, as_json)


def _report(request: Request, known: dict[str, Any], store: Store, as_json: bool) -> int:
    from kick_core.cli import measure

    if not request.tasks:
        keys = [known["artifacts"][recipe.text] for recipe in request.parsed() if recipe.target]
        measure.artifacts_made(store, keys, as_json)
        return 0
    return measure.report(request, known, store, tuple(recipe.text for recipe in request.parsed()), as_json)


def _answers(found: jobs.Job, as_json: bool) -> None:
    if as_json:
        printing.document({"job": found.id, "answers": found.answers})
        return
    for recipe, answer in found.answers.items():
        print(f"{recipe}:\n{printing.clean_text(answer)}\n")
