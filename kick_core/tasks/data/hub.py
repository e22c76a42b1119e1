"""Reading the benchmarks' own data: pinned sets of the hub, or named files of a folder in the official layout.

A folder's files are opened by us, by names that this package knows, and never leave the folder: no loading
scripts, no configuration that names other files. What is missing is said by name.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kick_core.errors import BadRequest, KickError
from kick_core.records import Example

HUB = "official"
"""The data name that means the hub."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Hub:
    """One set of the hub at one revision."""

    repo: str
    revision: str
    config: str | None = None


def folder(data: str) -> Path | None:
    """The folder that a data name means, or None for the hub. Raises BadRequest when there is none."""
    if data == HUB:
        return None
    path = Path(data).expanduser()
    if not path.is_dir():
        raise BadRequest(
            f"unknown data {data!r}. Known: pocket (the world of the pocket models), official (the benchmarks' own, "
            "from the hub), a folder that holds the official files, or a .csv or .jsonl file of your own questions."
        )
    return path.resolve()


def inside(root: Path, name: str, *, links: bool = True) -> Path:
    """A path below `root`.

    Args:
        root: the data folder, or a folder in it.
        name: of a file or folder in it.
        links: whether symbolic links may lead elsewhere, as a user lays out a folder; not so for a `name` that a data
            file brings along.

    Raises:
        BadRequest: a name that leads out.
    """
    path = Path(os.path.normpath(root / name))
    if not path.is_relative_to(root) or not (links or path.resolve().is_relative_to(root.resolve())):
        raise BadRequest(f"{name!r} leads out of the data folder {root}: only files inside it are read")
    return path


def find(root: Path, what: str, *candidates: str) -> Path:
    """The first candidate that is there. Raises BadRequest that names all that were looked for."""
    for name in candidates:
        if (path := inside(root, name)).exists():
            return path
    raise BadRequest(f"{root} holds no {what}: looked for {', '.join(candidates)}")


def require(row: Mapping[str, Any], columns: Iterable[str], where: object) -> None:
    """Raises BadRequest that names the first missing column."""
    if not isinstance(row, Mapping):
        raise BadRequest(f"{where}: a record with the columns {', '.join(columns)} was expected, not {str(row)[:40]!r}")
    for column in columns:
        if column not in row:
            raise BadRequest(f"{where} lacks the column {column!r}: it has {', '.join(map(str, row)) or 'none'}")


def text_of(path: Path, newline: str | None = None) -> str:
    """A file as text; `newline` "" leaves line ends alone. Raises KickError when it cannot be read."""
    try:
        with open(path, encoding="utf-8-sig", newline=newline) as file:  # Excel begins its files with a mark
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        raise KickError(f"data file {path} cannot be read ({error})") from error


def json_of(path: Path) -> Any:
    """A JSON file. Raises BadRequest when it is none."""
    try:
        return json.loads(text_of(path))
    except ValueError as error:
        raise BadRequest(f"data file {path} is not JSON ({error})") from error


def json_lines(path: Path, *columns: str) -> list[Row]:
    """The records of a JSONL file, each with these columns."""
    rows = []
    for number, line in enumerate(text_of(path).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise BadRequest(f"data file {path}, line {number} is not JSON ({error})") from error
            require(row, columns, f"{path}, line {number}")
            rows.append(row)
    return rows


def csv_of(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """The rows of a CSV file without a header. Every cell is text as it stands, the word None and "\\r\\n" too."""
    rows = [row for row in csv.reader(io.StringIO(text_of(path, newline=""), newline="")) if row]
    for number, row in enumerate(rows, 1):
        if len(row) < len(columns):
            raise BadRequest(f"{path}, row {number} lacks the column {columns[len(row)]!r}: {len(row)} cells")
        if len(row) > len(columns):
            raise BadRequest(f"{path}, row {number} has {len(row)} cells; expected are {', '.join(columns)}")
    return rows


def hub_rows(source: Hub, split: str, *columns: str) -> Iterator[Row]:
    """The rows of one split, read one by one. Raises KickError when the hub cannot be reached."""
    from datasets import load_dataset

    name = f"{source.repo}@{source.revision[:12]}"
    try:
        rows = load_dataset(source.repo, source.config, split=split, revision=source.revision)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KickError(
            f"{name} ({split}) cannot be loaded from the hub ({reason}): give a folder with the official files, "
            "--data DIR"
        ) from error
    require(dict.fromkeys(rows.column_names), columns, f"{name} ({split})")
    yield from rows


def in_random_order(name: str, examples: Iterable[Example], *, need_answers: bool = True) -> tuple[Example, ...]:
    """One fixed order that does not depend on the files', so that any first examples are a fair sample."""
    ordered = sorted(examples, key=lambda example: example.id)
    random.Random(f"kick official 1 {name}").shuffle(ordered)
    return answered(ordered) if need_answers else tuple(ordered)


def random_sample(name: str, examples: Sequence[Example], count: int) -> list[Example]:
    """At most `count` of the examples, drawn by the name alone, whatever their order."""
    ordered = sorted(examples, key=lambda example: example.id)
    return random.Random(f"kick {name}").sample(ordered, min(count, len(ordered)))


def answered(examples: Iterable[Example]) -> tuple[Example, ...]:
    """The examples, none of them without an answer. Raises BadRequest that names the first without."""
    checked = tuple(examples)
    for example in checked:
        if not any(answer.strip() for answer in example.answers):
            raise BadRequest(f"the answer list of {example.id!r} is empty: it cannot be scored; mend or remove it")
    return checked
