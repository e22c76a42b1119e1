"""Content keys: canonical JSON, hashed, with a tag that says what was hashed and in which version.

A key names everything that can change the bytes it stands for, so equal keys mean equal work and nothing is
computed twice. The tag makes a future change of the canonical form visible instead of silently ambiguous.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
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


def _refuse_floats(payload: object) -> None:
    match payload:
        case float():
            raise TypeError(f"{payload!r}: write fractional numbers as text in keyed payloads")
        case Mapping():
            for name, value in payload.items():
                if not isinstance(name, str):
                    raise TypeError(f"{name!r}: keyed payloads have text names")
                _refuse_floats(value)
        case list() | tuple():
            for value in payload:
                _refuse_floats(value)
        case _:
            pass


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


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Args:
        path: The file.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(files: Iterable[Path], *, memo: dict[str, str] | None = None) -> str:
    """One hash over (name, SHA-256) of files: a model's or a data set's identity, whatever its path is.

    Args:
        files: In any order.
        memo: `device:inode:size:mtime_ns:ctime_ns` -> SHA-256 that was computed before; it is added to. A file edited
            in place changes its times, so it is hashed anew.
    """
    rows = []
    for path in sorted(files, key=lambda path: path.name):
        stat = os.stat(path)
        token = f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}:{stat.st_ctime_ns}"
        digest = None if memo is None else memo.get(token)
        if digest is None:
            digest = sha256_file(path)
            if memo is not None:
                memo[token] = digest
        rows.append([path.name, digest])
    return hashlib.sha256(canonical(rows).encode()).hexdigest()
