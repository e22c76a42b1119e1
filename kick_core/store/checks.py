"""Is a file what this program wrote? Told by its form alone, so new rooms need nothing of their own.

A Parquet file (and a safetensors file outside artifacts) carries its XXH3-64 in its name, JSON in its last member, an
output database in SQLite's own structure and in the Adler-32 of every value; the files of an artifact are listed in its
manifest (`artifacts.verify`).
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import xxhash

from kick_core.errors import KickError
from kick_core.store.files import Damaged, is_staged, read_sealed_json
from kick_core.store.plaindisk import PlainDisk

if TYPE_CHECKING:
    from kick_core.store import Store

_NAMED = re.compile(r".+-([0-9a-f]{16})\.(parquet|safetensors)")
SEALED = (
    "run.json",
    "judging.json",
    "timings.json",
    "prompts.json",
    "state.json",
    "spec.json",
    "fingerprints.json",
    "trials.json",
    "tuned.json",
    "starred.json",
)
"""JSON that ends with its own sum, whatever room it is in."""


def faults(folder: Path, *, deep: bool) -> Iterator[tuple[Path, str]]:
    """Every damaged file of a folder, with what is wrong in words. Only `deep` reads whole Parquet files."""
    for path in sorted(folder.iterdir()):
        if not path.is_dir() and not is_staged(path) and (fault := _fault(path, deep)):
            yield path, fault


def _fault(path: Path, deep: bool) -> str:
    if path.suffix in (".parquet", ".safetensors"):
        match = _NAMED.fullmatch(path.name)
        if match is None:
            return f"{path.name} is not a name of this program"
        if path.stat().st_size == 0 or (deep and xxhash.xxh3_64_hexdigest(path.read_bytes()) != match[1]):
            return f"{path.name} is damaged (its checksum differs)"
    elif path.name in SEALED:
        try:
            read_sealed_json(path)
        except Damaged:
            return f"{path.name} is damaged (its checksum differs)"
    return ""


def set_damage_aside(store: Store, folder: Path, *, deep: bool) -> list[str]:
    """Move damaged files to quarantine; what they held is made again on demand. Says what was moved."""
    return [
        f"{folder.name}: {fault}; set aside in {set_aside(store, path)}" for path, fault in [*faults(folder, deep=deep)]
    ]


def database_faults(folder: Path, *, deep: bool) -> list[str]:
    """What is wrong with the output database of a run that goes on; nothing where there is none. `deep` reads all
    values; a reader of one value finds out about that one by itself."""
    path = folder / "cache.db"
    if not path.exists():
        return []
    disk = PlainDisk(str(folder))
    problems: list[str] = []
    try:
        with closing(sqlite3.connect(path, timeout=60)) as database:
            (sound,) = database.execute("PRAGMA integrity_check(1)").fetchone()
            if sound != "ok":
                problems.append(f"its structure is damaged ({sound.splitlines()[0]})")
            if database.execute("SELECT 1 FROM Cache WHERE raw IS NOT 1 LIMIT 1").fetchone():
                problems.append("it holds a row that this program did not write")
            rows = database.execute("SELECT key, raw, mode, filename, value FROM Cache") if deep else ()
            for key, raw, mode, filename, value in rows:
                try:
                    disk.get(key, raw)
                    disk.fetch(mode, filename, value, False)
                except KickError as error:
                    problems.append(f"{str(key)[:80]!r}: {error}")
    except sqlite3.DatabaseError as error:
        problems.append(f"it is no output database ({error})")
    return problems


def database_keys(folder: Path) -> set[str] | None:
    """What an output database holds outputs of; None where there is none, or a damaged one."""
    if not (folder / "cache.db").exists():
        return None
    try:
        with closing(sqlite3.connect(folder / "cache.db", timeout=60)) as database:
            return {str(key) for (key,) in database.execute("SELECT key FROM Cache")}
    except sqlite3.DatabaseError:
        return None


def set_aside(store: Store, path: Path) -> Path:
    """Move a damaged file or folder to quarantine, beside earlier ones of the same name."""
    stem = f"{path.parent.name}.{path.name}"
    aside = store.root / "quarantine" / stem
    number = 1
    while aside.exists():
        number += 1
        aside = store.root / "quarantine" / f"{stem}.{number}"
    aside.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(path, aside)  # a live database may be on another disk
    return aside
