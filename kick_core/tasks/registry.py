"""Which tasks there are: one file each beside this one, and the file's name is the task's name.

A file holds `TASK` (the pocket world's data), `OFFICIAL` (the benchmark's own), or both. Files without either are
shared parts.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path

from kick_core.errors import BadRequest, nearest
from kick_core.records import RunCard
from kick_core.tasks.base import POCKET, Kind, Measures, Task
from kick_core.tasks.data import lm_eval, task_files

_PACKAGE = __package__ or "kick_core.tasks"


def _records() -> dict[str, dict[bool, Task]]:
    """Task -> is it the pocket world's -> its record, in reading order."""
    return _read(tuple(sys.modules[_PACKAGE].__path__))  # the package's folders are the key, so that tests can add one


@cache
def _read(folders: tuple[str, ...]) -> dict[str, dict[bool, Task]]:
    tasks: dict[str, dict[bool, Task]] = {}
    for path in (path for folder in folders for path in Path(folder).glob("*.py")):
        if re.search(r"^(TASK|OFFICIAL)\b", path.read_text("utf-8"), re.MULTILINE):
            module = import_module(f"{_PACKAGE}.{path.stem}")
            records = {True: getattr(module, "TASK", None), False: getattr(module, "OFFICIAL", None)}
            tasks[path.stem] = {pocket: task for pocket, task in records.items() if isinstance(task, Task)}
    return dict(sorted(tasks.items(), key=lambda item: (next(iter(item[1].values())).order, item[0])))


def names(
    data: str | None = None, *, measures: Measures | None = None, kind: Kind | None = None, unlisted: bool = False
) -> tuple[str, ...]:
    """The tasks, in reading order.

    Args:
        data: only tasks that have this data: "pocket", or any other name for the benchmarks' own; None: all.
        measures: only tasks of this role.
        kind: only tasks that are answered in this way.
        unlisted: also tasks that are asked only when named.
    """
    return tuple(
        name
        for name, records in _records().items()
        if (data is None or (data == POCKET) in records)
        and (unlisted or record(name).listed)
        and measures in (None, record(name).measures)
        and kind in (None, record(name).kind)
    )


def get(name: str, data: str = POCKET) -> Task:
    """One task on one kind of data.

    Args:
        name: the task's name.
        data: "pocket", or any other name for the benchmark's own; of a task file the task that it defines.

    Raises:
        BadRequest: no task of this name (with the nearest known ones), or the task has no such data.
    """
    records = _of(name)
    if (task := records.get(data == POCKET)) is None:
        wanted, there = ("pocket", "official") if data == POCKET else ("official", "pocket")
        raise BadRequest(f"task {name!r} cannot be asked on data {data!r}: it has no {wanted} data, only {there} data")
    if not task_files.is_file(data):
        return task
    definition = task_files.read(data)
    if definition.task != name:
        raise BadRequest(f"the task file {data} defines a task of its own: ask it with --task-file, without --task")
    return task_files.filled_in(task, definition, data)


def of_run(card: RunCard) -> Task:
    """The task that a run was asked; of a task file, or imported, as the run's card says, for files may change.

    Raises:
        BadRequest: the task is not known (any more).
    """
    if (definition := task_files.from_settings(card.settings)) is not None:
        return task_files.filled_in(record(card.task), definition, card.data)
    if imported := card.settings.get(lm_eval.SETTING):
        return lm_eval.filled_in(record(card.task), imported)
    return get(card.task, card.data)


def record(name: str) -> Task:
    """A task on whichever data it has, the pocket world's first: for what is the same on both, such as its title.

    Raises:
        BadRequest: no task of this name.
    """
    return next(iter(_of(name).values()))


OWN = ("own_questions", "own_choice", "own_open")
"""Tasks that users fill in; `own_choice/capitals` is one of them under the user's name."""


def _of(name: str) -> dict[bool, Task]:
    records = _records()
    base, slash, own = name.partition("/")
    if slash and base in OWN:
        return {pocket: replace(task, name=name, title=own) for pocket, task in records[base].items()}
    if name not in records:
        raise nearest(name, tuple(records), "task")
    return records[name]


def running_text() -> str:
    """The task on whose windows distributions are compared with dense's: the first that measures fluency."""
    return names(measures="fluency")[0]
