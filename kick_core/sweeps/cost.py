"""What cells cost: tokens, arithmetic, memory traffic, bytes on disk, seconds. One model for plans and progress bars.

Work is counted by stage (compressing by a method, writing answers, scoring options, reading running text) from the
model's sizes and the lengths of its prompts. Its expected seconds follow from the device's specification; how much
longer it really takes is measured as it goes and kept per machine (`Rates`). A stage that was never measured takes the
factor of its like, of the model, of the machine, and where nothing was measured at all the specification stands, and
is named as what it is.

Examples come in one fixed random order, so a sweep that is stopped after n of them is an unbiased estimate with an
honest interval, and going on only narrows it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kick_core import methods, provenance
from kick_core.artifacts import planners
from kick_core.methods import storage
from kick_core.spec import Recipe, parse
from kick_core.store import Store
from kick_core.store.files import free_bytes, replace_file
from kick_core.sweeps import sweep_keys
from kick_core.sweeps.cells import Cell, Work, cells
from kick_core.sweeps.request import SweepJob
from kick_core.sweeps.sweep_keys import ModelFacts, ModelSizes, SweepKeys

_OUTPUT = 300
"""Bytes of one stored output with its verdicts, about; as measured on the pocket tasks."""
_READING = 40
"""Bytes of one reading of a text."""
_POSITION = 12
"""Bytes of one compared position (see `store.fidelity`)."""
MARGIN = 1.1
"""Room demanded on disk beside what will be written."""


@dataclass(frozen=True, slots=True)
class CellCost:
    """What is left of one cell.

    Attributes:
        cell: The cell.
        stage: Kind of work and its detail, e.g. `generate/factoid_qa`: what a rate is measured for.
        tokens: Tokens read and written.
        flops: Floating-point operations.
        traffic: Bytes read from and written to memory, weights mostly.
        bytes: Bytes that will be written to disk.
    """

    cell: Cell
    stage: str
    tokens: float = 0.0
    flops: float = 0.0
    traffic: float = 0.0
    bytes: float = 0.0


def cost(cell: Cell, keys: SweepKeys) -> CellCost:
    """Count what is left of a cell."""
    stage = _stage(cell, keys)
    if cell.cached:
        return CellCost(cell, stage)
    model = keys.model
    sizes = model.sizes
    weights = sizes.bits / 8 * (sizes.prunable + sizes.head)
    if cell.task is None:
        recipe = parse(cell.recipe)
        tokens, flops = making(recipe, model)
        written = artifact_bytes(recipe, sizes)
        return CellCost(cell, stage, tokens, flops, 3 * weights + written, written)
    task = keys.tasks[cell.task]
    tokens, flops = asking(task.lengths, sizes)
    forwards = cell.left * tokens / _FORWARD
    if cell.work in ("ask", "again"):  # decoding reads all weights for every token of a batch
        forwards += math.ceil(cell.left / model.rows) * task.new_tokens
    each = {"fidelity": (model.window - 1) * _POSITION, "texts": _READING}.get(cell.work, _OUTPUT)
    return CellCost(cell, stage, cell.left * tokens, cell.left * flops, forwards * weights, cell.left * each)


_FORWARD = 4096
"""Tokens that one forward reads at most, about."""


def _stage(cell: Cell, keys: SweepKeys) -> str:
    if cell.task is None:
        return f"compress/{_making_like(parse(cell.recipe))}"
    kind = {"fidelity": "fidelity", "texts": "texts"}.get(cell.work, keys.tasks[cell.task].kind)
    return f"{kind}/{cell.task}"


def _making_like(recipe: Recipe) -> str:
    """What the time of making follows from beside the model: methods, what is searched before, and the recovery."""
    options, recovery = dict(recipe.options), methods.recovery(recipe)
    searched = [str(options[name]) for name in ("alloc", "objective") if name in options]
    then = [recipe.then.method] if recipe.then else []
    return "+".join([recipe.method, *then, *([recovery.kind] if recovery else []), *searched])


# --- counting --------------------------------------------------------------------------------------------------


def asking(lengths: Sequence[Sequence[int]], sizes: ModelSizes) -> tuple[float, float]:
    """Tokens and floating-point operations of one example on average.

    A sequence of T tokens, read at once or written one by one, costs 2 operations per weight and token and, per block,
    2 T² times the width of attention (queries with keys and weights with values, the causal half). All experts of a
    mixture are counted, so that there it is an upper bound.

    Args:
        lengths: For each example the length of every sequence that is read and written.
        sizes: The model's.
    """
    weights = sizes.prunable + sizes.head
    tokens = flops = 0.0
    for example in lengths:
        for length in example:
            tokens += length
            flops += 2 * weights * length + 2 * sizes.blocks * sizes.attention * length**2
    return tokens / len(lengths), flops / len(lengths)


def making(recipe: Recipe, model: ModelFacts) -> tuple[float, float]:
    """Calibration tokens and floating-point operations of making an artifact.

    Each block is run twice on all tokens (for its inputs' statistics, and to hand them on); Gram matrices cost 2 in²
    per token for every different width; solving costs in³ and out x in² per matrix. Recovery reads its tokens once
    more, forward and backward: 6 operations per weight and token. A recipe that measures an objective while it is
    planned reads that many tokens more.
    """
    need, recovery, sizes = methods.needs(recipe), methods.recovery(recipe), model.sizes
    tokens, shapes = model.calibration, sizes.matrices
    weights = sum(rows * cols for rows, cols in shapes)
    again = 0 if recovery is None else recovery.tokens
    if need == "nothing":
        return float(again), sizes.blocks * 6.0 * again * weights
    work = 4.0 * tokens * weights + 6.0 * again * weights
    if need == "gram":
        work += 2.0 * tokens * sum(cols**2 for cols in {cols for _, cols in shapes})
        work += sum(cols**3 + rows * cols**2 for rows, cols in shapes)
    count, examples = planners.looks(recipe)
    read = count * (16 * model.window if examples is None else planners.LOOK * examples)
    return float(tokens + again + read), sizes.blocks * work + 2.0 * sizes.parameters * read


def artifact_bytes(recipe: Recipe, sizes: ModelSizes) -> float:
    """Bytes of an artifact in the cache (`methods.storage`), without the headers of its files."""
    shapes = [storage.Shape(rows, cols) for rows, cols in sizes.matrices]
    return sizes.blocks * storage.size(methods.resolve(recipe), shapes, sizes.bits / 8).stored


# --- seconds ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Device:
    """What a device does in a second: operations (sustained, about a third of the peak) and bytes of memory traffic."""

    flops: float
    traffic: float


_CORE = Device(25e9, 4e9)
"""A stated prior, per core of a CPU: an ordinary core with AVX2. With AVX-512 and bfloat16 one did 87e9 in the demo."""
_GPUS = {
    "B200": Device(700e12, 8.0e12), "H200": Device(330e12, 4.8e12), "H100": Device(330e12, 3.35e12),
    "A100": Device(104e12, 2.0e12), "L40": Device(60e12, 0.86e12), "L4": Device(40e12, 0.3e12),
    "A10": Device(41e12, 0.6e12), "T4": Device(21e12, 0.32e12), "V100": Device(41e12, 0.9e12),
    "4090": Device(55e12, 1.0e12), "3090": Device(23e12, 0.94e12),
}  # fmt: skip
"""A third of the 16-bit peak and the memory bandwidth of the data sheets."""
_GPU = Device(30e12, 0.6e12)
"""A GPU that the table does not name."""
_SUSTAINED = 0.5
"""Share of the speed of a CPU's products that whole forwards reach, about; as measured on the pocket models."""
_OVERHEAD: dict[Work, float] = {"make": 0.1, "ask": 0.3, "again": 0.3, "fidelity": 0.3, "texts": 0.3}
"""Seconds of a cell beside its arithmetic: switching weights, sealing, scoring."""
_OTHERS = 0.25
"""How many cells' worth the measurements of similar stages weigh against a stage's own."""
_MEMORY = 10.0
"""Cells after which older ones begin to be forgotten: machines and versions change."""


def device_of(model: ModelFacts, processes: int) -> Device:
    """The specification of what one of several processes computes on."""
    if model.device == "cpu":
        cores = max(1.0, (os.cpu_count() or 1) / processes)
        return Device(_CORE.flops * cores, _CORE.traffic * cores)
    return next((spec for name, spec in _GPUS.items() if name in model.device_name), _GPU)


@dataclass(slots=True)
class _Measured:
    """Sums over cells of one stage: how many, what was expected, what it took."""

    cells: float = 0.0
    expected: float = 0.0
    seconds: float = 0.0

    def blended(self, factor: float) -> float:
        """Measured over expected, drawn to another factor while few cells are measured (as a geometric mean)."""
        if self.expected <= 0 or self.seconds <= 0:
            return factor
        own, weight = math.log(self.seconds / self.expected), self.cells
        return math.exp((weight * own + _OTHERS * math.log(factor)) / (weight + _OTHERS))


class Rates:
    """Measured seconds per expected second by stage, of one model on this machine, kept in the cache's `plans/`.

    Args:
        store: The cache.
        model: The model.
        processes: That work at once.
        products: Operations a second of one process's products, measured before anything else is; 0: not measured.
    """

    def __init__(self, store: Store, model: ModelFacts, processes: int = 1, products: float = 0.0) -> None:
        self._path = store.root / "plans" / f"rates-{provenance.host()}.json"
        self._device = f"{model.device_name or model.device} x{processes}"
        self._scope = f"{self._device} {model.dtype} {model.fingerprint[:16]}"
        self._spec = device_of(model, processes)
        self._prior = self._spec.flops / (_SUSTAINED * products) if products else 1.0
        try:
            rows = json.loads(self._path.read_text())
            self._all = {
                scope: {stage: _Measured(*map(float, sums)) for stage, sums in stages.items()}
                for scope, stages in rows.items()
            }
        except (OSError, ValueError, TypeError, AttributeError):
            self._all = {}  # only a memory of speeds
        self._own = self._all.setdefault(self._scope, {})
        self._factors: dict[str, float] = {}

    def expected(self, cost: CellCost) -> float:
        """Seconds by the specification of the device."""
        if cost.cell.cached:
            return 0.0
        return cost.flops / self._spec.flops + cost.traffic / self._spec.traffic + _OVERHEAD[cost.cell.work]

    def seconds(self, cost: CellCost) -> float:
        """Seconds by what was measured, as far as it was."""
        if cost.stage not in self._factors:
            self._factors[cost.stage] = self._factor(cost.stage)
        return self.expected(cost) * self._factors[cost.stage]

    def _factor(self, stage: str) -> float:
        kind = stage.partition("/")[0]
        machine = [m for scope, own in self._all.items() if scope.startswith(self._device) for m in own.values()]
        factor = self._prior
        for measured in (
            machine,
            list(self._own.values()),
            [m for name, m in self._own.items() if name.partition("/")[0] == kind],
            [m for name, m in self._own.items() if name == stage],
        ):
            factor = _Measured(*(sum(getattr(m, name) for m in measured) for name in _Measured.__slots__)).blended(
                factor
            )
        return factor

    def basis(self, cost: CellCost) -> str:
        """What the seconds rest on: `measured`, `similar work` or `specification`."""
        if cost.stage in self._own:
            return "measured"
        return "similar work" if any(self._all.values()) else "specification"

    @property
    def measured(self) -> bool:
        """Whether anything of this model was measured on this machine."""
        return bool(self._own)

    def note(self, cost: CellCost, share: float, seconds: float) -> None:
        """Take in that a share of a cell took some seconds."""
        if share <= 0 or seconds <= 0:
            return
        self._factors.clear()
        row = self._own.setdefault(cost.stage, _Measured())
        if row.cells > _MEMORY:
            for name in _Measured.__slots__:
                setattr(row, name, getattr(row, name) * (1 - share / _MEMORY))
        row.cells += share
        row.expected += share * self.expected(cost)
        row.seconds += seconds

    def save(self) -> None:
        """Keep what was measured for the next sweep on this machine."""
        rows = {
            scope: {stage: [m.cells, m.expected, m.seconds] for stage, m in own.items()}
            for scope, own in self._all.items()
            if own
        }
        replace_file(self._path, json.dumps(rows).encode())


# --- a whole sweep ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Line:
    """One cell of a plan with its cost; `basis` says what the seconds rest on."""

    cost: CellCost
    seconds: float
    basis: str


@dataclass(frozen=True, slots=True)
class SweepCost:
    """All cells of a sweep.

    Attributes:
        model: Name of the model.
        fingerprint: Hash of its files.
        lines: Every cell.
        free: Bytes free on the cache's disk.
        opened: Whether the model's tokenizer had to be opened for it.
    """

    model: str
    fingerprint: str
    lines: tuple[Line, ...]
    free: int
    opened: bool

    @property
    def unmeasured(self) -> int:
        """Cells with something left whose own stage was never measured on this machine."""
        return sum(line.basis != "measured" for line in self.lines if not line.cost.cell.cached)

    @property
    def left(self) -> Mapping[str, float]:
        """Sums over all cells: tokens, flops, bytes, seconds."""
        sums = {name: sum(getattr(line.cost, name) for line in self.lines) for name in ("tokens", "flops", "bytes")}
        return {**sums, "seconds": sum(line.seconds for line in self.lines)}

    @property
    def demanded(self) -> int:
        """Bytes that must be free before it begins: what will be written and a tenth more."""
        return math.ceil(MARGIN * self.left["bytes"])


def forecast(job: SweepJob, store: Store) -> SweepCost:
    """Plan a sweep. Opens the tokenizer only where this very sweep was never planned nor run; never the weights.

    Raises:
        BadRequest: For what cannot be evaluated.
    """
    job.check()
    keys = sweep_keys.recall(store, job)
    opened = keys is None
    if keys is None:
        from kick_core.sweeps.grid import open_sweep

        keys = sweep_keys.remember(store, open_sweep(job, store, plan_only=True))
    rates = Rates(store, keys.model)
    costs = (cost(cell, keys) for cell in cells(job, keys, store))
    lines = tuple(Line(one, rates.seconds(one), rates.basis(one)) for one in costs)
    return SweepCost(keys.model.name, keys.model.fingerprint, lines, free_bytes(store.root), opened)


def document(plan: SweepCost) -> dict[str, Any]:
    """A plan as JSON values."""
    rows = [
        {
            **line.cost.cell.to_json(), "cached": line.cost.cell.cached, "tokens": line.cost.tokens,
            "flops": line.cost.flops, "bytes": line.cost.bytes, "seconds": line.seconds, "basis": line.basis,
        }
        for line in plan.lines
    ]  # fmt: skip
    return {
        "model": plan.model,
        "fingerprint": plan.fingerprint,
        "opened": plan.opened,
        "cells": len(plan.lines),
        "cached": sum(line.cost.cell.cached for line in plan.lines),
        "unmeasured": plan.unmeasured,
        "left": dict(plan.left),
        "demanded_bytes": plan.demanded,
        "free_bytes": plan.free,
        "plan": rows,
    }
