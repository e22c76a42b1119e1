"""An open sweep: the model, its calibration and every task's examples, and how a cell of it is done.

Done cells cost nothing; a stopped sweep goes on where it was, because every cell keeps its own progress. Progress is
yielded, never printed.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import zip_longest
from typing import TYPE_CHECKING

from kick_core import tasks, timing
from kick_core.artifacts import planners
from kick_core.errors import KickError
from kick_core.models.source import file_states, find
from kick_core.records import BlockReport, PlanProgress, RunCard
from kick_core.runs.finishing import Finisher
from kick_core.spec import DENSE, Recipe, parse
from kick_core.store import Store, results
from kick_core.sweeps import sweep_keys
from kick_core.sweeps.cells import Cell, Step
from kick_core.sweeps.opening import Opening, Questions, open_parts
from kick_core.sweeps.request import SweepJob
from kick_core.sweeps.sweep_keys import SweepKeys

if TYPE_CHECKING:
    from kick_core.artifacts.builder import ArtifactBuilder
    from kick_core.evaluation import EvalSession
    from kick_core.runs.backends import Backend
    from kick_core.runs.measure import TaskData

_SLOWER = 1.5
"""From this on half precision is called slower than float32: a measurement of milliseconds has its noise."""
_PLANNING = 0.5
"""Share of making an artifact that is shown for planning it, where its plan measures an objective."""


@dataclass
class Sweep:
    """An open sweep; made by `open_sweep`.

    Attributes:
        job: What was asked for.
        store: Where everything is kept.
        recipes: The job's, checked.
        builder: The open model with its calibration: makes artifacts and applies them.
        session: Evaluates the open model, or the backend.
        backend: vLLM or a model spread over devices; None for the open model itself.
        data: Each task's examples.
        text: The windows on which fidelity is measured, if it is.
    """

    job: SweepJob
    store: Store
    recipes: tuple[Recipe, ...]
    builder: ArtifactBuilder
    session: EvalSession
    backend: Backend | None
    data: dict[str, TaskData]
    text: TaskData | None
    _stack: ExitStack = field(default_factory=ExitStack)
    _serving: tuple[Recipe, EvalSession] | None = None
    _finisher: Finisher = field(default_factory=Finisher)

    @cached_property
    def keys(self) -> SweepKeys:
        """The keys of all cells, computed once."""
        return sweep_keys.keys_of(self)

    def advice(self) -> str:
        """What to say where the model's own half precision is slower than float32 on this CPU; "" else."""
        from kick_core import engine

        if self.job.dtype != "auto" or self.job.hosted:
            return ""
        slower = engine.half_slowdown(self.builder.opened.model)
        if slower > _SLOWER:
            return (
                f"this CPU takes {slower:.1f} times as long for products in {self.builder.opened.dtype} as in float32: "
                "--dtype float32 is faster (runs of its own)"
            )
        return ""

    def products(self) -> float:
        """Operations a second of the model's products on this CPU; 0.0 where they say nothing of who answers."""
        from kick_core import engine

        return 0.0 if self.job.hosted else engine.products_per_second(self.builder.opened.model)

    def card(self, recipe: Recipe, task: str, *, again: bool = False) -> RunCard:
        """The run card of one cell; of dense evaluated `again` for the noise floor."""
        from kick_core.runs import measure as runs

        session = runs.other_batching(self.session) if again else self.session
        return runs.run_card(self.builder, recipe, session, self.data[task], again=again)

    def run(self, *groups: Sequence[Cell]) -> Iterator[Step]:
        """Do groups of cells in their order, yielding a step whenever something of a cell is done.

        A run is sealed and scored, and the next group's artifact read, beside the questions that follow; at the end all
        of it is done.
        """
        recipes = [dict.fromkeys(parse(cell.recipe) for cell in group if not cell.cached) for group in groups]
        try:
            for number, group in enumerate(groups):
                following = next((recipe for later in recipes[number + 1 :] for recipe in later), None)
                yield from self._run_group(group, following)
            self._finisher.wait()
        finally:
            self._finisher.drain()
            self.builder.opened.release()

    def _run_group(self, cells: Sequence[Cell], following: Recipe | None) -> Iterator[Step]:
        try:
            self._repair(dict.fromkeys(cell.recipe for cell in cells))
            together = [parse(cell.recipe) for cell in cells if cell.work == "make"]
            left = [cell for cell in cells if not cell.cached]
            for cell, later in zip_longest(left, left[1:]):
                if cell.task is None:
                    yield from self._make(cell, together)
                    continue
                if later is not None and later.work == "ask":
                    self._finisher.add(partial(self._prepare, later))
                yield from self._measure(cell, cell.task, following)
        finally:
            self._leave()

    def _prepare(self, cell: Cell) -> None:
        """Tokenise a cell's questions while another's are asked; what is wrong with them is said in their turn."""
        from kick_core import evaluation
        from kick_core.runs import measure as runs

        loaded = self.data[str(cell.task)]
        with suppress(KickError):
            wanted = runs.requested(loaded, self.job.limit_of(str(cell.task)), parse(cell.recipe))
            evaluation.prepare(self.session, loaded.spec, wanted, loaded.examples)

    def _repair(self, recipes: Sequence[str] | dict[str, None]) -> None:
        """Write again what damage took from measured runs and their outputs still tell."""
        from kick_core.runs import measure as runs

        for text in recipes:
            for name, loaded in self.data.items():
                runs.repair(self.store, self.card(parse(text), name), loaded)

    def _make(self, cell: Cell, together: Sequence[Recipe]) -> Iterator[Step]:
        """Make the cell's artifact. With dense propagation the first recipe that needs data brings all others along."""
        from kick_core.compression.walk import needs_data

        recipe = parse(cell.recipe)
        if self.builder.calibration.propagate == "dense" and needs_data(recipe):
            clock = _Clock()
            yield Step(cell.id, 0.0, 0.0)
            for one, report in self.builder.make_all(together):
                # every recipe's block is told, so that each takes its part of the pass
                yield _making(replace(cell, recipe=one.text), one, report, clock.passed())
        yield from self._make_one(cell, recipe)

    def _make_one(self, cell: Cell, recipe: Recipe) -> Iterator[Step]:
        clock = _Clock()
        yield Step(cell.id, 0.0, 0.0)
        for report in self.builder.make(recipe):
            yield _making(cell, recipe, report, clock.passed())
        yield Step(cell.id, 1.0, clock.passed())

    def _measure(self, cell: Cell, task: str, following: Recipe | None) -> Iterator[Step]:
        recipe = parse(cell.recipe)
        yield Step(cell.id, 0.0, 0.0)
        clock = _Clock()
        for report in self.builder.make(recipe):  # nothing to do, unless it was removed or set aside meanwhile
            yield replace(_making(cell, recipe, report, 0.0), share=0.0)
            clock = _Clock()
        if following is not None and self.backend is None:
            self.builder.read_ahead(following)
        done = shown = 0.0
        for count in self._outputs(cell, recipe, task):
            done += count
            if shown < done < cell.left:
                shown = done
                yield Step(cell.id, done / cell.left, clock.passed())
        if not self.job.hosted:
            from kick_core.runs import trials

            trials.keep(self.store, self.builder.opened)
        yield Step(cell.id, 1.0, clock.passed())

    def _outputs(self, cell: Cell, recipe: Recipe, task: str) -> Iterator[float]:
        """Do an evaluation cell; yields how many examples, or what part of one, were done at a time."""
        from kick_core.runs import fidelity
        from kick_core.runs import measure as runs

        limit = self.job.limit_of(task)
        if cell.work == "fidelity":
            assert self.text is not None
            yield from fidelity.measure(self.store, self.builder, recipe, self.session, self.text, limit)
            return
        if cell.work == "texts":
            from kick_core.runs import dense_replay

            loaded, dense = self.data[task], self.card(DENSE, task)
            self._finisher.wait()  # dense's texts may be on their way to the disk
            if results.measured(self.store, dense.key) < len(runs.requested(loaded, limit)):
                self.builder.apply_recipe(DENSE)
                for _ in runs.measure(self.store, self.session, dense, loaded, limit):
                    pass
            yield from dense_replay.measure(self.store, self.builder, recipe, self.session, loaded, dense.key, limit)
            return
        again, session = cell.work == "again", self._session(recipe)
        card = self.card(recipe, task, again=again)
        session = runs.other_batching(session) if again else session
        yield from runs.measure(self.store, session, card, self.data[task], limit, self._finisher.add)

    def _session(self, recipe: Recipe) -> EvalSession:
        """Who answers under a recipe; a backend serves it from task to task."""
        if self.backend is None:
            return self.session
        if self._serving is None or self._serving[0] != recipe:
            self._leave()
            serving = self.backend.serving(self.builder, recipe, self.session)
            self._serving = recipe, self._stack.enter_context(serving)
        return self._serving[1]

    def _leave(self) -> None:
        self._serving = None
        self._stack.close()


class _Clock:
    """Seconds between calls."""

    def __init__(self) -> None:
        self._last = time.perf_counter()

    def passed(self) -> float:
        before, self._last = self._last, time.perf_counter()
        return self._last - before


def _making(cell: Cell, recipe: Recipe, report: BlockReport | PlanProgress, seconds: float) -> Step:
    """What a make reports; a plan that measures an objective has a share of its own."""
    planned = _PLANNING if planners.evaluates(recipe) else 0.0
    if isinstance(report, PlanProgress):
        message = f"looking at the whole model, {report.done} of {report.total}: {report.note}"
        return Step(cell.id, planned * report.done / report.total, seconds, message)
    share = planned + (1 - planned) * (report.block + 1) / report.blocks
    # the last block is not the end: the artifact is still to be sealed
    return Step(cell.id, min(share, 0.99), seconds, report.note, report.block, report.blocks, report.loss)


def open_sweep(
    job: SweepJob,
    store: Store,
    *,
    plan_only: bool = False,
    questions: Questions | None = None,
    opening: Opening | None = None,
) -> Sweep:
    """Open a sweep's model, calibration and examples.

    Args:
        job: What is asked for.
        store: Where everything is kept.
        plan_only: Leave the model's blocks on disk: keys can be computed, nothing be run.
        questions: What was read of the tasks' data already.
        opening: The model and the questions, where they were opened while the files were hashed.

    Raises:
        BadRequest: For what cannot be evaluated.
        KickError: For files that cannot be opened.
    """
    recipes = job.check()
    source = find(job.reference, store)
    if opening is None or opening.states != file_states(source):
        opening = open_parts(job, source, questions or Questions(), plan_only=plan_only)
    with timing.stage("import"):
        from kick_core import evaluation
        from kick_core.artifacts.builder import ArtifactBuilder
        from kick_core.artifacts.loaded_model import opened_model
        from kick_core.runs import backends, trials

    opened = opened_model(source, opening.tokenizer, opening.weights)
    if job.tasks and not job.hosted:
        trials.recall(store, opened)
    builder = ArtifactBuilder(store, opened, job.calibration)
    session = evaluation.open_session(opened.model, opened.tokenizer)
    backend = backends.backend_for(job.engine, job.device_map, job.max_memory, builder, session)
    if backend:
        session = replace(session, other=backend.engine)
    return Sweep(
        job, store, recipes, builder, session, backend,
        data={name: opening.data[name] for name in job.tasks},
        text=opening.data[tasks.running_text()] if job.fidelity else None,
    )  # fmt: skip
