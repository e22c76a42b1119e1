"""The cells of a sweep: which there are, what is left of each, and how they are handed out.

Everybody who runs a sweep (the command line, a page's job, a Ray cluster) hands out the same `Cell`s by the functions
of this file. They follow from the sweep's keys and from what is in the cache: nothing is opened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kick_core import methods, tasks
from kick_core.errors import KickError
from kick_core.spec import DENSE, Recipe, parse
from kick_core.store import Store, results, weight_artifacts
from kick_core.store import fidelity as comparisons
from kick_core.sweeps.request import SweepJob
from kick_core.sweeps.sweep_keys import SweepKeys
from kick_core.tasks.verdicts import score

Work = Literal["make", "ask", "again", "fidelity", "texts"]
"""Make an artifact, evaluate a task, evaluate dense again in other batches, compare distributions with dense's on
running text, read the texts that dense wrote."""

CellId = tuple[str, Work, str | None]
"""Recipe, work and task."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One idempotent piece of work of a sweep.

    Attributes:
        recipe: Recipe text.
        work: What is done.
        task: None for making the recipe's artifact.
        total: Blocks (artifacts), examples or windows.
        left: How many of them are left to do.
    """

    recipe: str
    work: Work
    task: str | None
    total: int
    left: int

    @property
    def id(self) -> CellId:
        """What names it within its sweep."""
        return self.recipe, self.work, self.task

    @property
    def cached(self) -> bool:
        """Whether nothing is left to do."""
        return self.left == 0

    @property
    def text(self) -> str:
        """How progress names it."""
        words = {"make": "", "ask": f" · {self.task}", "again": f" again · {self.task}"}
        words |= {"fidelity": " · fidelity", "texts": f" · fidelity · {self.task}"}
        return f"{self.recipe}{words[self.work]}"

    def to_json(self) -> dict[str, Any]:
        """The cell as JSON values; `Cell(**values)` reads them."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Step:
    """News of a cell that is being done.

    Attributes:
        cell: Its id.
        share: How much of what was left of it is done now, 0 to 1.
        seconds: Since the step before, in the process that does it.
        message: For people.
        block: Block that is done, while an artifact is made.
        blocks: Their number.
        loss: The block's reconstruction error.
    """

    cell: CellId
    share: float
    seconds: float
    message: str = ""
    block: int | None = None
    blocks: int | None = None
    loss: float | None = None


def cells(job: SweepJob, keys: SweepKeys, store: Store) -> tuple[Cell, ...]:
    """Every cell of a sweep with what is left of it, recipe by recipe."""
    return tuple(cell for recipe in job.parsed() for cell in _of_recipe(job, keys, store, recipe))


def _of_recipe(job: SweepJob, keys: SweepKeys, store: Store, recipe: Recipe) -> Iterator[Cell]:
    evaluations = list(_evaluations(job, keys, store, recipe))
    if recipe != DENSE:
        blocks = keys.model.sizes.blocks
        # an artifact that was removed is not made again for answers that are there already
        needless = bool(evaluations) and all(cell.cached for cell in evaluations)
        there = needless or weight_artifacts.has(store, keys.artifacts[recipe.text])
        yield Cell(recipe.text, "make", None, blocks, 0 if there else blocks)
    yield from evaluations


def _evaluations(job: SweepJob, keys: SweepKeys, store: Store, recipe: Recipe) -> Iterator[Cell]:
    def cell(work: Work, task: str, done: int) -> Cell:
        count = keys.tasks[task].total - len(_searched(job, recipe, task))
        total = min(count, job.limit_of(task) or count)
        return Cell(recipe.text, work, task, total, max(0, total - done))

    for task in job.tasks:
        yield cell("ask", task, results.measured(store, keys.runs[task][recipe.text]))
    for task in job.tasks if job.noise_floor and recipe == DENSE else ():
        yield cell("again", task, results.measured(store, keys.again[task]))
    if job.fidelity and recipe != DENSE:
        parts = comparisons.parts(store, keys.fidelity[recipe.text])
        yield cell("fidelity", tasks.running_text(), comparisons.windows(parts))
        for task in job.tasks:
            if task in keys.texts:
                readings = comparisons.texts(store, keys.texts[task][recipe.text])
                yield cell("texts", task, comparisons.windows(readings))


def _searched(job: SweepJob, recipe: Recipe, task: str) -> tuple[Any, ...]:
    """The examples of a task that the recipe's own search has looked at; they are not evaluated."""
    from kick_core.artifacts import planners

    return planners.searched_on(recipe, tasks.get(task, job.data), job.data)


def unscored(job: SweepJob, keys: SweepKeys, store: Store) -> list[str]:
    """Derive the verdicts that a killed process did not come to.

    Returns:
        Recipes of measured runs whose card or questions are missing: only who has the model open can write them.
    """
    recipes: dict[str, None] = {}
    for task in job.tasks:
        version, examples = tasks.get(task, job.data).version, store.folder("examples", keys.tasks[task].examples)
        for recipe in job.parsed():
            key = keys.runs[task][recipe.text]
            if not results.measured(store, key):
                continue
            if not (store.folder("results", key) / "run.json").exists() or not any(examples.glob("*.parquet")):
                recipes[recipe.text] = None
            elif results.verdict_file(store, key, version) is None:
                try:
                    score(store, key)
                except KickError:
                    recipes[recipe.text] = None
    return list(recipes)


# --- handing out ---------------------------------------------------------------------------------------------

Group = tuple[Cell, ...]
"""Cells that one process does in their order: all that is left of a recipe, or half of that."""


def phases(
    job: SweepJob, listed: Sequence[tuple[Cell, float]], repairs: Sequence[str], halves: int
) -> list[list[Group]]:
    """What is left of a sweep in the order in which it is handed out.

    With dense propagation all recipes that need data are made in one pass, by one process; they are evaluated in a
    second phase, which begins when the first has ended.

    Args:
        job: The sweep.
        listed: Every cell with its expected seconds.
        repairs: Recipes that need an open model though nothing is left of them.
        halves: How many groups, the last ones, are cut in two so that no process waits long for the others' end.

    Returns:
        Groups, phase by phase. Dense comes first, since others are compared with it, then the longest group.
    """
    groups: dict[str, list[tuple[Cell, float]]] = {}
    together: list[tuple[Cell, float]] = []
    for cell, seconds in listed:
        if cell.cached and cell.recipe not in repairs:
            continue
        if cell.work == "make" and not cell.cached and _in_one_pass(job, cell):
            together.append((cell, seconds))
        else:
            groups.setdefault(cell.recipe, []).append((cell, seconds))
    first = {cell.recipe for cell, _ in together}
    rest = [group for text, group in groups.items() if text in first]
    begin = [group for text, group in groups.items() if text not in first] + ([together] if together else [])
    ordered = [sorted(phase, key=_urgency) for phase in (begin, rest) if phase]
    if ordered:
        ordered[-1] = _halved(ordered[-1], halves)
    return [[tuple(cell for cell, _ in group) for group in phase] for phase in ordered]


def _in_one_pass(job: SweepJob, cell: Cell) -> bool:
    recipe = parse(cell.recipe)
    return (
        job.calibration.propagate == "dense" and methods.needs(recipe) != "nothing" and methods.recovery(recipe) is None
    )


def _urgency(group: list[tuple[Cell, float]]) -> tuple[bool, float]:
    return group[0][0].recipe != DENSE.text, -sum(seconds for _, seconds in group)


def _halved(groups: list[list[tuple[Cell, float]]], halves: int) -> list[list[tuple[Cell, float]]]:
    """Cut the last groups in two by their tasks, the longest task first. Both make the artifact if it is missing, and
    the store lets one wait for the other: the second halves come last, when most artifacts are there."""
    result, later = groups[: len(groups) - halves] if halves else list(groups), []
    for group in groups[len(result) :]:
        making = [pair for pair in group if pair[0].task is None]
        others = sorted((pair for pair in group if pair[0].task is not None), key=lambda pair: -pair[1])
        if len(others) < 2:
            result.append(group)
        else:
            result.append(making + others[::2])
            later.append(others[1::2])
    return result + later
