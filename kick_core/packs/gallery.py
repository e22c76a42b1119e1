"""The gallery: packs that ship with the package, shown at once and read only, beside whatever the cache holds.

A pack is unpacked once per cache, into `gallery/<first digits of its SHA-256>/`, a cache of its own that only `views`
read: an explorer over an empty cache has something to show before anything is computed. `KICK_GALLERY` names another
folder with packs; empty, or 0, it switches the gallery off.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from kick_core.errors import KickError
from kick_core.packs import container
from kick_core.packs.container import SUFFIX, Header
from kick_core.packs.unpacking import unpack
from kick_core.store import Store, files, open_store
from kick_core.store.locks import locked

PACKED = Path(__file__).resolve().parent / "data"
ROOM = "gallery"
"""The folder of a cache that holds unpacked packs."""


def folder() -> Path | None:
    """The folder with the gallery's packs; None where it is switched off."""
    named = os.environ.get("KICK_GALLERY")
    if named is None:
        return PACKED
    return None if named in ("", "0") else Path(named).expanduser()


def packs() -> list[Path]:
    """The gallery's packs, in the order of their names."""
    place = folder()
    return sorted(place.glob(f"*{SUFFIX}")) if place else []


def with_gallery(store: Store, first: str | None = None) -> Store:
    """The same cache with the gallery beside it, unpacked where it is not yet.

    A pack that cannot be read or unpacked is left out: the gallery is a courtesy, and the cache is the user's.

    Args:
        store: the cache.
        first: unpack the packs of this model only, of any other name the largest pack, and leave out what is not
            unpacked yet: a page need not wait for models that it does not show. None: unpack all.
    """
    beside = []
    known = sorted(filter(None, map(_readable, packs())), key=lambda pack: -pack[1].runs)
    wanted = {path for path, header in known if header.model == first} or {path for path, _ in known[:1]}
    for path, _ in known:
        try:
            if first is None or path in wanted or _place(store, path).exists():
                beside.append(_unpacked(store, path))
        except (KickError, OSError):
            continue
    return replace(store, beside=tuple(beside))


def _readable(path: Path) -> tuple[Path, Header] | None:
    try:
        return path, _header(path)
    except (KickError, OSError):
        return None


def shown(store: Store) -> list[Header]:
    """The headers of the packs beside a cache: which model, measured when and on what."""
    names = {path.name for path in store.beside}
    return [_header(path) for path in packs() if _name(path) in names]


def _unpacked(store: Store, path: Path) -> Path:
    place = _place(store, path)
    with locked(store.root / "locks" / f"{ROOM}.lock"):
        if not place.exists():
            staged = store.root / ROOM / f".{uuid.uuid4().hex}"
            try:
                with files.unsynced():  # can be made again, and appears by one rename
                    unpack(path, open_store(staged))
                os.replace(staged, place)
            finally:
                shutil.rmtree(staged, ignore_errors=True)
    return place


def _place(store: Store, path: Path) -> Path:
    return store.root / ROOM / _name(path)


def _name(path: Path) -> str:
    return _digest(path, path.stat().st_mtime_ns)[:16]


@lru_cache(maxsize=16)
def _digest(path: Path, changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@lru_cache(maxsize=16)
def _header_of(path: Path, digest: str) -> Header:
    return container.read_header(path)


def _header(path: Path) -> Header:
    return _header_of(path, _name(path))
