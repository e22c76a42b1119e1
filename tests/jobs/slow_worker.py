"""A worker with a made-up sweep: `python slow_worker.py CACHE JOB LOCK`. Its request says how it behaves."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from kick_core.errors import KickError
from kick_core.jobs import worker
from kick_core.records import Progress
from kick_core.store import Store


def run(spec: Mapping[str, Any], store: Store) -> Iterator[Progress]:
    with open(store.root / "starts.txt", "a") as file:
        file.write(f"{spec['model']}\n")
    for i in range(spec["steps"]):
        time.sleep(spec["pause"])
        if spec.get("fails") == i:
            raise KickError("no space left for it")
        if spec.get("breaks") == i:
            raise ZeroDivisionError("a bug")
        yield Progress(
            spec["model"],
            i + 1,
            spec["steps"],
            f"step {i + 1}",
            i,
            spec["steps"],
            0.1 * i,
            spec["says"] * (i + 1) or None,
        )


if __name__ == "__main__":
    sys.exit(worker.main(sys.argv[1:], run))
