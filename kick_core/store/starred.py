"""Examples that a person has starred, each with a comment: `starred.json`.

A star is an opinion, not a result: nothing else of the cache depends on it, and no table is read anew for it.
"""

from __future__ import annotations

from dataclasses import dataclass

from kick_core.errors import BadRequest, KickError
from kick_core.store import Store
from kick_core.store.files import Damaged, read_sealed_json, replace_file, seal_json
from kick_core.store.locks import locked

FILE = "starred.json"
LONGEST = 500
"""Characters of a comment."""


@dataclass(frozen=True, slots=True)
class Star:
    """One starred example: of which run, compared with which other run, and the comment on it."""

    run: str
    example: str
    other: str
    comment: str = ""


def starred(store: Store) -> list[Star]:
    """All stars, in the order in which they were given.

    Raises:
        KickError: When the file is damaged.
    """
    try:
        return [Star(**star) for star in read_sealed_json(store.root / FILE)["stars"]]
    except FileNotFoundError:
        return []
    except (Damaged, ValueError, TypeError, KeyError) as error:
        raise KickError(f"{store.root / FILE} is damaged: remove it, and star the examples again") from error


def star(store: Store, new: Star) -> None:
    """Give a star, or change the comment of one.

    Raises:
        BadRequest: When the comment is too long.
    """
    if len(new.comment) > LONGEST:
        raise BadRequest(f"a comment of {len(new.comment)} characters: at most {LONGEST}")
    _change(store, new.run, new.example, [new])


def unstar(store: Store, run: str, example: str) -> None:
    """Take a star away; nothing happens where there is none."""
    _change(store, run, example, [])


def _change(store: Store, run: str, example: str, instead: list[Star]) -> None:
    with locked(store.lock_path("starred")):
        known = starred(store)
        at = next((at for at, one in enumerate(known) if (one.run, one.example) == (run, example)), len(known))
        stars = [*known[:at], *instead, *known[at + 1 :]]
        rows = [{"run": one.run, "example": one.example, "other": one.other, "comment": one.comment} for one in stars]
        replace_file(store.root / FILE, seal_json({"stars": rows}))
