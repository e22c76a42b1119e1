"""From a pack into a cache. What is there stays: a run is added where the cache has none under its key.

The whole pack is read and checked before the first file is written. A run appears whole or not at all, so an unpacking
that is killed is done again with the same command.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

from kick_core import tasks
from kick_core.errors import BadRequest, KickError
from kick_core.packs import container, tables
from kick_core.packs.container import Header
from kick_core.packs.packing import SHIPPED, shipped, shipped_key
from kick_core.records import Card, Example, RunCard
from kick_core.records.json_record import JsonRecord
from kick_core.spec import parse
from kick_core.store import Store, is_key, results, weight_artifacts

Record = TypeVar("Record", bound=JsonRecord)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What an unpacking did.

    Attributes:
        header: the pack's.
        added: runs that are new.
        same: runs that were there with the same outputs.
        notes: sentences: what stayed as it was, what was left out, and what the data filled in.
    """

    header: Header
    added: int
    same: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    card: RunCard
    columns: tables.RunColumns
    sittings: tuple[results.Timing, ...]


@dataclass(frozen=True, slots=True)
class _Questions:
    key: str
    task: str
    protocol: str
    left_out: str
    examples: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class _Contents:
    header: Header
    runs: tuple[_Run, ...]
    questions: tuple[_Questions, ...]
    artifacts: tuple[Card, ...]


def unpack(path: Path, store: Store, data: str | None = None) -> Unpacked:
    """Add a pack's results to a cache.

    Args:
        path: the pack.
        store: the cache.
        data: a folder with the official data, or `official` for the hub, from which questions are filled in that the
            pack left out; None: they stay left out.

    Returns:
        What was added and what was there.

    Raises:
        BadRequest: the pack is damaged, newer, too large, or no pack. Nothing was written.
        KickError: it cannot be read, or the cache cannot be written.
    """
    with _uncollected():
        return _added(_contents(path), store, data)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Inside, no cycles are looked for: a hundred thousand questions hold none, and a third of the time was theirs."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _added(contents: _Contents, store: Store, data: str | None) -> Unpacked:
    beside, notes = list(_other_settings(store, contents)), list(contents.header.left_out)
    for questions in contents.questions:
        if questions.left_out == SHIPPED:
            notes += _keep_shipped(store, questions)
            continue
        results.keep_examples(store, questions.key, questions.examples, outline=bool(questions.left_out))
        if questions.left_out and data is not None:
            notes.append(_fill(store, questions, data))
    for card in contents.artifacts:
        weight_artifacts.keep_foreign_card(store, card)
    added, same = 0, 0
    for run in contents.runs:
        columns = run.columns
        if results.keep_foreign(store, run.card, columns.outputs, columns.verdicts, columns.version, run.sittings):
            added += 1
        elif note := _differs(store, run):
            notes.append(note)
        else:
            same += 1
    return Unpacked(contents.header, added, same, (*(beside if added else ()), *notes))


def _differs(store: Store, run: _Run) -> str:
    """What differs between a run of the pack and the one that is there; empty where nothing does."""
    theirs, ours = run.columns.outputs["example"], results.outputs(store, run.card.key)
    about = f"{run.card.recipe} on {run.card.task} ({run.card.key[:16]})"
    if len(ours) != len(theirs):
        return f"{about} is there already with {len(ours):,} outputs, {len(theirs):,} in the pack: yours stays."
    texts = {output.example: output for output in ours}
    columns = (run.columns.outputs[name].to_pylist() for name in ("example", "text", "stop"))
    for name, text, stop in zip(*columns, strict=True):
        output = texts.get(name)
        if output is None or (tasks.LEFT_OUT not in (stop, output.stop) and tuple(text) != output.text):
            return f"{about} is there already with other answers: yours stays."
    return ""


def _other_settings(store: Store, contents: _Contents) -> Iterator[str]:
    """A sentence where the cache has the pack's model, or another of its name, measured in another way."""
    cards = results.runs(store)
    name, print_ = contents.header.model, contents.header.fingerprint
    if any(card.model == name and card.fingerprint != print_ for card in cards):
        yield f"Another model called {name} is there already, of other files: both are kept and told apart."
    new = {_settings(run.card) for run in contents.runs}
    if (old := {_settings(card) for card in cards if card.fingerprint == print_}) and not new <= old:
        yield f"{name} is there already, evaluated under other settings: both are kept, nothing was overwritten."


def _settings(card: RunCard) -> str:
    return json.dumps([card.task, card.protocol, card.dtype, card.settings, card.plan, card.device], sort_keys=True)


def _fill(store: Store, questions: _Questions, data: str) -> str:
    """Keep the real questions where this data has the very ones that were asked; a sentence that says so."""
    try:
        task = tasks.get(questions.task, data)
        examples = task.asking(questions.protocol).load(data)
    except KickError as error:
        return f"The questions of {questions.task} stay left out: {error}"
    if results.examples_key(questions.task, examples) != questions.key:
        return f"The questions of {questions.task} stay left out: {data} holds other ones than were asked."
    results.keep_examples(store, questions.key, examples)
    return f"The questions of {questions.task} were filled in from {data}."


def _keep_shipped(store: Store, questions: _Questions) -> Iterator[str]:
    """Keep questions that ship with this package; their outline and a sentence where this version ships other ones."""
    if shipped_key(questions.task) == questions.key:
        results.keep_examples(store, questions.key, shipped(tasks.get(questions.task, tasks.OFFICIAL)))
    else:
        results.keep_examples(store, questions.key, questions.examples, outline=True)
        yield f"The questions of {questions.task} stay left out: this version of the package ships other ones."


# --- reading and checking ----------------------------------------------------------------------------------


def _contents(path: Path) -> _Contents:
    header, sections = container.read(path)
    try:
        questions = {
            name.partition("/")[2]: _questions(name.partition("/")[2], json.loads(data))
            for name, data in sections.items()
            if name.startswith("questions/")
        }
        rows = json.loads(sections["runs"])
        cards = {(card := _run_card(row, header)).key: (card, row) for row in rows}
        artifacts = tuple(_checked(Card, row) for row in json.loads(sections["artifacts"]))
        if len(cards) < len(rows) or not all(is_key(card.key) for card in artifacts):
            raise ValueError("a key stands twice, or is none")
    except BadRequest as error:
        raise BadRequest(f"{path}: {error}") from error
    except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError) as error:
        raise BadRequest(f"{path}: its cards are not of this program ({str(error)[:120]})") from error
    runs: dict[str, _Run] = {}
    for name, data in sections.items():
        if name.startswith("answers/"):
            key = name.partition("/")[2]
            if key not in questions:
                raise BadRequest(f"{path}: the questions of {name[:80]} are missing")
            ids = [example.id for example in questions[key].examples]
            for run, columns in tables.runs_of(data, ids, f"{path}, {name[:80]}").items():
                runs[run] = _joined(path, cards, run, key, columns)
    if set(runs) != set(cards):
        raise BadRequest(f"{path}: {len(set(cards) ^ set(runs))} runs have a card or answers, but not both")
    return _Contents(header, tuple(runs.values()), tuple(questions.values()), artifacts)


def _joined(
    path: Path, cards: Mapping[str, tuple[RunCard, Any]], run: str, key: str, columns: tables.RunColumns
) -> _Run:
    if run not in cards:
        raise BadRequest(f"{path}: the answers of run {run[:60]!r} have no card")
    card, row = cards[run]
    if card.examples != key or row["measured"] != len(columns.outputs["example"]):
        raise BadRequest(f"{path}: the answers of run {run[:60]!r} do not fit its card")
    sittings = tuple(results.Timing(int(n), int(tokens), float(seconds)) for n, tokens, seconds in row["sittings"])
    return _Run(card, columns, sittings)


def _run_card(row: Mapping[str, Any], header: Header) -> RunCard:
    """A run's card whose words may become paths and numbers."""
    card = _checked(RunCard, row["card"])
    for key in (card.key, card.weights, card.examples):
        if not is_key(key):
            raise BadRequest(f"{key[:60]!r} is no key: as a path it would lead out of the cache")
    parse(card.recipe)
    if card.fingerprint != header.fingerprint:
        raise BadRequest(f"run {card.key[:20]} is of another model than the pack says")
    return card


def _questions(key: str, data: Mapping[str, Any]) -> _Questions:
    """A task's questions, which must be those that their key names."""
    if not is_key(key):
        raise BadRequest(f"{key[:60]!r} is no key: as a path it would lead out of the cache")
    examples = tuple(_checked(Example, row) for row in data["examples"])
    task, left_out = str(data["task"]), str(data["left_out"])
    if not left_out and results.examples_key(task, examples) != key:
        raise BadRequest(f"the questions of {task!r} are not those that their key names")
    if left_out == SHIPPED and (task not in tasks.names(tasks.OFFICIAL) or not tasks.get(task, tasks.OFFICIAL).shipped):
        raise BadRequest(f"the questions of {task!r} do not ship with this version of the package")
    return _Questions(key, task, str(data["protocol"]), left_out, examples)


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,), "int": (int,), "float": (int, float), "dict[str, Any]": (dict,), "dict[str, str]": (dict,),
    "tuple[str, ...]": (tuple,),
}  # fmt: skip


def _checked(kind: type[Record], data: Mapping[str, Any]) -> Record:
    """A record whose fields have the types that it declares. Raises ValueError or TypeError."""
    record = kind.from_json(data)
    for name, wanted in _fields(cast(Any, kind)):
        value = getattr(record, name)
        if not isinstance(value, wanted) or isinstance(value, bool):
            raise ValueError(f"{name} of a {kind.__name__} is {str(value)[:40]!r}")
        if isinstance(value, tuple) and not all(isinstance(item, str) for item in value):
            raise ValueError(f"{name} of a {kind.__name__} holds more than texts")
    return record


@cache
def _fields(kind: Any) -> list[tuple[str, tuple[type, ...]]]:
    """The fields of a record that are checked, with the types that each may have."""
    declared = ((name, str(about.type)) for name, about in kind.__dataclass_fields__.items())
    return [(name, _TYPES[text]) for name, text in declared if text in _TYPES]
