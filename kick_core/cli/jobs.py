"""Sweeps that are jobs: started on a cluster, looked at from any terminal, stopped. Needs neither torch nor Ray."""

from __future__ import annotations

import sys
import time
from argparse import Namespace
from collections.abc import Iterator

from kick_core import jobs
from kick_core.cli import printing
from kick_core.cli.requests import preset_job
from kick_core.errors import BadRequest, KickError
from kick_core.jobs import specs
from kick_core.jobs.ray_cluster import driver as cluster
from kick_core.jobs.ray_cluster import joining
from kick_core.records import Progress
from kick_core.store import Store, open_store
from kick_core.sweeps import grid, sweep_keys
from kick_core.sweeps.request import SweepJob
from kick_core.sweeps.sweep_keys import SweepKeys

_TICK = 0.3


def start(args: Namespace) -> int:
    """`kick sweep MODEL … --ray ADDRESS`: start the job, or join it, and show it until it ends."""
    joining.available()
    store = open_store(args.cache)
    job = cluster.cluster_job(preset_job(args), args.ray, args.workers, args.gpus_per_task or 1)
    keys = cluster.done_already(job, store)
    if keys is not None:
        print("kick: everything is done already; no cluster was needed", file=sys.stderr)
        _report(job.sweep, keys, store, args.json)
        return 0
    return _follow(store, jobs.start(store, job).id, args.json)


def attach(args: Namespace) -> int:
    """`kick sweep --attach ID`: a job's progress, whoever started it. One that lost its process goes on."""
    store = open_store(args.cache)
    job = named(store, args.attach)
    if job.state == "lost":
        print("kick: its process is gone; started again, it goes on where it was", file=sys.stderr)
        job = jobs.again(store, job.id)
    return _follow(store, job.id, args.json)


def stop(args: Namespace) -> int:
    """`kick sweep --stop ID`"""
    store = open_store(args.cache)
    job = named(store, args.stop)
    if job.active:
        jobs.cancel(store, job.id)
    while job.active:
        time.sleep(_TICK)
        job = jobs.job(store, job.id)
    if args.json:
        printing.document({"job": job.id, "state": job.state})
    else:
        print(f"job {job.id}: {job.state}")
    return 0


def named(store: Store, text: str) -> jobs.Job:
    """The job of an id, or of the beginning or end of one. Raises BadRequest that lists the jobs there are."""
    there = jobs.jobs(store)
    matches = [job for job in there if job.id == text] or [
        job for job in there if job.id.startswith(text) or job.id.endswith(text)
    ]
    if len(matches) != 1:
        listed = "; ".join(f"{job.id} ({job.state}, {job.spec.get('model', '?')})" for job in there[:10]) or "none"
        word = "names several jobs" if matches else "is no job"
        raise BadRequest(f"{printing.clean(text[:80])!r} {word} of {store.root}. Jobs: {printing.clean(listed)}")
    return matches[0]


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
    job = jobs.job(store, name)
    if job.state in ("done", "failed") and job.kind != "prompt":
        _report_of(store, job, as_json)
    elif job.state == "done":
        _answers(job, as_json)
    if job.state == "failed":
        raise KickError(f"job {name} failed: {job.message}")
    if job.state != "done":
        raise KickError(f"job {name} is {job.state} ({job.message})")
    return 0


def _states(store: Store, name: str) -> Iterator[Progress]:
    while True:
        job = jobs.job(store, name)
        done, total = (job.share, 1.0) if job.total == 0 else (job.done, job.total)
        words = " · ".join(word for word in (job.message, job.where) if word)
        loss = job.losses[-1] if job.losses and job.active else None
        yield Progress(job.cell, done, total, words, job.block, job.blocks, loss, remaining=job.remaining())
        if not job.active:
            return
        time.sleep(_TICK)


def _report_of(store: Store, job: jobs.Job, as_json: bool) -> None:
    """What is there of a job's sweep; nothing when it failed before anybody knew its keys."""
    spec = specs.read(job.spec)
    assert not isinstance(spec, specs.PromptJob)
    sweep = spec.sweep if isinstance(spec, specs.ClusterJob) else spec
    keys = cluster.keys_of(store, job.id) or sweep_keys.recall(store, sweep)
    if keys is None and job.state == "done":
        keys = sweep_keys.remember(store, grid.open_sweep(sweep, store, plan_only=True))
    if keys is not None:
        _report(sweep, keys, store, as_json)


def _report(job: SweepJob, keys: SweepKeys, store: Store, as_json: bool) -> None:
    from kick_core.cli import compress, score_tables

    if not job.tasks:
        compress.print_artifacts(store, compress.artifact_keys(job, keys), as_json)
    else:
        score_tables.print_scores(
            job, keys, store, tuple(recipe.text for recipe in job.parsed()), "json" if as_json else "table"
        )


def _answers(job: jobs.Job, as_json: bool) -> None:
    if as_json:
        printing.document({"job": job.id, "answers": job.answers})
        return
    for recipe, answer in job.answers.items():
        print(f"{recipe}:\n{printing.clean_text(answer)}\n")
