"""What a sweep would cost before it is run: cells, tokens, arithmetic, minutes, bytes.

Work is counted, time is measured: minutes come from earlier runs and artifacts of the same model on the same kind
of device in this cache, and where there is none it says so. Examples stand in one fixed random order, so a sweep
that is stopped after n of them is an unbiased estimate with an honest interval, and going on only narrows it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from kick_core import methods, tasks
from kick_core.artifacts import planners
from kick_core.errors import BadRequest
from kick_core.methods import storage
from kick_core.spec import DENSE, Recipe, parse
from kick_core.store import Store, results, weight_artifacts
from kick_core.store import fidelity as kept
from kick_core.store.files import free_bytes
from kick_core.sweeps import known_keys
from kick_core.sweeps.grid import Sweep, Work
from kick_core.sweeps.request import Request


@dataclass(frozen=True, slots=True)
class Line:
    """One cell. `total` and `left` count blocks (artifacts), examples or windows; `tokens`, `flops` and `bytes` are of
    what is left; `seconds` is nan when no rate has been measured yet.
    """

    recipe: str
    work: Work
    task: str | None
    total: int
    left: int
    tokens: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0

    @property
    def cached(self) -> bool:
        return self.left == 0


@dataclass(frozen=True, slots=True)
class SweepCost:
    """All cells of a sweep. `free` bytes are on the cache's disk; `opened` says whether the tokenizer had to be."""

    model: str
    fingerprint: str
    lines: tuple[Line, ...]
    free: int
    opened: bool

    @property
    def unmeasured(self) -> int:
        """Cells with something left for which no rate is known."""
        return sum(math.isnan(line.seconds) for line in self.lines)

    def sum(self, name: str) -> float:
        """The sum of a column over the cells in which it is known."""
        values = (float(getattr(line, name)) for line in self.lines)
        return sum(value for value in values if not math.isnan(value))


def forecast(request: Request, store: Store) -> SweepCost:
    """Plan a sweep. Opens the tokenizer only where this very sweep was never planned nor run; never the weights."""
    for task in request.tasks:
        tasks.get(task, request.data)
        limit = request.limit_of(task)
        if limit is not None and limit < 1:
            raise BadRequest(f"limit {limit} for {task}: at least 1 example is needed")
    known = known_keys.recall(store, request)
    opened = known is None
    if known is None:
        known = known_keys.remember(store, Sweep(request, store, plan_only=True))
    model = known["model"]
    return SweepCost(model["name"], model["fingerprint"], lines(request, store, known), free_bytes(store.root), opened)


def lines(request: Request, store: Store, known: dict[str, Any]) -> tuple[Line, ...]:
    """Every cell of a sweep whose keys are `known` (`plans.recall`), with what is left of it. Opens nothing."""
    planner = _Planner(request, store, known, _Rates(store, known))
    return tuple(line for recipe in request.parsed() for line in planner.lines(recipe))


@dataclass(frozen=True, slots=True)
class _Planner:
    request: Request
    store: Store
    known: dict[str, Any]
    rates: _Rates

    def lines(self, recipe: Recipe) -> Iterator[Line]:
        asking = list(self._asking(recipe))
        if recipe != DENSE:
            needless = bool(asking) and all(line.cached for line in asking)
            yield self._making(recipe, needless)
        yield from asking

    def _making(self, recipe: Recipe, needless: bool) -> Line:
        model = self.known["model"]
        blocks = model["blocks"]
        if needless or weight_artifacts.has(self.store, self.known["artifacts"][recipe.text]):
            return Line(recipe.text, "make", None, blocks, 0)
        tokens, work = making(recipe, model)
        seconds = self.rates.making(recipe)
        return Line(recipe.text, "make", None, blocks, blocks, tokens, work, artifact_bytes(recipe, model), seconds)

    def _asking(self, recipe: Recipe) -> Iterator[Line]:
        for task in self.request.tasks:
            yield self._cell(recipe, "ask", task, self.known["runs"][task][recipe.text])
        for task in self.request.tasks if self.request.noise_floor and recipe == DENSE else ():
            yield self._cell(recipe, "again", task, self.known["again"][task])
        if self.request.fidelity and recipe != DENSE:
            yield self._cell(recipe, "fidelity", tasks.running_text(), self.known["fidelity"][recipe.text])
            for task in self.request.tasks:
                if task in self.known["texts"]:
                    yield self._cell(recipe, "texts", task, self.known["texts"][task][recipe.text])

    def _cell(self, recipe: Recipe, work: Work, task: str, key: str) -> Line:
        about = self.known["tasks"][task]
        total = min(about["total"], self.request.limit_of(task) or about["total"])
        left = max(0, total - self._done(work, key))
        tokens, flops = asking(about["tokens"], self.known["model"])
        seconds = left * self.rates.asking(task) if left else 0.0
        each = {"fidelity": (self.known["model"]["window"] - 1) * _POSITION, "texts": _READING}.get(work, _OUTPUT)
        return Line(recipe.text, work, task, total, left, left * tokens, left * flops, left * each, seconds)

    def _done(self, work: Work, key: str) -> int:
        match work:
            case "fidelity":
                return kept.windows(kept.parts(self.store, key))
            case "texts":
                return kept.windows(kept.texts(self.store, key))
            case _:
                return results.measured(self.store, key)


_OUTPUT = 300
"""Bytes of one stored output with its verdicts, about; as found on the pocket tasks."""
_READING = 40
"""Bytes of one reading of a text."""
_POSITION = 12
"""Bytes of one compared position (see `store.fidelity`)."""


class _Rates:
    """Seconds of what was done before, with this model on this kind of device.

    Comparing distributions is timed as perplexity is, reading dense's texts as writing them: an upper bound.
    """

    def __init__(self, store: Store, known: dict[str, Any]) -> None:
        self._store, self._known = store, known
        self._asked: dict[str, float] = {}
        self._made: list[tuple[Recipe, float]] | None = None

    def asking(self, task: str) -> float:
        """Seconds an example of a task takes."""
        if task not in self._asked:
            own = self._per_example(self._known["runs"].get(task, {}).values())
            self._asked[task] = own if not math.isnan(own) else self._elsewhere(task)
        return self._asked[task]

    def _per_example(self, runs: Any) -> float:
        sittings = [sitting for key in runs for sitting in results.timings(self._store, key)]
        examples = sum(sitting.examples for sitting in sittings)
        return sum(sitting.seconds for sitting in sittings) / examples if examples else math.nan

    def _elsewhere(self, task: str) -> float:
        """From runs of the same task that this plan does not hold: other recipes, calibrations or plans."""
        model = self._known["model"]
        alike = [
            card.key
            for card in results.runs(self._store)
            if (card.fingerprint, card.device, card.task) == (model["fingerprint"], model["device"], task)
        ]
        return self._per_example(alike)

    def making(self, recipe: Recipe) -> float:
        """The median over artifacts of the same methods."""
        model = self._known["model"]
        if self._made is None:
            self._made = [
                (parse(card.recipe), card.seconds)
                for card in weight_artifacts.cards(self._store)
                if (card.fingerprint, card.device) == (model["fingerprint"], model["device"])
            ]
        return median(found) if (found := [s for made, s in self._made if _kin(made, recipe)]) else math.nan


def _kin(one: Recipe, other: Recipe) -> bool:
    """Whether two recipes cost about the same."""
    return _how(one) == _how(other)


def _how(recipe: Recipe) -> tuple[object, ...]:
    """What the time of making follows from, beside the model: methods, what is looked at before, and the recovery."""
    options, how = dict(recipe.options), methods.recovery(recipe)
    looks = [options.get(name) for name in ("alloc", "objective", "search_steps", "search_examples")]
    return recipe.method, recipe.then and recipe.then.method, how and (how.kind, how.tokens), *looks


# --- counting --------------------------------------------------------------------------------------------------


def asking(sequences: list[list[int]], model: dict[str, Any]) -> tuple[float, float]:
    """Tokens and floating-point operations of one example on average.

    A sequence of T tokens, read at once or written one by one, costs 2 operations a weight and token and, a block,
    2 T² times the width of attention (queries with keys and weights with values, the causal half). All experts of a
    mixture are counted, so that there it is an upper bound.
    """
    weights = model["blocks"] * sum(rows * cols for rows, cols in model["matrices"]) + model["head"]
    tokens = flops = 0.0
    for example in sequences:
        for length in example:
            tokens += length
            flops += 2 * weights * length + 2 * model["blocks"] * model["attention"] * length**2
    return tokens / len(sequences), flops / len(sequences)


def making(recipe: Recipe, model: dict[str, Any]) -> tuple[float, float]:
    """Calibration tokens and floating-point operations of making an artifact.

    Each block is run twice on all tokens (for its inputs' statistics, and to hand them on); Gram matrices cost 2 in²
    a token for every different width; solving costs in³ and out x in² a matrix. Recovery reads its tokens once more,
    forward and backward: 6 operations a weight and token. A recipe that measures an objective while it is planned reads
    that many tokens more.
    """
    need, how = methods.needs(recipe), methods.recovery(recipe)
    tokens, shapes = model["calibration"], model["matrices"]
    weights = sum(rows * cols for rows, cols in shapes)
    again = 0 if how is None else how.tokens
    if need == "nothing":
        return float(again), model["blocks"] * 6.0 * again * weights
    work = 4.0 * tokens * weights + 6.0 * again * weights
    if need == "gram":
        work += 2.0 * tokens * sum(cols**2 for cols in {cols for _, cols in shapes})
        work += sum(cols**3 + rows * cols**2 for rows, cols in shapes)
    count, examples = planners.looks(recipe)
    read = count * (16 * model["window"] if examples is None else planners.LOOK * examples)
    return float(tokens + again + read), model["blocks"] * work + 2.0 * model["parameters"] * read


def artifact_bytes(recipe: Recipe, model: dict[str, Any]) -> float:
    """Bytes of an artifact in the cache (`methods.storage`), without the headers of its files."""
    shapes = [storage.Shape(rows, cols) for rows, cols in model["matrices"]]
    return model["blocks"] * storage.size(methods.resolve(recipe), shapes, model["bits"] / 8).stored
