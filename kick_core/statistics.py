"""What calibration tokens tell about the inputs of every matrix, one decoder block at a time.

Sums are float32, made window by window in a fixed order, shared by the matrices that are handed the same
tensor, and hold every token once: windows are full, so padding never enters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kick_core.methods import Need, Seen
from kick_core.models.blocks import Call, eager_experts, first_inputs, run_block, watched_inputs
from kick_core.spec import KickError

BATCH = 8
"""Windows in one forward. Sums are made in this order, so it is part of what an artifact's key names."""


Hold = Callable[[int], AbstractContextManager[None]]
"""Has a block's weights in place while it is worked on (see `kick_core.models.shards.resident`)."""


def all_in_place(block: int) -> AbstractContextManager[None]:
    """The `Hold` of a model that is in memory as a whole."""
    return nullcontext()


@dataclass(slots=True)
class Tally:
    """Running statistics of one input, float32; `width` features."""

    width: int
    need: Need
    device: torch.device
    tokens: int = 0
    norms: Tensor = field(init=False)
    peaks: Tensor = field(init=False)
    gram: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        self.norms = torch.zeros(self.width, device=self.device)
        self.peaks = torch.zeros(self.width, device=self.device)
        self.gram = torch.zeros(self.width, self.width, device=self.device) if self.need == "gram" else None

    def add(self, inputs: Tensor) -> None:
        """Take in the inputs [..., width] of one forward."""
        rows = inputs.reshape(-1, self.width)
        self.tokens += len(rows)
        if rows.is_cuda and rows.dtype in (torch.bfloat16, torch.float16) and len(rows):
            self._add_halves(rows)
            return
        rows = rows.float()
        self.norms += rows.square().sum(0)
        if len(rows):
            self.peaks = torch.maximum(self.peaks, rows.abs().amax(0))
        if self.gram is not None:
            self.gram.addmm_(rows.T, rows)

    def _add_halves(self, rows: Tensor) -> None:
        """The same sums from 16-bit values on a GPU: read once each, and multiplied by the tensor cores. Their
        products are exact in float32, in which they are added up."""
        self.norms += torch.linalg.vector_norm(rows, dim=0, dtype=torch.float32).square()
        self.peaks = torch.maximum(self.peaks, torch.linalg.vector_norm(rows, torch.inf, dim=0).float())
        if self.gram is not None:
            self.gram += torch.mm(rows.T, rows, out_dtype=torch.float32)

    def seen(self) -> Seen:
        return Seen(self.tokens, self.norms, self.gram, self.peaks)


def unseen(width: int, device: torch.device) -> Seen:
    """Statistics of a matrix that no calibration token reached (an expert that was never chosen): flat ones."""
    ones = torch.ones(width, device=device)
    return Seen(0, ones, torch.diag(ones), ones)


@dataclass(slots=True)
class Inputs:
    """Calibration activations [windows, length, width] and each block's call for every batch size."""

    hidden: Tensor
    calls: dict[int, list[Call]]

    def batches(self, block: int) -> Iterator[tuple[slice, Tensor, Call]]:
        """The batches that enter a block: their rows, their activations, the block's call."""
        for start in range(0, len(self.hidden), BATCH):
            part = self.hidden[start : start + BATCH]
            yield slice(start, start + len(part)), part, self.calls[len(part)][block]


def first(model: PreTrainedModel, ids: Tensor, hidden: Tensor | None = None, hold: Hold = all_in_place) -> Inputs:
    """The inputs of block 0 for token ids [windows, length], or of the block whose saved `hidden` is given."""
    found, calls = [], {}
    with hold(0):  # one token goes through the first block, to see what it returns
        for part in ids.split(BATCH):
            if hidden is not None and len(part) in calls:
                continue
            states, calls[len(part)] = first_inputs(model, part)
            found.append(states)
    return Inputs(torch.cat(found) if hidden is None else hidden.to(model.device), calls)


@dataclass(slots=True)
class Dense:
    """What one pass through a block with its own weights told: statistics by matrix, and its outputs.

    `energies` keeps each matrix's ‖WX‖², once it was asked for.
    """

    seen: dict[str, Seen]
    outputs: list[Tensor]
    energies: dict[str, Tensor] = field(default_factory=dict)


def dense_pass(model: PreTrainedModel, block: nn.Module, index: int, inputs: Inputs, need: Need) -> Dense:
    """Run a block as it is over all calibration windows. Raises KickError when its inputs are not finite."""
    tallies: dict[str, Tally] = {}

    def see(names: tuple[str, ...], tensor: Tensor) -> None:
        if names[0] not in tallies:
            tallies.update(dict.fromkeys(names, Tally(tensor.shape[-1], need, tensor.device)))
        tallies[names[0]].add(tensor)

    with eager_experts(model), watched_inputs(block, see):
        outputs = [run_block(block, part, call) for _, part, call in inputs.batches(index)]
    for name, tally in tallies.items():
        require_finite(tally.norms, f"block {index}: the input of {name}")
    # matrices that share a tally share what is worked out from it
    seen = {id(tally): tally.seen() for tally in tallies.values()}
    return Dense({name: seen[id(tally)] for name, tally in tallies.items()}, outputs)


def require_finite(tensor: Tensor, what: str) -> None:
    """Refuse NaN and infinities by name: they would spread into every weight."""
    if not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise KickError(f"{what} holds {bad} NaN or infinite values: nothing can be compressed on them")
