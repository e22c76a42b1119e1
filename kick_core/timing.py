"""How long the stages of a command take, as records of Python's logging; silent unless a handler listens.

A record of the logger `LOGGER` carries `timing`: the stage, when it began (seconds since 1970), how long it took, the
thread, and amounts such as bytes. Work on a GPU is counted where it is waited for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

LOGGER = "kick_core.timing"
_log = logging.getLogger(LOGGER)


@contextmanager
def stage(name: str, **amounts: int) -> Iterator[None]:
    """Record how long the body takes.

    Args:
        name: The stage, e.g. `statistics`.
        amounts: What it handles, e.g. `bytes=…`.
    """
    if not _log.isEnabledFor(logging.DEBUG):
        yield
        return
    wall, began = time.time(), time.perf_counter()
    try:
        yield
    finally:
        seconds = time.perf_counter() - began
        timing = {"stage": name, "began": wall, "seconds": seconds, "thread": threading.current_thread().name}
        _log.debug("%s: %.4f s", name, seconds, extra={"timing": timing | amounts})
