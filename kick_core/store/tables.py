"""Rows as Parquet bytes and back, with checksums in the pages."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from kick_core.errors import KickError


def parquet(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """Rows as the bytes of one Parquet file."""
    return write(pa.Table.from_pylist(rows, schema=schema))


def write(table: pa.Table) -> bytes:
    """A table as the bytes of one Parquet file."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def read(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a Parquet file, all columns or some. Raises KickError when it is damaged."""
    return list(read_table(path, columns).to_pylist())


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file as an Arrow table, all columns or some. Raises KickError when it is damaged."""
    try:
        return pq.read_table(path, columns=columns, page_checksum_verification=True)
    except (OSError, pa.ArrowException) as error:
        raise KickError(f"{path} is damaged ({error}): `kick verify --deep` sets it aside") from error


def read_columns(path: Path, columns: Sequence[str] | None = None) -> dict[str, list[Any]]:
    """The columns of a Parquet file as lists, all or some. Raises KickError when it is damaged."""
    return columns_of(read_table(path, columns))


def columns_of(table: pa.Table) -> dict[str, list[Any]]:
    """The columns of an Arrow table as lists."""
    return dict(zip(table.column_names, (column.to_pylist() for column in table.columns), strict=True))


def checksum(data: bytes) -> str:
    """XXH3-64 in hexadecimal; it stands in the names of write-once files."""
    return xxhash.xxh3_64_hexdigest(data)
