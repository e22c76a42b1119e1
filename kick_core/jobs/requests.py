"""Requests with the demo sweep's settings, so that a page's numbers are comparable with the command line's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kick_core import tasks as task_registry
from kick_core.jobs.lifecycle import refuse_if_read_only
from kick_core.models.source import ALIASES, settled
from kick_core.spec import Calibration
from kick_core.store import Store
from kick_core.sweeps.playground import PromptJob
from kick_core.sweeps.request import SweepJob, check_job, check_tasks, data_for, preset
from kick_core.tasks.data import questions

QUESTIONS = questions.UPLOAD
"""Bytes of a file of questions that a page takes."""


def request(
    model: str,
    recipes: Sequence[str],
    *,
    tasks: Sequence[str] = (),
    counts: Mapping[str, int] | None = None,
    **more: Any,
) -> SweepJob:
    """A sweep of some recipes on some tasks, all else as in the demo sweep.

    The same calibration and the same numbers of examples make the results comparable with those of
    `kick sweep --preset demo`, and its artifacts are used again.

    Args:
        model: As in `SweepJob`.
        recipes: Recipe texts.
        tasks: Names of tasks.
        counts: Numbers of examples of single tasks.
        more: Other fields of `SweepJob`.
    """
    demo = preset("demo", model, data_for(model, tasks))
    limits = {name: n for name, n in {**demo.limits, **(counts or {})}.items() if name in tasks}
    return replace(demo, recipes=tuple(recipes), tasks=tuple(tasks), limits=limits, **more)


def check(model: str, tasks: Sequence[str] = (), **more: Any) -> SweepJob:
    """Dense on a few examples per task, as `kick check` evaluates it.

    Args:
        model: As in `SweepJob`.
        tasks: Names of tasks; none: all that suit the model.
        more: Other fields of `SweepJob`.
    """
    data = data_for(model, tasks, more.pop("data", "auto"))
    return check_job(SweepJob(model, (), tuple(tasks) or check_tasks(model, data), data=data, **more))


def demo(model: str, **more: Any) -> SweepJob:
    """The demo sweep of a model.

    Args:
        model: As in `SweepJob`.
        more: Fields of `SweepJob` that differ.
    """
    return replace(preset("demo", model), **more)


def prompt(model: str, recipes: Sequence[str], text: str, **more: Any) -> PromptJob:
    """The user's own prompt to a model under some recipes, which are compressed as in the demo sweep where needed.

    Args:
        model: As in `PromptJob`.
        recipes: Recipe texts.
        text: The prompt.
        more: Other fields of `PromptJob`.

    Raises:
        BadRequest: The prompt, a recipe or a setting is not possible.
    """
    return PromptJob(model, tuple(recipes), text, **{"calibration": calibration(model), **more})


def calibration(model: str) -> Calibration:
    """The calibration that `request` uses where none is given.

    Args:
        model: As in `SweepJob`.
    """
    return settled(preset("demo", model).calibration, ALIASES.get(model, model))


def task_names(model: str) -> tuple[str, ...]:
    """All tasks that a model is evaluated on where none are given.

    Args:
        model: As in `SweepJob`.
    """
    return task_registry.names(data_for(model))


def keep_questions(store: Store, name: str, data: bytes) -> tuple[Path, str, int]:
    """Keep a user's questions in the cache. Takes, returns and raises as `kick_core.tasks.data.questions.keep`."""
    refuse_if_read_only()
    return questions.keep(store.root.resolve() / "questions", name, data)
