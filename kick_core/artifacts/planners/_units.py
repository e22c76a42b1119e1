"""Which rows feed which columns: the channels and heads of a block, found by looking.

A matrix that reads what only its own block makes (the output projection of attention, the down projection of an MLP)
has columns in equal groups: channels, heads, or groups of heads that share keys and values. Rows of other matrices
belong to a group when zeroing them changes nothing of that input but the group's own columns. Which groups there are
is tried out, from single channels to the model's heads, on a forward of a few tokens; the partition that takes most
rows along wins. So no family is known by name: fused and interleaved projections show by themselves, and rows that
others depend on too (keys of shared heads, a norm over all heads) stay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kick_core.compression import activations
from kick_core.compression.activations import Inputs
from kick_core.models.block_calls import Hold
from kick_core.models.blocks import Matrix, decoder_blocks, eager_experts, matrices, watched_inputs

Parts = tuple[int, ...]
"""How the rows of a matrix lie: in parts of so many rows, in each of which the groups follow one another."""


def _layouts(rows: int, width: int, groups: int) -> Iterator[Parts]:
    """The layouts there may be: one part; several that are as long as the reader is wide (gate beside up, query beside
    key beside value); one such part and two smaller ones (query beside keys and values that heads share)."""
    if rows % groups == 0:
        yield (rows,)
    if rows > width and rows % width == 0:
        yield (width,) * (rows // width)
    if rows > width and (rows - width) % (2 * groups) == 0:
        yield (width, (rows - width) // 2, (rows - width) // 2)


@dataclass(frozen=True, slots=True)
class Units:
    """The groups of columns of one reading matrix, and how the rows lie that feed them. Sizes are of one group."""

    reader: str
    width: int
    groups: int
    producers: tuple[tuple[str, Parts], ...]

    def cols(self, group: int) -> range:
        """The reader's columns of a group."""
        return range(*_span(self.width, self.groups, group))

    def rows(self, group: int) -> dict[str, list[int]]:
        """The rows of every feeding matrix that belong to a group."""
        return {name: _members(parts, self.groups, [group]) for name, parts in self.producers}


def _span(rows: int, groups: int, group: int) -> tuple[int, int]:
    size = rows // groups
    return group * size, (group + 1) * size


def _members(parts: Parts, groups: int, groups_wanted: Iterable[int]) -> list[int]:
    """The rows that belong to the wanted groups."""
    members: list[int] = []
    start = 0
    for rows in parts:
        for group in groups_wanted:
            low, high = _span(rows, groups, group)
            members += range(start + low, start + high)
        start += rows
    return sorted(members)


@torch.no_grad()
def units(model: PreTrainedModel, index: int, inputs: Inputs) -> tuple[Units, ...]:
    """The channels and heads of a block, from forwards with some rows zeroed.

    Args:
        model: With its dense weights.
        index: Of the block.
        inputs: A few tokens of one window.

    Returns:
        One record per reading matrix; empty where none show.
    """
    probe = _Probe(model, index, inputs)
    config = model.config.get_text_config()
    heads = [int(getattr(config, name, 0) or 0) for name in ("num_attention_heads", "num_key_value_heads")]
    kinds = []
    for reader in probe.consumers():
        width = reader.read().shape[1]
        candidates = [
            Units(reader.name, width, groups, tuple(probe.producers(reader.name, width, groups)))
            for groups in dict.fromkeys((width, *heads))
            if groups > 1 and width % groups == 0
        ]
        # ties go to the finer partition, which comes first
        best = max(candidates, key=lambda one: sum(sum(parts) for _, parts in one.producers), default=None)
        if best is not None and best.producers:
            kinds.append(best)
    return tuple(kinds)


class _Probe:
    """Runs one block with some rows zeroed, and compares the inputs of its matrices. Every such run is made once."""

    def __init__(self, model: PreTrainedModel, index: int, inputs: Inputs) -> None:
        self.model, self.index, self.inputs = model, index, inputs
        self.block = decoder_blocks(model)[index]
        self.matrices = {matrix.name: matrix for matrix in matrices(self.block)}
        self.shared: set[str] = set()
        self._runs: dict[tuple[str, tuple[int, ...]], dict[str, Tensor]] = {}
        self.plain = self._run()

    def consumers(self) -> Iterator[Matrix]:
        """Matrices whose input no other one reads: what a block hands on inside itself."""
        for name, matrix in self.matrices.items():
            if name in self.plain and name not in self.shared:
                yield matrix

    def producers(self, reader: str, width: int, groups: int) -> Iterator[tuple[str, Parts]]:
        """The matrices whose rows feed the reader's groups and nothing else of its input."""
        half = torch.randperm(groups, generator=torch.Generator().manual_seed(groups)).tolist()
        halves = (half[: groups // 2], half[groups // 2 :])
        for name, matrix in self.matrices.items():
            for parts in _layouts(len(matrix.read()), width, groups) if name != reader else ():
                if all(self._own(reader, name, groups, parts, subset) for subset in halves):
                    yield name, parts
                    break

    def _own(self, reader: str, name: str, groups: int, parts: Parts, subset: list[int]) -> bool:
        """Whether the rows of some groups change nothing of the reader's input but those groups' columns."""
        before, after = self.plain[reader], self._without(name, tuple(_members(parts, groups, subset))).get(reader)
        if after is None or after.shape != before.shape:  # tokens went to another expert
            return False
        noise = 8 * torch.finfo(before.dtype).eps * before.abs().max()
        changed = (after - before).abs().amax(0) > noise
        own = torch.zeros_like(changed)
        own[_members((len(changed),), groups, subset)] = True
        return bool(changed.any() and not (changed & ~own).any())

    def _without(self, name: str, rows: tuple[int, ...]) -> dict[str, Tensor]:
        if (name, rows) not in self._runs:
            matrix = self.matrices[name]
            weight = matrix.read().clone()
            changed = weight.clone()
            changed[list(rows)] = 0
            matrix.write(changed)
            try:
                self._runs[name, rows] = self._run()
            finally:
                matrix.write(weight)
        return self._runs[name, rows]

    def _run(self) -> dict[str, Tensor]:
        """The input of every matrix, as [tokens, width]."""
        stats: dict[str, Tensor] = {}

        def see(names: tuple[str, ...], tensor: Tensor) -> None:
            if len(names) > 1:
                self.shared.update(names)
            stats.update(dict.fromkeys(names, tensor.detach().reshape(-1, tensor.shape[-1]).clone()))

        with eager_experts(self.model), watched_inputs(self.block, see):
            for _ in self.inputs.outputs(self.block, self.index):
                pass
        return stats


def probe_inputs(model: PreTrainedModel, ids: Tensor, hold: Hold) -> Inputs:
    """Inputs that are enough to see which rows feed which columns.

    Args:
        model: The model.
        ids: Calibration tokens [windows, length].
        hold: Keeps a block in memory while it runs.
    """
    return activations.first(model, ids[:1, :64], hold=hold)
