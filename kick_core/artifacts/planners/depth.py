"""Depth: whole decoder blocks go, those that change least what passes through them.

Block influence as in ShortGPT (Men et al. 2024, arXiv 2403.03853), measured anew after every block that goes,
because the ones after it then see other inputs. All matrices of a dropped block are masked, which leaves the residual
stream alone in it: the block is the identity. As many blocks go as the ratio has room for, never one more.
"""

from __future__ import annotations

from collections.abc import Generator

from kick_core.artifacts.planners import PlannerContext
from kick_core.artifacts.planners._survey import survey, whole_blocks
from kick_core.errors import BadRequest
from kick_core.records import LayerPlan, PlanProgress
from kick_core.spec import Unstructured

CARD = {
    "title": "Depth (whole blocks)",
    "order": 100,
    "colour": "#6b7280",
    "symbol": "triangle-down",
    "version": 1,
    "targets": ("ratio",),
    "needs": "norms",
    "options": {},
    "paper": "Men et al. 2024, arXiv 2403.03853",
    "plans": True,
    "lines": True,
}


def plan(context: PlannerContext) -> Generator[PlanProgress, None, LayerPlan]:
    """Drop the blocks of least influence. Raises BadRequest when the ratio has no room for a single one."""
    target = context.recipe.target
    assert isinstance(target, Unstructured)
    dropped: list[int] = []
    influence: list[float] = []
    while True:
        result = survey(context, without=dropped)
        room = target.count(result.total) - sum(result.weights[block] for block in dropped)
        fitting = [block for block in result.influence if result.weights[block] <= room]
        if not fitting:
            break
        dropped.append(min(fitting, key=lambda block: result.influence[block]))
        influence.append(result.influence[dropped[-1]])
        note = f"block {dropped[-1]} goes, influence {influence[-1]:.3g}"
        yield PlanProgress(len(dropped), len(result.weights), note)
    if not dropped:
        least = min(result.weights.values()) / result.total
        raise BadRequest(f"{context.recipe.text} drops no block: the smallest is {least:.4g} of the model's matrices")
    return LayerPlan({}, whole_blocks(context, dropped), {"blocks": dropped, "influence": influence})
