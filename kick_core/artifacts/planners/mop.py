"""Depth and width together: step by step, whichever of the two hurts less.

In the manner of Mixture of Pruners (Yamamoto et al. 2026, arXiv 2602.06127): every step makes two branches from the
model as it is now, one without its least influential block (see `depth`), one without the weakest channels and heads of
as many weights (see `width`), and goes on with the better one. Which is better is measured: `objective` is perplexity
on calibration windows, or a task. What is left of the ratio in the end, less than a block, goes in width.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from kick_core.artifacts.planners import PlannerContext
from kick_core.artifacts.planners._objective import Objective, objective
from kick_core.artifacts.planners._survey import Kinds, Survey, Unit, lines_of, survey, weakest, whole_blocks
from kick_core.compression.block import without_lines
from kick_core.errors import BadRequest
from kick_core.models.blocks import decoder_blocks
from kick_core.records import LayerPlan, PlanProgress, StructuredMask
from kick_core.spec import Unstructured

CARD = {
    "title": "Mixture of pruners (depth and width)",
    "order": 120,
    "colour": "#c04a86",
    "symbol": "star",
    "version": 1,
    "targets": ("ratio",),
    "needs": "norms",
    "options": {"objective": "perplexity"},
    "paper": "Yamamoto et al. 2026, arXiv 2602.06127",
    "plans": True,
    "lines": True,
}

Branch = tuple[list[int], list[Unit]]
"""The blocks and the units that are gone."""


def plan(context: PlannerContext) -> Generator[PlanProgress, None, LayerPlan]:
    """Take steps of one block's weights until the ratio is reached. Raises BadRequest when there is room for none."""
    target = context.recipe.target
    assert isinstance(target, Unstructured)
    if context.recipe.options and dict(context.recipe.options)["objective"] == "error":
        raise BadRequest("mop compares models: its objective is perplexity or a task")
    goal = objective(context)
    gone: Branch = ([], [])
    steps: list[dict[str, Any]] = []
    kinds: Kinds = {}
    while True:
        result = survey(context, kinds)
        room = target.count(result.total) - freed(gone, result)
        branches = {name: branch for name, branch in _branches(result, gone, room).items() if branch != gone}
        if not branches:
            break
        losses = {name: _look(context, goal, branch) for name, branch in branches.items()}
        took = min(losses, key=lambda name: losses[name])
        gone = branches[took]
        _apply(context, _lines(context, gone))
        steps.append({"took": took, **{name: goal.in_own_unit(loss) for name, loss in losses.items()}})
        done = freed(gone, result)
        yield PlanProgress(done, target.count(result.total), f"{took}: {goal.name} {steps[-1][took]:.4g}")
    if not steps:
        raise BadRequest(f"{context.recipe.text} has no room for a single channel or head")
    facts = {"objective": goal.name, "steps": steps, "blocks": gone[0], "evaluations": goal.evaluations, **goal.facts}
    return LayerPlan({}, _lines(context, gone), facts)


def freed(gone: Branch, result: Survey) -> int:
    """How many weights a branch is without; units of a dropped block do not count twice.

    Args:
        gone: The branch.
        result: The survey of the model.
    """
    blocks, units = gone
    whole = sum(result.weights[block] for block in blocks)
    return whole + sum(unit.weights for unit in units if unit.block not in blocks)


def _branches(result: Survey, gone: Branch, room: int) -> Mapping[str, Branch]:
    """One step further in depth, where there is room for it, and in width."""
    blocks, units = gone
    freed_now = freed(gone, result)
    step = min(room, min(result.weights.values()))
    dropped = {(unit.block, unit.kind.reader, unit.group) for unit in units}
    available = [unit for unit in result.units if unit.block not in blocks]
    further: dict[str, Branch] = {"width": (blocks, [*units, *weakest(available, step, dropped)])}
    deeper = [([*blocks, block], units) for block in result.influence if block not in blocks]
    fitting = [branch for branch in deeper if freed(branch, result) - freed_now <= room]
    if fitting:
        further["depth"] = min(fitting, key=lambda branch: result.influence[branch[0][-1]])
    return further


def _lines(context: PlannerContext, gone: Branch) -> dict[str, StructuredMask]:
    blocks, units = gone
    return lines_of(units) | whole_blocks(context, blocks)


def _look(context: PlannerContext, goal: Objective, branch: Branch) -> float:
    _apply(context, _lines(context, branch))
    return goal.loss()


def _apply(context: PlannerContext, lines: Mapping[str, StructuredMask]) -> None:
    opened = context.opened
    for block in range(len(decoder_blocks(opened.model))):
        for matrix in opened.block_matrices(block):
            base = opened.base(block, matrix)
            dropped = lines.get(f"{block}.{matrix.name}")
            matrix.write(base if dropped is None else without_lines(base, dropped).weight)
