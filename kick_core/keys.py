"""Content keys: canonical JSON, hashed, with a tag that says what was hashed and in which version.

A key names everything that can change the bytes it stands for, so equal keys mean equal work and nothing is
computed twice. The tag makes a future change of the canonical form visible instead of silently ambiguous.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

SCHEMA = 1
"""Raise it when the canonical form or the meaning of a payload changes: every key then changes with it."""


def canonical(payload: object) -> str:
    """Canonical JSON: sorted keys, no spaces, ASCII.

    Fractional numbers must come as text ("0.5"): 0.1 + 0.2 and 0.3 would be two keys.

    Args:
        payload: JSON values, mappings and tuples.

    Raises:
        TypeError: There is a float, or a name that is no text.
    """
    _refuse_floats(payload)
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


_HARMLESS = frozenset((str, int, bool, type(None)))


def _refuse_floats(payload: object) -> None:
    if isinstance(payload, float):
        raise TypeError(f"{payload!r}: write fractional numbers as text in keyed payloads")
    if isinstance(payload, list | tuple):
        values: Iterable[object] = payload
    elif isinstance(payload, Mapping):
        if wrong := [name for name in payload if not isinstance(name, str)]:
            raise TypeError(f"{wrong[0]!r}: keyed payloads have text names")
        values = payload.values()
    else:
        return
    if not _HARMLESS.issuperset(map(type, values)):  # windows are thousands of token ids
        for value in values:
            _refuse_floats(value)


def key(kind: str, payload: Mapping[str, Any]) -> str:
    """The tagged key of a payload, e.g. `weights1-3fa9…`: 40 hexadecimal digits of its SHA-256.

    Args:
        kind: The tag.
        payload: Everything that can change the bytes that the key names.
    """
    digest = hashlib.sha256(canonical({"kind": kind, "schema": SCHEMA, "payload": payload}).encode())
    return f"{kind}{SCHEMA}-{digest.hexdigest()[:40]}"


def sha256_text(text: str) -> str:
    """SHA-256 of a text in UTF-8, in hexadecimal.

    Args:
        text: Any.
    """
    return hashlib.sha256(text.encode()).hexdigest()


def sha256_file(path: Path, heard: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Args:
        path: The file.
        heard: Called with the number of bytes whenever some were read.
    """
    digest, buffer = hashlib.sha256(), bytearray(_CHUNK)
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(memoryview(buffer)[:size])
            if heard is not None:
                heard(size)
    return digest.hexdigest()


_CHUNK = 1 << 24
"""Bytes hashed at a time: few enough calls that imports beside them do not hold them up."""

Heard = Callable[[int, int], None]
"""Called with the bytes that were hashed and those that have to be."""


def fingerprint(files: Iterable[Path], *, memo: dict[str, str] | None = None, heard: Heard | None = None) -> str:
    """One hash over (name, SHA-256) of files: a model's or a data set's identity, whatever its path is.

    Files are read in threads, one each: hashing lets go of the interpreter.

    Args:
        files: In any order.
        memo: `device:inode:size:mtime_ns:ctime_ns` -> SHA-256 that was computed before; it is added to. A file edited
            in place changes its times, so it is hashed anew.
        heard: Told of progress, from any thread; what it raises ends the reading.
    """
    ordered = sorted(files, key=lambda path: path.name)
    memo = {} if memo is None else memo
    states = {path: file_state(path) for path in ordered}
    missing = [path for path in ordered if states[path] not in memo]
    total, lock, done = sum(os.stat(path).st_size for path in missing), Lock(), 0

    def hear(size: int) -> None:
        nonlocal done
        with lock:
            done += size
        if heard is not None:
            heard(done, total)

    if missing:
        with ThreadPoolExecutor(min(len(missing), os.cpu_count() or 1)) as pool:
            digests = pool.map(lambda path: sha256_file(path, hear), missing)
            memo.update(zip((states[path] for path in missing), digests, strict=True))
    rows = [[path.name, memo[states[path]]] for path in ordered]
    return hashlib.sha256(canonical(rows).encode()).hexdigest()


def file_state(path: Path) -> str:
    """What changes whenever a file's bytes are written: `device:inode:size:mtime_ns:ctime_ns`."""
    stat = os.stat(path)
    return f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
