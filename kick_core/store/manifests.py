"""Manifests of artifacts: the size and the sum of every file, and what is wrong with files that differ."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import xxhash

from kick_core.store.files import Damaged
from kick_core.store.nested_masks import bit_planes


def block_name(block: int) -> str:
    """The name of a block's file.

    Args:
        block: Its number.
    """
    return f"block-{block:04d}.safetensors"


def file_sums(path: Path) -> dict[str, Any]:
    """Size and XXH3-128 of a file.

    Args:
        path: The file.
    """
    with open(path, "rb") as file:
        return _sum_of(file)


def _sum_of(file: BinaryIO) -> dict[str, Any]:
    digest, size = xxhash.xxh3_128(), 0
    while chunk := file.read(1 << 22):
        digest.update(chunk)
        size += len(chunk)
    return {"bytes": size, "xxh3_128": digest.hexdigest()}


def sums_of(data: bytes) -> dict[str, Any]:
    """Size and XXH3-128 of bytes.

    Args:
        data: The content of a file.
    """
    return {"bytes": len(data), "xxh3_128": xxhash.xxh3_128_hexdigest(data)}


def read_manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """File name -> size and sum.

    Args:
        folder: Of the artifact.

    Raises:
        Damaged: It is no manifest of a whole artifact.
    """
    try:
        files = json.loads((folder / "manifest.json").read_text())["files"]
        names = {block_name(block) for block in range(len(files) - 1)} | {"card.json"}
        if set(files) != names or not all(set(facts) == {"bytes", "xxh3_128"} for facts in files.values()):
            raise ValueError("other files than blocks and a card")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"the manifest cannot be read ({error})") from error
    return dict(files)


def faults(folder: Path, *, deep: bool) -> list[str]:
    """What is wrong with the files of a manifest; empty when nothing is.

    Args:
        folder: Of the artifact.
        deep: Read every byte, instead of sizes alone.
    """
    try:
        expected = read_manifest(folder)
    except Damaged as error:
        return [str(error)]
    problems = []
    for name, facts in expected.items():
        try:
            with open(folder / name, "rb") as file:  # once: it may be replaced by a shared one while we look
                fault = _fault(file, facts, folder.name, deep)
        except FileNotFoundError:
            fault = "is missing"
        if fault:
            problems.append(f"{name} {fault}")
    return problems


def _fault(file: BinaryIO, facts: dict[str, Any], key: str, deep: bool) -> str:
    size = os.fstat(file.fileno()).st_size
    shared = None if size == facts["bytes"] else bit_planes.size(file, key)
    if size != (expected := facts["bytes"] if shared is None else shared):
        return f"has {size} bytes, {expected} expected"
    if not deep:
        return ""
    file.seek(0)
    try:
        actual = _sum_of(file) if shared is None else sums_of(bit_planes.unfold(file.read(), key))
    except Damaged:
        actual = None
    return "" if actual == facts else "is damaged (its checksum differs)"
