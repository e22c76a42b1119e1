"""Winning back what compression took: block by block (`blocks`), or by low-rank updates of all matrices (`adapters`).

Which weights are zero never changes, and codes stay codes: what is recovered is as sparse, or as narrow, as before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kick_core.errors import KickError


@contextmanager
def memory_errors_named(what: str) -> Iterator[None]:
    """Out of memory in here is told as a failure of `what`, with what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise KickError(f"out of memory while {what} ({error}): use a shorter --length or --device cpu") from error
