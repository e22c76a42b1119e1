"""A user's own questions: one CSV or JSONL file, whose columns say how they are asked.

    question            needed
    answer / answers    needed; several accepted spellings are separated by `|` (CSV) or are a list (JSONL)
    options             optional; at least two, separated by `|` or a list: then they are scored, and the answer is
                        one of them or its letter
    context / passage   optional: then it is asked with this text (open book)
    subject             optional: groups the results
    popularity          optional number: how well known the subject is

Cells of a CSV file are separated by commas, or by semicolons or tabs where its header is. Texts are read in Unicode's
composed form (NFC), so that one word has one spelling. A fault is named with its line and column.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from kick_core.errors import BadRequest, KickError
from kick_core.keys import sha256_text
from kick_core.records import Example
from kick_core.store.files import replace_file
from kick_core.tasks.data.hub import in_random_order
from kick_core.tasks.scorers import comparable

SUFFIXES = (".csv", ".jsonl")
LARGEST = 64 << 20
"""Bytes of a file of questions: it is read as a whole."""
UPLOAD = 20 << 20
"""Bytes of one that comes through a browser."""

_ALIASES = {"answers": "answer", "passage": "context", "choices": "options"}
_COLUMNS = ("question", "answer", "options", "context", "subject", "popularity")

Form = Literal["closed", "choice", "open"]

TASKS: dict[Form, str] = {"closed": "own_questions", "choice": "own_choice", "open": "own_open"}
"""The task that asks a file's questions, by the form that its columns make."""


def is_file(data: str) -> bool:
    """Whether a data name means a file of one's own questions, there or not."""
    return data.lower().endswith(SUFFIXES)


def form_of(data: str) -> Form:
    """How a file's questions are asked: with options, with a passage, or by themselves. Raises as `load` does."""
    return _form(_rows(data))


def _form(examples: tuple[Example, ...]) -> Form:
    first = examples[0]
    return "choice" if first.choices else "open" if "passage" in first.meta else "closed"


def keep(root: Path, name: str, data: bytes) -> tuple[Path, str, int]:
    """Keep a file of questions that came through a browser, so that its evaluation can be repeated and extended.

    Args:
        root: the folder for such files; each lies in a folder named by its content.
        name: what the user calls it.
        data: its bytes.

    Returns:
        Where it lies, the task that its columns make, and how many questions it holds.

    Raises:
        BadRequest: a file that is too large, or as `load`, naming the file as the user does.
        KickError: as `load`.
    """
    name = re.sub(r"[^\w.-]+", "_", Path(name).name)[-80:]
    if not is_file(name):
        raise BadRequest(f"{name}: a file of questions ends in {' or '.join(SUFFIXES)}")
    if len(data) > UPLOAD:
        most = f"a browser may bring {UPLOAD >> 20} MB"
        raise BadRequest(f"{name} has {len(data) >> 20} MB, {most}: use a part of it, or kick evaluate --data")
    examples = parse(name, data)
    path = root / hashlib.sha256(data).hexdigest()[:16] / name
    if not path.exists():
        replace_file(path, data)
    return path, TASKS[_form(examples)], len(examples)


def load(data: str, form: Form) -> tuple[Example, ...]:
    """The questions of a file in one fixed random order.

    Args:
        data: the file's path.
        form: the way they are to be asked.

    Raises:
        BadRequest: a file that is missing, too large or empty, a column or value that is missing or wrong, a question
            that stands there twice, or a form that the file's columns do not give.
        KickError: a file that cannot be read as UTF-8 text.
    """
    examples = _rows(data)
    if (own := form_of(data)) != form:
        raise BadRequest(f"{data}: its columns make {own} questions, not {form} ones: leave --task out")
    return in_random_order("own questions", examples)


def _rows(data: str) -> tuple[Example, ...]:
    path = Path(data).expanduser()
    if not path.is_file():
        raise BadRequest(f"the file of questions {data!r} is not there")
    stat = path.stat()
    return _read(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=8)
def _read(path: Path, size: int, changed: int) -> tuple[Example, ...]:
    if size > LARGEST:
        raise BadRequest(f"{path} has {size >> 20} MB, at most {LARGEST >> 20} MB are read: ask a part of it")
    try:
        return parse(str(path), path.read_bytes())
    except OSError as error:
        raise KickError(f"{path} cannot be read ({error})") from error


def parse(path: str, data: bytes) -> tuple[Example, ...]:
    """The questions of a file's bytes, in its order; `path` names it in errors. Raises as `load` does."""
    try:
        text = data.decode("utf-8-sig")  # Excel begins its files with a byte-order mark
    except UnicodeDecodeError as error:
        raise KickError(f"{path} cannot be read as UTF-8 text, save it as UTF-8 ({error})") from error
    rows = csv_rows(path, text) if path.lower().endswith(".csv") else jsonl_rows(path, text)
    examples = distinct(path, ((line, _example(f"{path}, line {line}", row)) for line, row in rows))
    kinds: dict[tuple[bool, bool], int] = {}
    for line, example in examples.items():
        kinds.setdefault((bool(example.choices), "passage" in example.meta), line)
    if not examples:
        raise BadRequest(f"{path} holds no question: a header with question and answer, and a line per question")
    if len(kinds) > 1:
        one, other = sorted(kinds.values())[:2]
        raise BadRequest(
            f"{path}: lines {one} and {other} differ in whether they have options or a context; "
            f"put questions of another kind into a file of their own"
        )
    return tuple(examples.values())


def distinct(path: str, examples: Iterable[tuple[int, Example]], *, named: bool = False) -> dict[int, Example]:
    """Line -> example, each with an id of its own: a question that comes again with other options is another one.

    Args:
        path: names the file in errors.
        examples: with their lines.
        named: whether the file itself names its examples.

    Raises:
        BadRequest: a question, or an id, that stands there twice; both lines are named.
    """
    kept: dict[int, Example] = {}
    lines: dict[str, int] = {}
    for line, example in examples:
        options = example.meta.get("options")
        if not named and example.id in lines and options != kept[lines[example.id]].meta.get("options"):
            example = replace(example, id=f"own-{sha256_text(example.id + chr(10).join(options or ()))[:16]}")
        if (before := lines.setdefault(example.id, line)) != line:
            raise BadRequest(f"{path}, line {line}: the question of line {before} stands here again; remove one")
        kept[line] = example
    return kept


def csv_rows(path: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line, column -> cell) of a CSV file with a header; empty cells and rows are left out.

    Raises:
        BadRequest: no CSV, no header, a column that stands there twice, or a row that is longer; the line is named.
    """
    header = re.split("[\r\n]", text, maxsplit=1)[0]
    delimiter = next((mark for mark in ",;\t" if mark in header), ",")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        names = [column_name(name) for name in next(reader, ())]
        if not names:
            raise BadRequest(f"the first line of {path} is empty: it names the columns, e.g. question,answer")
        _once(f"{path}, line 1", (name for name in names if name))
        for row in reader:
            if any(row[len(names) :]):
                raise BadRequest(f"{path}, line {reader.line_num} has more cells than the header names columns")
            if cells := {name: value for name, value in zip(names, row, strict=False) if value}:
                yield reader.line_num, cells
    except csv.Error as error:
        raise BadRequest(f"{path}, line {reader.line_num} is no CSV ({error})") from error


def column_name(name: str) -> str:
    """A column's name as it is compared: without spaces around it, composed."""
    return unicodedata.normalize("NFC", name.strip())


def jsonl_rows(path: str, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line, field -> value) of a JSONL file; nulls are left out. Raises BadRequest with the line."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=partial(_object, f"{path}, line {number}"))
        except BadRequest:
            raise
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"{path}, line {number} is not JSON ({error})") from error
        if not isinstance(row, dict):
            raise BadRequest(f"{path}, line {number}: a JSON object is expected, not {str(row)[:40]!r}")
        yield number, {column_name(name): value for name, value in row.items() if value is not None}


def _object(where: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _once(where, (name for name, _ in pairs))
    return dict(pairs)


def _once(where: str, names: Iterable[str]) -> None:
    """Raise BadRequest for a column that stands there twice: one of the two would be lost."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise BadRequest(f"{where}: the column {twice[0]!r} stands there twice; rename or remove one")


def _example(where: str, row: Mapping[str, Any]) -> Example:
    names = [_ALIASES.get(name.strip().lower(), name.strip().lower()) for name in row]
    if unknown := [name for name in names if name not in (*_COLUMNS, "id")]:
        raise BadRequest(
            f"{where}: unknown column {', '.join(map(repr, unknown))[:80]}; known are {', '.join(_COLUMNS)} (a CSV's "
            "first line names them). Remove it, or say in a task file what is asked (--task-file)"
        )
    _once(where, names)
    cells = dict(zip(names, row.values(), strict=True))
    question = _text(where, cells, "question")
    answers = _list(where, cells, "answer")
    if not question or not answers:
        missing = "answer" if question else "question"
        raise BadRequest(f"{where}: the column {missing!r} is missing or empty")
    meta: dict[str, Any] = {"question": question}
    for name, field in (("subject", "subject"), ("context", "passage")):
        if value := _text(where, cells, name):
            meta[field] = value
    if "popularity" in cells:
        meta["popularity"] = _number(where, cells["popularity"])
    shown = meta.get("passage", "")
    prompt = f"{shown}\n\nQuestion: {question}\nAnswer:" if shown else f"Question: {question}\nAnswer:"
    options = _items(where, cells, "options")
    if options:
        return _choice(where, prompt, answers, options, meta)
    if not comparable(answers):
        raise BadRequest(f"{where}: answer {answers[0]!r} holds no word that could be compared; spell it out")
    return Example(_id(question, meta), (prompt,), answers=answers, meta=meta)


def _choice(
    where: str, prompt: str, answers: tuple[str, ...], options: tuple[str, ...], meta: dict[str, Any]
) -> Example:
    plain = [option.casefold() for option in options]  # "-1" and "1" differ, so no normal form here
    if len(options) < 2 or len(set(plain)) < len(plain):
        raise BadRequest(
            f"{where}: options {', '.join(options)!r}: at least two that differ are needed, separated by | or as a list"
        )
    if len(options) > len(ascii_uppercase):
        raise BadRequest(f"{where}: {len(options)} options, a question can have {len(ascii_uppercase)} at most")
    gold = [i for i, option in enumerate(plain) if option in {answer.casefold() for answer in answers}]
    if not gold and answers[0] in tuple(ascii_uppercase[: len(options)]):
        gold = [ascii_uppercase.index(answers[0])]
    if len(gold) != 1:
        listed = ", ".join(options)
        raise BadRequest(f"{where}: the answer {answers[0]!r} must be one of the options {listed!r}, or its letter")
    return Example(
        _id(meta["question"], meta),
        (prompt,),
        choices=tuple(f" {option}" for option in options),
        answers=(ascii_uppercase[gold[0]],),
        meta=meta | {"options": list(options)} | ({"shows": "passage"} if "passage" in meta else {}),
    )


def _id(question: str, meta: Mapping[str, Any]) -> str:
    """By content, so that a file may grow, or be sorted, and its answered questions stay answered."""
    return f"own-{sha256_text(question + meta.get('passage', ''))[:16]}"


def _text(where: str, cells: Mapping[str, Any], name: str) -> str:
    return _plain(f"{where}, {name}", cells.get(name, ""))


def _plain(where: str, value: Any) -> str:
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise BadRequest(f"{where}: a text is expected, not {str(value)[:40]!r}")
    text = unicodedata.normalize("NFC", str(value).strip())
    return whole(where, text)


def whole(where: str, text: str) -> str:
    """A text, if none of its characters is half of one (JSON can write a surrogate alone). Raises BadRequest if so."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        raise BadRequest(f"{where}: {text[:40]!r} holds half of a character (a lone surrogate); write it out")
    return text


def _list(where: str, cells: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_items(where, cells, name)))


def _items(where: str, cells: Mapping[str, Any], name: str) -> tuple[str, ...]:
    value = cells.get(name, "")
    parts = value if isinstance(value, list) else _text(where, cells, name).split("|")
    return tuple(text for part in parts if (text := _plain(f"{where}, {name}", part)))


def _number(where: str, value: Any) -> int | str:
    """Whole numbers as they are, others as text: what keys are made of holds no fraction."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise BadRequest(f"{where}, popularity: a number is expected, not {str(value)[:40]!r}")
    return int(number) if number.is_integer() else repr(number)
