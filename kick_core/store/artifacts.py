"""Compressed weights: write-once folders, staged block by block, committed by one rename.

    weights/ab/<key>/   card.json  manifest.json  block-0000.safetensors …
    staging/<key>/      the same while it grows, and next-input-0003.safetensors (see below)

A killed run leaves its staging folder; the next one trusts the leading blocks that are whole and goes on. The
inputs of the next block are kept verbatim, because activations that are computed again are not the same
activations on every machine, and a chain of small differences is not small.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash
from filelock import FileLock

from kick_core.keys import canonical
from kick_core.records import BlockReport, Card, LayerReport
from kick_core.spec import KickError
from kick_core.store import Store
from kick_core.store.files import replace_file, sync_folder


def has(store: Store, key: str) -> bool:
    """Whether the artifact is there, complete."""
    return (store.folder("weights", key) / "card.json").exists()


def card(store: Store, key: str) -> Card:
    """The card of a complete artifact. Raises KickError when there is none."""
    path = store.folder("weights", key) / "card.json"
    try:
        return Card.from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        raise KickError(f"no artifact {key!r} in {store.root}: `kick list` shows what is there") from None
    except ValueError as error:
        raise KickError(f"the card {path} is damaged ({error}): `kick verify` sets it aside") from error


def cards(store: Store) -> list[Card]:
    """The cards of all complete artifacts."""
    return [card(store, key) for key in store.keys("weights") if has(store, key)]


def block_path(store: Store, key: str, block: int) -> Path:
    return store.folder("weights", key) / _block_name(block)


def _block_name(block: int) -> str:
    return f"block-{block:04d}.safetensors"


@dataclass(frozen=True, slots=True)
class Stage:
    """An artifact that is being made. Blocks are added in order; `seal` commits them all at once."""

    store: Store
    key: str

    @property
    def folder(self) -> Path:
        return self.store.root / "staging" / self.key

    def reports(self) -> list[BlockReport]:
        """The reports of the leading blocks that are whole, in order."""
        found: list[BlockReport] = []
        while (path := self.folder / f"block-{len(found):04d}.json").exists():
            data = json.loads(path.read_text())
            layers = tuple(LayerReport.from_json(layer) for layer in data.pop("layers"))
            found.append(BlockReport(**{**data, "layers": layers, "resumed": True}))
        return found

    def block_file(self, block: int) -> Path:
        return self.folder / _block_name(block)

    def next_input(self, block: int) -> Path | None:
        """The saved inputs of `block`, if they are there."""
        path = self.folder / f"next-input-{block:04d}.safetensors"
        return path if path.exists() else None

    def add(self, report: BlockReport, tensors: bytes, next_input: bytes | None) -> None:
        """Keep one finished block. Its report is written last: that is what makes the block whole."""
        if next_input is not None:
            replace_file(self.folder / f"next-input-{report.block + 1:04d}.safetensors", next_input)
        replace_file(self.block_file(report.block), tensors)
        replace_file(self.folder / f"block-{report.block:04d}.json", json.dumps(report.to_json()).encode())
        (self.folder / f"next-input-{report.block:04d}.safetensors").unlink(missing_ok=True)

    def bytes(self) -> int:
        """Bytes of all blocks so far."""
        return sum(path.stat().st_size for path in self.folder.glob("block-*.safetensors"))

    def seal(self, finished: Card) -> Card:
        """Commit: manifest and card, then one rename. Drops ours if a whole artifact is there already."""
        for path in self.folder.iterdir():
            if path.name.startswith((".", "next-input-")) or path.match("block-*.json"):
                path.unlink()
        files = {path.name: _sum(path) for path in sorted(self.folder.glob("block-*.safetensors"))}
        replace_file(self.folder / "card.json", json.dumps(finished.to_json(), indent=1).encode())
        files["card.json"] = _sum(self.folder / "card.json")
        replace_file(self.folder / "manifest.json", canonical({"files": files}).encode())
        final = self.store.folder("weights", self.key)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.rename(self.folder, final)
        except OSError:
            if not has(self.store, self.key):
                raise
            shutil.rmtree(self.folder)
        sync_folder(final.parent)
        return finished


@contextmanager
def stage(store: Store, key: str) -> Iterator[Stage | None]:
    """Take the right to make an artifact. Yields None when another process finished it meanwhile."""
    lock = store.lock_path(key)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        if has(store, key):
            yield None
        else:
            made = Stage(store, key)
            made.folder.mkdir(parents=True, exist_ok=True)
            yield made


def _sum(path: Path) -> dict[str, Any]:
    digest = xxhash.xxh3_128()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return {"bytes": path.stat().st_size, "xxh3_128": digest.hexdigest()}


def verify(store: Store, key: str, *, deep: bool) -> list[str]:
    """What is wrong with an artifact, in words; empty when nothing is. `deep` reads every byte."""
    folder = store.folder("weights", key)
    try:
        expected = json.loads((folder / "manifest.json").read_text())["files"]
    except (OSError, ValueError, KeyError) as error:
        return [f"{key}: the manifest cannot be read ({error})"]
    faults = []
    for name, facts in expected.items():
        path = folder / name
        if not path.exists():
            faults.append(f"{key}: {name} is missing")
        elif path.stat().st_size != facts["bytes"]:
            faults.append(f"{key}: {name} has {path.stat().st_size} bytes, {facts['bytes']} expected")
        elif deep and _sum(path) != facts:
            faults.append(f"{key}: {name} is damaged (its checksum differs)")
    return faults


def quarantine(store: Store, key: str) -> Path:
    """Set a damaged artifact aside; it is made again on demand."""
    aside = store.root / "quarantine" / key
    aside.parent.mkdir(parents=True, exist_ok=True)
    if aside.exists():
        shutil.rmtree(aside)
    os.rename(store.folder("weights", key), aside)
    return aside


def remove(store: Store, key: str) -> None:
    """Delete an artifact; it can be made again from its recipe. Outputs are never removed with it."""
    folder = store.folder("weights", key)
    doomed = folder.with_name(f".{folder.name}.gone")
    os.rename(folder, doomed)
    shutil.rmtree(doomed)
