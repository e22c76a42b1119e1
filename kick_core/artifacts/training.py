"""Recovery by training: low-rank updates of an artifact, trained on a text, then written with its blocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor

from kick_core import methods
from kick_core.artifacts import sealing
from kick_core.artifacts.loaded_model import OpenModel, calibration_facts
from kick_core.compression import block_files, codec
from kick_core.compression.calibration import token_windows, window_length
from kick_core.compression.recovery import adapters
from kick_core.errors import BadRequest, KickError
from kick_core.methods.recovery_options import Recovery
from kick_core.records import BlockReport, Card, PlanProgress
from kick_core.spec import Calibration, IntGrid, Recipe
from kick_core.store import weight_artifacts
from kick_core.store.files import require_space
from kick_core.store.staging import Stage

if TYPE_CHECKING:
    from kick_core.artifacts.builder import ArtifactBuilder


def build_base(builder: ArtifactBuilder, recipe: Recipe, recovery: Recovery) -> Iterator[BlockReport | PlanProgress]:
    """Build what a training starts from. It is kept like any artifact: whoever recovers wants to compare.

    Args:
        builder: Of the model.
        recipe: What is recovered.
        recovery: How.

    Yields:
        As `ArtifactBuilder.make`.

    Raises:
        KickError: The model is not in memory as a whole, or a package is missing.
    """
    if builder.opened.streamed:
        raise KickError(
            f"recover={recovery.kind} trains the model as a whole, and this one is worked on from disk, block by "
            f"block: use recover=blocks, or a machine whose memory it fits"
        )
    adapters.require(recovery.kind)
    yield from builder.make(methods.unrecovered(recipe))


def text(builder: ArtifactBuilder, recovery: Recovery) -> Tensor:
    """The token ids that a training reads [windows, length], loaded once.

    Args:
        builder: Of the model.
        recovery: Names the text and how many tokens of it.

    Raises:
        BadRequest: The text is shorter.
    """
    windows, texts = _windows(builder, recovery), builder.training_texts
    if windows not in texts:
        ids = token_windows(windows, builder.opened.tokenizer, builder.opened.source.context)
        if len(ids) < windows.most_windows:
            raise BadRequest(
                f"{windows.source} gives {ids.numel():,} tokens to recover on, {recovery.tokens:,} were asked for: "
                f"use recover_tokens={ids.numel()} or less"
            )
        texts[windows] = ids
    return texts[windows]


def _windows(builder: ArtifactBuilder, recovery: Recovery) -> Calibration:
    """The windows that a training reads, as a calibration of their own."""
    length = window_length(builder.calibration, builder.opened.source.context)
    source = builder.calibration.source if recovery.text == "calibration" else recovery.text
    return Calibration(source, windows=max(1, recovery.tokens // length), length=length, seed=recovery.seed)


def train(builder: ArtifactBuilder, recipe: Recipe, recovery: Recovery, stage: Stage) -> Iterator[BlockReport]:
    """Train updates of the unrecovered artifact, then write its blocks anew with them.

    Args:
        builder: Of the model.
        recipe: What is recovered; its base is built already.
        recovery: How.
        stage: Where the artifact is built; a stopped training goes on from the last state that it kept.

    Yields:
        A report per step, as the block of equal progress.
    """
    opened, began, base = builder.opened, time.perf_counter(), methods.unrecovered(recipe)
    builder.apply_recipe(base)
    require_space(builder.store.root, builder.expected_bytes(recipe))
    start, ids = weight_artifacts.card(builder.store, builder.key(base)), text(builder, recovery)
    masks = {
        f"{block}.{matrix.name}": matrix.read() != 0
        for block in range(start.blocks)
        for matrix in opened.block_matrices(block)
        if base.target and not isinstance(base.target, IntGrid)
    }
    outcome = adapters.Outcome()
    for at in adapters.train(opened.model, masks, ids, recovery, outcome, stage.state()):
        if at.state is not None:
            stage.keep_state(at.step, at.state)
        message = f"training: step {at.step} of {at.steps}, {at.loss:.3f} nats a token"
        yield BlockReport((at.step - 1) * start.blocks // at.steps, start.blocks, (), 0.0, note=message)
    reports = []
    for block in range(start.blocks):
        tensors = weight_artifacts.tensors(builder.store, start.key, block, "pt")
        report, encoded = _with_updates(opened, block, start, tensors, masks, outcome)
        stage.add(report, block_files.content(block_files.sent_to_host(encoded)()))
        reports.append(report)
    losses, eighth = outcome.losses, max(1, len(outcome.losses) // 8)
    facts = {"first_loss": sum(losses[:eighth]) / eighth, "last_loss": sum(losses[-eighth:]) / eighth}
    facts = calibration_facts(_windows(builder, recovery), ids) | facts
    sealing.seal(builder, stage, recipe, reports, time.perf_counter() - began, start.plan, recovery=facts)


def _with_updates(
    opened: OpenModel,
    block: int,
    start: Card,
    tensors: dict[str, Tensor],
    masks: dict[str, Tensor],
    outcome: adapters.Outcome,
) -> tuple[BlockReport, dict[str, Tensor]]:
    """One block with its updates, and the reports of its matrices without their loss, which is another now."""
    written: dict[str, Tensor] = {}
    layers = []
    reports = {layer.name: layer for layer in start.layers}
    for matrix in opened.block_matrices(block):
        name = f"{block}.{matrix.name}"
        update, base = outcome.updates[name], matrix.read()
        encoded = codec.updated(matrix.name, base, tensors, update.left, update.right, masks.get(name))
        weight = codec.decode(matrix.name, base, {key: value.to(base.device) for key, value in encoded.items()})
        zeros = weight.numel() - int(weight.count_nonzero())
        layers.append(replace(reports[name], name=matrix.name, zeros=zeros, loss=None))
        written |= encoded
    return BlockReport(block, start.blocks, tuple(layers), 0.0), written
