"""What a method is: its card, the statistics that it reads, the matrix that it gives back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from kick_core.errors import BadRequest, nearest
from kick_core.spec import Option

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Need = Literal["nothing", "norms", "gram"]
NEEDS: tuple[Need, ...] = get_args(Need)
"""From least to most."""

TargetKind = Literal["ratio", "pattern", "bits", "budget"]
TARGETS: tuple[TargetKind, ...] = get_args(TargetKind)
"""Kinds of targets: a share of zeros, N of every M, an integer grid, bits per weight on average."""

SYMBOLS = ("circle", "square", "diamond", "cross", "x", "star", "triangle-up", "triangle-down", "triangle-left")
"""Marks that both plotly and the offline report draw."""


@dataclass(frozen=True, slots=True)
class MethodCard:
    """What is known of a method without running it.

    Attributes:
        name: the file's name.
        title: the name that people read.
        order: the place in pickers.
        colour: "#rrggbb" of its lines.
        symbol: the mark of its points, one of `SYMBOLS`.
        version: raised by hand whenever its numbers may change; part of every key.
        targets: the kinds of targets that it can reach, among `TARGETS`.
        needs: which statistics of the inputs it reads: none, the squared norm of every input feature, or the Gram
            matrix X^T X.
        options: name -> default.
        paper: its source.
        joins: whether it can quantize what another method prunes: its function then takes `prune`, a mask to keep
            (or a sparsity to reach on the way).
        grid: what of the integer grid is the method's own and cannot be chosen.
        plans: whether it looks at the whole model first (see `kick_core.artifacts.planners`) instead of one matrix.
        lines: whether it drops whole rows and columns, so that no bits need say where.
        scales_columns: whether it keeps a scale per input beside those of the groups.
        summary: what it does, in a sentence: the first of its file.

    Raises:
        BadRequest: a target, need, colour or symbol that is none.
    """

    name: str
    title: str
    order: int
    colour: str
    symbol: str
    version: int
    targets: tuple[TargetKind, ...]
    needs: Need
    options: Mapping[str, Option]
    paper: str
    joins: bool = False
    grid: Mapping[str, Any] = field(default_factory=dict)
    plans: bool = False
    lines: bool = False
    scales_columns: bool = False
    summary: str = ""

    def __post_init__(self) -> None:
        words = [(kind, TARGETS, "target") for kind in self.targets]
        for word, known, what in (*words, (self.needs, NEEDS, "need"), (self.symbol, SYMBOLS, "symbol")):
            if word not in known:
                raise nearest(word, known, f"{what} of method {self.name}")
        if not re.fullmatch(r"#[0-9a-f]{6}", self.colour):
            raise BadRequest(f"colour {self.colour!r} of {self.name}: '#' and six hexadecimal digits are needed")


@dataclass(frozen=True, slots=True)
class InputStats:
    """Statistics of a linear's inputs over all calibration tokens, float32. Padding never enters.

    Attributes:
        tokens: how many tokens were read.
        sq_norms: [in], the sum over tokens of x_j².
        gram: [in, in], X^T X, where the method needs it.
        peaks: [in], the largest |x_j|.
        factors: what was worked out from the Gram matrix (see `methods.solve`), kept for the next matrix, or recipe,
            that reads the same inputs.
    """

    tokens: int
    sq_norms: Tensor | None = None
    gram: Tensor | None = None
    peaks: Tensor | None = None
    factors: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class CompressedMatrix:
    """One matrix after compression. What does not apply to a method is None.

    Attributes:
        weight: [out, in], what the model will compute with, in its own dtype.
        mask: [out, in] bool, true where a weight was kept (pruning).
        codes: [out, in] uint8, the integer of every weight (quantization).
        scales: [out, groups] float32; weight = (codes - zeros) * scales.
        zeros: [out, groups] float32, the code that means 0.
        groups: [in], the group of every input.
        columns: [in], the factors that undo a scaling of columns before rounding.
        outliers: the numbers of the columns that were left as they were.
        bits: of the codes.
        updated: whether kept weights differ from the original ones.
        note: departures from the plain procedure, such as a repeated Cholesky factorization.
    """

    weight: Tensor
    mask: Tensor | None = None
    codes: Tensor | None = None
    scales: Tensor | None = None
    zeros: Tensor | None = None
    groups: Tensor | None = None
    columns: Tensor | None = None
    outliers: Tensor | None = None
    bits: int | None = None
    updated: bool = False
    note: str = ""


Moved = TypeVar("Moved", InputStats, CompressedMatrix)


def moved(record: Moved, device: torch.device | str) -> Moved:
    """Statistics or a result with every tensor on another device.

    Args:
        record: What to copy; tensors that are there already are shared, not copied.
        device: The destination.

    Returns:
        A record of the same type.
    """
    values = {field.name: getattr(record, field.name) for field in fields(record)}
    return replace(record, **{name: value.to(device) for name, value in values.items() if hasattr(value, "to")})
