"""Rows as Parquet bytes and back, with checksums in the pages."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from kick_core.spec import KickError


def parquet(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """Rows as the bytes of one Parquet file."""
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows, schema=schema)
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a Parquet file. Raises KickError when it is damaged."""
    try:
        return list(pq.read_table(path, page_checksum_verification=True).to_pylist())
    except (OSError, pa.ArrowException) as error:
        raise KickError(f"{path} is damaged ({error}): `kick verify --deep` sets it aside") from error


def checksum(data: bytes) -> str:
    """XXH3-64 in hexadecimal; it stands in the names of write-once files."""
    return xxhash.xxh3_64_hexdigest(data)
