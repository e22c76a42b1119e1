"""Compressed models written out as plain folders, for engines that read nothing else; there while they are asked.

    checkpoints/<key>.<8 digits>/   config.json  model*.safetensors  the tokenizer's files …

Each is one process's own, and goes when it is done with it: what it holds is in `weights/` already, in a fraction of
the bytes. A killed process leaves its folder, and `kick gc` removes those whose lock nobody holds.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import Timeout

from kick_core.store import Store
from kick_core.store.files import no_space_named
from kick_core.store.locks import locked

_ROOM = "checkpoints"


@contextmanager
def room(store: Store, key: str) -> Iterator[Path]:
    """An empty folder for the checkpoint of some weights; it is removed with all that it holds."""
    folder = store.root / _ROOM / f"{key}.{uuid.uuid4().hex[:8]}"
    with locked(store.lock_path(folder.name)):
        with no_space_named(folder, 0):
            folder.mkdir(parents=True)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def collect(store: Store) -> list[Path]:
    """Remove the folders of killed processes; those that are in use stay. Returns what went."""
    gone = []
    for folder in sorted((store.root / _ROOM).glob("*")):
        try:
            with locked(store.lock_path(folder.name), timeout=0):
                if folder.exists():
                    shutil.rmtree(folder)
                    gone.append(folder)
        except Timeout:
            continue
    return gone
