"""When, where, and with which versions: what every card says about its making."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def host() -> str:
    """The name of this machine: where on a cluster something was made."""
    return platform.node()


def versions() -> dict[str, str]:
    """Versions of what decides the numbers."""
    return dict(_versions())


@cache
def _versions() -> Mapping[str, str]:
    from kick_core import __version__

    found = {"kick_core": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
