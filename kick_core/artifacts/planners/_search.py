"""One choice for every matrix under one budget: what costs the objective least.

`objective=error` minimizes the sum of the matrices' relative output errors, each measured alone (Optimal Brain
Compression, arXiv 2208.11580). Errors do not simply add up in a language model (Sieberling et al. 2025, "EvoPress",
arXiv 2410.14649), so the other objectives look at the model: every block and every kind of matrix has a coefficient
that its errors are multiplied with; coefficients are drawn, first far and then near the best so far, each draw is
solved under the budget, and the solution is applied and measured (the reparametrized search of SPDY, Frantar & Alistarh
2022, arXiv 2201.13096, with measured errors in place of its quadratic ones, as ZipLM does, arXiv
2302.04089). Whatever is found obeys the budget, and as it was measured, on results that saw dense activations, it is
never worse for the objective than the even one; the artifact is then made with the calibration's own propagation.

The problem under given coefficients is the multiple-choice knapsack, solved by Lagrangian bisection and a greedy rest
(Shoham & Gersho 1988, "Efficient bit allocation for an arbitrary set of quantizers"): what is left of the budget is
less than the cheapest step that would still help.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from kick_core import methods
from kick_core.artifacts.planners import PlannerContext
from kick_core.artifacts.planners._database import Assignment, Database, Numbers, build
from kick_core.artifacts.planners._objective import Objective, objective
from kick_core.errors import KickError
from kick_core.models.blocks import decoder_blocks
from kick_core.records import LayerPlan, PlanProgress
from kick_core.spec import Unstructured

STEP, REACH, MOST = 0.05, 5, 0.95
"""The grid of ratios around the requested one: its spacing, how many steps to either side, the highest."""


def plan(context: PlannerContext) -> Generator[PlanProgress, None, LayerPlan]:
    """Allocate a method's ratio over the matrices: as many weights stay as with one ratio for all.

    Args:
        context: The model and the recipe.
    """
    recipe = context.recipe
    assert isinstance(recipe.target, Unstructured)
    choices = ratio_grid(recipe)
    keep = methods.objective(recipe) != methods.ERROR
    database = yield from build(context, choices, keep=keep)
    even = (choices.index(_at_ratio(recipe, recipe.target.ratio)),) * len(database.names)
    budget = float(_spent(database.nonzeros, even))
    return (yield from solved(context, database, database.nonzeros, budget, even))


def ratio_grid(recipe: methods.ResolvedRecipe) -> tuple[methods.ResolvedRecipe, ...]:
    """The recipes of which every matrix gets one, from mild to harsh.

    Args:
        recipe: Resolved, with a ratio.
    """
    assert isinstance(recipe.target, Unstructured)
    ratio = recipe.target.ratio
    ratios = {round(min(max(MOST, ratio), max(0.0, ratio + STEP * step)), 6) for step in range(-REACH, REACH + 1)}
    return tuple(_at_ratio(recipe, near) for near in sorted(ratios | {ratio}))


def _at_ratio(recipe: methods.ResolvedRecipe, ratio: float) -> methods.ResolvedRecipe:
    known = methods.card(recipe.method).options
    own = tuple((name, value) for name, value in recipe.options if name in known)
    return replace(recipe, target=Unstructured(ratio), options=own)


def solved(
    context: PlannerContext, database: Database, costs: Numbers, budget: float, even: Assignment
) -> Generator[PlanProgress, None, LayerPlan]:
    """The plan with the best objective.

    Args:
        context: The model and the recipe.
        database: The compressed matrices to choose from.
        costs: Of every choice [matrices, choices].
        budget: What all may cost together.
        even: The same choice for all matrices, which the plan must not be worse than.
    """
    by_error = cheapest(database.errors, costs, budget)
    name = methods.objective(context.recipe)
    if name == methods.ERROR:
        facts: dict[str, Any] = {"objective": name, "uniform": _spent(database.errors, even)}
        return _plan(database, costs, budget, by_error, facts | {"found": _spent(database.errors, by_error)})
    goal = objective(context)
    search = _Search(context, database, goal)
    uniform, first = search.loss(even), search.loss(by_error)
    if not (np.isfinite(uniform) or np.isfinite(first)):
        raise KickError(f"objective={name} is no finite number under {context.recipe.text}: choose a milder target")
    best = yield from search.refine(costs, budget, by_error)
    loss, chosen = min((uniform, 1, even), (search.loss(best), 0, best))[::2]
    facts = {"objective": name, "uniform": goal.in_own_unit(uniform), "error": goal.in_own_unit(first)}
    facts |= {"found": goal.in_own_unit(loss), "evaluations": goal.evaluations, "history": search.history, **goal.facts}
    return _plan(database, costs, budget, chosen, facts)


@dataclass
class _Search:
    """Measures assignments, each one once.

    Attributes:
        context: The model and the recipe.
        database: The compressed matrices to choose from.
        goal: The objective.
        known: Assignment -> loss.
        history: The best so far after every step, in the objective's unit.
    """

    context: PlannerContext
    database: Database
    goal: Objective
    known: dict[Assignment, float] = field(default_factory=dict)
    history: list[float] = field(default_factory=list)

    def loss(self, assignment: Assignment) -> float:
        if assignment not in self.known:
            self.database.apply_weights(self.context.opened, assignment)
            self.known[assignment] = self.goal.loss()
        return self.known[assignment]

    def refine(self, costs: Numbers, budget: float, best: Assignment) -> Generator[PlanProgress, None, Assignment]:
        """Draw coefficients around the best, solve, measure; an equal loss is enough to move on from."""
        options = dict(self.context.recipe.options)
        steps, rng = int(options["search_steps"]), np.random.default_rng(int(options["search_seed"]))
        groups, before = _groups(self.database.names), len(decoder_blocks(self.context.opened.model))
        centre = np.zeros(groups.shape[1])
        for step in range(steps):
            far = step < steps // 4
            drawn = rng.normal(size=len(centre)) * (rng.random(len(centre)) < (1 if far else 0.4))
            coefficients = drawn if far else centre + (0.8 - 0.6 * step / steps) * drawn
            assignment = cheapest(np.exp(groups @ coefficients)[:, None] * self.database.errors, costs, budget)
            if self.loss(assignment) <= self.loss(best):
                best, centre = assignment, coefficients
            self.history.append(self.goal.in_own_unit(self.loss(best)))
            yield PlanProgress(before + step + 1, before + steps, f"{self.goal.name} {self.history[-1]:.4g}")
        return best


def _groups(names: list[str]) -> Numbers:
    """[matrices, blocks + kinds]: 1 where a matrix is of that block, or of that name inside its block."""
    labels = [(name.partition(".")[0], name.rpartition(".")[2]) for name in names]
    columns = list(dict.fromkeys(label for own in labels for label in zip(("block", "kind"), own, strict=True)))
    return np.array([[float(label in zip(("block", "kind"), own, strict=True)) for label in columns] for own in labels])


def _spent(table: Numbers, assignment: Assignment) -> float:
    return float(table[np.arange(len(assignment)), assignment].sum())


def cheapest(errors: Numbers, costs: Numbers, budget: float) -> Assignment:
    """One choice per matrix: the smallest sum of errors within the budget.

    Args:
        errors: [matrices, choices].
        costs: [matrices, choices].
        budget: What all may cost together.

    Raises:
        KickError: Even the cheapest choices exceed it.
    """
    if (least := costs.min(axis=1).sum()) > budget:
        raise KickError(f"nothing fits a budget of {budget:.0f}: the cheapest choices take {least:.0f}")
    rows = np.arange(len(errors))

    def at(price: float) -> NDArrayInt:
        return np.lexsort((costs, errors + price * costs), axis=1)[:, 0]

    low, high = 0.0, 1e-12
    while costs[rows, at(high)].sum() > budget and high < 1e30:
        low, high = high, high * 4
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if costs[rows, at(middle)].sum() > budget else (low, middle)
    chosen = at(high) if costs[rows, at(high)].sum() <= budget else costs.argmin(axis=1)
    return _filled(errors, costs, budget, chosen)


NDArrayInt = np.ndarray[Any, np.dtype[np.intp]]


def _filled(errors: Numbers, costs: Numbers, budget: float, chosen: NDArrayInt) -> Assignment:
    """Spend what is left: always the step that helps most for what it costs."""
    rows = np.arange(len(errors))
    while True:
        left = budget - costs[rows, chosen].sum()
        more = costs - costs[rows, chosen][:, None]
        gain = errors[rows, chosen][:, None] - errors
        worth = np.where((gain > 0) & (more <= left), gain / np.maximum(more, 1e-9), 0.0)
        if worth.max() <= 0:
            return tuple(int(choice) for choice in chosen)
        row, choice = np.unravel_index(int(worth.argmax()), worth.shape)
        chosen = chosen.copy()
        chosen[row] = choice


def _plan(database: Database, costs: Numbers, budget: float, chosen: Assignment, facts: dict[str, Any]) -> LayerPlan:
    recipes = {name: database.choices[n].text for name, n in zip(database.names, chosen, strict=True)}
    return LayerPlan(recipes, {}, {**facts, "budget": budget, "spent": _spent(costs, chosen), "recipes": recipes})
