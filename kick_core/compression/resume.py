"""Going on with a stopped walk: its windows go through the finished blocks again and must come out as before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel

from kick_core.compression import activations
from kick_core.errors import KickError
from kick_core.models.block_calls import Hold, eager_experts
from kick_core.models.blocks import decoder_blocks


class InputsDiffer(KickError):
    """Finished blocks give other activations here than where they were made: a walk cannot go on from them."""


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a stopped walk goes on.

    Attributes:
        start: The first block that is not finished.
        apply: Applies a finished block's weights.
        batches: For every finished block the windows in one forward of each stream of activations.
        digest: Of what enters block `start`; it must come out again.
        saved: The block whose inputs are given; 0 for none.
        hidden: Its inputs [windows, length, width].
        dense: What the dense model's block is given, where blocks are fitted to it.
    """

    start: int = 0
    apply: Callable[[int], None] | None = None
    batches: Sequence[tuple[int, ...]] = ()
    digest: str = ""
    saved: int = 0
    hidden: Tensor | None = None
    dense: Tensor | None = None


def catch_up(
    model: PreTrainedModel, resume: Resume, streams: list[activations.Inputs], propagate: str, hold: Hold
) -> None:
    """Apply the weights of finished blocks and send the activations through; the dense model's go through dense blocks.

    Args:
        model: Dense.
        resume: What is finished.
        streams: The activations that blocks are compressed on; second the dense model's, where blocks are fitted.
        propagate: `dense` where the first are the dense model's too.
        hold: Brings a block's weights.

    Raises:
        InputsDiffer: The activations are not what they were.
    """
    if resume.apply is None:
        return
    for index in range(resume.start):
        block, passed = decoder_blocks(model)[index], index < resume.saved
        with hold(index):
            for stream, batch in zip(streams, resume.batches[index], strict=True) if streams else ():
                stream.batch = batch
            if streams and not passed and propagate == "dense":
                advance_dense(model, block, index, streams[0])
            for aim in streams[1:] if not passed else ():
                aim.advance(block, index)
            resume.apply(index)
            if streams and not passed and propagate != "dense":
                streams[0].advance(block, index)
    if streams and resume.start > resume.saved:
        digest = digest_of(streams)
        if digest != resume.digest:
            raise InputsDiffer(f"blocks before {resume.start} give other activations than when they were made")


def advance_dense(model: PreTrainedModel, block: nn.Module, index: int, inputs: activations.Inputs) -> None:
    """Send activations through a dense block with the bits that `activations.dense_pass` gives."""
    with eager_experts(model):  # as where statistics are taken, whose outputs these are
        inputs.advance(block, index)


def digest_of(streams: Sequence[activations.Inputs]) -> str:
    """The digest of what enters the next block."""
    return activations.digest([stream.hidden for stream in streams], streams[0].device)
