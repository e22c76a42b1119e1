"""What calibration tokens tell about the inputs of every matrix, one decoder block at a time.

Sums are float32, made window by window in a fixed order, shared by the matrices that are handed the same
tensor, and hold every token once: windows are full, so padding never enters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kick_core import timing
from kick_core.errors import KickError
from kick_core.methods import InputStats, Need
from kick_core.methods.solve import one_thread
from kick_core.models.block_calls import Hold, all_in_place
from kick_core.models.blocks import Call, eager_experts, watched_inputs
from kick_core.models.replay import Replay, replay

BATCH = 8
"""Windows in one forward. Sums are made in this order, so it is part of what an artifact's key names."""


TILE = 512
"""Columns of a part of a Gram matrix that one thread sums."""


COMPARED = 4096
"""Tokens on which a block's outputs are compared, before and after: full windows of the first batch."""


@dataclass(slots=True)
class StatsAccumulator:
    """Running statistics of one input, float32; `width` features."""

    width: int
    need: Need
    device: torch.device
    tokens: int = 0
    sq_norms: Tensor = field(init=False)
    peaks: Tensor = field(init=False)
    gram: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        self.sq_norms = torch.zeros(self.width, device=self.device)
        self.peaks = torch.zeros(self.width, device=self.device)
        self.gram = torch.zeros(self.width, self.width, device=self.device) if self.need == "gram" else None

    @property
    def tiles(self) -> list[tuple[slice, slice]]:
        """Rows and columns of the parts in which the Gram matrix is summed.

        On a CPU they cover what is on and above its diagonal, 5 eighths of it, and do not follow from the number of
        threads, each of which takes whole tiles. Elsewhere one product is the whole matrix.
        """
        step, width = -(-self.width // 4), self.width
        if self.device.type != "cpu":
            return [(slice(0, width), slice(0, width))]
        # where strips are whole multiples of 64 rows, a tile has the bits of its part of the strip
        across = TILE if width % 256 == 0 else width
        return [
            (slice(start, start + step), slice(first, min(first + across, width)))
            for start in range(0, width, step)
            for first in range(start, width, across)
        ]

    def add(self, inputs: Tensor) -> None:
        """Take in the inputs [..., width] of one forward."""
        rows = inputs.reshape(-1, self.width)
        self.tokens += len(rows)
        if rows.is_cuda and rows.dtype in (torch.bfloat16, torch.float16) and len(rows):
            self._add_halves(rows)
            return
        rows = rows.float()
        self.sq_norms += rows.square().sum(0)
        if len(rows):
            self.peaks = torch.maximum(self.peaks, rows.abs().amax(0))
        if self.gram is not None:
            self._add_products(self.gram, rows)

    def _add_products(self, gram: Tensor, rows: Tensor) -> None:
        """Add X^T X tile by tile; what a CPU leaves out `stats` completes by symmetry.

        Threads take a tile each: on some processors a product that is shared out among threads has other last bits.
        """

        def add(tile: tuple[slice, slice]) -> None:
            down, across = tile
            gram[down, across].addmm_(rows[:, down].T, rows[:, across])

        tiles, threads = self.tiles, torch.get_num_threads()
        if threads == 1 or len(tiles) == 1:
            for tile in tiles:
                add(tile)
            return
        with one_thread(), ThreadPoolExecutor(min(threads, len(tiles)), "gram") as pool:
            list(pool.map(add, tiles))

    def _add_halves(self, rows: Tensor) -> None:
        """The same sums from 16-bit values on a GPU: read once each, and multiplied by the tensor cores. Their
        products are exact in float32, in which they are added up."""
        self.sq_norms += torch.linalg.vector_norm(rows, dim=0, dtype=torch.float32).square()
        self.peaks = torch.maximum(self.peaks, torch.linalg.vector_norm(rows, torch.inf, dim=0).float())
        if self.gram is not None:
            self.gram += torch.mm(rows.T, rows, out_dtype=torch.float32)

    def stats(self) -> InputStats:
        if self.gram is not None and self.device.type == "cpu":
            self.gram.copy_(self.gram.triu() + self.gram.triu(1).T)
        return InputStats(self.tokens, self.sq_norms, self.gram, self.peaks)


def unseen(width: int, device: torch.device) -> InputStats:
    """Statistics of a matrix that no calibration token reached (an expert that was never chosen): flat ones."""
    ones = torch.ones(width, device=device)
    return InputStats(0, ones, torch.diag(ones), ones)


@dataclass(slots=True)
class Inputs:
    """Calibration activations `hidden` [windows, length, width] on their way through the blocks.

    They lie on the model's device where they fit beside its work, else in host memory. When the device runs
    out of memory all the same, they are moved to the host, then the windows of one forward are halved; what
    was done is told in `notes`. `replay` calls the blocks as the library does.
    """

    hidden: Tensor
    device: torch.device
    replay: Replay
    batch: int
    min_tokens: int = 1
    relieved: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Tokens in a window."""
        return int(self.replay.ids.shape[1])

    @property
    def few(self) -> int:
        """Windows of the first batch on which a changed block is compared with the dense one."""
        return min(self.batch, len(self.hidden), -(-COMPARED // self.length))

    def outputs(
        self, block: nn.Module, index: int, *, again: bool = True, most: int | None = None
    ) -> Iterator[tuple[slice, Tensor]]:
        """Run a block over all windows: the rows of every batch (of at `most` so many) and what comes out for them.

        Out of memory, the batch is tried `again` when there is more room; or it ends there, for callers that must
        let go of what they hold and begin anew.
        """
        start = 0
        while start < len(self.hidden):
            part = self.hidden[start : start + min(self.batch, most or self.batch)].to(self.device)
            try:
                rows = slice(start, start + len(part))
                output = self.replay.run(block, rows, index, part, keep=most is None)
            except torch.OutOfMemoryError as error:
                failed = str(error)
            else:
                yield rows, output
                start += len(part)
                continue
            # outside the handler: its traceback would keep the failed forward's tensors alive
            self._relieve(len(part), failed)
            if not again:
                return

    def advance(self, block: nn.Module, index: int) -> Tensor:
        """Put what a block makes of the activations in their place; returns its output for the first batch."""
        first = None
        for rows, output in self.outputs(block, index):
            first = output if first is None else first
            self.hidden[rows] = output
        assert first is not None
        return first

    def call(self, windows: int, block: int) -> Call:
        """What a block is called with for so many windows, whichever they are.

        Raises KickError where that follows from the windows.
        """
        if self.replay.carried:
            raise KickError(
                f"{type(self.replay.model).__name__}: what its blocks are handed follows from the text and is not "
                f"known for windows in another order: recover=blocks cannot fit them"
            )
        return self.replay.call(windows, block)

    def _relieve(self, windows: int, failed: str) -> None:
        self.relieved += 1
        if self.hidden.device != torch.device("cpu"):
            self.hidden = self.hidden.cpu()
            self.notes.append("out of memory: calibration activations were moved to host memory")
        elif windows > 1:
            self.batch = windows // 2
            self.notes.append(f"out of memory: went on with {self.batch} windows in one forward")
        else:
            raise KickError(
                f"out of memory with one window of {self.length} tokens in a forward ({failed}): "
                f"use a shorter --length or --device cpu"
            )
        release()

    def take_notes(self) -> str:
        """What was noted since the last call."""
        text = "; ".join(self.notes)
        self.notes.clear()
        return text


_ODD = 0x2545F4914F6CDD1D, -0x61C8864680B583EB
"""Multipliers of the digest: odd, so that no single difference vanishes."""


def digest(streams: Sequence[Tensor], device: torch.device) -> str:
    """The bits of activations [windows, length, width] in 32 hexadecimal digits each, wherever they lie.

    Two sums of all words, each times a number that its place gives, modulo 2^64: whole numbers, so that no order of
    summation matters. Made on `device`.
    """
    return "-".join(_digest(stream, device) for stream in streams)


def _digest(hidden: Tensor, device: torch.device) -> str:
    sums = torch.zeros(2, dtype=torch.int64, device=device)
    places = None
    for window in hidden:
        flat = window.to(device).contiguous().flatten()
        words = flat.view(torch.int32 if flat.nbytes % 4 == 0 else torch.int16).long()
        if places is None:
            place = torch.arange(1, len(words) + 1, device=device)
            places = [(mixed := place * odd) ^ (mixed >> 29) | 1 for odd in _ODD]
        sums = sums * _ODD[0] + torch.stack([(words * one).sum() for one in places])
    return "".join(f"{value % (1 << 64):016x}" for value in sums.tolist())


def release() -> None:
    """Give cached device memory back, so that the next attempt has all there is."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


_SHARE = 0.4
"""Activations stay on the device while they and a second set of them take at most this share of its free memory."""


def room(device: torch.device) -> float:
    """Bytes of a device's memory that work on one block may take beside what is there; without a bound on a CPU."""
    if device.type != "cuda":
        return float("inf")
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return _SHARE * (torch.cuda.mem_get_info(device)[0] + unused)


def _place(device: torch.device, size: int) -> torch.device:
    if device.type == "cuda" and 2 * size > _SHARE * torch.cuda.mem_get_info(device)[0]:
        return torch.device("cpu")
    return device


def first(
    model: PreTrainedModel,
    ids: Tensor,
    hidden: Tensor | None = None,
    hold: Hold = all_in_place,
    *,
    min_tokens: int = 1,
) -> Inputs:
    """The inputs of block 0 for token ids [windows, length], or of the block whose saved `hidden` is given.

    Raises KickError for a model whose blocks cannot be called as the library does.
    """
    with timing.stage("first inputs"):
        return _first(model, ids, hidden, hold, min_tokens)


def _first(model: PreTrainedModel, ids: Tensor, hidden: Tensor | None, hold: Hold, min_tokens: int) -> Inputs:
    walked = replay(model, ids, hold)
    if hidden is None:
        states = walked.begin(slice(0, min(BATCH, len(ids))))
        place = _place(model.device, len(ids) * states[0].nbytes)
        hidden = torch.empty((len(ids), *states.shape[1:]), dtype=states.dtype, device=place)
        for rows in (slice(start, min(start + BATCH, len(ids))) for start in range(0, len(ids), BATCH)):
            hidden[rows] = states if rows.start == 0 else walked.begin(rows)
    else:
        hidden = hidden.to(_place(model.device, hidden.nbytes))
    return Inputs(hidden, model.device, walked, BATCH, min_tokens)


@dataclass(slots=True)
class Dense:
    """What one pass through a block with its own weights told: statistics by matrix, its outputs for the first
    batch, and for all windows where they were asked for. `energies` keeps each matrix's ‖WX‖², once it was asked for.
    Matrices without statistics were reached by fewer than the calibration's `min_tokens`; `tokens` counts those too.
    """

    stats: dict[str, InputStats]
    first: Tensor
    outputs: Tensor | None
    tokens: dict[str, int] = field(default_factory=dict)
    energies: dict[str, Tensor] = field(default_factory=dict)


def dense_pass(
    model: PreTrainedModel, block: nn.Module, index: int, inputs: Inputs, need: Need, *, keep: bool
) -> Dense:
    """Run a block as it is over all calibration windows; `keep` all outputs, or the first batch's only.

    Raises KickError when a matrix's inputs are not finite.
    """
    attempt = partial(_attempt, model, block, index, inputs, need, keep)
    with timing.stage("statistics"):
        # after an out-of-memory a window may have been counted in part: statistics are begun anew
        while (statistics := attempt()) is None:
            pass
    return statistics


def _attempt(
    model: PreTrainedModel, block: nn.Module, index: int, inputs: Inputs, need: Need, keep: bool
) -> Dense | None:
    """One pass, or None when memory ran out on the way."""
    tallies: dict[str, StatsAccumulator] = {}
    sharers: dict[int, set[str]] = {}  # the matrices of each accumulator

    def see(names: tuple[str, ...], tensor: Tensor) -> None:
        if fresh := [name for name in names if name not in tallies]:
            tally = StatsAccumulator(tensor.shape[-1], need, tensor.device)
            tallies.update(dict.fromkeys(fresh, tally))
            sharers[id(tally)] = set(fresh)
        for tally in {id(tallies[name]): tallies[name] for name in names}.values():
            if apart := sharers[id(tally)].difference(names):  # no longer do all see the same
                together, sharers[id(tally)] = sharers[id(tally)] - apart, apart
                tally = deepcopy(tally)
                tallies.update(dict.fromkeys(together, tally))
                sharers[id(tally)] = together
            tally.add(tensor)

    before, early = inputs.relieved, None
    outputs = torch.empty_like(inputs.hidden) if keep else None
    with eager_experts(model), watched_inputs(block, see):
        for rows, output in inputs.outputs(block, index, again=False):
            early = output if early is None else early
            if outputs is not None:
                outputs[rows] = output
    if inputs.relieved != before:
        return None
    overflown = [name for name, tally in tallies.items() if not tally.sq_norms.isfinite().all()]
    if overflown and (keep or index == 0):  # the dense model's own
        remedy = "; --dtype bfloat16 or float32 holds larger numbers" if inputs.hidden.dtype == torch.float16 else ""
        require_finite(tallies[overflown[0]].sq_norms, f"block {index}: the input of {overflown[0]}", remedy)
    if overflown:  # what compressing the blocks before it came to: a finding
        inputs.notes.append(
            f"inputs of {len(overflown)} of its {len(tallies)} matrices are not finite: these were compressed on a "
            f"flat Hessian, as without data"
        )
    # matrices that share a tally share what is worked out from it
    stats = {id(tally): tally.stats() for name, tally in tallies.items() if name not in overflown}
    assert early is not None
    enough = {
        name: stats[id(tally)]
        for name, tally in tallies.items()
        if id(tally) in stats and tally.tokens >= inputs.min_tokens
    }
    return Dense(enough, early, outputs, {name: tally.tokens for name, tally in tallies.items()})


def require_finite(tensor: Tensor, what: str, remedy: str = "") -> None:
    """Refuse NaN and infinities by name: they would spread into every weight.

    Args:
        tensor: Of any shape.
        what: Its name in the message.
        remedy: What to do about it, at the message's end.

    Raises:
        KickError: A value is NaN or infinite.
    """
    if not torch.isfinite(tensor).all():
        bad = int((~torch.isfinite(tensor)).sum())
        raise KickError(f"{what} holds {bad} NaN or infinite values: nothing can be compressed on them{remedy}")
