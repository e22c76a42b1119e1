"""What of a run need not be waited for, done beside the questions: keeping the task's examples, sealing, scoring.

Outputs are on the disk as soon as they are recorded, so a kill loses no more than it would without the thread: the run
stays unfinished, and whoever goes on seals it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field

from kick_core import timing
from kick_core.store import results

QUEUED = 3
"""Pieces of work that may wait while the next run is asked."""


@dataclass(slots=True)
class Finisher:
    """Does such work in a thread, in its order. What fails is raised by the next call of `add` or `wait`."""

    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "writer"))
    _pending: deque[Future[None]] = field(default_factory=deque)

    def add(self, work: Callable[[], None]) -> None:
        """Have work done; waits while too much is on its way.

        Args:
            work: Writes what belongs to one run.

        Raises:
            KickError: What earlier work failed with, such as a full disk. This work is done all the same.
        """
        self._pending.append(self._thread.submit(work))
        self._settle(QUEUED)

    def wait(self) -> None:
        """Wait until all is done. Raises what `add` raises."""
        self._settle(0)

    def drain(self) -> None:
        """Wait until nothing is under way, where something else has failed already; raises nothing."""
        wait(self._pending)
        self._pending.clear()

    def _settle(self, most: int) -> None:
        while len(self._pending) > most:
            self._pending.popleft().result()


def seal(recorder: results.Recorder, order: Sequence[str], sitting: results.Timing, recording: ExitStack) -> None:
    """Seal what was recorded, and leave the run to others.

    Args:
        recorder: Of the run; the thread that recorded has closed its connection.
        order: The examples to seal, in the task's order.
        sitting: How long they took.
        recording: Holds the run (`results.recorder`); it is left here.
    """
    with recording:
        if order:
            with timing.stage("seal", outputs=len(order)):
                recorder.seal(order)
            results.add_timing(recorder.store, recorder.key, sitting)


def at_once(work: Callable[[], None]) -> None:
    """Do it now."""
    work()
