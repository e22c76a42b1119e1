"""The card of a walk: what was compressed, what was left and why, and what a reader should be warned of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedModel

from kick_core import methods
from kick_core.models.blocks import decoder_blocks, left_alone
from kick_core.provenance import host, now, versions
from kick_core.records import Card, LayerReport
from kick_core.spec import Recipe


def few_tokens(layers: Sequence[LayerReport], least: int) -> tuple[str, ...]:
    """The warning that calibration tokens were too few.

    Args:
        layers: Of all blocks.
        least: Tokens below which a matrix is compressed on a flat Hessian.

    Returns:
        One sentence with the number of such matrices; nothing where there are none.
    """
    few = [layer for layer in layers if layer.tokens is not None and layer.tokens < least]
    if not few:
        return ()
    reached = "no calibration token reached" if least == 1 else f"fewer than {least} calibration tokens reached"
    return (
        f"{reached} {len(few)} of {len(layers)} matrices (experts that are seldom chosen): they were compressed on a "
        f"flat Hessian, as without data; more --windows reach more of them",
    )


def make_card(
    model: PreTrainedModel,
    recipe: Recipe,
    layers: list[LayerReport],
    *,
    seconds: float,
    key: str = "",
    name: str = "",
    fingerprint: str = "",
    calibration: dict[str, object] | None = None,
    size: int = 0,
    warnings: tuple[str, ...] = (),
    decoder: str = "",
    recovery: dict[str, object] | None = None,
    plan: dict[str, Any] | None = None,
) -> Card:
    """The card of what a walk did.

    Args:
        model: Compressed.
        recipe: What it was compressed by.
        layers: Of all blocks, their block's number in front of their name.
        seconds: Time of the walk.
        key: The artifact's; empty where nothing is stored, as `fingerprint` of the model's files.
        name: Of the model; empty: as its config says.
        fingerprint: Of the model's files.
        calibration: How it was calibrated, as JSON; None for methods that look at no data.
        size: Bytes on disk.
        warnings: Sentences for the reader.
        decoder: What turned the model's own quantized files into weights.
        recovery: What a recovery did, as JSON.
        plan: What a planner decided, as JSON.
    """
    weights = sum(layer.rows * layer.cols for layer in layers)
    return Card(
        key=key,
        model=name or model.config.name_or_path,
        fingerprint=fingerprint,
        recipe=recipe.text,
        resolved=methods.payload(recipe),
        calibration=calibration,
        dtype=str(model.dtype).removeprefix("torch."),
        device=model.device.type,
        blocks=len(decoder_blocks(model)),
        weights=weights,
        zeros=sum(layer.zeros for layer in layers),
        bytes=size,
        dense_bytes=weights * model.dtype.itemsize,
        seconds=seconds,
        created=now(),
        versions=versions(),
        layers=tuple(layers),
        warnings=warnings,
        decoder=decoder,
        host=host(),
        recovery=recovery,
        plan=plan,
        left=_left(model),
    )


def _left(model: PreTrainedModel) -> dict[str, Any]:
    """What of the blocks was left as it is, by reason, for a card."""
    reasons: dict[str, Any] = {}
    for left in left_alone(model):
        part = reasons.setdefault(left.reason, {"weights": 0, "names": []})
        part["weights"] += left.weights
        name = f"*.{left.path.partition('.')[2]}"
        if name not in part["names"]:
            part["names"].append(name)
    return reasons
