"""Measures of structures (blocks, channels and heads) from one pass over the calibration windows.

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
from kick_core.artifacts.planners._units import Units, probe_inputs, units
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
    """One pass of the model as it is now.

    Args:
        context: The model and its calibration tokens.
        kinds: The channels and heads of blocks, found on the dense model; what is missing is added. None: of blocks
            alone.
        without: Blocks that are skipped.

    Raises:
        KickError: The blocks of this family show no channels and no heads.
    """
    model, hold, result = context.opened.model, context.opened.hold, Survey()
    inputs = activations.first(model, context.ids, hold=hold)
    probe = None if kinds is None else probe_inputs(model, context.ids, hold)
    for index, block in enumerate(decoder_blocks(model)):
        with hold(index):
            shapes = tuple((matrix.name, matrix.read().shape) for matrix in matrices(block))
            result.weights[index] = sum(shape.numel() for _, shape in shapes)
            if index in without:
                continue
            dense = activations.dense_pass(model, block, index, inputs, "norms", keep=True)
            assert dense.outputs is not None
            result.influence[index] = _influence(inputs.hidden, dense.outputs)
            if kinds is not None and probe is not None:
                if shapes not in kinds:
                    kinds[shapes] = units(model, index, probe)
                    if not kinds[shapes]:
                        raise KickError(
                            f"block {index} of {type(model).__name__}: no channels or heads can be told apart"
                        )
                result.units += _valued(index, block, kinds[shapes], dense.stats)
            inputs.hidden = dense.outputs
    return result


def _influence(entering: Tensor, leaving: Tensor) -> float:
    pairs = zip(entering, leaving, strict=True)
    means = [torch.cosine_similarity(a.float(), b.float(), dim=-1).double().mean() for a, b in pairs]
    return float(1 - torch.stack(means).mean())


def _valued(index: int, block: nn.Module, kinds: tuple[Units, ...], stats: Mapping[str, InputStats]) -> list[Unit]:
    read = {matrix.name: matrix.read() for matrix in matrices(block)}
    valued = []
    for kind in kinds:
        weight = read[kind.reader].float()
        input_stats = stats.get(kind.reader) or activations.unseen(weight.shape[1], weight.device)
        assert input_stats.sq_norms is not None
        energy = weight.square().sum(0) * input_stats.sq_norms
        shares = (energy / energy.sum().clamp(min=1e-30)).reshape(kind.groups, -1).sum(1).tolist()
        freed = kind.width // kind.groups * len(weight)
        freed += sum(sum(parts) // kind.groups * read[name].shape[1] for name, parts in kind.producers)
        valued += [Unit(index, kind, group, share, freed) for group, share in enumerate(shares)]
    return valued


def weakest(among: list[Unit], weights: int, gone: Collection[tuple[int, str, int]] = ()) -> list[Unit]:
    """The units worth least for what they free; the last one of a reader stays.

    Args:
        among: All units.
        weights: How many weights should become free, at most.
        gone: Units that are dropped already, by block, reader and group.
    """
    left: dict[tuple[int, str], int] = {}
    available = [unit for unit in among if (unit.block, unit.kind.reader, unit.group) not in gone]
    for unit in available:
        left[unit.block, unit.kind.reader] = left.get((unit.block, unit.kind.reader), 0) + 1
    chosen = []
    for unit in sorted(available, key=lambda unit: unit.share / unit.weights):
        place = (unit.block, unit.kind.reader)
        if unit.weights <= weights and left[place] > 1:
            chosen.append(unit)
            weights -= unit.weights
            left[place] -= 1
    return chosen


def lines_of(chosen: list[Unit]) -> dict[str, StructuredMask]:
    """What is dropped of every matrix, by its name "block.matrix".

    Args:
        chosen: Units that go.
    """
    rows: dict[str, set[int]] = {}
    cols: dict[str, set[int]] = {}
    for unit in chosen:
        cols.setdefault(f"{unit.block}.{unit.kind.reader}", set()).update(unit.kind.cols(unit.group))
        for name, own in unit.kind.rows(unit.group).items():
            rows.setdefault(f"{unit.block}.{name}", set()).update(own)
    return {
        name: StructuredMask(tuple(sorted(rows.get(name, ()))), tuple(sorted(cols.get(name, ()))))
        for name in rows | cols
    }


def whole_blocks(context: PlannerContext, dropped: Collection[int]) -> dict[str, StructuredMask]:
    """Masks that drop all matrices of some blocks.

    Args:
        context: The model.
        dropped: Numbers of the blocks.

    Raises:
        KickError: Such a block would still change what passes through it.
    """
    inputs = probe_inputs(context.opened.model, context.ids, context.opened.hold)
    masks: dict[str, StructuredMask] = {}
    for index in sorted(dropped):
        with context.opened.hold(index):
            own = context.opened.block_matrices(index)
            masks |= {f"{index}.{matrix.name}": StructuredMask(tuple(range(matrix.read().shape[0]))) for matrix in own}
            _require_identity(context, index, inputs)
    return masks


@torch.no_grad()
def _require_identity(context: PlannerContext, index: int, inputs: activations.Inputs) -> None:
    model = context.opened.model
    block = decoder_blocks(model)[index]
    weights = [(matrix, matrix.read().clone()) for matrix in matrices(block)]
    for matrix, weight in weights:
        matrix.write(torch.zeros_like(weight))
    try:
        with eager_experts(model):
            same = all(torch.equal(out, inputs.hidden[rows].to(out)) for rows, out in inputs.outputs(block, index))
    finally:
        for matrix, weight in weights:
            matrix.write(weight)
    if not same:
        raise KickError(
            f"block {index} of {type(model).__name__} still changes what passes through when all its matrices are zero "
            f"(its linears have biases): masks cannot drop blocks of this family"
        )
