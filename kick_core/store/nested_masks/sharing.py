"""Artifacts of one method at rising sparsity keep their masks in one file a block, which each of them links to.

Twelve nested masks take 4 bits per weight together instead of 12 (see `bit_planes`). Every artifact stays complete: its
folder holds every block under the block's own name, one that is removed or set aside leaves the others, and nobody
counts who links to what. A block's file is replaced by one rename, after it was shown that the shared one gives back,
byte for byte, what the manifest tells of; so a reader finds a whole file at any time, and a process that is killed
leaves some blocks shared and others not. Where the disk knows no hard links everything stays as it was made.
"""

from __future__ import annotations

import json
import os
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from kick_core.errors import KickError
from kick_core.records import Card
from kick_core.spec import Unstructured, parse
from kick_core.store import Store, fault_injection, weight_artifacts
from kick_core.store.files import free_bytes, replace_file, sync_folder
from kick_core.store.locks import locked
from kick_core.store.nested_masks import bit_planes


@dataclass(frozen=True, slots=True)
class Shared:
    """One block of a series is done.

    Attributes:
        masks: How many artifacts share it now.
        block: Its number.
        blocks: How many there are.
    """

    masks: int
    block: int
    blocks: int


def find(store: Store) -> list[list[str]]:
    """The keys of artifacts that differ in nothing but the requested ratio, series by series.

    Only where masks are nested by the way they are chosen: without data, or all from the dense model's activations.
    From block to block of a pruned model every ratio reads other activations.

    Args:
        store: The cache.
    """
    series: dict[str, list[str]] = defaultdict(list)
    for card in weight_artifacts.cards(store):
        with suppress(KickError, OSError):  # a recipe of a newer program, or removed while we look
            if (group := _series_key(card)) and bit_planes.holds_masks(weight_artifacts.block_path(store, card.key, 0)):
                series[group].append(card.key)
    return [sorted(keys) for _, keys in sorted(series.items())]


def _series_key(card: Card) -> str:
    """What the artifacts of a series have in common; empty where an artifact belongs to none."""
    recipe, calibration = parse(card.recipe), card.calibration
    if (
        not isinstance(recipe.target, Unstructured)
        or recipe.then
        or (calibration and calibration.get("propagate") != "dense")
    ):
        return ""
    settings = {name: fact for name, fact in card.resolved.items() if name != "target"}
    tokens = calibration.get("ids") if calibration else None
    return json.dumps([card.fingerprint, card.dtype, card.decoder, recipe.method, settings, tokens], sort_keys=True)


def share(store: Store, among: Collection[str] | None = None) -> Iterator[Shared]:
    """Let every series share its files where that takes less space.

    What is damaged, busy, removed meanwhile or not ours to change is left as it is, and so is the rest when there is
    no space for one more block: nothing depends on it.

    Args:
        store: The cache.
        among: Only series with one of these keys; None: all.

    Yields:
        A record per block.
    """
    for keys in find(store):
        if among is None or not set(among).isdisjoint(keys):
            with suppress(KickError, OSError):
                yield from _share(store, keys)


def _share(store: Store, keys: Sequence[str]) -> Iterator[Shared]:
    with ExitStack() as locks:
        for key in keys:  # neither removed nor made again while their files are replaced
            locks.enter_context(locked(store.lock_path(key), timeout=0))
        blocks, changed = weight_artifacts.card(store, keys[0]).blocks, False
        for block in range(blocks):
            changed |= _share_block({key: weight_artifacts.block_path(store, key, block) for key in keys}, store, block)
            yield Shared(len(keys), block, blocks)
        for key in keys if changed else ():
            sync_folder(store.folder("weights", key))


def _share_block(paths: Mapping[str, Path], store: Store, block: int) -> bool:
    """Whether a file was replaced."""
    series_keys = {key: set(bit_planes.keys(path)) for key, path in paths.items()}
    if _shared_well(paths, series_keys) or (len(paths) < 3 and not any(series_keys.values())):
        return False
    files = {key: weight_artifacts.as_made(store, key, block) for key in paths}
    packed = bit_planes.pack(files)
    if packed is None or len(packed) >= sum(map(len, files.values())):
        for key in (key for key in paths if series_keys[key]):
            replace_file(paths[key], files[key])
        return any(series_keys.values())
    first, *others = paths.values()
    if free_bytes(first) < len(packed) or not _can_link(first):
        return False
    replace_file(first, packed)
    for path in others:
        _link(first, path)
    return True


def _shared_well(paths: Mapping[str, Path], series_keys: Mapping[str, set[str]]) -> bool:
    """Whether all have one file already, with no more bits a weight than they need."""
    inodes = {(facts.st_dev, facts.st_ino) for facts in map(os.stat, paths.values())}
    keys = next(iter(series_keys.values()))
    return len(inodes) == 1 and keys >= set(paths) and len(keys).bit_length() == len(paths).bit_length() < len(paths)


def _staging_path(path: Path) -> Path:
    return path.parent / f".{path.name}.{uuid.uuid4().hex}"


def _can_link(path: Path) -> bool:
    probe = _staging_path(path)
    try:
        os.link(path, probe)
    except OSError:
        return False
    probe.unlink(missing_ok=True)
    return True


def _link(shared: Path, path: Path) -> None:
    """Make `path` another name of `shared`, in one step."""
    staged = _staging_path(path)
    try:
        os.link(shared, staged)
        fault_injection.point(f"{path.name}: linked")
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)
    fault_injection.point(f"{path.name}: shared")
