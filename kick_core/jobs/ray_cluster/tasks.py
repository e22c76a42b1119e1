"""The work on a node of a cluster: cells of an open sweep, with news in small pieces.

Every failure that would repeat itself comes back as text, so that nothing but plain JSON values crosses between nodes;
a process that dies cannot say anything, and its silence is what is tried again.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kick_core import provenance
from kick_core.errors import KickError
from kick_core.jobs.ray_cluster.joining import own_folder
from kick_core.store import Store, open_store
from kick_core.sweeps.cells import Cell
from kick_core.sweeps.request import SweepJob

News = dict[str, Any]


def work(order: Mapping[str, Any]) -> Iterator[News]:
    """Do cells.

    Args:
        order: The sweep, its cells and its cache, as `driver` writes them.

    Yields:
        {"at": …}, a {"step": …} for all that is done, then {"done": True} or {"failed": …}.
    """
    yield from _reported(order, _run(order))


def plan(order: Mapping[str, Any]) -> Iterator[News]:
    """Compute the keys of a sweep, as only a node with its devices can.

    Args:
        order: As for `work`, without cells.

    Yields:
        {"at": …}, {"keys": …}, then {"done": True} or {"failed": …}.
    """
    yield from _reported(order, _planned(order))


def _reported(order: Mapping[str, Any], steps: Iterator[News]) -> Iterator[News]:
    import ray

    context = ray.get_runtime_context()
    os.environ["OMP_NUM_THREADS"] = str(order["cores"])  # for libraries that are loaded from here on
    yield {"at": {"node": context.get_node_id(), "host": provenance.host()}}
    try:
        yield from steps
        yield {"done": True}
    except KickError as error:
        yield {"failed": str(error), "trace": ""}
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        yield {"failed": f"{type(error).__name__}: {first}", "trace": traceback.format_exc()}


def _planned(order: Mapping[str, Any]) -> Iterator[News]:
    store = _store(order)
    from kick_core.sweeps import grid, sweep_keys

    sweep = grid.open_sweep(SweepJob.from_json(order["sweep"]), store, plan_only=True)
    yield {"keys": sweep_keys.remember(store, sweep).to_json()}


def _run(order: Mapping[str, Any]) -> Iterator[News]:
    store = _store(order)
    import torch

    from kick_core.sweeps import grid

    torch.set_num_threads(order["cores"])
    sweep = grid.open_sweep(SweepJob.from_json(order["sweep"]), store)
    for step in sweep.run([Cell(**values) for values in order["cells"]]):
        yield {"step": asdict(step)}


def _store(order: Mapping[str, Any]) -> Store:
    """The shared cache. Raises KickError when this node is not like the driver's, or does not mount it."""
    host, required, installed = provenance.host(), order["versions"], provenance.versions()
    if different := [
        f"{name} {installed.get(name, 'missing')}"
        for name, expected in required.items()
        if installed.get(name) != expected
    ]:
        expected = ", ".join(f"{name} {required[name]}" for name in required if installed.get(name) != required[name])
        raise KickError(
            f"the node {host} has {', '.join(different)} where the driver has {expected}: install the same everywhere, "
            f"or one sweep would mix results of different programs"
        )
    root = Path(order["root"])
    if not (root / "jobs" / order["job"] / "spec.json").exists():
        raise KickError(
            f"the node {host} does not see the cache {root}: put it on a disk that all nodes share (--cache)"
        )
    if not order["local"]:
        os.environ.setdefault("KICK_LOCAL_CACHE", str(_local(root)))
    return open_store(root)


def _local(root: Path) -> Path:
    """Where this node keeps the outputs of unfinished runs of a shared cache: SQLite is not for network disks."""
    name = hashlib.sha256(str(root).encode()).hexdigest()[:12]
    return own_folder(Path(tempfile.gettempdir()) / f"kick-live-{os.getuid()}-{name}")
