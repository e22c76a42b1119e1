"""The errors that a user can act on, and how an unknown name is refused.

KickError        a failure with a one-line message (exit status 1)
└── BadRequest   the request itself cannot be met (exit status 2)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class KickError(Exception):
    """A failure that the user can act on; the message is one line and is shown as it is (exit status 1)."""


class BadRequest(KickError, ValueError):
    """The request itself cannot be met: names the value, what is allowed and what to do (exit status 2)."""


def nearest(value: str, known: Iterable[str], kind: str) -> BadRequest:
    """The error for an unknown name, with the closest known ones first."""
    known = list(known)
    close = difflib.get_close_matches(value, known, n=len(known), cutoff=0.0)
    hint = difflib.get_close_matches(value, known, n=1, cutoff=0.6)
    guess = f" Did you mean {hint[0]!r}?" if hint else ""
    return BadRequest(f"unknown {kind} {value!r}.{guess} Known: {', '.join(close)}.")
