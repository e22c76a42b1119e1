"""Which examples are not independent: questions on one passage, turns of one dialogue.

A task says so by `meta["cluster"]` (any name) or by `meta["passage"]`. MMLU's three history subjects put the
passage into the question itself, before the line that asks: 606 questions stand on 193 passages.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from kick_core.records import Example
from kick_core.store import Store
from kick_core.views import load

_ON_A_PASSAGE = "This question refers to the following information."


def cluster(example: Example) -> str:
    """The name of the cluster that an example belongs to; its own id when it stands alone."""
    for name in ("cluster", "passage"):
        if found := example.meta.get(name):
            return f"{name} {found}"
    question = str(example.meta.get("question", ""))
    if question.startswith(_ON_A_PASSAGE):
        return f"passage {question.rpartition(chr(10))[0].strip()}"
    return f"example {example.id}"


@lru_cache(maxsize=32)
def numbers(store: Store, examples: str) -> dict[str, int]:
    """Example id -> number of its cluster, for the examples under a key."""
    known: dict[str, int] = {}
    found = load.examples(store, examples).items()
    return {name: known.setdefault(cluster(example), len(known)) for name, example in found}


def of(store: Store, examples: str, ids: NDArray[np.object_]) -> NDArray[np.intp]:
    """The cluster of each of these examples, as numbers from 0; an example that is not kept stands alone."""
    return _of(store, examples, _Same(ids))


class _Same:
    """An array that is equal to itself alone: runs of one task share their ids (`load._shared_ids`)."""

    def __init__(self, ids: NDArray[np.object_]) -> None:
        self.ids = ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.ids is self.ids

    def __hash__(self) -> int:
        return id(self.ids)


@lru_cache(maxsize=64)
def _of(store: Store, examples: str, same: _Same) -> NDArray[np.intp]:
    known = numbers(store, examples)
    return np.array([known.get(name, len(known) + at) for at, name in enumerate(same.ids)], dtype=np.intp)
