"""`kick verify`: looks for damage. Damaged files are set aside, and made again on demand."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator

from kick_core.cli import printing
from kick_core.cli.unfinished import databases, unless_busy
from kick_core.store import (
    Store,
    checks,
    fidelity,
    fingerprints,
    judgments,
    open_store,
    results,
    staging,
    weight_artifacts,
)


def run(args: Namespace) -> int:
    """`kick verify [--deep]`: exit status 1 when anything is damaged."""
    store = open_store(args.cache)
    faults = [*_damaged_weights(store, args.deep), *_damaged_results(store, args.deep)]
    faults += _damaged_rest(store, args.deep)
    if args.json:
        printing.document({"faults": faults})
    else:
        for fault in faults:
            print(fault)
        if not faults:
            print(f"{store.root}: no damage found" + ("" if args.deep else " (sizes only; --deep reads every byte)"))
    return 1 if faults else 0


def _damaged_weights(store: Store, deep: bool) -> Iterator[str]:
    for key in store.keys("weights"):
        faults = weight_artifacts.verify(store, key, deep=deep)
        if faults and store.folder("weights", key).exists():  # else it was removed while we looked
            yield from faults
            yield f"{key}: set aside in {weight_artifacts.quarantine(store, key)}; it is made again on demand"


def _damaged_results(store: Store, deep: bool) -> Iterator[str]:
    for key in store.keys("results"):
        if faults := results.verify(store, key, deep=deep):
            yield from (*faults, *results.set_damage_aside(store, key))


def _damaged_rest(store: Store, deep: bool) -> Iterator[str]:
    """Everything else: examples, comparisons, judgments, jobs, the memo of fingerprints (and, `deep`, the models' files
    that it stands for), staged blocks, databases that no process has open."""
    rooms = ("examples", fidelity.ROOM, *judgments.ROOMS)
    folders = [path for room in rooms for path in (store.root / room).glob("??/*")]
    for folder in (*folders, *(store.root / "jobs").glob("*"), store.root):
        yield from checks.set_damage_aside(store, folder, deep=deep)
    if deep:
        yield from fingerprints.faults(store)
    nothing: list[str] = []
    for path in sorted((store.root / "staging").glob("*")):
        faults = unless_busy(store, path, lambda key: staging.Stage(store, key).faults(), nothing)
        yield from (f"{path.name}: {fault}; it is made again from there" for fault in faults)
    for path in databases(store):
        faults = unless_busy(store, path, lambda key: checks.database_faults(store.live(key), deep=deep), nothing)
        yield from (f"{path.name}: {fault}; asked again on demand" for fault in faults)
