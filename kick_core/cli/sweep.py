"""`kick sweep`, and `kick sweep --plan`: what it would cost. A plan of what is done already needs no torch."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from kick_core.cli import printing
from kick_core.cli.requests import sweep_request
from kick_core.errors import BadRequest
from kick_core.store import Store, open_store
from kick_core.sweeps import experiments
from kick_core.sweeps.cost import Line, SweepCost, forecast
from kick_core.sweeps.request import PRESETS, Request


def sweep(given: Namespace) -> int:
    """`kick sweep MODEL --preset demo` or `--recipe R --task T`; with `--plan` nothing is done."""
    from kick_core.cli import jobs

    if given.attach or given.stop:
        return jobs.attach(given) if given.attach else jobs.stop(given)
    if given.model is None:
        raise BadRequest("kick sweep needs a MODEL (pocket, a folder, a hub id), or a job: --attach ID, --stop ID")
    if given.gpus_per_task is not None and not given.ray:
        raise BadRequest("--gpus-per-task is for clusters: add --ray auto or --ray HOST:PORT")
    if given.preset in experiments.NAMES and given.preset not in PRESETS:
        if given.ray:
            raise BadRequest(f"preset {given.preset} is several sweeps, and --ray runs one: name recipes and tasks")
        if given.engine != "kick" or given.device_map:
            raise BadRequest(f"--preset {given.preset} is an experiment of several sweeps: it asks the open model only")
        from kick_core.cli import reproduce as comparing

        return comparing.reproduce(Namespace(**vars(given), name=given.preset, small=None, models=[given.model]))
    if given.plan:
        return plan(given)
    if given.ray:
        return jobs.start(given)
    from kick_core.cli import measure

    run: Callable[[Namespace], int] = measure.sweep
    return run(given)


def plan(given: Namespace) -> int:
    """`kick sweep … --plan`"""
    return tell((sweep_request(given),), open_store(given.cache), as_json=given.json)


def tell(requests: Sequence[Request], store: Store, *, as_json: bool) -> int:
    """Print what sweeps would cost: as one document, or a table each."""
    found = [forecast(request, store) for request in requests]
    if as_json:
        documents = [_document(one) for one in found]
        printing.document(documents[0] if len(documents) == 1 else {"plans": documents})
        return 0
    for request, one in zip(requests, found, strict=True):
        if len(requests) > 1:
            print(f"{one.model}, {request.calibration.most_windows} calibration windows")
        _print(one)
    print("Examples come in a fixed random order: a sweep that is stopped is an unbiased estimate; it goes on later.")
    return 0


def _print(found: SweepCost) -> None:
    printing.table(_HEADER, [_row(line) for line in by_recipe(found)])
    left = [line for line in found.lines if not line.cached]
    print(
        f"{len(found.lines)} cells, {len(found.lines) - len(left)} done already; left: "
        f"{found.sum('tokens'):,.0f} tokens, {found.sum('flops'):.2g} FLOPs, {printing.size(found.sum('bytes'))} "
        f"({printing.size(found.free)} free), {_minutes(found)}"
    )


def by_recipe(found: SweepCost) -> list[Line]:
    """For people: the tasks of a recipe that are done already in one line."""
    lines: list[Line] = []
    for line in found.lines:
        last = lines[-1] if lines else None
        if last and line.cached and last.cached and (line.recipe, line.work) == (last.recipe, last.work):
            lines[-1] = replace(last, task=f"{last.task}, {line.task}", total=last.total + line.total)
        else:
            lines.append(line)
    return lines


_HEADER = ("recipe", "work", "task", "of", "left", "tokens", "FLOPs", "bytes", "time")


def _row(line: Line) -> tuple[str, ...]:
    if line.cached:
        return (line.recipe, line.work, line.task or "–", f"{line.total:,}", "0", "–", "–", "–", "done")
    return (
        line.recipe,
        line.work,
        line.task or "–",
        f"{line.total:,}",
        f"{line.left:,}",
        f"{line.tokens:,.0f}",
        f"{line.flops:.2g}",
        printing.size(line.bytes),
        "no rate measured yet" if math.isnan(line.seconds) else _time(line.seconds),
    )


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:,.0f} min"


def _minutes(found: SweepCost) -> str:
    if not any(line.left for line in found.lines):
        return "no time"
    said = f"about {_time(found.sum('seconds'))} in one process, by rates measured here"
    if found.unmeasured == sum(not line.cached for line in found.lines):
        return "no rate measured yet"
    return said + (f", and {found.unmeasured} cells with no rate measured yet" if found.unmeasured else "")


def _document(found: SweepCost) -> dict[str, Any]:
    sums = {name: found.sum(name) for name in ("tokens", "flops", "bytes", "seconds")}
    return {
        "model": found.model,
        "fingerprint": found.fingerprint,
        "opened": found.opened,
        "cells": len(found.lines),
        "cached": sum(line.cached for line in found.lines),
        "unmeasured": found.unmeasured,
        "left": sums,
        "free_bytes": found.free,
        "plan": [asdict(line) | {"cached": line.cached} for line in found.lines],
    }
