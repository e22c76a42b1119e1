"""Earlier layouts on disk, and how each becomes the next one. A migration that is killed is run again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import xxhash

from kick_core.store.files import replace_file, seal_json, sealed

_CARDS = (
    "results/??/*/run.json", "fidelity/??/*/run.json", "judgments/??/*/judging.json", "jobs/*/spec.json",
    "jobs/*/state.json",
)  # fmt: skip


def _sums_everywhere(root: Path) -> None:
    """1 -> 2: run cards, timings, jobs and verdicts get checksums; the memo of fingerprints is started anew."""
    for path in root.glob("results/??/*/timings.json"):
        _seal(path, wrap="sittings")
    for pattern in _CARDS:
        for path in root.glob(pattern):
            _seal(path)
    for path in root.glob("results/??/*/verdicts-v*-*.parquet"):
        if path.stem.count("-") == 2:
            os.replace(path, path.with_name(f"{path.stem}-{xxhash.xxh3_64_hexdigest(path.read_bytes())}.parquet"))
    for path in root.glob("staging/*/block-*.json"):
        path.unlink()  # its report knows no sums: those blocks are made again
    (root / "fingerprints.json").unlink(missing_ok=True)


def _seal(path: Path, *, wrap: str = "") -> None:
    if sealed(path):
        return
    try:
        content = json.loads(path.read_text())
        replace_file(path, seal_json({wrap: content} if wrap else content))
    except (ValueError, TypeError):
        return  # damaged before: `kick verify` names it


def _shared_masks(root: Path) -> None:
    """2 -> 3: artifacts may share the files of nested masks, which earlier programs would take for damage."""


MIGRATIONS: Mapping[int, Callable[[Path], None]] = {1: _sums_everywhere, 2: _shared_masks}
"""From which layout to the next."""
