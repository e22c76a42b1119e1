"""Artifacts that are being built: blocks are staged one by one, and all are committed by one rename.

    staging/<key>/      as weights/ab/<key>/ while it grows, next-input-0003.safetensors, state-000032.safetensors

A killed run leaves its staging folder; the next one trusts the leading blocks that are whole (their sums are in
their reports) and goes on. Activations that are computed again are not the same activations on every machine, and a
chain of small differences is not small: so a report holds a digest of the next block's inputs, which a resumed build
must come to again through the finished blocks. Where that costs little beside a block's work, the inputs are kept too.
A killed seal is finished by whoever comes next.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from kick_core.store.locks import locked
from kick_core.store.manifests import block_name, faults, file_sums, read_manifest, sums_of
from kick_core.store.weight_artifacts import has


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
    """An artifact that is being built. Blocks are added in order; `seal` commits them all at once.

    Attributes:
        store: The cache.
        key: Of the artifact.
    """

    store: Store
    key: str

    @property
    def folder(self) -> Path:
        return self.store.root / "staging" / self.key

    def reports(self) -> list[BlockReport]:
        """The reports of the leading blocks that are whole, in order. Blocks after a damaged one are built again."""
        reports: list[BlockReport] = []
        while self._whole(len(reports), block_name(len(reports))):
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
            return bool(self._facts(block)["sums"].get(name) == file_sums(self.folder / name))
        except (Damaged, OSError, KeyError):
            return False

    def faults(self) -> list[str]:
        """Files of finished blocks that are not as they were left."""
        numbers = [int(path.stem[6:]) for path in sorted(self.folder.glob("block-????.json"))]
        return (
            [f"{block_name(n)} is damaged" for n in numbers if not self._whole(n, block_name(n))]
            + [
                f"{_input_name(n + 1)} is damaged"
                for n in numbers[-1:]
                if (self.folder / _input_name(n + 1)).exists() and not self._whole(n, _input_name(n + 1))
            ]
            + [f"{path.name} is damaged" for path in self._states() if self._state(path) is None]
        )

    def block_file(self, block: int) -> Path:
        """The file of a finished block.

        Args:
            block: Its number.
        """
        return self.folder / block_name(block)

    def next_inputs(self, block: int) -> NextInputs | None:
        """What is known of the inputs of the block after a finished one; None where nothing is.

        Args:
            block: The finished one.
        """
        known = self._facts(block).get("next")
        return None if known is None else NextInputs(known["digest"], tuple(known["batches"]))

    def saved_input(self, most: int) -> tuple[int, Path] | None:
        """The last block whose inputs are there as they were written, and their file.

        Args:
            most: The last block that counts.
        """
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
        """Keep what was planned: a build that is stopped goes on by the same plan.

        Args:
            plan: As a planner returned it.
        """
        replace_file(self.folder / "plan.json", seal_json(plan.to_json()))
        fault_injection.point("plan kept")

    def add(self, report: BlockReport, tensors: bytes | Buffers, following: NextInputs | None = None) -> None:
        """Keep one finished block. Its report is written last: that is what makes the block whole.

        Args:
            report: What was done.
            tensors: The content of its file.
            following: What is known of the next block's inputs; None where it has none.
        """
        block, files = report.block, {block_name(report.block): tensors}
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
        """Keep the state of a training, which is not done by blocks. Its sum is written last, then older ones go.

        Args:
            step: Of the training.
            state: As bytes.
        """
        name = f"state-{step:06d}"
        replace_file(self.folder / f"{name}.safetensors", state)
        replace_file(self.folder / f"{name}.json", seal_json({"sums": sums_of(state)}))
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
            return data if read_sealed_json(path)["sums"] == sums_of(data) else None
        except (Damaged, OSError, KeyError):
            return None

    def bytes(self) -> int:
        """Bytes of all blocks so far."""
        return sum(path.stat().st_size for path in self.folder.glob("block-*.safetensors"))

    def seal(self, finished: Card) -> Card:
        """Commit: card and manifest, then one rename. Drops ours if a whole artifact is there already.

        Blocks were summed as they were written, or when their reports were read: no file is read again.

        Args:
            finished: The card.

        Returns:
            The same card.
        """
        names = [path.name for path in sorted(self.folder.glob("block-*.safetensors"))]
        files = {name: self._facts(block)["sums"][name] for block, name in enumerate(names)}
        files["card.json"] = replace_file(self.folder / "card.json", json.dumps(finished.to_json(), indent=1).encode())
        replace_file(self.folder / "manifest.json", canonical({"files": files}).encode())
        self._commit()
        return finished

    def _commit(self) -> None:
        """The rest of a seal, from the manifest on: whoever finds a manifest in a staging folder can do it."""
        expected = {"manifest.json", *read_manifest(self.folder)}
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
        if faults(self.folder, deep=True):
            (self.folder / "manifest.json").unlink()
            return False
        self._commit()
        return True


@contextmanager
def stage(store: Store, key: str) -> Iterator[Stage | None]:
    """Take the right to build an artifact.

    Args:
        store: The cache.
        key: Of the artifact.

    Yields:
        None when another process finished it meanwhile.
    """
    with locked(store.lock_path(key)):
        if has(store, key):
            yield None
        else:
            staged = Stage(store, key)
            with no_space_named(staged.folder, 0):
                staged.folder.mkdir(parents=True, exist_ok=True)
            yield None if staged.finish() else staged
