"""The commands over what is there already: list, show, verify, gc, score, doctor, app. None needs torch."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from filelock import Timeout

from kick_core import jobs
from kick_core.cli import printing
from kick_core.errors import BadRequest, KickError, nearest
from kick_core.records import RunCard
from kick_core.store import Store, checkpoints, checks, fidelity, judgments, open_store, results, weight_artifacts
from kick_core.store.files import free_bytes, is_staged, locked, replace_file
from kick_core.store.nested_masks import sharing

Found = TypeVar("Found")

_ABANDONED = 3600.0
"""Seconds after which something half written or half deleted belongs to nobody."""


def list_all(given: Namespace) -> int:
    """`kick list`"""
    store = open_store(given.cache)
    cards, stored = weight_artifacts.cards(store), weight_artifacts.sizes(store)
    runs = [(card, results.measured(store, card.key)) for card in results.runs(store)]
    if given.json:
        made = [
            {
                "key": card.key,
                "model": card.model,
                "recipe": card.recipe,
                "bytes": round(stored.get(card.key, 0)),
                "dense_bytes": card.dense_bytes,
                "bits_per_weight": printing.bits(card, stored),
                "sparsity": card.sparsity,
                "created": card.created,
                "pinned": weight_artifacts.pinned(store, card.key),
            }
            for card in cards
        ]
        asked = [card.to_json() | {"n": n} for card, n in runs]
        printing.document({"cache": str(store.root), "artifacts": made, "runs": asked})
        return 0
    print(f"{store.root}: {len(cards)} artifacts, {len(runs)} runs")
    printing.table(
        ("artifact", "model", "recipe", "bits/weight", "on disk", "dense copy"),
        (
            (c.key[:20] + (" (pinned)" if weight_artifacts.pinned(store, c.key) else ""), c.model, c.recipe,
             f"{printing.bits(c, stored):.2f}", printing.size(stored.get(c.key, 0)), printing.size(c.dense_bytes))
            for c in cards
        ),
    )  # fmt: skip
    printing.table(
        ("run", "model", "recipe", "task", "n", "of"),
        ((c.key[:16], c.model, _asked(c), c.task, str(n), str(c.total)) for c, n in runs),
    )
    return 0


def _asked(card: RunCard) -> str:
    """The recipe, marked where it was asked again for the evaluator's noise."""
    return f"{card.recipe} (noise floor)" if "again" in card.settings else card.recipe


def _matching(store: Store, prefix: str) -> tuple[str, str]:
    """The room and whole key that a prefix means. Raises BadRequest when it means none or several."""
    found = [
        (room, key)
        for room in ("weights", "results", "judgments")
        for key in store.keys(room)
        if key.startswith(prefix)
    ]
    if len(found) != 1:
        what = "no key begins" if not found else f"{len(found)} keys begin"
        raise BadRequest(f"{what} with {prefix[:60]!r} in {store.root}: `kick list` shows the keys")
    return found[0]


def show(given: Namespace) -> int:
    """`kick show KEY`: one document in either form, it is for reading whole; a judging with all that was said."""
    store = open_store(given.cache)
    room, key = _matching(store, given.key)
    if room == "weights":
        card = weight_artifacts.card(store, key)
        told = {"bits_per_weight": card.bits_per_weight, "sparsity": card.sparsity}
        printing.document(card.to_json() | told | {"stored_bytes": round(weight_artifacts.sizes(store).get(key, 0))})
    elif room == "judgments":
        from kick_core import views

        said = [asdict(one) for one in views.said(store, key)]
        printing.document(judgments.card(store, key).to_json() | {"said": said})
    else:
        printing.document(results.run(store, key).to_json() | {"n": results.measured(store, key)})
    return 0


def verify(given: Namespace) -> int:
    """`kick verify [--deep]`: exit status 1 when anything is damaged."""
    store = open_store(given.cache)
    faults = [*_damaged_weights(store, given.deep), *_damaged_results(store, given.deep)]
    faults += _damaged_rest(store, given.deep)
    if given.json:
        printing.document({"faults": faults})
    else:
        for fault in faults:
            print(fault)
        if not faults:
            print(f"{store.root}: no damage found" + ("" if given.deep else " (sizes only; --deep reads every byte)"))
    return 1 if faults else 0


def _damaged_weights(store: Store, deep: bool) -> Iterator[str]:
    for key in store.keys("weights"):
        found = weight_artifacts.verify(store, key, deep=deep)
        if found and store.folder("weights", key).exists():  # else it was removed while we looked
            yield from found
            yield f"{key}: set aside in {weight_artifacts.quarantine(store, key)}; it is made again on demand"


def _damaged_results(store: Store, deep: bool) -> Iterator[str]:
    for key in store.keys("results"):
        if found := results.verify(store, key, deep=deep):
            yield from (*found, *results.set_damage_aside(store, key))


def _damaged_rest(store: Store, deep: bool) -> Iterator[str]:
    """What other rooms hold, jobs, the memo of fingerprints, staged blocks, databases that no process has open."""
    rooms = ("examples", fidelity.ROOM, *judgments.ROOMS)
    folders = [path for room in rooms for path in (store.root / room).glob("??/*")]
    for folder in (*folders, *(store.root / "jobs").glob("*"), store.root):
        yield from checks.set_damage_aside(store, folder, deep=deep)
    nothing: list[str] = []
    for path in sorted((store.root / "staging").glob("*")):
        found = _unless_busy(store, path, lambda key: weight_artifacts.Stage(store, key).faults(), nothing)
        yield from (f"{path.name}: {fault}; it is made again from there" for fault in found)
    for path in _live(store):
        found = _unless_busy(store, path, lambda key: checks.database_faults(store.live(key), deep=deep), nothing)
        yield from (f"{path.name}: {fault}; asked again on demand" for fault in found)


def _live(store: Store) -> list[Path]:
    return sorted(file.parent for file in store.live("x").parent.glob("*/cache.db"))


def _unless_busy(store: Store, path: Path, do: Callable[[str], Found], otherwise: Found) -> Found:
    """What comes of doing something with what is unfinished, under its lock; `otherwise` while a process has that."""
    try:
        with locked(store.lock_path(path.name), timeout=0):
            return do(path.name)
    except Timeout:
        return otherwise


def collect(given: Namespace) -> int:
    """`kick gc`: outputs are never removed, nor an artifact that is pinned, in use or wanted by a job.

    What stays takes as little room as it can: nested masks go into files that they share.
    """
    store = open_store(given.cache)
    removed = [f"unfinished {path.name}" for path in sorted((store.root / "staging").glob("*")) if _drop(store, path)]
    left = (*_left_over(store), *_sealed_live(store), *checkpoints.collect(store))
    removed += [f"left over {path.name}" for path in left]
    kept: list[str] = []
    saved = _share(store)
    if given.max_size is not None:
        if given.max_size < 0:
            raise BadRequest(f"--max-size {given.max_size}: a number of bytes from 0 on")
        gone, kept = _shrink(store, given.max_size)
        removed += gone
    if given.json:
        printing.document({"removed": removed, "kept": kept, "saved": saved})
    else:
        print("\n".join(removed) if removed else "nothing to remove")
        if saved:
            print(f"{printing.size(saved)} saved: nested masks share their files now")
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
    wanted = {text for job in jobs.jobs(store) if job.active for text in job.spec.get("recipes", ())}
    total = sum(stored.values())
    for card in cards:
        if round(total) <= size:
            break
        mine = stored.get(card.key, 0)
        name = f"{card.recipe} of {card.model} ({printing.size(mine)})"
        if weight_artifacts.pinned(store, card.key):
            kept[card.key] = f"{name} is pinned"
        elif card.recipe in wanted:
            kept[card.key] = f"{name} belongs to a job that is running"
        elif not weight_artifacts.remove(store, card.key):
            kept[card.key] = f"{name} is in use"
        else:
            removed.append(name)
            total -= mine
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
    for path in _live(store):
        if _unless_busy(store, path, lambda key: results.drop_live(store, key), False):
            yield path


def _drop(store: Store, staged: Path) -> bool:
    def gone(key: str) -> bool:
        there = staged.exists()
        if there:
            shutil.rmtree(staged)
        return there

    return _unless_busy(store, staged, gone, False)


def pin(given: Namespace) -> int:
    """`kick pin KEY [--off]`: whatever room is needed, `kick gc` leaves this artifact alone."""
    store = open_store(given.cache)
    room, key = _matching(store, given.key)
    if room != "weights":
        raise BadRequest(f"{key} is a run: outputs are never removed, so there is nothing to pin")
    weight_artifacts.pin(store, key, not given.off)
    if given.json:
        printing.document({"key": key, "pinned": not given.off})
    else:
        print(f"{key}: {'no longer pinned' if given.off else 'pinned'}")
    return 0


def score(given: Namespace) -> int:
    """`kick score`: new verdicts from old outputs."""
    from kick_core.tasks.verdicts import score as score_run

    store = open_store(given.cache)
    keys = [card.key for card in results.runs(store)]
    counts = {key: len(score_run(store, key)) for key in keys}
    if given.json:
        printing.document({"verdicts": counts})
    else:
        print(f"{sum(counts.values())} verdicts on {len(counts)} runs")
    return 0


def report(given: Namespace) -> int:
    """`kick report FILE.html`"""
    from kick_core import views

    store, file = open_store(given.cache), Path(given.file)
    measured = views.scores(store)
    known = list(measured["model"].value_counts().index)
    if not known:
        raise KickError(f"nothing is measured in {store.root}: `kick sweep pocket --preset demo` fills it")
    if given.model is not None and given.model not in known:
        raise nearest(given.model, known, "measured model")
    if file.suffix != ".html":
        raise BadRequest(f"{file} does not end in .html: the report is one HTML file")
    model = given.model or known[0]
    kinds, protocols = views.data_kinds(measured, model), views.protocols(measured, model)
    data = kinds[0] if given.data is None else views.kind_of_data(given.data)
    if data not in kinds:
        raise BadRequest(f"{model} was not asked on data {given.data!r}: it was asked on {' and '.join(kinds)}")
    protocol = given.protocol or protocols[0]
    if protocol not in protocols:
        raise BadRequest(f"{model} was not asked under protocol {protocol!r}: only {' and '.join(protocols)}")
    page = views.report(store, model, protocol, data).encode()
    replace_file(file.resolve(), page)
    if given.json:
        about = {"file": str(file), "bytes": len(page), "model": model, "protocol": protocol, "data": data}
        printing.document(about)
    else:
        print(f"{file}: {printing.size(len(page))}")
    return 0


def doctor(given: Namespace) -> int:
    """`kick doctor`"""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    for name in ("torch", "transformers", "streamlit", "datasets", "gptqmodel", "compressed-tensors", "openai", "ray"):
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    try:
        import torch

        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["cuda"] = ", ".join(devices) or "none"
    except ImportError:
        facts["cuda"] = "torch is not installed"
    try:
        store = open_store(given.cache)
        facts["cache"] = f"{store.root}, {printing.size(free_bytes(store.root))} free"
    except KickError as error:
        facts["cache"] = str(error)
    if given.json:
        printing.document(facts)
    else:
        for name, fact in facts.items():
            print(f"{name:20}{fact}")
    return 0
