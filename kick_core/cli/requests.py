"""From arguments to sweeps. Needs neither torch nor pandas, so that a plan waits for neither."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import Any

from kick_core.errors import BadRequest
from kick_core.spec import Calibration
from kick_core.sweeps import experiments
from kick_core.sweeps.request import PRESETS, SweepJob, data_for, preset
from kick_core.tasks.data import questions


def calibration(args: Namespace, default: Calibration) -> Calibration:
    """The calibration that the arguments name; what they leave open is the default's."""
    named = {"source": args.calibration, "windows": args.windows, "length": args.length}
    named |= {"seed": args.seed, "propagate": args.propagate, "min_tokens": args.min_tokens}
    return replace(default, **{name: value for name, value in named.items() if value is not None})


def sweep_job(args: Namespace, recipes: tuple[str, ...], tasks: tuple[str, ...] = ()) -> SweepJob:
    """A sweep of these recipes on these tasks."""
    options = {"limit": args.limit, "protocol": args.protocol, "prompting": args.prompting} if tasks else {}
    options |= {"data": data_for(args.model, tasks, args.data)} if tasks else {}
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
        **options,
    )


def task_names(args: Namespace) -> tuple[str, ...]:
    """The tasks that are named; of a file of one's own questions the task that its columns make, where none is.

    Raises:
        BadRequest: a file of questions that cannot be asked.
    """
    if args.tasks or not questions.is_file(args.data):
        return tuple(dict.fromkeys(args.tasks))
    return (questions.TASKS[questions.form_of(args.data)],)


def preset_job(args: Namespace) -> SweepJob:
    """The sweep of `kick sweep`: a preset, changed by the other arguments, or recipes and tasks."""
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
        tasks=tuple(args.tasks) or named.tasks,
        fidelity=args.fidelity,
        noise_floor=args.noise_floor,
        **_hosts(args),
    )


def experiment_base(args: Namespace, model: str) -> SweepJob:
    """What the sweeps of an experiment share: how a model is evaluated, changed by the arguments."""
    return _changed(experiments.base(model, args.data), args)


def _changed(named: SweepJob, args: Namespace, **more: Any) -> SweepJob:
    """A named sweep, changed by the arguments that every command has, and `more`."""
    return replace(
        named,
        calibration=calibration(args, named.calibration),
        limit=args.limit or named.limit,
        limits={} if args.limit else named.limits,
        protocol=args.protocol,
        prompting=args.prompting,
        device=args.device,
        dtype=args.dtype,
        revision=args.revision,
        **more,
    )


def _hosts(args: Namespace) -> dict[str, Any]:
    return {"engine": args.engine, "device_map": args.device_map, "max_memory": args.max_memory}
