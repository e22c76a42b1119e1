"""Which rows feed which columns: the channels and heads of a block, found by looking.

A matrix that reads what only its own block makes (the output projection of attention, the down projection of an MLP)
has columns in equal groups: channels, heads, or groups of heads that share keys and values. Rows of other matrices
belong to a group when zeroing them changes nothing of that input but the group's own columns. Which groups there are
is tried out, from single channels to the model's heads, on a forward of a few tokens; the partition that takes most
rows along wins. So no family is known by name: fused and interleaved projections show by themselves, and rows that
others depend on too (keys of shared heads, a norm over all heads) stay.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kick_core import statistics
from kick_core.models.blocks import Matrix, decoder_blocks, eager_experts, matrices, watched_inputs
from kick_core.statistics import Inputs

Layout = Literal["in order", "in parts"]
"""How the rows of a matrix lie: the groups one after the other, or so in each of several parts that are as long as the
reader is wide (gate beside up, query beside key beside value)."""


@dataclass(frozen=True, slots=True)
class Units:
    """The groups of columns of one reading matrix, and how the rows lie that feed them. Sizes are of one group."""

    reader: str
    width: int
    groups: int
    feeders: tuple[tuple[str, int, Layout], ...]

    def cols(self, group: int) -> range:
        """The reader's columns of a group."""
        size = self.width // self.groups
        return range(group * size, (group + 1) * size)

    def rows(self, group: int) -> dict[str, list[int]]:
        """The rows of every feeding matrix that belong to a group."""
        return {name: _members(rows, self.width, self.groups, layout, [group]) for name, rows, layout in self.feeders}


def _members(rows: int, width: int, groups: int, layout: Layout, wanted: list[int]) -> list[int]:
    """The rows, of `rows` in all, that belong to the wanted groups."""
    span = rows if layout == "in order" else width
    size, chosen = span // groups, set(wanted)
    return [row for row in range(rows) if (row % span) // size in chosen]


@torch.no_grad()
def units(model: PreTrainedModel, index: int, inputs: Inputs) -> tuple[Units, ...]:
    """The channels and heads of a block, by forwards of `inputs`, a few tokens of one window; empty where none show."""
    probe = _Probe(model, index, inputs)
    config = model.config.get_text_config()
    heads = [int(getattr(config, name, 0) or 0) for name in ("num_attention_heads", "num_key_value_heads")]
    found = []
    for reader in probe.readers():
        width = reader.read().shape[1]
        tried = [
            Units(reader.name, width, groups, tuple(probe.feeders(reader.name, width, groups)))
            for groups in dict.fromkeys((width, *heads))
            if groups > 1 and width % groups == 0
        ]
        # ties go to the finer partition, which comes first
        best = max(tried, key=lambda one: sum(rows for _, rows, _ in one.feeders), default=None)
        if best is not None and best.feeders:
            found.append(best)
    return tuple(found)


class _Probe:
    """Runs one block with some rows zeroed, and tells whose inputs change. Every such run is made once."""

    def __init__(self, model: PreTrainedModel, index: int, inputs: Inputs) -> None:
        self.model, self.index, self.inputs = model, index, inputs
        self.block = decoder_blocks(model)[index]
        self.matrices = {matrix.name: matrix for matrix in matrices(self.block)}
        self.shared: set[str] = set()
        self._runs: dict[tuple[str, tuple[int, ...]], dict[str, Tensor]] = {}
        self.plain = self._run()

    def readers(self) -> Iterator[Matrix]:
        """Matrices whose input no other one reads: what a block hands on inside itself."""
        for name, matrix in self.matrices.items():
            if name in self.plain and name not in self.shared:
                yield matrix

    def feeders(self, reader: str, width: int, groups: int) -> Iterator[tuple[str, int, Layout]]:
        """The matrices whose rows feed the reader's groups and nothing else of its input."""
        half = torch.randperm(groups, generator=torch.Generator().manual_seed(groups)).tolist()
        halves = (half[: groups // 2], half[groups // 2 :])
        for name, matrix in self.matrices.items():
            rows = matrix.read().shape[0]
            layouts: list[Layout] = ["in order"] * (rows % groups == 0)
            layouts += ["in parts"] * (rows > width and rows % width == 0)
            for layout in layouts if name != reader else ():
                if all(self._own(reader, name, width, groups, layout, some) for some in halves):
                    yield name, rows, layout
                    break

    def _own(self, reader: str, name: str, width: int, groups: int, layout: Layout, some: list[int]) -> bool:
        rows = _members(self.matrices[name].read().shape[0], width, groups, layout, some)
        before, after = self.plain[reader], self._without(name, tuple(rows)).get(reader)
        if after is None or after.shape != before.shape:  # tokens went to another expert
            return False
        noise = 8 * torch.finfo(before.dtype).eps * before.abs().max()
        changed = (after - before).abs().amax(0) > noise
        mine = torch.zeros(width, dtype=torch.bool, device=changed.device)
        mine[_members(width, width, groups, "in order", some)] = True
        return bool(changed.any() and not (changed & ~mine).any())

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
        seen: dict[str, Tensor] = {}

        def see(names: tuple[str, ...], tensor: Tensor) -> None:
            if len(names) > 1:
                self.shared.update(names)
            seen.update(dict.fromkeys(names, tensor.detach().reshape(-1, tensor.shape[-1]).clone()))

        with eager_experts(self.model), watched_inputs(self.block, see):
            for _ in self.inputs.outputs(self.block, self.index):
                pass
        return seen


def few(model: PreTrainedModel, ids: Tensor, hold: statistics.Hold) -> Inputs:
    """Inputs enough to see who feeds whom."""
    inputs = statistics.first(model, ids[:1, :64], hold=hold)
    inputs.prepare()
    return inputs
