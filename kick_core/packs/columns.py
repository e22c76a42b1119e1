"""A table as bytes, column by column, so that equal things stand beside each other before they are compressed.

    whole numbers   the smallest type that holds them, byte planes apart
    fractions       few different ones as codes; else float32 where that is exact, else float64, byte planes apart
    texts           few different ones as codes; else their lengths and all of them in one piece

Every float comes back bit for bit. Nothing is executed on reading, and every length is checked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kick_core.errors import BadRequest

Column = NDArray[np.integer[Any]] | NDArray[np.floating[Any]] | list[str]

FEW = 1 << 16
"""Different values that become codes at most; and no more than a quarter of the rows."""

_WHOLE = ("u1", "u2", "u4", "i4", "i8")
_HEAD = struct.Struct("<I")


def to_bytes(columns: Mapping[str, Column]) -> bytes:
    """Columns as one piece of bytes that depends on nothing but them.

    Args:
        columns: name -> whole numbers, fractions or texts.
    """
    index, buffers = [], []
    for name, column in columns.items():
        parts, about = _text_parts(column) if isinstance(column, list) else _number_parts(np.asarray(column))
        index.append([name, len(column), about, [len(part) for part in parts]])
        buffers += parts
    head = json.dumps(index, separators=(",", ":")).encode()
    return b"".join((_HEAD.pack(len(head)), head, *buffers))


def from_bytes(data: bytes, what: str) -> dict[str, Column]:
    """The columns that `to_bytes` wrote.

    Args:
        data: what it returned.
        what: the table's name for messages.

    Raises:
        BadRequest: the bytes are no such table.
    """
    try:
        (size,) = _HEAD.unpack_from(data)
        index = json.loads(data[_HEAD.size : _HEAD.size + size])
        pieces = _Pieces(data, _HEAD.size + size)
        columns = {}
        for name, count, about, sizes in index:
            columns[str(name)] = _column(int(count), about, [pieces.take(int(length)) for length in sizes])
        pieces.end()
    except (ValueError, TypeError, KeyError, IndexError, struct.error, RecursionError, OverflowError) as error:
        raise BadRequest(f"{what} is no table of this program ({error})") from error
    return columns


class _Pieces:
    """Consecutive pieces of bytes, none of them beyond the end."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at

    def take(self, length: int) -> bytes:
        if length < 0 or self._at + length > len(self._data):
            raise ValueError("a column leads beyond the end")
        self._at += length
        return self._data[self._at - length : self._at]

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError("bytes are left over")


# --- numbers -----------------------------------------------------------------------------------------------


def _planes(values: NDArray[Any]) -> bytes:
    width = values.dtype.itemsize
    return values.view(np.uint8).reshape(-1, width).T.tobytes()


def _from_planes(data: bytes, kind: str, count: int) -> NDArray[Any]:
    width = np.dtype(kind).itemsize
    if len(data) != count * width:
        raise ValueError(f"{len(data)} bytes for {count} values")
    return np.frombuffer(data, np.uint8).reshape(width, count).T.copy().view(f"<{kind}").ravel()


def _whole(values: NDArray[Any]) -> tuple[str, NDArray[Any]]:
    low, high = (int(values.min()), int(values.max())) if values.size else (0, 0)
    kind = next(kind for kind in _WHOLE if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)
    return kind, np.ascontiguousarray(values.astype(f"<{kind}"))


def _number_parts(values: NDArray[Any]) -> tuple[list[bytes], Any]:
    if values.dtype.kind in "iub":
        kind, small = _whole(values)
        return [_planes(small)], ["whole", kind]
    bits = values.astype("<f8").view(np.uint64)
    different, codes = np.unique(bits, return_inverse=True)
    if different.size <= min(FEW, max(16, values.size // 4)):
        kind, small = _whole(codes)
        return [_planes(different.view("<f8")), _planes(small)], ["few", different.size, kind]
    single = values.astype("<f4")
    exact = bool((single.astype("<f8").view(np.uint64) == bits).all())
    return [_planes(single if exact else values.astype("<f8"))], ["fractions", "f4" if exact else "f8"]


# --- texts -------------------------------------------------------------------------------------------------


def _text_parts(texts: Sequence[str]) -> tuple[list[bytes], Any]:
    different = list(dict.fromkeys(texts))
    few = len(different) <= min(FEW, max(16, len(texts) // 4))
    pieces = [text.encode("utf-8", "surrogatepass") for text in (different if few else texts)]
    kind, lengths = _whole(np.array([len(piece) for piece in pieces], dtype=np.int64))
    parts, about = [_planes(lengths), b"".join(pieces)], ["texts", len(pieces), kind]
    if few:
        places = {text: at for at, text in enumerate(different)}
        code, codes = _whole(np.array([places[text] for text in texts], dtype=np.int64))
        return [*parts, _planes(codes)], [*about, code]
    return parts, about


def _texts(lengths: NDArray[Any], data: bytes) -> Iterator[str]:
    ends = np.cumsum(lengths.astype(np.int64))
    if (lengths.astype(np.int64) < 0).any() or (int(ends[-1]) if ends.size else 0) != len(data):
        raise ValueError("the texts' lengths do not add up")
    start = 0
    for end in ends.tolist():
        yield data[start:end].decode("utf-8", "surrogatepass")
        start = end


def _column(count: int, about: Any, parts: list[bytes]) -> Column:
    match about:
        case ["whole", str(kind)] if kind in _WHOLE:
            return _from_planes(parts[0], kind, count)
        case ["fractions", ("f4" | "f8") as kind]:
            return _from_planes(parts[0], kind, count).astype(np.float64)
        case ["few", int(different), str(kind)] if kind in _WHOLE:
            return _from_planes(parts[0], "f8", different)[_from_planes(parts[1], kind, count)]
        case ["texts", int(different), str(kind), *codes] if kind in _WHOLE and len(codes) < 2:
            texts = list(_texts(_from_planes(parts[0], kind, different), parts[1]))
            if not codes:
                if different != count:
                    raise ValueError(f"{different} texts for {count} rows")
                return texts
            if codes[0] not in _WHOLE:
                raise ValueError(f"unknown type {codes[0]!r}")
            return [texts[at] for at in _from_planes(parts[2], codes[0], count).tolist()]
        case _:
            raise ValueError(f"unknown column {str(about)[:60]}")
