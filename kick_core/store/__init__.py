"""The cache on disk: where things are, and the two promises that everything else relies on.

1. A file or folder under its final name is complete. Whatever was killed when, half-written bytes only ever
   have names that nobody reads.
2. Locks save work, never correctness. If a lock fails (network disks), two processes do the same work and
   the second result is dropped; nothing breaks.

`weight_artifacts` keeps compressed weights, `results` keeps outputs, examples and verdicts. The format on disk is
described, normatively, in cache/README.md.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from kick_core import provenance
from kick_core.errors import BadRequest, KickError
from kick_core.store import migrations
from kick_core.store.files import replace_file
from kick_core.store.locks import locked

VERSION = 3
"""Of the layout on disk. A newer cache is refused, an older one is migrated when it is opened (see `migrations`)."""

_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder is a cache of LLM-KICK Explorer.\n"


_KEY = re.compile(r"([A-Za-z0-9_][\w.-]{0,150}-)?[A-Za-z0-9]{1,64}", re.ASCII)


def is_key(text: str) -> bool:
    """Whether a text has the form of a key, so that it can be a file's name and nothing else."""
    return _KEY.fullmatch(text) is not None


def default_root() -> Path:
    """`KICK_CACHE` when it is set; else `cache/` of a checkout, or the user's cache folder for an installed copy."""
    if named := os.environ.get("KICK_CACHE"):
        return Path(named).expanduser()
    root = provenance.checkout()
    return root / "cache" if root else platformdirs.user_cache_path("kick")


@dataclass(frozen=True, slots=True)
class Store:
    """The root of one cache and the paths inside it. Made with `open_store`.

    Attributes:
        root: The cache.
        beside: Caches that are read where this one has nothing under a key, and never written: the gallery's packs.
    """

    root: Path
    beside: tuple[Path, ...] = ()

    def folder(self, section: str, key: str) -> Path:
        """The folder `section/ab/<key>`, where ab are the first two digits of the key's hash.

        Args:
            section: "weights", "results", "examples" …, a top folder of the cache.
            key: A content key.

        Raises:
            BadRequest: The text is no key, so it must not become a path.
        """
        digest = key.rpartition("-")[2]
        if not is_key(key):
            raise BadRequest(f"{key[:80]!r} is not a key of this cache: `kick list` shows the keys")
        place = Path(section) / digest[:2] / key
        own = self.root / place
        if self.beside and not own.exists():
            return next((found for root in self.beside if (found := root / place).exists()), own)
        return own

    def own(self, section: str, key: str) -> bool:
        """Whether this cache itself has a folder for the key, not only one beside it."""
        return not self.beside or not any(self.folder(section, key).is_relative_to(root) for root in self.beside)

    def lock_path(self, key: str) -> Path:
        return self.root / "locks" / f"{key}.lock"

    def live(self, key: str) -> Path:
        """Where the outputs of an unfinished run are recorded: SQLite, so on a disk of this host."""
        local = os.environ.get("KICK_LOCAL_CACHE")
        return (Path(local) if local else self.root / "live") / key

    def keys(self, section: str) -> list[str]:
        """Every key in a section of the cache, complete or not, sorted."""
        roots = (self.root, *self.beside)
        return sorted({p.name for root in roots for p in (root / section).glob("??/*") if not p.name.startswith(".")})


def open_store(root: Path | str | None = None) -> Store:
    """Open a cache, making it if it is not there.

    Args:
        root: Its folder; None: `default_root()`.

    Raises:
        KickError: It cannot be read or written, or another version of this program made it.
    """
    path = Path(root).expanduser() if root else default_root()
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        version = path / "VERSION"
        if not version.exists():
            replace_file(path / "CACHEDIR.TAG", _TAG.encode())
            replace_file(version, json.dumps({"layout": VERSION}).encode())
        layout = _layout(version)
        if layout in migrations.MIGRATIONS:
            with locked(path / "locks" / "layout.lock"):
                while (layout := _layout(version)) in migrations.MIGRATIONS:
                    migrations.MIGRATIONS[layout](path)
                    replace_file(version, json.dumps({"layout": layout + 1}).encode())
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise KickError(f"the cache {path} cannot be opened ({error}); name another with --cache DIR") from error
    if layout != VERSION:
        raise KickError(
            f"the cache {path} has layout {layout}, this program writes {VERSION}: "
            f"use another folder with --cache DIR or the program's version that made it"
        )
    return Store(path)


def _layout(version: Path) -> int:
    layout = json.loads(version.read_text())["layout"]
    if not isinstance(layout, int):
        raise ValueError(f"{version} names no layout")
    return layout
