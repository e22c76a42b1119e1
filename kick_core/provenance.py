"""When, where, and with which versions: the part of every card that says how it came to be."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy")


def checkout() -> Path | None:
    """The root of the checkout that this package is imported from, or None for an installed copy."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "app.py").is_file() and (root / "pages" / "home.py").is_file() else None


def commit() -> str:
    """The first 12 digits of the commit that a checkout is at, with "+" where files differ; empty for other copies."""
    root = checkout()
    if root is None or not (root / ".git").exists():
        return ""
    git = ("git", "-C", str(root))
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + "+" * bool(changed.returncode)


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def host() -> str:
    """The name of this machine: where on a cluster something was computed."""
    return platform.node()


def versions() -> dict[str, str]:
    """Versions of the packages that decide the numbers."""
    return dict(_versions())


@cache
def _versions() -> Mapping[str, str]:
    from kick_core import __version__

    versions = {"kick_core": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
