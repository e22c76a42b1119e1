"""Finished blocks are written in threads of their own, while the next one is worked on."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from kick_core import timing
from kick_core.records import BlockReport
from kick_core.store.files import Buffers
from kick_core.store.staging import NextInputs, Stage

THREADS = 2
"""One file can be filled while another is synced, where many artifacts are made at once."""

QUEUED, ROOM = 2, 4 << 30
"""Blocks on their way while the next one comes, and bytes of more: each holds its tensors in memory. Where many
artifacts are made at once, they are written while the next block's inputs are looked at."""

_FIRST_RATE = 5e8
"""Bytes a second that a disk is thought to take before anything was written."""

Content = Callable[[], tuple[bytes | Buffers, NextInputs | None]]
"""Gives a block's bytes and what is known of the next one's inputs, once they are on the host."""


@dataclass(slots=True)
class BlockWriter:
    """Writes blocks, one artifact's in their order. What fails is raised by the next call.

    Who compresses calls `wait` before it changes the next block: then a kill repeats one block at most.

    Attributes:
        inputs_share: Part of the work that keeping inputs of next blocks may take.
    """

    inputs_share: float = 0.0
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS, "writer"))
    _pending: deque[tuple[Future[None], int]] = field(default_factory=deque)
    _bytes: int = 0
    _seconds: float = 0.0
    _allowed: float = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._thread.shutdown(wait=True)
        if kind is None:
            self.wait()

    def affords(self, size: int, seconds: float) -> bool:
        """Whether keeping so many bytes more takes at most `inputs_share` of the work since they were last kept.

        Args:
            size: Bytes.
            seconds: Of work since this was asked before.
        """
        self._allowed += self.inputs_share * seconds
        rate = self._bytes / self._seconds if self._seconds else _FIRST_RATE
        if size > rate * self._allowed:
            return False
        self._allowed = 0.0
        return True

    def add(self, stage: Stage, report: BlockReport, content: Content, size: int) -> None:
        """Have a block written; waits while too many are on their way.

        Args:
            stage: Of its artifact.
            report: What was done.
            content: Gives its bytes.
            size: Of its tensors in bytes.

        Raises:
            KickError: What writing an earlier one failed with, such as a full disk.
        """
        with timing.stage("wait for the disk"):
            self._settle(QUEUED, ROOM - size)
        self._pending.append((self._thread.submit(self._write, stage, report, content), size))

    def wait(self) -> None:
        """Wait until all blocks are on the disk. Raises what `add` raises."""
        with timing.stage("wait for the disk"):
            self._settle(0, -1)

    def _settle(self, most: int, room: int) -> None:
        while len(self._pending) > most and sum(size for _, size in self._pending) > room:
            self._pending.popleft()[0].result()

    def _write(self, stage: Stage, report: BlockReport, content: Content) -> None:
        tensors, following = content()
        began = time.perf_counter()
        saved = (following.saved if following else None) or ()
        size = sum(map(len, saved)) + (len(tensors) if isinstance(tensors, bytes) else sum(map(len, tensors)))
        with timing.stage("write", bytes=size):
            stage.add(report, tensors, following)
        self._bytes += size
        self._seconds += time.perf_counter() - began
