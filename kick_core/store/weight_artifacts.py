"""Compressed weights: write-once folders, staged block by block, committed by one rename.

    weights/ab/<key>/   card.json  manifest.json  block-0000.safetensors …
    staging/<key>/      the same while it grows, next-input-0003.safetensors (see below), state-000032.safetensors

A killed run leaves its staging folder; the next one trusts the leading blocks that are whole (their sums are in
their reports) and goes on. Activations that are computed again are not the same activations on every machine, and a
chain of small differences is not small: so a report holds a digest of the next block's inputs, which who goes on must
come to again through the finished blocks. Where that costs little beside a block's work, the inputs are kept too. A
killed seal is finished by whoever comes next.

Artifacts whose masks are nested may share one file per block (see `nested_masks`): their block-*.safetensors are hard
links to it. The manifest still says what each of them was made of, so that a key stands for the same bytes however they
are stored.

A process that has applied an artifact to a model holds a shared lock on locks/<key>.use, which ends with the process; a
file `pinned` beside the card keeps the artifact too. `remove` respects both.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import xxhash
from filelock import Timeout

from kick_core.errors import KickError
from kick_core.keys import canonical
from kick_core.records import BlockReport, Card, LayerPlan, LayerReport
from kick_core.store import Store, fault_injection
from kick_core.store.files import (
    Buffers,
    Damaged,
    no_space_named,
    read_sealed_json,
    replace_file,
    seal_json,
    sync_folder,
)
from kick_core.store.locks import acquire, locked
from kick_core.store.nested_masks import bit_planes

CARDS = "cards"
"""The top folder for cards of artifacts whose weights are not here."""


def has(store: Store, key: str) -> bool:
    """Whether the artifact is there, complete."""
    return (store.folder("weights", key) / "card.json").exists()


def card(store: Store, key: str) -> Card:
    """The card of a complete artifact, or of one whose results came without its weights.

    Raises:
        Damaged: It is there, but cannot be read.
        KickError: There is no such artifact.
    """
    path = card_path(store, key)
    try:
        return Card.from_json(json.loads(path.read_text()))
    except FileNotFoundError:
        raise KickError(f"no artifact {key!r} in {store.root}: `kick list` shows what is there") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"the card {path} is damaged ({error}): `kick verify` sets it aside") from error


def card_path(store: Store, key: str) -> Path:
    """Where an artifact's card is: beside its weights, or alone where a pack brought it without them."""
    path = store.folder("weights", key) / "card.json"
    return path if path.exists() else store.folder(CARDS, key) / "card.json"


def keep_foreign_card(store: Store, foreign: Card) -> None:
    """Keep the card of an artifact that was made and measured elsewhere; one that is there stays."""
    path = store.folder(CARDS, foreign.key) / "card.json"
    if not has(store, foreign.key) and not path.exists():
        replace_file(path, json.dumps(foreign.to_json(), indent=1).encode())


def cards(store: Store) -> list[Card]:
    """The cards of all complete artifacts that can be read; `kick verify` names the others."""
    readable = []
    for key in store.keys("weights"):
        with contextlib.suppress(KickError):  # damaged, or removed while we look
            if has(store, key):
                readable.append(card(store, key))
    return readable


def block_path(store: Store, key: str, block: int) -> Path:
    return store.folder("weights", key) / _block_name(block)


def tensors(store: Store, key: str, block: int, framework: str, mask_of: str | None = None) -> dict[str, Any]:
    """The tensors of a block as the artifact was made, however its masks are stored.

    Args:
        store: The cache.
        key: The artifact.
        block: Its number, from 0.
        framework: "pt" for torch tensors, "np" for arrays.
        mask_of: Read no more than the mask of this linear.

    Raises:
        Damaged: The file is not what was written.
        FileNotFoundError: There is no such block.
    """
    return bit_planes.tensors(block_path(store, key, block), key, framework, mask_of)


def as_made(store: Store, key: str, block: int) -> bytes:
    """A block's file as it was made, checked against its sum in the manifest.

    Raises:
        Damaged: The file is not what was written.
        FileNotFoundError: There is no such block.
    """
    path = block_path(store, key, block)
    facts, data = _manifest(path.parent)[path.name], path.read_bytes()
    if len(data) != facts["bytes"]:
        data = bit_planes.unfold(data, key)
    if _facts_of(data) != facts:
        raise Damaged(f"{path} is damaged (its checksum differs): `kick verify --deep` sets it aside")
    return data


def sizes(store: Store) -> dict[str, float]:
    """Bytes that the blocks of every artifact take on disk; those that share a file take an equal part of it each."""
    files: list[tuple[str, os.stat_result]] = []
    for key in store.keys("weights"):
        with contextlib.suppress(FileNotFoundError):  # removed while we look
            files += [(key, path.stat()) for path in store.folder("weights", key).glob("block-*.safetensors")]
    links = Counter((facts.st_dev, facts.st_ino) for _, facts in files)
    total: defaultdict[str, float] = defaultdict(float)
    for key, facts in files:
        total[key] += facts.st_size / links[facts.st_dev, facts.st_ino]
    return dict(total)


def _block_name(block: int) -> str:
    return f"block-{block:04d}.safetensors"


def _input_name(block: int) -> str:
    return f"next-input-{block:04d}.safetensors"


@dataclass(frozen=True, slots=True)
class NextInputs:
    """What is known of the inputs of the block after a finished one.

    Attributes:
        digest: Of their bits.
        batches: Windows in one forward of each stream of activations, on which their bits depend.
        saved: Their bytes as a file, where they are kept.
    """

    digest: str
    batches: tuple[int, ...]
    saved: Buffers | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """An artifact that is being made. Blocks are added in order; `seal` commits them all at once."""

    store: Store
    key: str

    @property
    def folder(self) -> Path:
        return self.store.root / "staging" / self.key

    def reports(self) -> list[BlockReport]:
        """The reports of the leading blocks that are whole, in order. Blocks after a damaged one are made again."""
        reports: list[BlockReport] = []
        while self._whole(len(reports), _block_name(len(reports))):
            data = self._facts(len(reports))["report"]
            layers = tuple(LayerReport.from_json(layer) for layer in data.pop("layers"))
            reports.append(BlockReport(**{**data, "layers": layers, "resumed": True}))
        return reports

    def _facts(self, block: int) -> dict[str, Any]:
        """A finished block's report, and the sums of the files that it left."""
        return read_sealed_json(self.folder / f"block-{block:04d}.json")

    def _whole(self, block: int, name: str) -> bool:
        """Whether a file that a finished block left is as it was left."""
        try:
            return bool(self._facts(block)["sums"].get(name) == _sum(self.folder / name))
        except (Damaged, OSError, KeyError):
            return False

    def faults(self) -> list[str]:
        """Files of finished blocks that are not as they were left."""
        numbers = [int(path.stem[6:]) for path in sorted(self.folder.glob("block-????.json"))]
        return (
            [f"{_block_name(n)} is damaged" for n in numbers if not self._whole(n, _block_name(n))]
            + [
                f"{_input_name(n + 1)} is damaged"
                for n in numbers[-1:]
                if (self.folder / _input_name(n + 1)).exists() and not self._whole(n, _input_name(n + 1))
            ]
            + [f"{path.name} is damaged" for path in self._states() if self._state(path) is None]
        )

    def block_file(self, block: int) -> Path:
        return self.folder / _block_name(block)

    def next_inputs(self, block: int) -> NextInputs | None:
        """What is known of the inputs of the block after a finished one; None where nothing is."""
        known = self._facts(block).get("next")
        return None if known is None else NextInputs(known["digest"], tuple(known["batches"]))

    def saved_input(self, most: int) -> tuple[int, Path] | None:
        """The last block, `most` or one before, whose inputs are there as they were written; and their file."""
        for block in range(most, 0, -1):
            if (self.folder / _input_name(block)).exists() and self._whole(block - 1, _input_name(block)):
                return block, self.folder / _input_name(block)
        return None

    def begin_anew(self) -> None:
        """Forget all finished blocks."""
        for path in sorted(self.folder.glob("block-????.json")):
            path.unlink()
        sync_folder(self.folder)

    def plan(self) -> LayerPlan | None:
        """What was planned for this artifact before, where it was and is whole."""
        try:
            return LayerPlan.from_json(read_sealed_json(self.folder / "plan.json"))
        except (Damaged, OSError, KeyError, TypeError, AttributeError):
            return None

    def keep_plan(self, plan: LayerPlan) -> None:
        """Keep what was planned: a make that is stopped goes on by the same plan."""
        replace_file(self.folder / "plan.json", seal_json(plan.to_json()))
        fault_injection.point("plan kept")

    def add(self, report: BlockReport, tensors: bytes | Buffers, following: NextInputs | None = None) -> None:
        """Keep one finished block. Its report is written last: that is what makes the block whole.

        Args:
            report: What was done.
            tensors: The content of its file.
            following: What is known of the next block's inputs; None where it has none.
        """
        block, files = report.block, {_block_name(report.block): tensors}
        if following is not None and following.saved is not None:
            files[_input_name(block + 1)] = following.saved
        sums = {name: replace_file(self.folder / name, data, lasting=False) for name, data in files.items()}
        known = {} if following is None else {"digest": following.digest, "batches": following.batches}
        facts = {"report": report.to_json(), "sums": sums, "next": known or None}
        # one sync for all: a report without its file, as a power cut may leave it, is no whole block
        replace_file(self.folder / f"block-{block:04d}.json", seal_json(facts))
        fault_injection.point("block kept")
        if len(files) > 1:
            for older in self.folder.glob("next-input-*.safetensors"):
                if older.name not in files:
                    older.unlink()

    def keep_state(self, step: int, state: bytes) -> None:
        """Keep the state of a training, which is not done by blocks. Its sum is written last, then older ones go."""
        name = f"state-{step:06d}"
        replace_file(self.folder / f"{name}.safetensors", state)
        replace_file(self.folder / f"{name}.json", seal_json({"sums": _facts_of(state)}))
        fault_injection.point("state kept")
        for path in sorted(self.folder.glob("state-*")):
            if path.stem != name:
                path.unlink()

    def state(self) -> bytes | None:
        """The newest state that is as it was left; None where there is none."""
        return next((data for path in self._states() if (data := self._state(path)) is not None), None)

    def _states(self) -> list[Path]:
        return sorted(self.folder.glob("state-*.json"), reverse=True)

    def _state(self, path: Path) -> bytes | None:
        try:
            data = path.with_suffix(".safetensors").read_bytes()
            return data if read_sealed_json(path)["sums"] == _facts_of(data) else None
        except (Damaged, OSError, KeyError):
            return None

    def bytes(self) -> int:
        """Bytes of all blocks so far."""
        return sum(path.stat().st_size for path in self.folder.glob("block-*.safetensors"))

    def seal(self, finished: Card) -> Card:
        """Commit: card and manifest, then one rename. Drops ours if a whole artifact is there already.

        Blocks were summed as they were written, or when their reports were read: no file is read again.
        """
        names = [path.name for path in sorted(self.folder.glob("block-*.safetensors"))]
        files = {name: self._facts(block)["sums"][name] for block, name in enumerate(names)}
        files["card.json"] = replace_file(self.folder / "card.json", json.dumps(finished.to_json(), indent=1).encode())
        replace_file(self.folder / "manifest.json", canonical({"files": files}).encode())
        self._commit()
        return finished

    def _commit(self) -> None:
        """The rest of a seal, from the manifest on: whoever finds one in a staging folder can do it."""
        expected = {"manifest.json", *_manifest(self.folder)}
        for path in sorted(self.folder.iterdir()):
            if path.name not in expected:
                path.unlink()
                fault_injection.point("scratch removed")
        final = self.store.folder("weights", self.key)
        final.parent.mkdir(parents=True, exist_ok=True)
        sync_folder(final.parent.parent)
        fault_injection.point("before the commit")
        try:
            os.rename(self.folder, final)
        except OSError:
            if not has(self.store, self.key):
                raise
            shutil.rmtree(self.folder)
        fault_injection.point("after the commit")
        sync_folder(final.parent)

    def finish(self) -> bool:
        """Finish the seal that a killed process began; False when there is none, or when it is damaged."""
        if not (self.folder / "manifest.json").exists():
            return False
        if _faults(self.folder, deep=True):
            (self.folder / "manifest.json").unlink()
            return False
        self._commit()
        return True


@contextmanager
def stage(store: Store, key: str) -> Iterator[Stage | None]:
    """Take the right to make an artifact. Yields None when another process finished it meanwhile."""
    with locked(store.lock_path(key)):
        if has(store, key):
            yield None
        else:
            staged = Stage(store, key)
            with no_space_named(staged.folder, 0):
                staged.folder.mkdir(parents=True, exist_ok=True)
            yield None if staged.finish() else staged


def _sum(path: Path) -> dict[str, Any]:
    with open(path, "rb") as file:
        return _sum_of(file)


def _sum_of(file: BinaryIO) -> dict[str, Any]:
    digest, size = xxhash.xxh3_128(), 0
    while chunk := file.read(1 << 22):
        digest.update(chunk)
        size += len(chunk)
    return {"bytes": size, "xxh3_128": digest.hexdigest()}


def _facts_of(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "xxh3_128": xxhash.xxh3_128_hexdigest(data)}


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    """File name -> size and sum. Raises Damaged when this is no manifest of a whole artifact."""
    try:
        files = json.loads((folder / "manifest.json").read_text())["files"]
        names = {_block_name(block) for block in range(len(files) - 1)} | {"card.json"}
        if set(files) != names or not all(set(facts) == {"bytes", "xxh3_128"} for facts in files.values()):
            raise ValueError("other files than blocks and a card")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Damaged(f"the manifest cannot be read ({error})") from error
    return dict(files)


def verify(store: Store, key: str, *, deep: bool) -> list[str]:
    """What is wrong with an artifact, in words; empty when nothing is. `deep` reads every byte."""
    return [f"{key}: {fault}" for fault in _faults(store.folder("weights", key), deep=deep)]


def _faults(folder: Path, *, deep: bool) -> list[str]:
    try:
        expected = _manifest(folder)
    except Damaged as error:
        return [str(error)]
    faults = []
    for name, facts in expected.items():
        try:
            with open(folder / name, "rb") as file:  # once: it may be replaced by a shared one while we look
                fault = _fault(file, facts, folder.name, deep)
        except FileNotFoundError:
            fault = "is missing"
        if fault:
            faults.append(f"{name} {fault}")
    return faults


def _fault(file: BinaryIO, facts: dict[str, Any], key: str, deep: bool) -> str:
    size = os.fstat(file.fileno()).st_size
    shared = None if size == facts["bytes"] else bit_planes.size(file, key)
    if size != (expected := facts["bytes"] if shared is None else shared):
        return f"has {size} bytes, {expected} expected"
    if not deep:
        return ""
    file.seek(0)
    try:
        actual = _sum_of(file) if shared is None else _facts_of(bit_planes.unfold(file.read(), key))
    except Damaged:
        actual = None
    return "" if actual == facts else "is damaged (its checksum differs)"


def quarantine(store: Store, key: str) -> Path:
    """Set a damaged artifact aside; it is made again on demand."""
    aside = store.root / "quarantine" / key
    aside.parent.mkdir(parents=True, exist_ok=True)
    with locked(store.lock_path(key)):  # not while its files are replaced by shared ones
        if aside.exists():
            shutil.rmtree(aside)
        os.rename(store.folder("weights", key), aside)
    return aside


# --- what must stay ----------------------------------------------------------------------------------------


def hold(store: Store, key: str) -> int | None:
    """Declare that this process needs an artifact: until the descriptor is closed, `remove` refuses.

    Returns:
        The descriptor, or None where no lock can be made (a read-only cache).
    """
    try:
        return acquire(_use(store, key), shared=True, wait=True)
    except (OSError, KickError):
        return None


def _use(store: Store, key: str) -> Path:
    return store.root / "locks" / f"{key}.use"


def pin(store: Store, key: str, on: bool = True) -> None:
    """Keep an artifact however much space is needed (`on`), or no longer."""
    mark = store.folder("weights", key) / "pinned"
    if on:
        replace_file(mark, b"")
    else:
        mark.unlink(missing_ok=True)


def pinned(store: Store, key: str) -> bool:
    return (store.folder("weights", key) / "pinned").exists()


def remove(store: Store, key: str) -> bool:
    """Delete an artifact; it can be made again from its recipe. Outputs are never removed with it.

    Returns:
        Whether it was removed: not when it is not there, pinned, being made, or applied by a process.
    """
    if pinned(store, key):
        return False
    folder = store.folder("weights", key)
    if (handle := acquire(_use(store, key))) is None:
        return False
    try:
        with locked(store.lock_path(key), timeout=0):
            if not folder.exists():
                return False
            removed = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
            os.rename(folder, removed)
            fault_injection.point("artifact gone")
            shutil.rmtree(removed)
            return True
    except Timeout:
        return False
    finally:
        os.close(handle)
