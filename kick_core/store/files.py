"""Files that appear whole or not at all: write beside, fsync, rename, fsync the folder."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from kick_core.spec import KickError


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder last through a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` under `path` in one step; a reader sees the old bytes or the new, never a mixture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.parent / f".{path.name}.{uuid.uuid4().hex}"
    with no_space_named(path, len(data)):
        try:
            with open(staged, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(staged, path)
        except BaseException:
            staged.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


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
    found: dict[int, tuple[int, Path]] = {}
    for path in paths:
        if match := name.fullmatch(path.name):
            start, stop = int(match[1]), int(match[2])
            if start not in found or stop > found[start][0]:
                found[start] = (stop, path)
    chain, at = [], 0
    while at in found:
        at, path = found[at]
        chain.append(path)
    return chain
