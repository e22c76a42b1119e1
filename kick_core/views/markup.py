"""Text as HTML: whatever is not a literal of this program goes through `tag`, which escapes it.

The pages show what it makes through `kick_core/explorer/safe.py`, the report writes it into its file.
"""

from __future__ import annotations

import html
from collections.abc import Iterable


class Safe(str):
    """HTML that `tag` made: its text has been escaped."""

    __slots__ = ()


Child = Safe | str | int | float


def tag(name: str, *children: Child, cls: str = "", **attributes: str) -> Safe:
    """An element. Children that are not Safe are escaped, attributes always are."""
    given = {"class": cls, **attributes} if cls else attributes
    opened = "".join(f' {key}="{html.escape(value, quote=True)}"' for key, value in given.items())
    inner = "".join(child if isinstance(child, Safe) else html.escape(str(child)) for child in children)
    return Safe(f"<{name}{opened}>{inner}</{name}>")


def escaped(text: str) -> Safe:
    """Text without an element around it."""
    return Safe(html.escape(text))


def many(children: Iterable[Safe]) -> Safe:
    return Safe("".join(children))
