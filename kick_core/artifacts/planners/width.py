"""Width: channels of MLPs and heads of attention go, wherever in the model they do least.

Which rows and columns make a channel or a head is found by looking (`_units`), what each is worth is measured on dense
activations (`_survey`), and those worth least for the weights that they free go first, over all blocks together (FLAP,
An et al. 2023, arXiv 2312.11983, searches the structure of the whole model in the same way; its bias compensation is no
mask and is left out). Every matrix keeps one of them at least.
"""

from __future__ import annotations

from collections.abc import Generator

from kick_core.artifacts.planners import PlannerContext
from kick_core.artifacts.planners._survey import Survey, Unit, lines_of, survey, weakest
from kick_core.errors import BadRequest
from kick_core.records import LayerPlan, PlanProgress
from kick_core.spec import Unstructured

CARD = {
    "title": "Width (channels and heads)",
    "order": 110,
    "colour": "#9a7a10",
    "symbol": "triangle-left",
    "version": 1,
    "targets": ("ratio",),
    "needs": "norms",
    "options": {},
    "paper": "An et al. 2023, arXiv 2312.11983",
    "plans": True,
    "lines": True,
}


def plan(context: PlannerContext) -> Generator[PlanProgress, None, LayerPlan]:
    """Drop the weakest channels and heads. Raises BadRequest when the ratio has no room for a single one."""
    target = context.recipe.target
    assert isinstance(target, Unstructured)
    yield PlanProgress(0, 1, "what channels and heads are worth")
    result = survey(context, {})
    chosen = weakest(result.units, target.count(result.total))
    if not chosen:
        raise BadRequest(f"{context.recipe.text} has no room for a single channel or head")
    return LayerPlan({}, lines_of(chosen), {"kept": kept_units(result, chosen)})


def kept_units(result: Survey, chosen: list[Unit]) -> dict[str, list[int]]:
    """How many units every reading matrix keeps, and how many it had: "block.matrix" -> [kept, all].

    Args:
        result: The survey of the model.
        chosen: Units that go.
    """
    counts: dict[str, list[int]] = {}
    for unit in result.units:
        counts.setdefault(f"{unit.block}.{unit.kind.reader}", [unit.kind.groups, unit.kind.groups])
    for unit in chosen:
        counts[f"{unit.block}.{unit.kind.reader}"][0] -= 1
    return counts
