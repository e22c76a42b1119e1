"""The memo of how models can be asked: which forms of the engine were proven right, by model, device and versions.

`trials.json` holds what a model is known by -> what its trials came to (`engine.forms`). It is only a memo: damaged or
removed, every form is tried again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from kick_core.store import Store
from kick_core.store.files import Damaged, read_sealed_json, replace_file, seal_json

FILE = "trials.json"

_MOST = 64
"""Models and devices that are remembered, the last ones."""


def remembered(store: Store, identity: str) -> dict[str, Any]:
    """What the trials of a model came to; nothing where they are not known."""
    return dict(_all(store).get(identity, {}))


def remember(store: Store, identity: str, facts: Mapping[str, Any]) -> None:
    """Keep what the trials of a model came to.

    Args:
        store: The cache.
        identity: What the model is known by.
        facts: Plain JSON.
    """
    memo = _all(store)
    if facts != memo.pop(identity, {}) and os.access(store.root, os.W_OK):  # a cache may be there to be read only
        memo[identity] = dict(facts)
        replace_file(store.root / FILE, seal_json(dict(list(memo.items())[-_MOST:])))


def _all(store: Store) -> dict[str, Any]:
    try:
        return read_sealed_json(store.root / FILE)
    except (Damaged, OSError):
        return {}
