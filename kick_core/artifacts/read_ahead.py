"""The next artifact's blocks, read while the model is asked under the present one.

A thread copies them out of the cache's files into the host's memory, and unfolds masks that share files; applying them
then waits for no disk. Nothing is sent to a GPU, where another thread's calls would break a graph that is being
recorded.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import psutil
from torch import Tensor

from kick_core import timing
from kick_core.errors import KickError
from kick_core.store import Store, weight_artifacts

SHARE = 4
"""At most one part in so many of the free memory is taken; a larger artifact is read when it is applied."""

Blocks = list[dict[str, Tensor]]
"""The tensors of each block, on the CPU."""


@dataclass(slots=True)
class ReadAhead:
    """One artifact on its way into memory."""

    _key: str = ""
    _blocks: Future[Blocks] | None = None
    _thread: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "reader"))

    def begin(self, store: Store, key: str) -> None:
        """Have an artifact read, unless it is on its way already.

        Args:
            store: The cache.
            key: The artifact's key.
        """
        if key != self._key:
            self._key, self._blocks = key, self._thread.submit(_read, store, key)

    def take(self, key: str) -> Blocks:
        """What was read of an artifact, handed over, from block 0 on.

        Args:
            key: The artifact's key.

        Returns:
            Nothing where it was not read: it was not there, was too large, or could not be read, which whoever applies
            it meets again.
        """
        if key != self._key or self._blocks is None:
            return []
        blocks, self._key, self._blocks = self._blocks, "", None
        try:
            return blocks.result()
        except (OSError, KickError):
            return []


def _read(store: Store, key: str) -> Blocks:
    if not weight_artifacts.has(store, key):
        return []
    card = weight_artifacts.card(store, key)
    if SHARE * card.bytes > psutil.virtual_memory().available:
        return []
    with timing.stage("read ahead"):
        return [
            {name: tensor.clone() for name, tensor in weight_artifacts.tensors(store, key, block, "pt").items()}
            for block in range(card.blocks)
        ]
