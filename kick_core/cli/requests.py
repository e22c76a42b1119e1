"""From arguments to what a sweep is asked. Needs neither torch nor pandas, so that a plan waits for neither."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from typing import Any

from kick_core.errors import BadRequest
from kick_core.spec import Calibration
from kick_core.sweeps import experiments
from kick_core.sweeps.request import PRESETS, Request, preset


def calibration(given: Namespace, default: Calibration) -> Calibration:
    """The calibration that was asked for; what was not said is the default's."""
    named = {"source": given.calibration, "windows": given.windows, "length": given.length}
    named |= {"seed": given.seed, "propagate": given.propagate}
    return replace(default, **{name: value for name, value in named.items() if value is not None})


def request(given: Namespace, recipes: tuple[str, ...], tasks: tuple[str, ...] = ()) -> Request:
    """A request for these recipes on these tasks."""
    asked = {"limit": given.limit, "data": given.data, "protocol": given.protocol} if tasks else {}
    asked |= {"fidelity": given.fidelity, "noise_floor": given.noise_floor} if tasks else {}
    asked |= _hosts(given) if tasks else {}
    return Request(
        model=given.model,
        recipes=recipes,
        tasks=tasks,
        calibration=calibration(given, Calibration()),
        device=given.device,
        dtype=given.dtype,
        revision=given.revision,
        **asked,
    )


def sweep_request(given: Namespace) -> Request:
    """What `kick sweep` is asked: a preset, changed by what else was said, or recipes and tasks."""
    if not given.preset:
        if given.recipes and given.tasks:
            return request(given, tuple(dict.fromkeys(("dense", *given.recipes))), tuple(given.tasks))
        known = " or ".join(PRESETS)
        raise BadRequest(f"a sweep needs --preset ({known}), or at least one --recipe and one --task")
    named = preset(given.preset, given.model, given.data)
    return _changed(
        named,
        given,
        recipes=tuple(dict.fromkeys((*named.recipes, *given.recipes))),
        tasks=tuple(given.tasks) or named.tasks,
        data=given.data,
        fidelity=given.fidelity,
        noise_floor=given.noise_floor,
        **_hosts(given),
    )


def base_request(given: Namespace, model: str) -> Request:
    """How `kick reproduce` asks a model: as its experiment does, changed by what else was said."""
    return _changed(experiments.base(model, given.data), given)


def _changed(named: Request, given: Namespace, **more: Any) -> Request:
    """A named request, changed by what every command may say of it, and `more`."""
    return replace(
        named,
        calibration=calibration(given, named.calibration),
        limit=given.limit or named.limit,
        limits={} if given.limit else named.limits,
        protocol=given.protocol,
        device=given.device,
        dtype=given.dtype,
        revision=given.revision,
        **more,
    )


def _hosts(given: Namespace) -> dict[str, Any]:
    return {"engine": given.engine, "device_map": given.device_map, "max_memory": given.max_memory}
