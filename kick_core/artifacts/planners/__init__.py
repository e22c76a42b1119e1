"""Recipes that look at the whole model before the first matrix is compressed: one file each, as methods have.

A planner's file holds a literal `CARD` (with "plans": True) and one function, `plan(context)`: a generator that yields
its progress and returns a `LayerPlan`, what to do to every matrix. The block walk then carries the plan out like any
other recipe. `alloc=search` of a method that takes a ratio is planned in `_search`. Files that begin with an underscore
are shared parts.
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
    """What a planner works on.

    Attributes:
        opened: A model with its dense weights.
        recipe: Resolved.
        ids: Calibration tokens [windows, length], on the model's device.
        scratch: A folder for intermediate results, until the plan is done.
    """

    opened: OpenModel
    recipe: methods.ResolvedRecipe
    ids: Tensor
    scratch: Path


def find(context: PlannerContext) -> Generator[PlanProgress, None, LayerPlan]:
    """Plan a recipe; the model is dense again afterwards.

    Args:
        context: The model and the recipe.

    Yields:
        How far it is.

    Returns:
        What to do to every matrix.

    Raises:
        BadRequest: The recipe leaves nothing to do for this model, or its objective cannot be measured.
        KickError: The model's blocks are not understood well enough.
    """
    method = context.recipe.method
    name = method if methods.card(method).plans else "_search"
    context.opened.remember_dense()
    context.opened.active_key = "a plan in the making"
    try:
        plan: LayerPlan = yield from import_module(f"kick_core.artifacts.planners.{name}").plan(context)
    finally:
        context.opened.restore_dense()
        for path in context.scratch.glob(f"{CHOICE}-*.safetensors"):
            path.unlink()
    return plan


CHOICE = "choice"
"""The prefix of a planner's files in its scratch folder."""


def evaluates(recipe: Recipe) -> bool:
    """Whether planning a recipe evaluates the model, which must then be in memory as a whole.

    Args:
        recipe: Resolved or not.
    """
    return methods.objective(recipe) not in (None, methods.ERROR)


LOOK = 64
"""Tokens of a question and its answer, as a cost estimate counts them."""


def looks(recipe: Recipe) -> tuple[int, int | None]:
    """The evaluations that planning a recipe takes.

    Args:
        recipe: Resolved or not.

    Returns:
        How often its objective is measured, and on how many examples; None: on calibration windows.
    """
    if not evaluates(recipe):
        return 0, None
    options = dict(methods.resolve(recipe).options)
    count = int(options.get("search_steps", 8)) + 2
    return count, int(options["search_examples"]) if "search_examples" in options else None


def searched_on(recipe: Recipe, task: Task, data: str) -> tuple[Example, ...]:
    """The examples of a task that the search of a recipe looks at: the last ones of the task's fixed random order.

    They are a sample as fair as the first ones, which evaluations use.

    Args:
        recipe: Resolved or not.
        task: The task that is evaluated.
        data: The kind of data that it is evaluated on.

    Returns:
        None where the search looks at another task, at other data, or at nothing.

    Raises:
        BadRequest: The task has too few examples for both.
    """
    if task.name == methods.PERPLEXITY or methods.objective(recipe) != task.name:
        return ()
    options = dict(methods.resolve(recipe).options)
    if (options["search_data"] == POCKET) != (data == POCKET):
        return ()
    examples, count = task.strict.load(data), int(options["search_examples"])
    if 2 * count > len(examples):
        raise BadRequest(
            f"search_examples={count}: {task.name} has {len(examples)} examples, and as many as a search looks at must "
            f"be left to ask afterwards: use search_examples={len(examples) // 2} or fewer"
        )
    return examples[-count:]
