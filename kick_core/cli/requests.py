"""From arguments to sweeps. Needs neither torch nor pandas, so that a plan waits for neither."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from kick_core.errors import BadRequest
from kick_core.spec import Calibration
from kick_core.sweeps import experiments
from kick_core.sweeps.request import AUTO, PRESETS, SweepJob, data_for, preset
from kick_core.tasks.data import questions, task_files


def calibration(args: Namespace, default: Calibration) -> Calibration:
    """The calibration that the arguments name; what they leave open is the default's."""
    named = {"source": args.calibration, "windows": args.windows, "length": args.length}
    named |= {"seed": args.seed, "propagate": args.propagate, "min_tokens": args.min_tokens}
    return replace(default, **{name: value for name, value in named.items() if value is not None})


def sweep_job(args: Namespace, recipes: tuple[str, ...], tasks: tuple[str, ...] = ()) -> SweepJob:
    """A sweep of these recipes on these tasks."""
    options = {"limit": args.limit, "protocol": args.protocol, "prompting": args.prompting} if tasks else {}
    options |= {"limits": limits(args, tasks)} if tasks else {}
    options |= {"data": data_for(args.model, tasks, data_name(args))} if tasks else {}
    options |= _draws(args) if tasks else {}
    options |= {"fidelity": args.fidelity, "noise_floor": args.noise_floor} if tasks else {}
    options |= _hosts(args) if tasks else {}
    return SweepJob(
        model=args.model,
        recipes=recipes,
        tasks=tasks,
        calibration=calibration(args, Calibration()),
        device=args.device,
        dtype=args.dtype,
        revision=args.revision,
        bos=args.bos,
        **options,
    )


def limits(args: Namespace, tasks: Iterable[str]) -> dict[str, int]:
    """The limits of single tasks, as `--limit-of TASK=N` gives them.

    Raises:
        BadRequest: for another form, or a task that is not asked.
    """
    texts = args.limits if "limits" in args else ()  # `kick evaluate` and `kick sweep` alone take them
    pairs = [(text, *text.partition("=")) for text in texts]
    for text, task, _, count in pairs:
        if not count.isascii() or not count.isdecimal():
            raise BadRequest(f"--limit-of {text}: write a task and its limit, as in world_facts=1000")
        if task not in tasks:
            raise BadRequest(f"--limit-of {text}: {task!r} is not asked; tasks: {', '.join(tasks)}")
    return {task: int(count) for _, task, _, count in pairs}


def task_names(args: Namespace) -> tuple[str, ...]:
    """The tasks that are named; the task of a task file, or that which the columns of a file of questions make.

    Raises:
        BadRequest: a file that cannot be asked, or a task named beside it.
    """
    for name in args.tasks:
        if questions.is_file(name):
            raise BadRequest(f"--task {name} is a file: give your own questions with --data {name}, without --task")
        if task_files.is_file(name):
            raise BadRequest(f"--task {name} is a file: give a task of your own with --task-file {name}")
    data = data_name(args)
    if task_files.is_file(data):
        if args.tasks:
            raise BadRequest(f"--task beside the task file {data}: it is a task of its own; leave one of them out")
        return (task_files.read(data).task,)
    if args.tasks or not questions.is_file(data):
        return tuple(dict.fromkeys(args.tasks))
    return (questions.TASKS[questions.form_of(data)],)


def data_name(args: Namespace) -> str:
    """The data that the arguments name; a task file by its whole path, which runs remember."""
    if getattr(args, "task_file", None) is None:  # `kick check` takes none
        return str(args.data)
    if args.data != AUTO:
        raise BadRequest("--task-file names its data itself: leave --data out")
    if not task_files.is_file(args.task_file):
        raise BadRequest(f"the task file {args.task_file!r} must end in one of {', '.join(task_files.SUFFIXES)}")
    return str(Path(args.task_file).expanduser().resolve())


def _draws(args: Namespace) -> dict[str, Any]:
    if "shots" not in args:  # `kick check` takes none
        return {}
    if args.shots is not None and args.shots < 0:
        raise BadRequest(f"--shots {args.shots}: 0 or more worked examples can be shown")
    draws = {"shots": args.shots, "fewshot_seed": args.fewshot_seed, "repeats": args.repeats}
    if "ids" not in args:  # `kick evaluate` alone chooses
        return draws
    ids = tuple(dict.fromkeys(name.strip() for name in (args.ids or "").split(",") if name.strip()))
    if args.ids is not None and not ids:
        raise BadRequest("--ids names no example: give ids with commas between (kick show RUN --samples has them)")
    return draws | {"ids": ids, "subject": args.subject}


def preset_job(args: Namespace) -> SweepJob:
    """The sweep of `kick sweep`: a preset, changed by the other arguments, or recipes and tasks."""
    if args.preset and args.task_file:
        raise BadRequest("--preset names its tasks: give --recipe with --task-file")
    if not args.preset:
        if args.recipes and (names := task_names(args)):
            return sweep_job(args, tuple(dict.fromkeys(("dense", *args.recipes))), names)
        known = " or ".join(PRESETS)
        raise BadRequest(f"a sweep needs --preset ({known}), or at least one --recipe and one --task")
    named = preset(args.preset, args.model, data_for(args.model, args.tasks, args.data) if args.tasks else args.data)
    return _changed(
        named,
        args,
        recipes=tuple(dict.fromkeys((*named.recipes, *args.recipes))),
        tasks=task_names(args) or named.tasks,
        fidelity=args.fidelity,
        noise_floor=args.noise_floor,
        **_hosts(args),
        **_draws(args),
    )


def experiment_base(args: Namespace, model: str) -> SweepJob:
    """What the sweeps of an experiment share: how a model is evaluated, changed by the arguments."""
    return _changed(experiments.base(model, args.data), args)


def _changed(named: SweepJob, args: Namespace, **more: Any) -> SweepJob:
    """A named sweep, changed by the arguments that every command has, and `more`."""
    return replace(
        named,
        calibration=calibration(args, named.calibration),
        limit=named.limit if args.limit is None else args.limit,
        limits=dict(named.limits if args.limit is None else {}) | limits(args, more.get("tasks", named.tasks)),
        protocol=args.protocol,
        prompting=args.prompting,
        device=args.device,
        dtype=args.dtype,
        revision=args.revision,
        bos=args.bos,
        **more,
    )


def _hosts(args: Namespace) -> dict[str, Any]:
    return {"engine": args.engine, "device_map": args.device_map, "max_memory": args.max_memory}
