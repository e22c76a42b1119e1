"""`kick …` with its stages recorded: `python _recorded_kick.py STAGES.jsonl COMMAND…`, one JSON object a stage.

The package is the one on PYTHONPATH, which may be an older one that records no stages.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from pathlib import Path


class _Lines(logging.Handler):
    """Appends what a stage took; nothing is lost when the process is killed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = open(path, "a", buffering=1)  # noqa: SIM115

    def emit(self, record: logging.LogRecord) -> None:
        if timing := getattr(record, "timing", None):
            print(json.dumps(timing), file=self._file)


def main() -> int:
    path = Path(sys.argv[1])
    lines = _Lines(path)
    log = logging.getLogger("kick_core.timing")
    log.setLevel(logging.DEBUG)
    log.addHandler(lines)
    log.propagate = False
    began = time.time()
    from kick_core.cli import main as kick

    status = kick(sys.argv[2:])
    with open(path, "a") as file:
        print(json.dumps({"stage": "command", "began": began, "seconds": time.time() - began}), file=file)
    return status


if __name__ == "__main__":
    sys.exit(main())
