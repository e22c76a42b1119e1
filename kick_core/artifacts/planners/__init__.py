"""Recipes that look at the whole model before the first matrix is compressed: one file each, as methods have.

A planner's file holds a literal `CARD` (with "plans": True) and one function, `plan(bench)`: a generator that tells how
far it is and returns a `Plan`, what to do to every matrix. The block walk then carries the plan out like any other
recipe. `alloc=search` of a method that takes a ratio is planned in `_search`. Files that begin with an underscore are
shared parts.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from kick_core import methods
from kick_core.errors import BadRequest
from kick_core.records import Example, LayerPlan, PlanProgress
from kick_core.spec import Recipe
from kick_core.tasks import POCKET, Task

if TYPE_CHECKING:
    from torch import Tensor

    from kick_core.artifacts.loaded_model import OpenModel


@dataclass(frozen=True, slots=True)
class PlannerContext:
    """What a planner works on: an open model that wears its dense weights, a resolved recipe, calibration tokens `ids`
    [windows, length] on the model's device, and a folder for what it must write down while it looks."""

    opened: OpenModel
    recipe: Recipe
    ids: Tensor
    scratch: Path


def find(context: PlannerContext) -> Generator[PlanProgress, None, LayerPlan]:
    """Plan a recipe; the model is dense again afterwards. Raises BadRequest or KickError where it cannot be planned."""
    method = context.recipe.method
    name = method if methods.card(method).plans else "_search"
    context.opened.remember_dense()
    context.opened.active_key = "a plan in the making"
    try:
        found: LayerPlan = yield from import_module(f"kick_core.artifacts.planners.{name}").plan(context)
    finally:
        context.opened.restore_dense()
        for path in context.scratch.glob(f"{CHOICE}-*.safetensors"):
            path.unlink()
    return found


CHOICE = "choice"
"""How the files begin that a planner leaves in its scratch folder until it is done."""


def evaluates(recipe: Recipe) -> bool:
    """Whether planning a recipe asks the model something, so that it must be in memory as a whole."""
    return methods.objective(recipe) not in (None, methods.ERROR)


LOOK = 64
"""Tokens of a question and its answer, as a forecast counts them."""


def looks(recipe: Recipe) -> tuple[int, int | None]:
    """How often planning a recipe measures its objective, and on how many examples; None: on calibration windows."""
    if not evaluates(recipe):
        return 0, None
    options = dict(methods.resolve(recipe).options)
    count = int(options.get("search_steps", 8)) + 2
    return count, int(options["search_examples"]) if "search_examples" in options else None


def searched_on(recipe: Recipe, task: Task, data: str) -> tuple[Example, ...]:
    """The examples of a task that the search of a recipe looks at, none where it looks at others or at nothing.

    They are the last ones of the task's fixed random order, a sample as fair as the first ones, which are what
    evaluations ask. Raises BadRequest when a task has too few for both.
    """
    if task.name == methods.PERPLEXITY or methods.objective(recipe) != task.name:
        return ()
    options = dict(methods.resolve(recipe).options)
    if (options["search_data"] == POCKET) != (data == POCKET):
        return ()
    found, count = task.strict.load(data), int(options["search_examples"])
    if 2 * count > len(found):
        raise BadRequest(
            f"search_examples={count}: {task.name} has {len(found)} examples, and as many as a search looks at must be "
            f"left to ask afterwards: use search_examples={len(found) // 2} or fewer"
        )
    return found[-count:]
