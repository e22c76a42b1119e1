"""The file of a pack: a line that says what it is, a header in JSON, and sections compressed one by one.

    kick-pack 1 <bytes of the header> <SHA-256 of the header>\n
    {"model": …, "sections": [{"name", "packed", "bytes", "sha256"}, …], …}
    <section> <section> …

Sizes are checked before anything is read, sums before anything is unpacked, and a section is unpacked into exactly the
room that the header states.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from kick_core.errors import BadRequest, KickError
from kick_core.keys import sha256_text
from kick_core.records.json_record import JsonRecord
from kick_core.units import bytes_text

FORMAT = 1
"""Of the file. A newer one is refused."""

SUFFIX = ".kickpack"
LARGEST = 256 << 20
"""Bytes of a pack that are read at most."""
UNPACKED = 4 << 30
"""Bytes that all sections of a pack may have unpacked, at most."""
_HEADER = 16 << 20
_LEVEL = 19

_FIRST = re.compile(rb"kick-pack (\d{1,9}) (\d{1,12}) ([0-9a-f]{64})\n")
_SECTION = re.compile(r"runs|artifacts|(questions|answers)/[\w.-]{1,200}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Header(JsonRecord):
    """What a pack is, to be read without unpacking it.

    Attributes:
        model: the model's name as people know it.
        fingerprint: SHA-256 of the model's files.
        recipes: recipe texts, dense first.
        tasks: names of tasks.
        runs: number of runs.
        outputs: number of outputs in all.
        devices: kinds of devices that measured.
        measured: first and last day, ISO 8601.
        commit: of the program that measured, where it is known.
        versions: of the packages that decide the numbers.
        licences: task -> under which its questions may be passed on; empty: they may not.
        compact: whether it was made small by leaving answers out.
        left_out: sentences: what is not in it, and why.
        sections: name, packed size, size and SHA-256 of every section, in the file's order.
    """

    model: str
    fingerprint: str
    recipes: tuple[str, ...]
    tasks: tuple[str, ...]
    runs: int
    outputs: int
    devices: tuple[str, ...]
    measured: tuple[str, str]
    commit: str
    versions: dict[str, str]
    licences: dict[str, str]
    compact: bool
    left_out: tuple[str, ...]
    sections: tuple[dict[str, Any], ...] = ()


def assemble(header: Header, sections: Mapping[str, bytes]) -> bytes:
    """A pack's bytes, the same for the same contents.

    Args:
        header: everything but its sections.
        sections: name -> bytes, not compressed yet.
    """
    codec = pa.Codec("zstd", compression_level=_LEVEL)
    packed = {name: codec.compress(data, asbytes=True) for name, data in sections.items()}
    index = [
        {"name": name, "packed": len(data), "bytes": len(sections[name]), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in packed.items()
    ]
    head = json.dumps({**header.to_json(), "sections": index}, sort_keys=True, ensure_ascii=True, allow_nan=False)
    first = f"kick-pack {FORMAT} {len(head)} {sha256_text(head)}\n"
    return b"".join((first.encode(), head.encode(), *packed.values()))


def read_header(path: Path) -> Header:
    """The header of a pack, without reading the rest.

    Raises:
        BadRequest: the file is no pack, newer than this program, cut or too large.
        KickError: it cannot be read.
    """
    return _opened(path)[0]


def read(path: Path) -> tuple[Header, dict[str, bytes]]:
    """A pack's header and its sections, checked and unpacked.

    Raises:
        BadRequest: as `read_header`, and for sums or sizes that differ from the header's.
        KickError: it cannot be read.
    """
    header, data = _opened(path, whole=True)
    sections, at = {}, len(data) - sum(int(part["packed"]) for part in header.sections)
    codec = pa.Codec("zstd")
    for part in header.sections:
        packed = data[at : at + part["packed"]]
        at += part["packed"]
        if hashlib.sha256(packed).hexdigest() != part["sha256"]:
            raise BadRequest(f"{path} is damaged: the sum of its section {part['name']!r} differs; fetch it again")
        try:
            sections[part["name"]] = codec.decompress(packed, decompressed_size=part["bytes"], asbytes=True)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise BadRequest(f"{path}: section {part['name']!r} cannot be unpacked ({error})") from error
    return header, sections


def _opened(path: Path, *, whole: bool = False) -> tuple[Header, bytes]:
    try:
        with open(path, "rb") as file:
            size = path.stat().st_size
            first = file.readline(128)
            if (match := _FIRST.fullmatch(first)) is None:
                raise BadRequest(f"{path} is no pack: `kick pack FILE{SUFFIX} --model M` makes one")
            version, length = int(match[1]), int(match[2])
            if version > FORMAT:
                raise BadRequest(
                    f"{path} is of a newer version (pack format {version}, this program reads {FORMAT}): update with "
                    f"pip install --upgrade llm-kick-explorer"
                )
            if size > LARGEST or length > _HEADER:
                raise BadRequest(
                    f"{path} has {bytes_text(size)}, at most {bytes_text(LARGEST)} are read: pack fewer recipes or "
                    f"tasks (--recipes, --tasks)"
                )
            head = file.read(length)
            if len(head) < length:
                raise BadRequest(f"{path} is cut inside its header: fetch it again")
            if hashlib.sha256(head).hexdigest().encode() != match[3]:
                raise BadRequest(f"{path} is damaged: the sum of its header differs; fetch it again")
            header = _header(path, head)
            expected = len(first) + length + sum(part["packed"] for part in header.sections)
            if size != expected:
                what = "is cut" if size < expected else "is longer than it says"
                raise BadRequest(f"{path} {what}: {size:,} of {expected:,} bytes; fetch it again")
            return header, file.read() if whole else b""
    except OSError as error:
        raise KickError(f"the pack {path} cannot be read ({error.strerror or error})") from error


def _header(path: Path, head: bytes) -> Header:
    try:
        header = Header.from_json(json.loads(head))
        names = [part["name"] for part in header.sections]
        for part in header.sections:
            if set(part) != {"name", "packed", "bytes", "sha256"} or not _SECTION.fullmatch(part["name"]):
                raise ValueError(f"section {str(part.get('name'))[:60]!r}")
            if not all(isinstance(part[name], int) and part[name] >= 0 for name in ("packed", "bytes")):
                raise ValueError(f"sizes of section {part['name']!r}")
        if len(set(names)) < len(names) or not {"runs", "artifacts"} <= set(names):
            raise ValueError("its sections")
        texts = (header.model, header.fingerprint, header.commit, *header.recipes, *header.tasks, *header.left_out)
        if not all(isinstance(text, str) for text in (*texts, *header.devices, *header.measured)):
            raise ValueError("a text")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadRequest(f"{path}: its header is not one of this program ({str(error)[:120]})") from error
    if (total := sum(part["bytes"] for part in header.sections)) > UNPACKED:
        raise BadRequest(f"{path} would unpack to {bytes_text(total)}, at most {bytes_text(UNPACKED)} are taken")
    return header
