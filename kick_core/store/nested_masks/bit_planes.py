"""Nested masks of several artifacts as one file that all of them share.

Where every mask keeps a part of what the one before keeps, it is enough to know for each weight in how many of the
masks it survives: its level, a number of b bits for up to 2^b - 1 masks. The mask of the k-th artifact, counted from
0 and the one that keeps most, is where the level is above k. Levels are stored by bit, each bit packed as a mask is,
so that eight weights are compared at a time.

`pack` is lossless: `unfold` gives every mask file back, byte for byte, and nothing is packed of which that is not so.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kick_core.store.files import Damaged
from kick_core.store.tensor_header import read_header

_SERIES = "ladder"
"""The metadata of a shared file: its artifacts, the one that keeps most first, and the header of their mask files."""

_CHUNK = 1 << 16
"""Bytes counted at a time: small enough to stay in the CPU's cache."""


def above(levels: Any, level: int) -> Any:
    """Where levels are above a level.

    Args:
        levels: Bit planes from the lowest on, uint8 [bits, ...], packed as masks are; an array of numpy or torch.
        level: The number of a mask in its series.

    Returns:
        The mask, uint8 [...], packed alike.
    """
    mask = levels[0] & 0
    for bit in range(len(levels)):
        if level >> bit & 1:
            mask &= levels[bit]
        else:
            mask |= levels[bit]
    return mask


def tensors(path: Path, key: str, framework: str, mask_of: str | None = None) -> dict[str, Any]:
    """The tensors of a block's file as the artifact was built with them: of a shared file, this artifact's masks.

    Args:
        path: The block's file.
        key: Of the artifact.
        framework: "pt" or "np".
        mask_of: A linear, of which no more than the mask is read; None: everything.

    Raises:
        Damaged: The file is no safetensors file, or a shared one without this artifact's masks.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework) as file:
            series = (file.metadata() or {}).get(_SERIES)
            names = file.keys() if mask_of is None else {f"{mask_of}.mask", f"{mask_of}.levels"} & {*file.keys()}
            tensors_by_name = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise Damaged(f"{path} is no whole safetensors file ({error}): `kick verify --deep` sets it aside") from error
    if series is None:
        return tensors_by_name
    level = _level(series, key)
    return {f"{name.removesuffix('.levels')}.mask": above(part, level) for name, part in tensors_by_name.items()}


def _level(series: str, key: str) -> int:
    try:
        return list(json.loads(series)["keys"]).index(key)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"a file of nested masks does not tell which is that of {key}: `kick verify --deep`") from error


def keys(path: Path) -> list[str]:
    """The artifacts whose masks a shared file holds; [] of any other file.

    Args:
        path: The block's file.
    """
    with open(path, "rb") as file:
        return _keys(_header(file))


def holds_masks(path: Path) -> bool:
    """Whether a block's file holds nothing but masks, its own or those of several artifacts.

    Args:
        path: The block's file.
    """
    with open(path, "rb") as file:
        header = _header(file)
    names = [name for name in header if name != "__metadata__"]
    return bool(names) and all(name.endswith((".mask", ".levels")) for name in names)


def size(file: BinaryIO, key: str) -> int | None:
    """How many bytes an open file must have to be whole.

    Args:
        file: At any place; afterwards at its data.
        key: Of the artifact that it should belong to.

    Returns:
        None where it is not a shared file with this artifact's masks.
    """
    file.seek(0)
    header = _header(file)
    if key not in _keys(header):
        return None
    try:
        ends = [int(fact["data_offsets"][1]) for name, fact in header.items() if name != "__metadata__"]
        return file.tell() + max(ends)
    except (KeyError, IndexError, TypeError, ValueError):
        return None


def _keys(header: Mapping[str, Any]) -> list[str]:
    try:
        return [str(key) for key in json.loads(header["__metadata__"][_SERIES])["keys"]]
    except (KeyError, ValueError, TypeError, RecursionError):
        return []


def _header(file: BinaryIO) -> dict[str, Any]:
    """The header of an open safetensors file, which is then at its data; {} where there is none."""
    try:
        return read_header(file)
    except Damaged:
        return {}


def pack(files: Mapping[str, bytes]) -> bytes | None:
    """One file for the mask files of several artifacts.

    Args:
        files: Key -> the bytes of its file.

    Returns:
        The bytes of the shared file; None where the files hold something else, or masks that do not nest.
    """
    from safetensors.numpy import save

    heads = {_split(data)[0] for data in files.values()}
    shapes = _shapes(next(iter(heads))) if len(heads) == 1 else None
    if shapes is None:
        return None
    masks = {key: _split(data)[1] for key, data in files.items()}
    if {len(data) for data in masks.values()} != {sum(map(math.prod, shapes.values()))}:
        return None
    order = sorted(masks, key=lambda key: (-int(np.bitwise_count(masks[key]).sum(dtype=np.int64)), key))
    planes = _count_planes([masks[key] for key in order])
    ends = np.cumsum([0, *map(math.prod, shapes.values())]).tolist()
    parts = {
        f"{name.removesuffix('.mask')}.levels": np.ascontiguousarray(planes[:, start:end]).reshape(-1, *shape)
        for (name, shape), (start, end) in zip(shapes.items(), pairwise(ends), strict=True)
    }
    # one entry: the library writes several in no fixed order
    description = json.dumps({"keys": order, "masks": heads.pop().decode()})
    packed: bytes = save(parts, {_SERIES: description})
    return packed if all(unfold(packed, key) == data for key, data in files.items()) else None


def unfold(packed: bytes, key: str) -> bytes:
    """The mask file of one artifact, as it was before it was packed.

    Args:
        packed: The bytes of the shared file.
        key: Of the artifact.

    Raises:
        Damaged: It holds no masks of this artifact.
    """
    head, data = _split(packed)
    try:
        header = json.loads(head)
        series = json.loads(header["__metadata__"][_SERIES])
        level, masks = series["keys"].index(key), series["masks"].encode()
        parts = []
        for name in _shapes(masks) or ():
            fact = header[f"{name.removesuffix('.mask')}.levels"]
            start, end = fact["data_offsets"]
            parts.append(above(data[start:end].reshape(fact["shape"][0], -1), level).tobytes())
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"no file of nested masks with those of {key} ({error})") from error
    return struct.pack("<Q", len(masks)) + masks + b"".join(parts)


def _split(data: bytes) -> tuple[bytes, NDArray[np.uint8]]:
    """The header of a safetensors file and the bytes after it."""
    length = int.from_bytes(data[:8], "little")
    return data[8 : 8 + length], np.frombuffer(data, np.uint8)[8 + length :]


def _shapes(head: bytes) -> dict[str, tuple[int, ...]] | None:
    """The masks in the header of a mask file and their shapes, in the order of their bytes; None of another file."""
    try:
        facts = sorted(json.loads(head).items(), key=lambda item: item[1]["data_offsets"])
        if not facts or any(not name.endswith(".mask") or fact["dtype"] != "U8" for name, fact in facts):
            return None
        return {name: tuple(map(int, fact["shape"])) for name, fact in facts}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _count_planes(masks: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """In how many of the masks every bit is set: packed bits [bytes] each -> bit planes [bits, bytes].

    A ripple-carry adder over whole bytes: the planes are a counter per bit, and every mask is added to all of them.
    """
    planes = np.zeros((len(masks).bit_length(), len(masks[0])), np.uint8)
    for start in range(0, planes.shape[1], _CHUNK):
        part = planes[:, start : start + _CHUNK]
        for mask in masks:
            carry = mask[start : start + _CHUNK]
            for plane in part:
                over = plane & carry
                plane ^= carry
                carry = over
    return planes
