"""Verdicts of a run as columns: read from its file, or made of rows, with one copy of what many runs share.

Runs of one task are asked the same examples and judged by the same scorers, so the columns of these two are the
same bytes in file after file. They are decoded once, and known again by their hash.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from kick_core.errors import KickError

KEPT = 1024
"""Files remembered. 36 recipes x 7 tasks x (verdicts, outputs) are 504."""


class Words(NamedTuple):
    """The words of all verdicts of a file, as codes of dictionaries."""

    why: pa.DictionaryArray
    extracted: pa.DictionaryArray


@dataclass(frozen=True, slots=True)
class VerdictColumns:
    """One scorer's verdicts on one run, as columns. A score of nan is "not judged".

    Ids are one array for all runs that were asked the same; words stay in Arrow, for all scorers together, until they
    are shown. `rows` says which of those are this scorer's.
    """

    ids: NDArray[np.object_]
    score: NDArray[np.float64]
    rows: NDArray[np.intp]
    words: Words

    @property
    def why(self) -> NDArray[np.object_]:
        """The reasons as objects, each different word one object."""
        words = np.array([*self.words.why.dictionary.to_pylist(), None], dtype=object)
        why: NDArray[np.object_] = words[_codes(self.words.why)[self.rows]]
        return why

    def extracted(self) -> list[str]:
        """What was extracted from each answer; nothing is an empty word."""
        return [word or "" for word in self.words.extracted.take(self.rows).to_pylist()]

    def extracted_at(self, place: int) -> str:
        """What was extracted from the answer at one place."""
        return str(self.words.extracted[int(self.rows[place])].as_py() or "")

    def take(self, places: NDArray[np.intp]) -> VerdictColumns:
        """The verdicts at some places, in their order."""
        return VerdictColumns(self.ids[places], self.score[places], self.rows[places], self.words)


class _Rows(NamedTuple):
    """Where one scorer's verdicts are in a table, and of which examples."""

    scorer: str
    at: NDArray[np.intp]
    ids: NDArray[np.object_]


@lru_cache(maxsize=KEPT)
def stored(path: Path, changed: int) -> dict[str, VerdictColumns]:
    """The verdicts in a file by scorer, remembered as long as it does not change.

    Args:
        path: Of the Parquet file.
        changed: When it was written.

    Raises:
        KickError: The file is damaged.
    """
    try:
        data = pa.py_buffer(path.read_bytes())
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=_WORDS, page_checksum_verification=True)
        digest = _digest(file, data)
        layout = _LAYOUTS.get(digest)  # another session's thread may empty it meanwhile
        if layout is None:
            if len(_LAYOUTS) >= KEPT:
                _LAYOUTS.clear()
            layout = _LAYOUTS[digest] = _layout(file.read(["example", "scorer"], use_threads=False))
        table = file.read(["score", "extracted", "why"], use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise KickError(f"{path} is damaged ({error}): `kick verify --deep` sets it aside") from error
    return _columns(table, layout)


def of_table(table: pa.Table) -> dict[str, VerdictColumns]:
    """The verdicts of a table by scorer.

    Args:
        table: With the columns of a file of verdicts.
    """
    return _columns(table, _layout(table))


def changed(
    before: VerdictColumns, at_before: NDArray[np.intp], after: VerdictColumns, at_after: NDArray[np.intp],
    form: Callable[[str], str],
) -> int:  # fmt: skip
    """At how many places what was extracted differs between two columns, each word taken in a `form`."""
    said, says = (_codes(each.words.extracted)[each.rows[at]] for each, at in ((before, at_before), (after, at_after)))
    known, new = (_formed(_Dictionary(each.words.extracted.dictionary), form) for each in (before, after))
    first, same = (pc.index_in(words, value_set=known).fill_null(-1).to_numpy() for words in (known, new))
    return int(np.count_nonzero(first[said] != same[says]))


class _Dictionary:
    """The words of a file, which all its scorers share; equal to itself alone."""

    def __init__(self, words: pa.Array) -> None:
        self.words = words
        self.addresses = tuple(0 if buffer is None else buffer.address for buffer in words.buffers())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Dictionary) and other.addresses == self.addresses

    def __hash__(self) -> int:
        return hash(self.addresses)


@lru_cache(maxsize=64)
def _formed(dictionary: _Dictionary, form: Callable[[str], str]) -> pa.Array:
    """Words in a form, and behind them that of no word, which is the empty one."""
    return pa.array([form(word or "") for word in (*dictionary.words.to_pylist(), "")], type=pa.string())


_WORDS = ["example", "scorer", "extracted", "why"]
_LAYOUTS: dict[str, list[_Rows]] = {}
_IDS: dict[str, NDArray[np.object_]] = {}


def _digest(file: pq.ParquetFile, data: pa.Buffer) -> str:
    """A hash of the encoded examples and scorers: files with the same one have the same rows."""
    digest = xxhash.xxh3_128(str(file.schema_arrow).encode())
    for group in range(file.metadata.num_row_groups):
        columns = file.metadata.row_group(group)
        for column in (columns.column(at) for at in range(columns.num_columns)):
            if column.path_in_schema in ("example", "scorer"):
                digest.update(f"{column.path_in_schema} {column.num_values} {column.compression}".encode())
                start = column.data_page_offset
                if column.has_dictionary_page:
                    start = min(start, column.dictionary_page_offset)
                digest.update(data.slice(start, column.total_compressed_size))
    return digest.hexdigest()


def _layout(table: pa.Table) -> list[_Rows]:
    scorer, example = _coded(table.column("scorer")), _coded(table.column("example"))
    numbers = _codes(scorer)
    found = []
    for number in dict.fromkeys(numbers.tolist()):
        at = np.flatnonzero(numbers == number)
        found.append(_Rows(str(scorer.dictionary[number].as_py()), at, _shared_ids(example.take(at))))
    return found


def _columns(table: pa.Table, layout: list[_Rows]) -> dict[str, VerdictColumns]:
    words = Words(_coded(table.column("why")), _coded(table.column("extracted")))
    score = table.column("score").to_numpy().astype(float)
    return {rows.scorer: VerdictColumns(rows.ids, score[rows.at], rows.at, words) for rows in layout}


def _coded(column: pa.ChunkedArray | pa.Array) -> pa.DictionaryArray:
    """A column of words as one dictionary array."""
    coded = column.dictionary_encode()
    if isinstance(coded, pa.ChunkedArray) and coded.num_chunks == 1:
        return coded.chunk(0)
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.unify_dictionaries().combine_chunks()
    return coded.chunk(0) if isinstance(coded, pa.ChunkedArray) else coded


def _codes(coded: pa.DictionaryArray) -> NDArray[np.intp]:
    """The place of each word in the dictionary; the place behind it where there is no word."""
    indices = coded.indices if not coded.null_count else coded.indices.fill_null(len(coded.dictionary))
    codes: NDArray[np.intp] = indices.to_numpy(zero_copy_only=False)
    return codes


def _shared_ids(column: pa.DictionaryArray) -> NDArray[np.object_]:
    """The ids as one array for all columns that hold the same: 14,042 of them in 252 runs are a lot of text."""
    plain = column.cast(pa.string())
    digest = xxhash.xxh3_128()
    for buffer in plain.buffers():
        if buffer is not None:
            digest.update(buffer)
    key = f"{len(plain)}-{digest.hexdigest()}"
    ids = _IDS.get(key)
    if ids is None:
        if len(_IDS) >= KEPT:
            _IDS.clear()
        ids = _IDS[key] = np.array(plain.to_pylist(), dtype=object)
    return ids
