"""A diskcache Disk that can only hold plain JSON, inside the database, under text keys.

diskcache's own Disk unpickles what it reads (CVE-2025-69872, unfixed), and its JSONDisk still does so for
rows whose mode says pickle. This one refuses everything that it did not write itself: no pickle, no side
files (they are not fsynced), no other key type. A damaged or planted row raises `DamagedRow`, is counted as
absent and computed again.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from pathlib import Path
from typing import Any

import diskcache  # type: ignore[import-untyped]
from diskcache.core import MODE_RAW, UNKNOWN  # type: ignore[import-untyped]

from kick_core.errors import KickError

LIMIT = 64 << 20
"""Bytes that one value may inflate to; a planted zlib bomb stops here."""


class DamagedRow(KickError):
    """A row of an output database holds something that this program did not write."""


class PlainDisk(diskcache.Disk):  # type: ignore[misc]
    """zlib-compressed JSON values inline, text keys; nothing else is read or written."""

    def put(self, key: Any) -> tuple[str, bool]:
        if not isinstance(key, str):
            raise TypeError(f"{key!r}: keys of output databases are text")
        return key, True

    def get(self, key: Any, raw: Any) -> str:
        if raw != 1 or not isinstance(key, str):
            raise DamagedRow(f"a row under {str(key)[:80]!r} was not written by this program")
        return key

    def store(self, value: Any, read: bool, key: Any = UNKNOWN) -> tuple[int, int, None, sqlite3.Binary]:
        if read:
            raise TypeError("output databases hold values, not files")
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        return 0, MODE_RAW, None, sqlite3.Binary(zlib.compress(text.encode(), 1))

    def fetch(self, mode: Any, filename: Any, value: Any, read: bool) -> Any:
        if mode != MODE_RAW or filename is not None or read or not isinstance(value, bytes):
            raise DamagedRow("a row of the output database was not written by this program")
        try:
            inflater = zlib.decompressobj()
            data = inflater.decompress(value, LIMIT)
            if inflater.unconsumed_tail or not inflater.eof:
                raise DamagedRow(f"a value of the output database is cut off or larger than {LIMIT} bytes")
            return json.loads(data)
        except (ValueError, RecursionError, zlib.error) as error:
            raise DamagedRow(f"a value of the output database is damaged ({error})") from error

    def remove(self, file_path: Any) -> None:
        raise DamagedRow(f"the output database names a side file {file_path!r}; it never makes any")


def open_cache(folder: Path) -> diskcache.Cache:
    """Open (or make) one output database: durable batches, no eviction, no pickle."""
    try:
        return diskcache.Cache(
            str(folder),
            disk=PlainDisk,
            eviction_policy="none",
            size_limit=1 << 50,
            cull_limit=0,
            statistics=0,
            sqlite_synchronous=2,
            sqlite_mmap_size=0,
        )
    except sqlite3.OperationalError as error:
        raise KickError(f"the output database {folder} cannot be opened ({error})") from error
    except sqlite3.DatabaseError as error:
        raise DamagedRow(f"{folder} is not an output database ({error})") from error
