"""From arguments to sweeps. Needs neither torch nor pandas, so that a plan waits for neither."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import Any

from kick_core.errors import BadRequest
from kick_core.spec import Calibration
from kick_core.sweeps import experiments
from kick_core.sweeps.request import PRESETS, SweepJob, preset


def calibration(args: Namespace, default: Calibration) -> Calibration:
    """The calibration that the arguments name; what they leave open is the default's."""
    named = {"source": args.calibration, "windows": args.windows, "length": args.length}
    named |= {"seed": args.seed, "propagate": args.propagate}
    return replace(default, **{name: value for name, value in named.items() if value is not None})


def sweep_job(args: Namespace, recipes: tuple[str, ...], tasks: tuple[str, ...] = ()) -> SweepJob:
    """A sweep of these recipes on these tasks."""
    options = {"limit": args.limit, "data": args.data, "protocol": args.protocol} if tasks else {}
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


def preset_job(args: Namespace) -> SweepJob:
    """The sweep of `kick sweep`: a preset, changed by the other arguments, or recipes and tasks."""
    if not args.preset:
        if args.recipes and args.tasks:
            return sweep_job(args, tuple(dict.fromkeys(("dense", *args.recipes))), tuple(args.tasks))
        known = " or ".join(PRESETS)
        raise BadRequest(f"a sweep needs --preset ({known}), or at least one --recipe and one --task")
    named = preset(args.preset, args.model, args.data)
    return _changed(
        named,
        args,
        recipes=tuple(dict.fromkeys((*named.recipes, *args.recipes))),
        tasks=tuple(args.tasks) or named.tasks,
        data=args.data,
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
        device=args.device,
        dtype=args.dtype,
        revision=args.revision,
        **more,
    )


def _hosts(args: Namespace) -> dict[str, Any]:
    return {"engine": args.engine, "device_map": args.device_map, "max_memory": args.max_memory}
