"""Compressed weights: write-once folders of blocks.

    weights/ab/<key>/   card.json  manifest.json  block-0000.safetensors …

`staging` builds them. Artifacts whose masks are nested may share one file per block (see `nested_masks`): their
block-*.safetensors are hard links to it. The manifest still says what each of them was built with, so that a key stands
for the same bytes however they are stored.

A process that has applied an artifact to a model holds a shared lock on locks/<key>.use, which ends with the process; a
file `pinned` beside the card keeps the artifact too. `remove` respects both.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from filelock import Timeout

from kick_core.errors import KickError
from kick_core.records import Card
from kick_core.store import Store, fault_injection
from kick_core.store.files import (
    Damaged,
    replace_file,
)
from kick_core.store.locks import acquire, locked
from kick_core.store.manifests import block_name, faults, read_manifest, sums_of
from kick_core.store.nested_masks import bit_planes

CARDS = "cards"
"""The top folder for cards of artifacts whose weights are not here."""


def has(store: Store, key: str) -> bool:
    """Whether the artifact is there, complete."""
    return (store.folder("weights", key) / "card.json").exists()


def card(store: Store, key: str) -> Card:
    """The card of a complete artifact, or of one whose results came without its weights.

    Raises:
        Damaged: It is there, but cannot be read.
        KickError: There is no such artifact.
    """
    path = card_path(store, key)
    try:
        return Card.from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        raise KickError(f"no artifact {key!r} in {store.root}: `kick list` shows what is there") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"the card {path} is damaged ({error}): `kick verify` sets it aside") from error


def card_path(store: Store, key: str) -> Path:
    """Where an artifact's card is: beside its weights, or alone where a pack brought it without them."""
    path = store.folder("weights", key) / "card.json"
    return path if path.exists() else store.folder(CARDS, key) / "card.json"


def keep_foreign_card(store: Store, foreign: Card) -> None:
    """Keep the card of an artifact that was made and measured elsewhere; one that is there stays."""
    path = store.folder(CARDS, foreign.key) / "card.json"
    if not has(store, foreign.key) and not path.exists():
        replace_file(path, json.dumps(foreign.to_json(), indent=1).encode())


def cards(store: Store) -> list[Card]:
    """The cards of all complete artifacts that can be read; `kick verify` names the others."""
    readable = []
    for key in store.keys("weights"):
        with contextlib.suppress(KickError):  # damaged, or removed while we look
            if has(store, key):
                readable.append(card(store, key))
    return readable


def block_path(store: Store, key: str, block: int) -> Path:
    return store.folder("weights", key) / block_name(block)


def tensors(store: Store, key: str, block: int, framework: str, mask_of: str | None = None) -> dict[str, Any]:
    """The tensors of a block as the artifact was made, however its masks are stored.

    Args:
        store: The cache.
        key: The artifact.
        block: Its number, from 0.
        framework: "pt" for torch tensors, "np" for arrays.
        mask_of: Read no more than the mask of this linear.

    Raises:
        Damaged: The file is not what was written.
        FileNotFoundError: There is no such block.
    """
    return bit_planes.tensors(block_path(store, key, block), key, framework, mask_of)


def as_made(store: Store, key: str, block: int) -> bytes:
    """A block's file as it was built, checked against its sum in the manifest.

    Args:
        store: The cache.
        key: Of the artifact.
        block: Its number.

    Raises:
        Damaged: The file is not what was written.
        FileNotFoundError: There is no such block.
    """
    path = block_path(store, key, block)
    facts, data = read_manifest(path.parent)[path.name], path.read_bytes()
    if len(data) != facts["bytes"]:
        data = bit_planes.unfold(data, key)
    if sums_of(data) != facts:
        raise Damaged(f"{path} is damaged (its checksum differs): `kick verify --deep` sets it aside")
    return data


def sizes(store: Store) -> dict[str, float]:
    """Bytes that the blocks of every artifact take on disk; those that share a file take an equal part of it each.

    Args:
        store: The cache.
    """
    files: list[tuple[str, os.stat_result]] = []
    for key in store.keys("weights"):
        with contextlib.suppress(FileNotFoundError):  # removed while we look
            files += [(key, path.stat()) for path in store.folder("weights", key).glob("block-*.safetensors")]
    links = Counter((facts.st_dev, facts.st_ino) for _, facts in files)
    total: defaultdict[str, float] = defaultdict(float)
    for key, facts in files:
        total[key] += facts.st_size / links[facts.st_dev, facts.st_ino]
    return dict(total)


def verify(store: Store, key: str, *, deep: bool) -> list[str]:
    """What is wrong with an artifact, in words; empty when nothing is.

    Args:
        store: The cache.
        key: Of the artifact.
        deep: Read every byte, instead of sizes alone.
    """
    return [f"{key}: {fault}" for fault in faults(store.folder("weights", key), deep=deep)]


def quarantine(store: Store, key: str) -> Path:
    """Set a damaged artifact aside; it is built again on demand.

    Args:
        store: The cache.
        key: Of the artifact.

    Returns:
        Where it is now.
    """
    aside = store.root / "quarantine" / key
    aside.parent.mkdir(parents=True, exist_ok=True)
    with locked(store.lock_path(key)):  # not while its files are replaced by shared ones
        if aside.exists():
            shutil.rmtree(aside)
        os.rename(store.folder("weights", key), aside)
    return aside


# --- what must stay ----------------------------------------------------------------------------------------


def hold(store: Store, key: str) -> int | None:
    """Declare that this process needs an artifact: until the descriptor is closed, `remove` refuses.

    Returns:
        The descriptor, or None where no lock can be made (a read-only cache).
    """
    try:
        return acquire(_use(store, key), shared=True, wait=True)
    except (OSError, KickError):
        return None


def _use(store: Store, key: str) -> Path:
    return store.root / "locks" / f"{key}.use"


def pin(store: Store, key: str, on: bool = True) -> None:
    """Keep an artifact however much space is needed (`on`), or no longer."""
    mark = store.folder("weights", key) / "pinned"
    if on:
        replace_file(mark, b"")
    else:
        mark.unlink(missing_ok=True)


def pinned(store: Store, key: str) -> bool:
    return (store.folder("weights", key) / "pinned").exists()


def remove(store: Store, key: str) -> bool:
    """Delete an artifact; it can be made again from its recipe. Outputs are never removed with it.

    Returns:
        Whether it was removed: not when it is not there, pinned, being made, or applied by a process.
    """
    if pinned(store, key):
        return False
    folder = store.folder("weights", key)
    if (handle := acquire(_use(store, key))) is None:
        return False
    try:
        with locked(store.lock_path(key), timeout=0):
            if not folder.exists():
                return False
            removed = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
            os.rename(folder, removed)
            fault_injection.point("artifact gone")
            shutil.rmtree(removed)
            return True
    except Timeout:
        return False
    finally:
        os.close(handle)
