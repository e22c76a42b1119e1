"""The tasks: one file each, and the file's name is the task's name.

A task is a frozen record of functions: where its examples come from, how they are asked, how an output is
judged. The engine owns the model, the task owns data, prompt and scorers. Importing a task never imports
torch or datasets, so that stored outputs can be scored anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal, NamedTuple

from kick_core.records import Example, Output, Verdict
from kick_core.spec import nearest

Kind = Literal["generate", "dialogue", "choose", "perplexity"]


class Judged(NamedTuple):
    """A scorer's word on one output. `score` None: not judged (never counts as wrong).

    `why` is one of: right, wrong, no answer, empty, loop, cut off, rejected; or empty for graded scores.
    """

    score: float | None
    extracted: str = ""
    why: str = ""


Scorer = Callable[[Example, Output], Judged]


@dataclass(frozen=True, slots=True)
class Task:
    """One task.

    `kind` says how the engine asks: free text after a raw prompt, a dialogue through the chat template, the
    options' log-probabilities, or running text. `headline` names the scorer that plots show. `aggregate`
    says how scores become the task's number: their mean, or the exponential of it (perplexity).
    """

    name: str
    title: str
    about: str
    version: int
    kind: Kind
    load: Callable[[str], tuple[Example, ...]]
    scorers: Mapping[str, Scorer]
    headline: str
    new_tokens: int = 0
    stop: tuple[str, ...] = ()
    aggregate: Literal["mean", "exp"] = "mean"
    higher_is_better: bool = True


def names() -> tuple[str, ...]:
    """The tasks there are, found by looking at file names."""
    return tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_")))


def get(name: str) -> Task:
    """One task by name. Raises BadRequest with the nearest known names."""
    if name not in names():
        raise nearest(name, names(), "task")
    task: Task = import_module(f"kick_core.tasks.{name}").TASK
    return task


def judge(task: Task, example: Example, output: Output) -> list[Verdict]:
    """All verdicts on one output. An output that was rejected (prompt too long) is not judged."""
    if output.stop == "rejected":
        return [Verdict(example.id, name, None, "", "rejected") for name in task.scorers]
    return [Verdict(example.id, name, *scorer(example, output)) for name, scorer in task.scorers.items()]
