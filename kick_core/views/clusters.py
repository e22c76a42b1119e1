"""Which examples are not independent: questions on one passage, turns of one dialogue.

A task says so by `meta["cluster"]` (any name) or by `meta["passage"]`. MMLU's three history subjects put the
passage into the question itself, before the line that asks: 606 questions stand on 193 passages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from kick_core import stats
from kick_core.store import Store, results

_ON_A_PASSAGE = "This question refers to the following information."


_NAMED = ("cluster", "passage")
_MAY_SHARE = "|".join([*(f'"{name}"' for name in _NAMED), re.escape(_ON_A_PASSAGE)])


def cluster(name: str, meta: Mapping[str, Any]) -> str:
    """The name of the cluster that an example belongs to; its own id when it stands alone.

    Args:
        name: The example's id.
        meta: What its task says of it.
    """
    for field in _NAMED:
        if found := meta.get(field):
            return f"{field} {found}"
    question = str(meta.get("question", ""))
    if question.startswith(_ON_A_PASSAGE):
        return f"passage {question.rpartition(chr(10))[0].strip()}"
    return f"example {name}"


@lru_cache(maxsize=32)
def numbers(store: Store, examples: str) -> dict[str, int]:
    """Example id -> number of its cluster, for the examples under a key."""
    table = results.example_columns(store, examples, ["id", "meta"])
    ids, meta = table.column("id").to_pylist(), table.column("meta")
    among = pc.indices_nonzero(pc.match_substring_regex(meta, _MAY_SHARE)).to_numpy()
    named = {
        at: cluster(ids[at], json.loads(text)) for at, text in zip(among, meta.take(among).to_pylist(), strict=True)
    }
    known: dict[str, int] = {}
    names = [named.get(at) or f"example {name}" for at, name in enumerate(ids)]
    return {name: known.setdefault(its, len(known)) for name, its in zip(ids, names, strict=True)}


def of(store: Store, examples: str, ids: NDArray[np.object_]) -> NDArray[np.intp]:
    """The cluster of each of these examples, as numbers from 0; an example that is not kept stands alone."""
    return _of(store, examples, _Same(ids))


def grouping(
    store: Store, examples: str, ids: NDArray[np.object_], at: NDArray[np.intp] | NDArray[np.bool_]
) -> stats.Grouping:
    """The clusters of some of these examples.

    Args:
        store: The cache.
        examples: The key of the questions.
        ids: Examples [n].
        at: Places of those meant, or a mask [n].
    """
    every = at.all() if at.dtype == bool else np.array_equal(at, np.arange(ids.size))
    return _grouping(store, examples, _Same(ids)) if every else stats.grouped(of(store, examples, ids)[at])


class _Same:
    """An array that is equal to itself alone: runs of one task share their ids (`verdict_columns`)."""

    def __init__(self, ids: NDArray[np.object_]) -> None:
        self.ids = ids

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.ids is self.ids

    def __hash__(self) -> int:
        return id(self.ids)


@lru_cache(maxsize=64)
def _grouping(store: Store, examples: str, same: _Same) -> stats.Grouping:
    return stats.grouped(_of(store, examples, same))


@lru_cache(maxsize=64)
def _of(store: Store, examples: str, same: _Same) -> NDArray[np.intp]:
    known = numbers(store, examples)
    return np.array([known.get(name, len(known) + at) for at, name in enumerate(same.ids)], dtype=np.intp)
