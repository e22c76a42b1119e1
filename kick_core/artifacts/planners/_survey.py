"""What one pass over the calibration windows tells of structures: blocks, channels and heads.

How much a block does is its influence, one minus the mean cosine between what enters and what leaves it (ShortGPT, Men
et al. 2024, arXiv 2403.03853). How much a channel or a head does is its share of the energy that the reading
matrix puts out, the sum over its columns j of ‖X_j‖²‖W_:j‖² beside that of all columns: Wanda's score summed up a
structure and squared, on the matrices where FLAP and its Wanda-sp look too (An et al. 2023, arXiv 2312.11983);
shares, so that blocks and kinds compare, as FLAP's standardized ones do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kick_core.artifacts.planners import PlannerContext
from kick_core.artifacts.planners._units import Units, few, units
from kick_core.compression import activations
from kick_core.errors import KickError
from kick_core.methods import InputStats
from kick_core.models.blocks import decoder_blocks, eager_experts, matrices
from kick_core.records import StructuredMask


@dataclass(frozen=True, slots=True)
class Unit:
    """One channel or head: where it is, what it is worth (its share of the output's energy), what dropping it frees."""

    block: int
    kind: Units
    group: int
    share: float
    weights: int


@dataclass(slots=True)
class Survey:
    """`influence` and `weights` of every block; all units, and how many of each reader there are."""

    influence: dict[int, float] = field(default_factory=dict)
    weights: dict[int, int] = field(default_factory=dict)
    units: list[Unit] = field(default_factory=list)

    @property
    def total(self) -> int:
        return sum(self.weights.values())


Kinds = dict[tuple[tuple[str, torch.Size], ...], tuple[Units, ...]]
"""The channels and heads of blocks whose matrices have these names and shapes."""


@torch.no_grad()
def survey(context: PlannerContext, kinds: Kinds | None = None, *, without: Collection[int] = ()) -> Survey:
    """One pass of the model as it is, passing over the blocks in `without`; channels and heads too, where `kinds` shall
    be told: it keeps those that were found, on the dense model, and is added to.

    Raises KickError for a family whose blocks show no channels and no heads.
    """
    model, hold, found = context.opened.model, context.opened.hold, Survey()
    inputs = activations.first(model, context.ids, hold=hold)
    probe = None if kinds is None else few(model, context.ids, hold)
    for index, block in enumerate(decoder_blocks(model)):
        with hold(index):
            shapes = tuple((matrix.name, matrix.read().shape) for matrix in matrices(block))
            found.weights[index] = sum(shape.numel() for _, shape in shapes)
            if index in without:
                continue
            dense = activations.dense_pass(model, block, index, inputs, "norms", keep=True)
            assert dense.outputs is not None
            found.influence[index] = _influence(inputs.hidden, dense.outputs)
            if kinds is not None and probe is not None:
                if shapes not in kinds:
                    kinds[shapes] = units(model, index, probe)
                    if not kinds[shapes]:
                        raise KickError(f"block {index} of {type(model).__name__}: no channels or heads can be told")
                found.units += _valued(index, block, kinds[shapes], dense.stats)
            inputs.hidden = dense.outputs
    return found


def _influence(entering: Tensor, leaving: Tensor) -> float:
    pairs = zip(entering, leaving, strict=True)
    means = [torch.cosine_similarity(a.float(), b.float(), dim=-1).double().mean() for a, b in pairs]
    return float(1 - torch.stack(means).mean())


def _valued(index: int, block: nn.Module, kinds: tuple[Units, ...], stats: Mapping[str, InputStats]) -> list[Unit]:
    read = {matrix.name: matrix.read() for matrix in matrices(block)}
    found = []
    for kind in kinds:
        weight = read[kind.reader].float()
        told = stats.get(kind.reader) or activations.unseen(weight.shape[1], weight.device)
        assert told.sq_norms is not None
        energy = weight.square().sum(0) * told.sq_norms
        shares = (energy / energy.sum().clamp(min=1e-30)).reshape(kind.groups, -1).sum(1).tolist()
        freed = kind.width // kind.groups * len(weight)
        freed += sum(sum(parts) // kind.groups * read[name].shape[1] for name, parts in kind.producers)
        found += [Unit(index, kind, group, share, freed) for group, share in enumerate(shares)]
    return found


def weakest(among: list[Unit], weights: int, gone: Collection[tuple[int, str, int]] = ()) -> list[Unit]:
    """The units worth least for what they free, until `weights` are free; the last one of a reader stays."""
    left: dict[tuple[int, str], int] = {}
    open_ones = [one for one in among if (one.block, one.kind.reader, one.group) not in gone]
    for one in open_ones:
        left[one.block, one.kind.reader] = left.get((one.block, one.kind.reader), 0) + 1
    chosen = []
    for one in sorted(open_ones, key=lambda one: one.share / one.weights):
        place = (one.block, one.kind.reader)
        if one.weights <= weights and left[place] > 1:
            chosen.append(one)
            weights -= one.weights
            left[place] -= 1
    return chosen


def lines_of(chosen: list[Unit]) -> dict[str, StructuredMask]:
    """What is dropped of every matrix, by its name "block.matrix"."""
    rows: dict[str, set[int]] = {}
    cols: dict[str, set[int]] = {}
    for one in chosen:
        cols.setdefault(f"{one.block}.{one.kind.reader}", set()).update(one.kind.cols(one.group))
        for name, own in one.kind.rows(one.group).items():
            rows.setdefault(f"{one.block}.{name}", set()).update(own)
    return {
        name: StructuredMask(tuple(sorted(rows.get(name, ()))), tuple(sorted(cols.get(name, ()))))
        for name in rows | cols
    }


def whole_blocks(context: PlannerContext, dropped: Collection[int]) -> dict[str, StructuredMask]:
    """All matrices of these blocks. Raises KickError where that leaves a block that still does something."""
    inputs = few(context.opened.model, context.ids, context.opened.hold)
    found: dict[str, StructuredMask] = {}
    for index in sorted(dropped):
        with context.opened.hold(index):
            own = context.opened.block_matrices(index)
            found |= {f"{index}.{matrix.name}": StructuredMask(tuple(range(matrix.read().shape[0]))) for matrix in own}
            _require_identity(context, index, inputs)
    return found


@torch.no_grad()
def _require_identity(context: PlannerContext, index: int, inputs: activations.Inputs) -> None:
    model = context.opened.model
    block = decoder_blocks(model)[index]
    kept = [(matrix, matrix.read().clone()) for matrix in matrices(block)]
    for matrix, weight in kept:
        matrix.write(torch.zeros_like(weight))
    try:
        with eager_experts(model):
            same = all(torch.equal(out, inputs.hidden[rows].to(out)) for rows, out in inputs.outputs(block, index))
    finally:
        for matrix, weight in kept:
            matrix.write(weight)
    if not same:
        raise KickError(
            f"block {index} of {type(model).__name__} still changes what passes through when all its matrices are zero "
            f"(its linears have biases): masks cannot drop blocks of this family"
        )
