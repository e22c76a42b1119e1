"""The grid: recipes x tasks of one model as idempotent cells, done one after the other.

A cell either makes one artifact or asks one task. Done cells cost nothing; a stopped sweep goes on where it
was, because every cell keeps its own progress. Progress is yielded, never printed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from kick_core import methods, tasks
from kick_core.artifacts import planners
from kick_core.errors import BadRequest
from kick_core.records import BlockReport, PlanProgress, Progress
from kick_core.spec import DENSE, ModelRef, Recipe
from kick_core.store import Store, results
from kick_core.store import fidelity as kept
from kick_core.store.nested_masks import sharing
from kick_core.sweeps.request import Request

if TYPE_CHECKING:
    from kick_core.artifacts.builder import ArtifactBuilder
    from kick_core.evaluation import EvalSession
    from kick_core.runs.backends import Backend
    from kick_core.runs.measure import TaskData

_COST = {"generate": 1.0, "choose": 0.5, "dialogue": 8.0, "perplexity": 3.0}
"""What one example costs beside the others, for the progress bar; as measured on the pocket models."""

_BLOCK_COST = {"nothing": 2.0, "norms": 12.0, "gram": 20.0}
"""What compressing one block costs on the same scale, by the statistics that a method needs."""


_TOKENS_RECOVERED = 400
"""Tokens that recovery reads, in a block, at the cost of 1 on the same scale."""


def _block_cost(recipe: Recipe) -> float:
    how = methods.recovery(recipe)
    return _BLOCK_COST[methods.needs(recipe)] + (how.tokens / _TOKENS_RECOVERED if how else 0.0)


Work = Literal["make", "ask", "again", "fidelity", "texts"]
"""Make an artifact, ask a task, ask dense again in other batches, compare distributions with dense's on running text,
read the texts that dense wrote."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One piece of work: `task` None makes the recipe's artifact. `cost` is what is left of it."""

    recipe: Recipe
    task: str | None
    cost: float
    count: int = 0
    work: Work = "ask"

    @property
    def text(self) -> str:
        """What progress says of it."""
        words = {"make": "", "ask": f" · {self.task}", "again": f" again · {self.task}"}
        words |= {"fidelity": " · fidelity", "texts": f" · fidelity · {self.task}"}
        return f"{self.recipe.text}{words[self.work]}"


class Sweep:
    """An open sweep: the model, its calibration, every task's examples. Opened once, planned, then run."""

    def __init__(self, request: Request, store: Store, *, plan_only: bool = False) -> None:
        """Opens the model; its blocks stay on disk when it is not this very model that is asked."""
        recipes = request.parsed()
        if request.hosted and request.fidelity:
            raise BadRequest(
                "--fidelity compares whole distributions, which only the open model gives: leave --engine and "
                "--device-map out, or --fidelity"
            )
        tasks.protocol_of(request.protocol)
        asked = [tasks.get(name, request.data) for name in request.tasks]
        for task in asked:
            limit = request.limit_of(task.name)
            if limit is not None and limit < 1:
                raise BadRequest(f"limit {limit} for {task.name}: at least 1 example is needed")
        from kick_core import evaluation
        from kick_core.artifacts.builder import ArtifactBuilder
        from kick_core.artifacts.loaded_model import open_for
        from kick_core.runs import backends
        from kick_core.runs import measure as runs

        self.request, self.store, self.recipes = request, store, recipes
        reference = ModelRef(request.model, request.revision, request.dtype)  # type: ignore[arg-type]
        self.builder: ArtifactBuilder = ArtifactBuilder(
            store,
            open_for(
                reference,
                store,
                request.device,
                streamed=plan_only or request.hosted or not self._whole(reference),
            ),
            request.calibration,
        )
        self.ask: EvalSession = evaluation.open_session(self.builder.opened.model, self.builder.opened.tokenizer)
        self.host: Backend | None = backends.host_for(
            request.engine, request.device_map, request.max_memory, self.builder, self.ask
        )
        if self.host:
            self.ask = replace(self.ask, other=self.host.engine)
        self._seats = ExitStack()
        self._serve: tuple[Recipe, EvalSession] | None = None
        text = tasks.running_text()
        if request.fidelity and text not in request.tasks:
            asked.append(tasks.get(text, request.data))
        loaded = {
            task.name: runs.task_data(task, self.ask, request.data, request.protocol, request.shots) for task in asked
        }
        self.text: TaskData | None = loaded[text] if request.fidelity else None
        self.data: dict[str, TaskData] = {name: loaded[name] for name in request.tasks}

    def _whole(self, reference: ModelRef) -> bool:
        """Whether the model is needed as a whole: to be asked (a plan may ask it too), or to be trained where it fits
        into memory."""
        if self.request.tasks or self.request.fidelity or any(map(planners.evaluates, self.recipes)):
            return True
        if not any((how := methods.recovery(recipe)) and how.trains for recipe in self.recipes):
            return False
        from kick_core.models.source import find

        size = sum(path.stat().st_size for path in find(reference, self.store).weight_files)
        return size < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    def cells(self, only: Recipe | None = None) -> list[Cell]:
        """Every cell of the grid (of one recipe) with what is left to do; a cost of 0 is a done cell."""
        from kick_core.models.blocks import decoder_blocks

        blocks = len(decoder_blocks(self.builder.opened.model))
        found = []
        for recipe in self.recipes if only is None else (only,):
            asking = list(self._asking(recipe))
            # an artifact that was removed is not made again for answers that are there already
            needless = self.builder.made(recipe) or (asking and not any(cell.count for cell in asking))
            cost = 0.0 if needless else blocks * _block_cost(recipe) + _planning_cost(recipe)
            found += [Cell(recipe, None, cost, blocks, "make"), *asking]
        return found

    def _asking(self, recipe: Recipe) -> Iterator[Cell]:
        for name in self.data:
            works: tuple[Work, ...] = ("ask", "again") if self._again(recipe) else ("ask",)
            for work in works:
                left = self._left(recipe, name, work == "again")
                yield Cell(recipe, name, left * _COST[self.data[name].task.kind], left, work)
        if self.text and recipe != DENSE:
            from kick_core.runs import fidelity

            limit = self.request.limit_of(self.text.task.name)
            left = fidelity.left(self.store, self.builder, recipe, self.ask, self.text, limit)
            yield Cell(recipe, self.text.task.name, left * _COST["perplexity"], left, "fidelity")
            yield from self._reading(recipe)

    def _reading(self, recipe: Recipe) -> Iterator[Cell]:
        from kick_core.runs import dense_replay

        for name, loaded in self.data.items():
            if loaded.task.kind in dense_replay.KINDS:
                key = dense_replay.card(self.builder, recipe, self.ask, loaded).key
                limit = self.request.limit_of(name)
                left = max(0, len(loaded.examples[:limit]) - kept.windows(kept.texts(self.store, key)))
                yield Cell(recipe, name, left * _COST["choose"], left, "texts")

    def _again(self, recipe: Recipe) -> bool:
        return self.request.noise_floor and recipe == DENSE

    def _left(self, recipe: Recipe, task: str, again: bool) -> int:
        from kick_core.runs import measure as runs

        loaded = self.data[task]
        count = len(runs.wanted(loaded, self.request.limit_of(task), recipe))
        return max(0, count - results.measured(self.store, self.card(recipe, task, again=again).key))

    def card(self, recipe: Recipe, task: str, *, again: bool = False) -> Any:
        """The run card of one cell; of dense asked `again` for the noise floor."""
        from kick_core.runs import measure as runs

        ask = runs.asked_otherwise(self.ask) if again else self.ask
        return runs.run_card(self.builder, recipe, ask, self.data[task], again=again)

    def run(self, only: Recipe | None = None, tasks: Sequence[str] = ()) -> Iterator[Progress]:
        """Do what is left (of one recipe, of some `tasks` only), yielding progress; the last item has `done` equal to
        `total`."""
        if only is None:
            self.repair()
        cells = [cell for cell in self.cells(only) if not tasks or cell.task is None or cell.task in tasks]
        total = sum(cell.cost for cell in cells)
        done = 0.0
        yield Progress("", done, total, f"{sum(c.cost == 0 for c in cells)} of {len(cells)} cells are done already")
        try:
            for cell in cells:
                if cell.cost == 0:
                    continue
                start = done
                for progress in self._do(cell, start, total):
                    done = progress.done
                    yield progress
                done = start + cell.cost
        finally:
            self._leave()
            self.builder.opened.release()
        if only is None:
            yield from self.share(total)
        yield Progress("", total, total, "done")

    def share(self, total: float) -> Iterator[Progress]:
        """Let nested masks share their files, once all of them are made: nothing but their size on disk changes."""
        keys = {self.builder.key(recipe) for recipe in self.recipes if recipe != DENSE}
        for done in sharing.share(self.store, keys):
            yield Progress("", total, total, f"{done.masks} nested masks as one", done.block, done.blocks)

    def repair(self) -> None:
        """Write again what damage took from measured runs and no model is needed for."""
        from kick_core.runs import measure as runs

        for recipe in self.recipes:
            for name, loaded in self.data.items():
                runs.repair(self.store, self.card(recipe, name), loaded)

    def _make_together(self, cell: Cell, start: float, total: float) -> Iterator[Progress]:
        """Dense propagation: the first recipe that looks at data brings all others of the sweep with it."""
        for recipe, report in self.builder.make_all(self.recipes):
            if isinstance(report, PlanProgress):
                yield Progress(recipe.text, start, total, _said(report))
                continue
            done = start + cell.cost * report.block / report.blocks
            told = report.note or "one pass"
            yield Progress(recipe.text, done, total, told, report.block, report.blocks, report.loss)

    def _do(self, cell: Cell, start: float, total: float) -> Iterator[Progress]:
        if cell.task is None:
            from kick_core.compression.walk import needs_data

            if self.builder.calibration.propagate == "dense" and needs_data(cell.recipe):
                yield from self._make_together(cell, start, total)
            for report in self.builder.make(cell.recipe):
                yield _making(cell, report, start, cell.cost, total)
            return
        yield Progress(cell.text, start, total)
        for report in self.builder.make(cell.recipe):  # nothing to do, unless it was removed or set aside meanwhile
            yield _making(cell, report, start, 0.0, total)
        answered = 0
        for new in self._answers(cell, cell.task):
            answered += new
            share = min(1.0, answered / cell.count)
            yield Progress(cell.text, start + cell.cost * share, total)

    def _session(self, recipe: Recipe) -> EvalSession:
        """Whom to ask for a recipe's answers; a host keeps its seat from task to task."""
        if self.host is None:
            return self.ask
        if self._serve is None or self._serve[0] != recipe:
            self._leave()
            self._serve = recipe, self._seats.enter_context(self.host.serving(self.builder, recipe, self.ask))
        return self._serve[1]

    def _leave(self) -> None:
        self._serve = None
        self._seats.close()

    def _answers(self, cell: Cell, task: str) -> Iterator[int]:
        """Do an asking cell; yields how many examples were done at a time."""
        from kick_core.runs import fidelity
        from kick_core.runs import measure as runs

        limit = self.request.limit_of(task)
        if cell.work == "fidelity":
            assert self.text is not None
            yield from fidelity.measure(self.store, self.builder, cell.recipe, self.ask, self.text, limit)
            return
        if cell.work == "texts":
            from kick_core.runs import dense_replay

            loaded, dense = self.data[task], self.card(DENSE, task)
            if results.measured(self.store, dense.key) < len(runs.wanted(loaded, limit)):
                self.builder.apply_recipe(DENSE)
                for _ in runs.measure(self.store, self.ask, dense, loaded, limit):
                    pass
            yield from dense_replay.measure(self.store, self.builder, cell.recipe, self.ask, loaded, dense.key, limit)
            return
        again, ask = cell.work == "again", self._session(cell.recipe)
        card = self.card(cell.recipe, task, again=again)
        yield from runs.measure(self.store, runs.asked_otherwise(ask) if again else ask, card, self.data[task], limit)


def _planning_cost(recipe: Recipe) -> float:
    """What looking at the model costs before the first block, on the scale of `_COST`."""
    looks, examples = planners.looks(recipe)
    return looks * (16 * _COST["perplexity"] if examples is None else examples * _COST["generate"])


def _said(planning: PlanProgress) -> str:
    return f"looking at the whole model, {planning.done} of {planning.total}: {planning.note}"


def _making(cell: Cell, report: BlockReport | PlanProgress, start: float, cost: float, total: float) -> Progress:
    """What a make tells; of the cell's `cost` the plan, where there is one, has its own share."""
    text, planned = cell.recipe.text, min(cost, _planning_cost(cell.recipe))
    if isinstance(report, PlanProgress):
        return Progress(text, start + planned * report.done / report.total, total, _said(report))
    done = start + planned + (cost - planned) * (report.block + 1) / report.blocks
    return Progress(text, done, total, report.note, report.block, report.blocks, report.loss)


def run(request: Request, store: Store) -> Iterator[Progress]:
    """Open a sweep and do what is left of it."""
    yield from Sweep(request, store).run()
