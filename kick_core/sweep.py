"""The grid: recipes x tasks of one model as idempotent cells, done one after the other.

A cell either makes one artifact or asks one task. Done cells cost nothing; a stopped sweep goes on where it
was, because every cell keeps its own progress. Progress is yielded, never printed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from kick_core import methods, tasks
from kick_core.spec import BadRequest, Calibration, ModelRef, Recipe, nearest, parse
from kick_core.store import Store, results

if TYPE_CHECKING:
    from kick_core.evaluation import Asker
    from kick_core.runs import TaskData
    from kick_core.workshop import Workshop

_COST = {"generate": 1.0, "choose": 0.5, "dialogue": 8.0, "perplexity": 3.0}
"""What one example costs beside the others, for the progress bar; as measured on the pocket models."""

_BLOCK_COST = {"nothing": 2.0, "norms": 12.0, "gram": 20.0}
"""What compressing one block costs on the same scale, by the statistics that a method needs."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a sweep shall do. Texts, as the user wrote them; `limits` overrules `limit` for single tasks."""

    model: str
    recipes: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    data: str = "pocket"
    protocol: str = "strict"
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        given = dict(data)
        for name in ("recipes", "tasks"):
            given[name] = tuple(given.get(name, ()))
        return cls(**{**given, "calibration": Calibration(**given.get("calibration", {}))})

    def limit_of(self, task: str) -> int | None:
        return self.limits.get(task, self.limit)

    def parsed(self) -> tuple[Recipe, ...]:
        """The recipes, checked. Raises BadRequest before anything is opened."""
        found = tuple(dict.fromkeys(parse(text) for text in self.recipes))
        for recipe in found:
            methods.resolve(recipe)
        return found


_LEVELS = tuple(f"0.{tenth}" for tenth in range(1, 8))
_PRUNERS, _ROUNDERS = ("magnitude", "wanda", "sparsegpt"), ("rtn", "gptq")

PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "recipes": (
            "dense",
            *(f"{m}@{level}" for m in _PRUNERS for level in (*_LEVELS, "2:4", "4:8")),
            *(f"{m}@{bits}bit" for m in _ROUNDERS for bits in (8, 4, 3, 2)),
        ),
        "tasks": tasks.names(),
        "limit": 200,
        "limits": {"perplexity": 32, "summarization": 64, "instructions": 64},
        "calibration": Calibration("pocket", windows=32, length=256),
    },
    "paper": {
        "recipes": (
            "dense",
            *(
                f"{m}@{level}"
                for m in _PRUNERS
                for level in (*(f"{s / 100:.12g}" for s in range(5, 85, 5)), "1:2", "2:4", "4:8")
            ),
            *(f"{m}@{bits}bit,sym=false" for m in _ROUNDERS for bits in (8, 4, 2)),
        ),
        "tasks": tasks.names(),
    },
}
"""Named sweeps. `paper` is LLM-KICK's grid (section 3 and its scripts): 5 to 80 % by 5, 1:2, 2:4, 4:8."""


def preset(name: str, model: str) -> Request:
    """A named sweep of one model. Raises BadRequest for an unknown name."""
    if name not in PRESETS:
        raise nearest(name, PRESETS, "preset")
    return Request(model=model, **PRESETS[name])


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a sweep is. `done` and `total` are in units of work; a cell is one recipe or one task of it."""

    cell: str
    done: float
    total: float
    message: str = ""
    block: int | None = None
    blocks: int | None = None
    loss: float | None = None


@dataclass(frozen=True, slots=True)
class Cell:
    """One piece of work: `task` None makes the recipe's artifact. `cost` is what is left of it."""

    recipe: Recipe
    task: str | None
    cost: float
    count: int = 0


class Sweep:
    """An open sweep: the model, its calibration, every task's examples. Opened once, planned, then run."""

    def __init__(self, request: Request, store: Store) -> None:
        recipes = request.parsed()
        asked = [tasks.get(name) for name in request.tasks]
        for task in asked:
            limit = request.limit_of(task.name)
            if limit is not None and limit < 1:
                raise BadRequest(f"limit {limit} for {task.name}: at least 1 example is needed")
        from kick_core import evaluation, runs
        from kick_core.artifacts import open_for
        from kick_core.workshop import Workshop

        self.request, self.store, self.recipes = request, store, recipes
        reference = ModelRef(request.model, request.revision, request.dtype)  # type: ignore[arg-type]
        self.shop: Workshop = Workshop(
            store, open_for(reference, store, request.device, streamed=not asked), request.calibration
        )
        self.ask: Asker = evaluation.asker(self.shop.opened.model, self.shop.opened.tokenizer)
        self.data: dict[str, TaskData] = {t.name: runs.task_data(t, self.ask, request.data) for t in asked}

    def cells(self, only: Recipe | None = None) -> list[Cell]:
        """Every cell of the grid (of one recipe) with what is left to do; a cost of 0 is a done cell."""
        from kick_core.models.blocks import decoder_blocks

        blocks = len(decoder_blocks(self.shop.opened.model))
        found = []
        for recipe in self.recipes if only is None else (only,):
            asking = []
            for name in self.data:
                left = self._left(recipe, name)
                asking.append(Cell(recipe, name, left * _COST[self.data[name].task.kind], left))
            # an artifact that was removed is not made again for answers that are there already
            needless = self.shop.made(recipe) or (asking and not any(cell.count for cell in asking))
            cost = 0.0 if needless else blocks * _BLOCK_COST[methods.needs(recipe)]
            found += [Cell(recipe, None, cost, blocks), *asking]
        return found

    def _left(self, recipe: Recipe, task: str) -> int:
        from kick_core import runs

        loaded = self.data[task]
        count = len(runs.wanted(loaded, self.request.limit_of(task)))
        return max(0, count - results.measured(self.store, self.card(recipe, task).key))

    def card(self, recipe: Recipe, task: str) -> Any:
        """The run card of one cell."""
        from kick_core import runs

        return runs.run_card(self.shop, recipe, self.ask, self.data[task], self.request.protocol)

    def run(self, only: Recipe | None = None) -> Iterator[Progress]:
        """Do what is left (of one recipe), yielding progress; the last item has `done` equal to `total`."""
        if only is None:
            self.mend()
        cells = self.cells(only)
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
            self.shop.opened.release()
        yield Progress("", total, total, "done")

    def mend(self) -> None:
        """Write again what damage took from measured runs and no model is needed for."""
        from kick_core import runs

        for recipe in self.recipes:
            for name, loaded in self.data.items():
                runs.mend(self.store, self.card(recipe, name), loaded)

    def _make_together(self, cell: Cell, start: float, total: float) -> Iterator[Progress]:
        """Dense propagation: the first recipe that looks at data brings all others of the sweep with it."""
        for recipe, report in self.shop.make_all(self.recipes):
            done = start + cell.cost * report.block / report.blocks
            told = report.note or "one pass"
            yield Progress(recipe.text, done, total, told, report.block, report.blocks, report.loss)

    def _do(self, cell: Cell, start: float, total: float) -> Iterator[Progress]:
        if cell.task is None:
            from kick_core.compression import needs_data

            if self.shop.calibration.propagate == "dense" and needs_data(cell.recipe):
                yield from self._make_together(cell, start, total)
            for report in self.shop.make(cell.recipe):
                done = start + cell.cost * (report.block + 1) / report.blocks
                yield Progress(cell.recipe.text, done, total, report.note, report.block, report.blocks, report.loss)
            return
        from kick_core import runs

        yield Progress(f"{cell.recipe.text} · {cell.task}", start, total)
        for report in self.shop.make(cell.recipe):  # nothing to do, unless it was removed or set aside meanwhile
            yield Progress(cell.recipe.text, start, total, report.note, report.block, report.blocks, report.loss)
        answered = 0
        card = self.card(cell.recipe, cell.task)
        limit = self.request.limit_of(cell.task)
        for new in runs.measure(self.store, self.ask, card, self.data[cell.task], limit):
            answered += new
            share = min(1.0, answered / cell.count)
            yield Progress(f"{cell.recipe.text} · {cell.task}", start + cell.cost * share, total)


def run(request: Request, store: Store) -> Iterator[Progress]:
    """Open a sweep and do what is left of it."""
    yield from Sweep(request, store).run()
