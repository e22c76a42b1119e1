"""Sealing an artifact: its card, once all its blocks are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kick_core import methods
from kick_core.artifacts.loaded_model import calibration_facts
from kick_core.compression.cards import few_tokens, make_card
from kick_core.models import gguf
from kick_core.records import BlockReport, LayerReport
from kick_core.spec import IntGrid, Recipe
from kick_core.store.staging import Stage

if TYPE_CHECKING:
    from kick_core.artifacts.builder import ArtifactBuilder


def seal(
    builder: ArtifactBuilder,
    stage: Stage,
    recipe: Recipe,
    reports: list[BlockReport],
    seconds: float,
    plan: dict[str, Any] | None = None,
    recovery: dict[str, Any] | None = None,
) -> None:
    """Write the card of an artifact whose blocks are all there.

    Args:
        builder: Of the model.
        stage: Where it is built.
        recipe: Resolved or not.
        reports: One per block.
        seconds: What building it took.
        plan: What a search over the whole model chose.
        recovery: What was trained; where blocks were fitted, the reports say it.
    """
    layers = [replace(layer, name=f"{report.block}.{layer.name}") for report in reports for layer in report.layers]
    stage.seal(
        make_card(
            builder.opened.model,
            recipe,
            layers,
            seconds=seconds,
            key=stage.key,
            name=builder.opened.source.name,
            fingerprint=builder.opened.source.fingerprint,
            calibration=builder.facts(recipe),
            size=stage.bytes(),
            warnings=(*_warnings(builder, recipe, layers), *_notes(reports)),
            decoder=builder.opened.decoder,
            recovery=recovery or _fit(builder, reports),
            plan=plan,
        )
    )


def _fit(builder: ArtifactBuilder, reports: Sequence[BlockReport]) -> dict[str, Any] | None:
    """The record of blocks that were fitted: on which windows, and every block's error before and after."""
    fits = [report.fit for report in reports if report.fit]
    if not fits:
        return None
    before, after = zip(*fits, strict=True)
    return calibration_facts(builder.calibration, builder.ids()) | {"errors_before": before, "errors_after": after}


def _warnings(builder: ArtifactBuilder, recipe: Recipe, layers: list[LayerReport]) -> tuple[str, ...]:
    warnings = [*few_tokens(layers, builder.calibration.min_tokens)]
    target, bits = (recipe.then or recipe).target, gguf.bits_of(builder.opened.source.folder)
    if isinstance(target, IntGrid) and bits is not None and target.bits >= bits:
        origin = gguf.origin(builder.opened.source.folder)
        warnings.append(
            f"the dense weights were decoded from {origin}: they are on a {bits}-bit grid already, "
            f"so rounding them to {target.bits} bits says little"
        )
    if methods.needs(recipe) == "gram":
        tokens, widest = builder.ids().numel(), max(layer.cols for layer in layers)
        if tokens < widest:
            warnings.append(f"{tokens} calibration tokens are fewer than the widest matrix's {widest} inputs")
    return tuple(warnings)


def _notes(reports: Sequence[BlockReport]) -> Iterator[str]:
    """Departures from the plain procedure, block by block."""
    for report in reports:
        if report.note:
            yield f"block {report.block}: {report.note}"
        for layer in report.layers:
            if layer.note:
                yield f"block {report.block}, {layer.name}: {layer.note}"
