"""How an artifact was made, matrix by matrix and block by block, and the card of the finished one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

from kick_core.records.json_record import JsonRecord


@dataclass(frozen=True, slots=True)
class LayerReport(JsonRecord):
    """What happened to one linear.

    Attributes:
        name: Of its module inside the block.
        rows: Outputs.
        cols: Inputs.
        zeros: Weights that are zero now.
        loss: The relative output error ‖(W-Ŵ)X‖²/‖WX‖²; None where its inputs X are not known.
        seconds: Wall clock.
        note: What departed from the plain procedure, such as a Cholesky retry.
        tokens: Calibration tokens that reached it; None where the method looks at no data.
    """

    name: str
    rows: int
    cols: int
    zeros: int
    loss: float | None = None
    seconds: float = 0.0
    note: str = ""
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class BlockReport(JsonRecord):
    """One decoder block after compression.

    Attributes:
        block: its number, from 0 to `blocks` - 1.
        blocks: how many the model has.
        layers: one report per matrix.
        seconds: wall clock.
        loss: the relative output error ‖f̂(X̂) - f(X̂)‖² / ‖f(X̂)‖² on the first batch of calibration windows, X̂ being
            the inputs it was calibrated on; None where the method looks at no data.
        resumed: whether it came from the cache.
        note: what was done when memory ran out.
        fit: where the block was fitted to the dense one afterwards, the relative output error
            ‖f̂(X̂) - f(X)‖² / ‖f(X)‖² over all windows before and after, X being the dense model's own activations.
    """

    block: int
    blocks: int
    layers: tuple[LayerReport, ...]
    seconds: float
    loss: float | None = None
    resumed: bool = False
    note: str = ""
    fit: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class PlanProgress(JsonRecord):
    """How far a recipe is that evaluates the whole model before its first block is compressed.

    Attributes:
        done: Evaluations so far.
        total: Evaluations in all.
        note: The result of the last one.
    """

    done: int
    total: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class StructuredMask(JsonRecord):
    """What structured pruning drops of one matrix [out, in].

    Attributes:
        rows: Numbers of the outputs that are dropped.
        cols: Numbers of the inputs that are dropped.
    """

    rows: tuple[int, ...] = ()
    cols: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class LayerPlan(JsonRecord):
    """What a recipe that evaluates the whole model does to every matrix, decided before the walk.

    A matrix that is in neither `recipes` nor `lines` stays dense.

    Attributes:
        recipes: "block.name" of a matrix -> the text of the recipe that compresses it.
        lines: "block.name" of a matrix -> the rows and columns that are dropped.
        facts: How the plan was found, for the card, as plain JSON.
    """

    recipes: dict[str, str] = field(default_factory=dict)
    lines: dict[str, StructuredMask] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        lines = {name: StructuredMask.from_json(mask) for name, mask in data["lines"].items()}
        return cls(dict(data["recipes"]), lines, dict(data["facts"]))


@dataclass(frozen=True, slots=True)
class Card(JsonRecord):
    """What a finished weight artifact is, where it came from and what it weighs.

    Attributes:
        key: the content key.
        model: the model's name as it was given.
        fingerprint: SHA-256 of the model's files.
        recipe: the text form as it was given.
        resolved: the recipe with every default filled in, and the method's version.
        calibration: source, windows, length, seed and the SHA-256 of the token ids; None where no data was read.
        dtype: of the model.
        device: the kind of device that computed it.
        blocks: decoder blocks.
        weights: the number of weights in the compressed matrices.
        zeros: how many of them are zero.
        bytes: of its files as they were written; less on disk where artifacts share files.
        dense_bytes: of a dense copy of the same matrices.
        seconds: wall clock.
        created: UTC, ISO 8601.
        versions: of the packages that decide the numbers.
        layers: one report per matrix.
        warnings: departures from the plain procedure.
        decoder: what opened the model, where its files were quantized already.
        host: the machine that sealed it; empty on older cards.
        recovery: what was trained after compression, and how the loss went.
        plan: what a search over the whole model chose, and by which objective.
        left: the parameters of the blocks that were left as they are, by reason: {reason: {"weights": how many,
            "names": paths with * for a block's number}}; empty on older cards.
    """

    key: str
    model: str
    fingerprint: str
    recipe: str
    resolved: dict[str, Any]
    calibration: dict[str, Any] | None
    dtype: str
    device: str
    blocks: int
    weights: int
    zeros: int
    bytes: int
    dense_bytes: int
    seconds: float
    created: str
    versions: dict[str, str]
    layers: tuple[LayerReport, ...] = ()
    warnings: tuple[str, ...] = ()
    decoder: str = ""
    host: str = ""
    recovery: dict[str, Any] | None = None
    plan: dict[str, Any] | None = None
    left: dict[str, Any] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """The share of the blocks' weights (parameters of two or more dimensions) that was compressed."""
        whole = self.weights + sum(int(part["weights"]) for part in self.left.values())
        return self.weights / whole if whole else 0.0

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / self.weights if self.weights else 0.0

    @property
    def sparsity(self) -> float:
        return self.zeros / self.weights if self.weights else 0.0

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        layers = tuple(LayerReport.from_json(layer) for layer in data.get("layers", ()))
        return replace(super(Card, cls).from_json({**data, "layers": ()}), layers=layers)
