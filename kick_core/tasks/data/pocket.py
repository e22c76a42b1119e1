"""Reading the frozen evaluation data of the pocket world."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from kick_core.errors import BadRequest, KickError
from kick_core.pocket import data_path


def require_pocket(data: str) -> None:
    """The data sets there are. Raises BadRequest for any other."""
    if data != "pocket":
        raise BadRequest(f"unknown data {data!r}. Known: pocket (the world of the pocket models).")


@cache
def rows(name: str, data: str) -> tuple[dict[str, Any], ...]:
    """The records of one pocket file, in its fixed random order."""
    require_pocket(data)
    path = data_path(f"{name}.jsonl")
    try:
        records = tuple(json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, ValueError) as error:
        raise KickError(f"data file {path} cannot be read ({error})") from error
    if not records:
        raise BadRequest(f"data file {path} is empty")
    return records


def meta(row: dict[str, Any], *names: str) -> dict[str, Any]:
    """The named fields of a record that are there."""
    return {name: row[name] for name in names if name in row}
