"""What a sweep is asked: recipes and tasks of one model as the user wrote them, and named sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from kick_core import methods, tasks
from kick_core.artifacts import planners
from kick_core.errors import nearest
from kick_core.spec import Calibration, Recipe, parse
from kick_core.tasks import POCKET, paper


@dataclass(frozen=True, slots=True)
class Request:
    """What a sweep shall do. Texts, as the user wrote them; `limits` overrules `limit` for single tasks.

    `fidelity` compares every recipe's distributions with dense's on the perplexity windows; `noise_floor` asks dense
    a second time in other batches, for what the evaluator alone changes. `engine` answers: `kick`, or `vllm` with its
    settings after commas; `device_map` "auto" spreads the model that is asked over all devices, memory and disk, of
    which it takes `max_memory` at most (`0=20GiB,cpu=60GiB`).
    """

    model: str
    recipes: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    data: str = "pocket"
    protocol: str = "strict"
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    fidelity: bool = False
    noise_floor: bool = False
    shots: int | None = None
    engine: str = "kick"
    device_map: str | None = None
    max_memory: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        given = dict(data)
        for name in ("recipes", "tasks"):
            given[name] = tuple(given.get(name, ()))
        return cls(**{**given, "calibration": Calibration(**given.get("calibration", {}))})

    @property
    def hosted(self) -> bool:
        """Whether somebody else is asked than the open model that wears artifacts."""
        return self.engine != "kick" or self.device_map is not None

    def limit_of(self, task: str) -> int | None:
        return self.limits.get(task, self.limit)

    def parsed(self) -> tuple[Recipe, ...]:
        """The recipes, checked. Raises BadRequest before anything is opened."""
        found = tuple(dict.fromkeys(parse(text) for text in self.recipes))
        for recipe in found:
            methods.resolve(recipe)
            if (name := methods.objective(recipe)) not in (None, methods.ERROR, methods.PERPLEXITY):
                data = str(dict(methods.resolve(recipe).options)["search_data"])
                task = tasks.get(str(name), data)
                if data == POCKET:
                    planners.searched_on(recipe, task, data)
        return found


_DEMO_EXAMPLES = 200
"""Examples per task in the demo, but for tasks whose record says another number."""

_LEVELS = tuple(f"0.{tenth}" for tenth in range(1, 8))


_PRUNERS, _ROUNDERS = ("magnitude", "wanda", "sparsegpt"), ("rtn", "gptq")


PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "recipes": (
            "dense",
            *(f"{m}@{level}" for m in _PRUNERS for level in (*_LEVELS, "2:4", "4:8")),
            *(f"{m}@{bits}bit" for m in _ROUNDERS for bits in (8, 4, 3, 2)),
        ),
        "limit": _DEMO_EXAMPLES,
        "calibration": Calibration("pocket", windows=32, length=256),
    },
    "paper": {
        "recipes": (
            "dense",
            *(
                f"{m}@{level}"
                for m in _PRUNERS
                for level in (*(f"{s / 100:.12g}" for s in range(5, 85, 5)), "1:2", "2:4", "4:8")
            ),
            *(f"{m}@{bits}bit,sym=false" for m in _ROUNDERS for bits in (8, 4, 2)),
        ),
    },
    "table2": {
        "recipes": ("dense", "gptq@8bit,sym=false", "awq@8bit", "int8_outlier@8bit"),
        "tasks": paper.EXPERIMENTS["table2"],
    },
    "table3": {
        "recipes": ("dense", *(f"{m}@{level}" for m in _PRUNERS for level in _LEVELS[:5])),
        "tasks": paper.EXPERIMENTS["table3"],
    },
    "disciplines": {
        "recipes": (
            "dense",
            *(f"{m}@{level}" for m in _PRUNERS for level in (*_LEVELS, "2:4", "4:8")),
            *(f"gptq@{bits}bit" for bits in (8, 4)),
        ),
        "tasks": paper.EXPERIMENTS["disciplines"],
    },
    "families": {
        "recipes": ("dense", "magnitude@0.5", "wanda@0.3", "wanda@0.5", "wanda@2:4", "gptq@4bit"),
        "tasks": paper.EXPERIMENTS["families"],
    },
    "perplexity-vs-tasks": {
        "recipes": ("dense", *(f"{m}@{level}" for m in _PRUNERS for level in _LEVELS)),
        "tasks": paper.EXPERIMENTS["perplexity-vs-tasks"],
    },
}
"""Named sweeps. `paper` is LLM-KICK's grid (section 3 and its scripts): 5 to 80 % by 5, 1:2, 2:4, 4:8. The others are
single tables and figures of it; `kick_core.sweeps.experiments` has those that take several sweeps. Which tasks `demo`
and `paper` ask is in the tasks' own records (see `preset`)."""


def preset(name: str, model: str, data: str = POCKET) -> Request:
    """A named sweep of one model.

    Args:
        name: one of `PRESETS`.
        model: what is compressed and asked.
        data: the data it will be asked on; tasks without such data are left out of `demo` and `paper`.

    Raises:
        BadRequest: no preset of this name.
    """
    if name not in PRESETS:
        raise nearest(name, PRESETS, "preset")
    request = Request(model=model, data=data, **PRESETS[name])
    records = [tasks.get(task, data) for task in sorted(tasks.names(data, unlisted=True))]
    if name == "paper":
        return replace(request, tasks=tuple(task.name for task in records if task.in_paper))
    if name == "demo":
        counts = {task.name: task.demo_examples for task in records if task.demo_examples is not None}
        limits = {task: count for task, count in counts.items() if count != request.limit}
        return replace(request, tasks=tuple(counts), limits=limits)
    return request
