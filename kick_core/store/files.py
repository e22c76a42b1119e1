"""Files that appear whole or not at all: write beside, fsync, rename, fsync the folder. JSON that knows its own sum."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import xxhash

from kick_core.errors import KickError
from kick_core.store import fault_injection

_STAGED = re.compile(r"\..+\.[0-9a-f]{32}")
_SEAL = re.compile(rb', "sum": "([0-9a-f]{16})"}')
_SEAL_LENGTH = len(', "sum": "0123456789abcdef"}')


class Damaged(KickError):
    """A file is not what this program wrote."""


_SYNCED: ContextVar[bool] = ContextVar("synced", default=True)


@contextmanager
def unsynced() -> Iterator[None]:
    """Inside, files need not last through a power cut: for what appears by one rename and can be made again."""
    token = _SYNCED.set(False)
    try:
        yield
    finally:
        _SYNCED.reset(token)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder last through a power cut."""
    if not _SYNCED.get():
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


Buffers = Sequence[bytes | memoryview]
"""A file's content in parts, bytes each."""

_PIECE = 16 << 20
"""Bytes written and summed at a time: few, since who computes beside may wait for the interpreter at each."""


def replace_file(path: Path, data: bytes | Buffers, *, lasting: bool = True) -> dict[str, Any]:
    """Put `data` under `path` in one step; a reader sees the old bytes or the new, never a mixture.

    Args:
        path: The file.
        data: Its content, or its parts one after the other; nothing is copied.
        lasting: Sync the folder too. Who writes several files does it once, by `sync_folder`.

    Returns:
        The content's size and sum, as a manifest holds them.

    Raises:
        KickError: The disk is full.
    """
    parts = [data] if isinstance(data, bytes) else data
    size, digest = sum(map(len, parts)), xxhash.xxh3_128()
    staged = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    with no_space_named(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(staged, "xb", buffering=0) as file:
                for number, piece in enumerate(_pieces(parts, max(1, min(_PIECE, -(-size // 2))))):
                    if number == 1:
                        fault_injection.point(f"{path.name}: half written", writes=True)
                    digest.update(piece)
                    while len(piece):
                        piece = piece[file.write(piece) :]
                if _SYNCED.get():
                    os.fsync(file.fileno())
            fault_injection.point(f"{path.name}: written", writes=True)
            os.replace(staged, path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        fault_injection.point(f"{path.name}: renamed", writes=True)
        if lasting:
            sync_folder(path.parent)
    return {"bytes": size, "xxh3_128": digest.hexdigest()}


def _pieces(parts: Buffers, size: int) -> Iterator[memoryview]:
    for part in parts:
        view = memoryview(part)
        yield from (view[start : start + size] for start in range(0, len(view), size))


def seal_json(content: Mapping[str, Any]) -> bytes:
    """A JSON object whose last member is the XXH3-64 of all bytes before it."""
    body = json.dumps({**content}, allow_nan=False).encode()[:-1]
    return body + b', "sum": "%s"}' % xxhash.xxh3_64_hexdigest(body).encode()


def read_sealed_json(path: Path) -> dict[str, Any]:
    """The object that `seal_json` wrote. Raises Damaged when a bit of it differs, OSError when it is not there."""
    raw = path.read_bytes()
    body, seal = raw[:-_SEAL_LENGTH], _SEAL.fullmatch(raw[-_SEAL_LENGTH:])
    if seal is None or xxhash.xxh3_64_hexdigest(body).encode() != seal[1]:
        raise Damaged(f"{path} is damaged (its checksum differs)")
    content: dict[str, Any] = json.loads(body + b"}")
    return content


def sealed(path: Path) -> bool:
    """Whether the file ends as `seal_json` ends one, damaged or not."""
    return _SEAL.fullmatch(path.read_bytes()[-_SEAL_LENGTH:]) is not None


def is_staged(path: Path) -> bool:
    """Whether this is a name that `replace_file` writes under before it renames."""
    return _STAGED.fullmatch(path.name) is not None


@contextmanager
def no_space_named(path: Path, needed: int) -> Iterator[None]:
    """Turn "no space left" into a message with the bytes needed and free."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise no_space(path, needed) from error


def no_space(path: Path, needed: int) -> KickError:
    free = free_bytes(path)
    return KickError(
        f"no space left for {path}: {needed:,} bytes are needed and {free:,} are free. "
        f"Make room (`kick gc`) or name another cache with --cache DIR, then run the same command again: "
        f"it goes on where it was"
    )


def free_bytes(path: Path) -> int:
    """Bytes free on the disk that holds `path`, or would hold it."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def require_space(path: Path, needed: int) -> None:
    """Refuse before the work what would fail after it."""
    if free_bytes(path) < needed:
        raise no_space(path, needed)


def joined(paths: Iterable[Path], name: re.Pattern[str]) -> list[Path]:
    """The files that join up from item 0, in order. Groups 1 and 2 of their names are the first item and the end."""
    longest: dict[int, tuple[int, Path]] = {}
    for path in paths:
        if match := name.fullmatch(path.name):
            start, stop = int(match[1]), int(match[2])
            if start not in longest or stop > longest[start][0]:
                longest[start] = (stop, path)
    chain, at = [], 0
    while at in longest:
        at, path = longest[at]
        chain.append(path)
    return chain
