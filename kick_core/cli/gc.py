"""`kick gc`: make space. Outputs are never removed, nor an artifact that is pinned, in use or needed by a job."""

from __future__ import annotations

import os
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kick_core import jobs
from kick_core.cli import printing
from kick_core.cli.unfinished import databases, unless_busy
from kick_core.errors import BadRequest
from kick_core.store import Store, checkpoints, open_store, results, weight_artifacts
from kick_core.store.files import is_staged
from kick_core.store.nested_masks import sharing
from kick_core.units import bytes_text

_ABANDONED = 3600.0
"""Seconds after which something half written or half deleted belongs to nobody."""


def run(args: Namespace) -> int:
    """`kick gc`: outputs are never removed, nor an artifact that is pinned, in use or needed by a job.

    What stays takes as little space as it can: nested masks go into files that they share.
    """
    store = open_store(args.cache)
    removed = [f"unfinished {path.name}" for path in sorted((store.root / "staging").glob("*")) if _drop(store, path)]
    left = (*_left_over(store), *_sealed_live(store), *checkpoints.collect(store))
    removed += [f"left over {path.name}" for path in left]
    kept: list[str] = []
    saved = _share(store)
    if args.max_size is not None:
        if args.max_size < 0:
            raise BadRequest(f"--max-size {args.max_size}: a number of bytes from 0 on")
        gone, kept = _shrink(store, args.max_size)
        removed += gone
    if args.json:
        printing.document({"removed": removed, "kept": kept, "saved": saved})
    else:
        print("\n".join(removed) if removed else "nothing to remove")
        if saved:
            print(f"{bytes_text(saved)} saved: nested masks share their files now")
        for line in kept:
            print(f"kept: {line}", file=sys.stderr)
    return 0


def _shrink(store: Store, size: int) -> tuple[list[str], list[str]]:
    """Remove the artifacts that are cheapest to remake until `size` is reached: what went, what had to stay."""
    removed: list[str] = []
    kept: dict[str, str] = {}
    while gone := _remove(store, size, kept):
        removed += gone
        _share(store)  # what stays of a series takes more than its part of the shared files: look again
    return removed, list(kept.values())


def _share(store: Store) -> int:
    """Let nested masks share their files; how many bytes less artifacts take."""
    before = sum(weight_artifacts.sizes(store).values())
    for _ in sharing.share(store):
        pass
    return round(before - sum(weight_artifacts.sizes(store).values()))


def _remove(store: Store, size: int, kept: dict[str, str]) -> list[str]:
    """Remove until `size` is reached, by each one's part of shared files: what went. `kept` notes what has to stay."""
    removed, stored = [], weight_artifacts.sizes(store)
    cards = sorted(weight_artifacts.cards(store), key=lambda card: card.seconds / max(stored.get(card.key, 0), 1))
    needed = {text for job in jobs.jobs(store) if job.active for text in job.spec.get("recipes", ())}
    total = sum(stored.values())
    for card in cards:
        if round(total) <= size:
            break
        size_here = stored.get(card.key, 0)
        name = f"{card.recipe} of {card.model} ({bytes_text(size_here)})"
        if weight_artifacts.pinned(store, card.key):
            kept[card.key] = f"{name} is pinned"
        elif card.recipe in needed:
            kept[card.key] = f"{name} belongs to a job that is running"
        elif not weight_artifacts.remove(store, card.key):
            kept[card.key] = f"{name} is in use"
        else:
            removed.append(name)
            total -= size_here
            kept.pop(card.key, None)
    return removed


def _left_over(store: Store) -> Iterator[Path]:
    """Remove what killed processes had half written or half deleted, long enough ago to be sure of it."""
    for place, folders, names in os.walk(store.root):
        for path in (Path(place, name) for name in (*folders, *names)):
            with suppress(FileNotFoundError):  # others work on the same cache
                if is_staged(path) and time.time() - path.stat().st_mtime > _ABANDONED:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                    yield path


def _sealed_live(store: Store) -> Iterator[Path]:
    """Remove databases of runs that were killed after their last seal."""
    for path in databases(store):
        if unless_busy(store, path, lambda key: results.drop_live(store, key), False):
            yield path


def _drop(store: Store, staged: Path) -> bool:
    def gone(key: str) -> bool:
        there = staged.exists()
        if there:
            shutil.rmtree(staged)
        return there

    return unless_busy(store, staged, gone, False)
