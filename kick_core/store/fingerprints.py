"""The memo of model files' hashes: a file is hashed again only when its size, times or inode differ.

`fingerprints.json` holds `device:inode:size:mtime:ctime` -> SHA-256, and absolute path -> the state in which the file
was hashed, by which `kick verify --deep` finds it again. It is only a memo: damaged or removed, all is hashed anew.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from kick_core.keys import file_state, sha256_file
from kick_core.store import Store
from kick_core.store.files import Damaged, read_sealed_json, replace_file, seal_json

FILE = "fingerprints.json"


def remembered(store: Store) -> dict[str, str]:
    """What is remembered; nothing where the memo is damaged or there is none."""
    try:
        return read_sealed_json(store.root / FILE)
    except (Damaged, OSError):
        return {}


def remember(store: Store, hashes: Mapping[str, str], files: Iterable[Path]) -> None:
    """Keep hashes by state, and where the files are that have them.

    Args:
        store: The cache.
        hashes: State -> SHA-256, as `keys.fingerprint` adds them to its memo.
        files: Those that were hashed.
    """
    places = {os.path.abspath(path): file_state(path) for path in files}
    memo = {**hashes, **{path: state for path, state in places.items() if state in hashes}}
    if memo != remembered(store) and os.access(store.root, os.W_OK):  # a cache may be there to be read only
        replace_file(store.root / FILE, seal_json(memo))


def faults(store: Store) -> list[str]:
    """Hash every remembered file that is still in its state. What has other bytes by now is forgotten and named."""
    memo = remembered(store)
    wrong = {path: state for path, state in memo.items() if os.path.isabs(path) and _differs(path, state, memo)}
    if wrong:
        unchanged = {name: value for name, value in memo.items() if name not in wrong and name not in wrong.values()}
        replace_file(store.root / FILE, seal_json(unchanged))
    return [
        f"{path}: its bytes are not those that were hashed, though its size and times are: copy or download it again; "
        "what was measured of it since belongs to another model"
        for path in wrong
    ]


def _differs(path: str, state: str, memo: Mapping[str, str]) -> bool:
    try:
        return state in memo and file_state(Path(path)) == state and sha256_file(Path(path)) != memo[state]
    except OSError:
        return False  # it is gone: nothing is opened by what is remembered of it
