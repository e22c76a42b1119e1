"""Depth and width together: step by step, whichever of the two hurts less.

In the manner of Mixture of Pruners (Yamamoto et al. 2026, arXiv 2602.06127): every step makes two branches from the
model as it is now, one without its least influential block (see `depth`), one without the weakest channels and heads of
as many weights (see `width`), and goes on with the better one. Which is better is measured: `objective` is perplexity
on calibration windows, or a task. What is left of the ratio in the end, less than a block, goes in width.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

from kick_core.models.blocks import decoder_blocks
from kick_core.one_block import without_lines
from kick_core.planners import Bench
from kick_core.planners._objective import Objective, objective
from kick_core.planners._survey import Kinds, Survey, Unit, lines_of, survey, weakest, whole_blocks
from kick_core.records import Lines, Plan, Planning
from kick_core.spec import BadRequest, Unstructured

CARD = {
    "title": "Mixture of pruners (depth and width)",
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


def plan(bench: Bench) -> Generator[Planning, None, Plan]:
    """Take steps of one block's weights until the ratio is reached. Raises BadRequest when there is room for none."""
    target = bench.recipe.target
    assert isinstance(target, Unstructured)
    if bench.recipe.options and dict(bench.recipe.options)["objective"] == "error":
        raise BadRequest("mop compares models: its objective is perplexity or a task")
    sought = objective(bench)
    gone: Branch = ([], [])
    steps: list[dict[str, Any]] = []
    kinds: Kinds = {}
    while True:
        found = survey(bench, kinds)
        room = target.count(found.total) - freed(gone, found)
        branches = {name: one for name, one in _branches(found, gone, room).items() if one != gone}
        if not branches:
            break
        losses = {name: _look(bench, sought, one) for name, one in branches.items()}
        took = min(losses, key=lambda name: losses[name])
        gone = branches[took]
        _wear(bench, _lines(bench, gone))
        steps.append({"took": took, **{name: sought.shown(loss) for name, loss in losses.items()}})
        done = freed(gone, found)
        yield Planning(done, target.count(found.total), f"{took}: {sought.name} {steps[-1][took]:.4g}")
    if not steps:
        raise BadRequest(f"{bench.recipe.text} has no room for a single channel or head")
    facts = {"objective": sought.name, "steps": steps, "blocks": gone[0], "evaluations": sought.asked, **sought.facts}
    return Plan({}, _lines(bench, gone), facts)


def freed(gone: Branch, found: Survey) -> int:
    """How many weights a branch is without; what is gone in a dropped block counts once."""
    blocks, units = gone
    whole = sum(found.weights[block] for block in blocks)
    return whole + sum(unit.weights for unit in units if unit.block not in blocks)


def _branches(found: Survey, gone: Branch, room: int) -> Mapping[str, Branch]:
    """One step further in depth, where there is room for it, and in width."""
    blocks, units = gone
    here = freed(gone, found)
    step = min(room, min(found.weights.values()))
    taken = {(one.block, one.kind.reader, one.group) for one in units}
    open_ones = [one for one in found.units if one.block not in blocks]
    further: dict[str, Branch] = {"width": (blocks, [*units, *weakest(open_ones, step, taken)])}
    deeper = [([*blocks, block], units) for block in found.influence if block not in blocks]
    fitting = [branch for branch in deeper if freed(branch, found) - here <= room]
    if fitting:
        further["depth"] = min(fitting, key=lambda branch: found.influence[branch[0][-1]])
    return further


def _lines(bench: Bench, gone: Branch) -> dict[str, Lines]:
    blocks, units = gone
    return lines_of(units) | whole_blocks(bench, blocks)


def _look(bench: Bench, sought: Objective, branch: Branch) -> float:
    _wear(bench, _lines(bench, branch))
    return sought.loss()


def _wear(bench: Bench, lines: Mapping[str, Lines]) -> None:
    opened = bench.opened
    for block in range(len(decoder_blocks(opened.model))):
        for matrix in opened.block_matrices(block):
            base = opened.base(block, matrix)
            dropped = lines.get(f"{block}.{matrix.name}")
            matrix.write(base if dropped is None else without_lines(base, dropped).weight)
