"""Where artifacts are made: one open model, one calibration, one store.

What is there is never made again; what was stopped goes on at its block; what another process makes is
waited for. With dense propagation all recipes that look at data are made in one pass.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kick_core import methods, timing
from kick_core.artifacts import planners
from kick_core.artifacts.loaded_model import OpenModel, artifact_key, calibration_facts, dense_key, open_for
from kick_core.compression import codec
from kick_core.compression.calibration import token_windows, window_length
from kick_core.compression.recovery import adapters
from kick_core.compression.walk import Walked, few_tokens, make_card, needs_data, walk, walk_many
from kick_core.errors import BadRequest, KickError
from kick_core.methods import storage
from kick_core.methods.recovery_options import Recovery
from kick_core.models import gguf
from kick_core.models.blocks import decoder_blocks
from kick_core.models.source import settled
from kick_core.records import BlockReport, Card, LayerPlan, LayerReport, PlanProgress
from kick_core.spec import DENSE, Calibration, IntGrid, ModelRef, Recipe, parse
from kick_core.store import Store, open_store, weight_artifacts
from kick_core.store.files import require_space
from kick_core.store.weight_artifacts import Stage

_SPACE_MARGIN = 1.1
"""Space demanded on disk over what will be written."""


@dataclass
class ArtifactBuilder:
    """One open model, one calibration, one store: where artifacts are made."""

    store: Store
    opened: OpenModel
    calibration: Calibration
    _ids: Tensor | None = None
    _trained_on: dict[Calibration, Tensor] = field(default_factory=dict)
    _keys: dict[Recipe, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.calibration = settled(self.calibration, self.opened.source.name)

    def ids(self) -> Tensor:
        """The calibration tokens, read once."""
        if self._ids is None:
            with timing.stage("calibration"):
                self._ids = token_windows(self.calibration, self.opened.tokenizer, self.opened.source.context)
        return self._ids

    def facts(self, recipe: Recipe) -> dict[str, Any] | None:
        return calibration_facts(self.calibration, self.ids()) if needs_data(recipe) else None

    def key(self, recipe: Recipe) -> str:
        """The key of the weights under a recipe, made or not; computed once, because a sweep asks for it per cell."""
        if recipe not in self._keys:
            self._keys[recipe] = self._computed_key(recipe)
        return self._keys[recipe]

    def _computed_key(self, recipe: Recipe) -> str:
        if recipe == DENSE:
            return dense_key(self.opened)
        how = methods.recovery(recipe)
        return artifact_key(self.opened, recipe, self.facts(recipe), self._text(how) if how and how.trains else None)

    def made(self, recipe: Recipe) -> bool:
        return recipe == DENSE or weight_artifacts.has(self.store, self.key(recipe))

    def apply_recipe(self, recipe: Recipe) -> None:
        """Let the model wear a recipe that is made already."""
        if recipe == DENSE:
            self.opened.restore_dense()
        else:
            self.opened.apply_weights(self.store, self.key(recipe))

    def make(self, recipe: Recipe) -> Iterator[BlockReport | PlanProgress]:
        """Make the artifact if it is not there, yielding a report per block; the model wears it afterwards.

        A recipe that looks at the whole model first tells how far it is with that. A stopped make goes on at its block.
        If another process makes the same one, this waits and takes it.
        """
        methods.resolve(recipe)
        key = self.key(recipe)
        if recipe != DENSE and not weight_artifacts.has(self.store, key):
            how = methods.recovery(recipe)
            if how and how.trains:
                yield from self._begun(recipe, how)
            with weight_artifacts.stage(self.store, key) as stage:
                if stage is not None:
                    yield from self._train(recipe, how, stage) if how and how.trains else self._walk(recipe, key, stage)
        if not self.opened.streamed:
            self.apply_recipe(recipe)

    def _planned(self, recipe: Recipe, stage: Stage) -> Generator[PlanProgress, None, LayerPlan | None]:
        """What a recipe does to every matrix, where that must be planned; found once, kept until the artifact is there.

        The model wears its dense weights before and afterwards.
        """
        if not methods.plans(recipe):
            return None
        if (kept := stage.plan()) is not None:
            return kept
        ids = self.ids().to(self.opened.model.device)
        found = yield from planners.find(
            planners.PlannerContext(self.opened, methods.resolve(recipe), ids, stage.folder)
        )
        stage.keep_plan(found)
        return found

    def _walk(self, recipe: Recipe, key: str, stage: Stage) -> Iterator[BlockReport | PlanProgress]:
        opened, began = self.opened, time.perf_counter()
        opened.remember_dense()
        opened.restore_dense()
        require_space(self.store.root, self._expected_bytes(recipe))
        plan = yield from self._planned(recipe, stage)
        opened.active_key = f"unfinished {key}"
        reports, inputs = self._resume(stage, recipe)
        yield from reports
        ids = self.ids().to(opened.model.device) if needs_data(recipe) else None
        propagate = self.calibration.propagate
        for walked in walk(
            opened.model, recipe, ids, propagate=propagate, start=len(reports), hold=opened.hold, plan=plan,
            min_tokens=self.calibration.min_tokens, **inputs,
        ):  # fmt: skip
            stage.add(walked.report, _block_bytes(walked), _hidden_bytes(walked))
            reports.append(walked.report)
            yield walked.report
        self._seal(stage, recipe, reports, time.perf_counter() - began, plan.facts if plan else None)
        opened.active_key = key

    # --- recovery by training ---

    def _begun(self, recipe: Recipe, how: Recovery) -> Iterator[BlockReport | PlanProgress]:
        """Make what a training starts from. It is kept like any artifact: whoever recovers wants to compare."""
        if self.opened.streamed:
            raise KickError(
                f"recover={how.kind} trains the model as a whole, and this one is worked on from disk, block by block: "
                f"use recover=blocks, or a machine whose memory it fits"
            )
        adapters.require(how.kind)
        yield from self.make(methods.unrecovered(recipe))

    def _text_of(self, how: Recovery) -> Calibration:
        """The windows that a training reads, as a calibration of their own."""
        length = window_length(self.calibration, self.opened.source.context)
        source = self.calibration.source if how.text == "calibration" else how.text
        return Calibration(source, windows=max(1, how.tokens // length), length=length, seed=how.seed)

    def _text(self, how: Recovery) -> Tensor:
        asked = self._text_of(how)
        if asked not in self._trained_on:
            ids = token_windows(asked, self.opened.tokenizer, self.opened.source.context)
            if len(ids) < asked.most_windows:
                raise BadRequest(
                    f"{asked.source} gives {ids.numel():,} tokens to recover on, {how.tokens:,} were asked for: "
                    f"use recover_tokens={ids.numel()} or less"
                )
            self._trained_on[asked] = ids
        return self._trained_on[asked]

    def _train(self, recipe: Recipe, how: Recovery, stage: Stage) -> Iterator[BlockReport | PlanProgress]:
        """Train updates of the unrecovered artifact, then write its blocks anew with them. A stopped training goes on
        from the last state that it kept."""
        opened, began, base = self.opened, time.perf_counter(), methods.unrecovered(recipe)
        self.apply_recipe(base)
        require_space(self.store.root, self._expected_bytes(recipe))
        start, ids = weight_artifacts.card(self.store, self.key(base)), self._text(how)
        masks = {
            f"{block}.{matrix.name}": matrix.read() != 0
            for block in range(start.blocks)
            for matrix in opened.block_matrices(block)
            if base.target and not isinstance(base.target, IntGrid)
        }
        outcome = adapters.Outcome()
        for at in adapters.train(opened.model, masks, ids, how, outcome, stage.state()):
            if at.state is not None:
                stage.keep_state(at.step, at.state)
            told = f"training: step {at.step} of {at.steps}, {at.loss:.3f} nats a token"
            yield BlockReport((at.step - 1) * start.blocks // at.steps, start.blocks, (), 0.0, note=told)
        reports = []
        for block in range(start.blocks):
            tensors = weight_artifacts.tensors(self.store, start.key, block, "pt")
            report, written = self._rewritten(block, start, tensors, masks, outcome)
            stage.add(report, save(written), None)
            reports.append(report)
        losses, few = outcome.losses, max(1, len(outcome.losses) // 8)
        facts = {"first_loss": sum(losses[:few]) / few, "last_loss": sum(losses[-few:]) / few}
        self._seal(
            stage,
            recipe,
            reports,
            time.perf_counter() - began,
            start.plan,
            recovery=calibration_facts(self._text_of(how), ids) | facts,
        )

    def _rewritten(
        self, block: int, start: Card, tensors: dict[str, Tensor], masks: dict[str, Tensor], outcome: adapters.Outcome
    ) -> tuple[BlockReport, dict[str, Tensor]]:
        """One block with its updates, and what is known of its matrices: not their loss, which is another now."""
        written: dict[str, Tensor] = {}
        layers = []
        told = {layer.name: layer for layer in start.layers}
        for matrix in self.opened.block_matrices(block):
            name = f"{block}.{matrix.name}"
            update, worn = outcome.updates[name], matrix.read()
            made = codec.updated(matrix.name, worn, tensors, update.left, update.right, masks.get(name))
            weight = codec.decode(matrix.name, worn, {key: value.to(worn.device) for key, value in made.items()})
            zeros = weight.numel() - int(weight.count_nonzero())
            layers.append(dataclasses.replace(told[name], name=matrix.name, zeros=zeros, loss=None))
            written |= made
        return BlockReport(block, start.blocks, tuple(layers), 0.0), written

    # --- many at once, sealing ---

    def make_all(self, recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, BlockReport | PlanProgress]]:
        """Make all recipes that are missing and recover nothing in one dense pass; yields a report a recipe and block.

        Needs `propagate="dense"`. The artifacts are those that `make` makes one by one; the model stays dense.
        """
        alike = {r for r in recipes if needs_data(r) and not methods.recovery(r)}
        missing = sorted({r for r in alike if not self.made(r)}, key=self.key)
        opened = self.opened
        opened.remember_dense()
        opened.restore_dense()
        with ExitStack() as locks:
            stages = [(r, locks.enter_context(weight_artifacts.stage(self.store, self.key(r)))) for r in missing]
            ours = [(recipe, stage) for recipe, stage in stages if stage is not None]
            if not ours:
                return
            reports = {recipe: stage.reports() for recipe, stage in ours}
            start = min(len(found) for found in reports.values())
            require_space(self.store.root, sum(self._expected_bytes(recipe, hidden=False) for recipe, _ in ours))
            plans = {}
            for recipe, stage in ours:
                for told in (planning := _Told(self._planned(recipe, stage))):
                    yield recipe, told
                plans[recipe] = planning.found
            ids = self.ids().to(opened.model.device)
            places, needed = dict(ours), {recipe: plan for recipe, plan in plans.items() if plan is not None}
            for recipe, one in walk_many(
                opened.model,
                list(places),
                ids,
                start=start,
                hold=opened.hold,
                plans=needed,
                min_tokens=self.calibration.min_tokens,
            ):
                if one.report.block == len(reports[recipe]):
                    places[recipe].add(one.report, _block_bytes(one), None)
                    reports[recipe].append(one.report)
                yield recipe, one.report
            for recipe, stage in ours:
                plan = plans[recipe]
                seconds = sum(report.seconds for report in reports[recipe])
                self._seal(stage, recipe, reports[recipe], seconds, plan.facts if plan else None)

    def _seal(
        self,
        stage: Stage,
        recipe: Recipe,
        reports: list[BlockReport],
        seconds: float,
        plan: dict[str, Any] | None = None,
        recovery: dict[str, Any] | None = None,
    ) -> None:
        layers = [
            dataclasses.replace(layer, name=f"{report.block}.{layer.name}")
            for report in reports
            for layer in report.layers
        ]
        stage.seal(
            make_card(
                self.opened.model,
                recipe,
                layers,
                seconds=seconds,
                key=stage.key,
                name=self.opened.source.name,
                fingerprint=self.opened.source.fingerprint,
                calibration=self.facts(recipe),
                size=stage.bytes(),
                warnings=(*self._warnings(recipe, layers), *_noted(reports)),
                decoder=self.opened.decoder,
                recovery=recovery or self._fit(recipe, reports),
                plan=plan,
            )
        )

    def _fit(self, recipe: Recipe, reports: Sequence[BlockReport]) -> dict[str, Any] | None:
        """What a card tells of blocks that were fitted: on which windows, and every block's error before and after."""
        fits = [report.fit for report in reports if report.fit]
        if not fits:
            return None
        before, after = zip(*fits, strict=True)
        return calibration_facts(self.calibration, self.ids()) | {"errors_before": before, "errors_after": after}

    def _resume(self, stage: Stage, recipe: Recipe) -> tuple[list[BlockReport], dict[str, Tensor]]:
        """Put the whole leading blocks of a stopped make on; returns their reports and the next block's inputs."""
        reports = stage.reports()
        if not reports:
            return [], {}
        inputs: dict[str, Tensor] = {}
        if needs_data(recipe):
            saved = stage.next_input(len(reports))
            if saved is None and len(reports) < reports[0].blocks:
                return [], {}
            inputs = load_file(saved) if saved else {}
        for report in reports if not self.opened.streamed else ():
            self.opened.apply_block(report.block, load_file(stage.block_file(report.block)))
        return reports, inputs

    def _expected_bytes(self, recipe: Recipe, *, hidden: bool = True) -> int:
        """Bytes that making an artifact writes, and a tenth more.

        Args:
            recipe: The recipe.
            hidden: Whether the inputs of this and of the next block lie beside it while it is made; with many recipes
                in one pass they are not kept.
        """
        model, matrices = self.opened.model, [matrix.read() for matrix in self.opened.block_matrices(0)]
        itemsize = matrices[0].element_size()
        block = storage.size(methods.resolve(recipe), [storage.Shape(*m.shape) for m in matrices], itemsize).stored
        written = len(decoder_blocks(model)) * block
        if hidden and needs_data(recipe):
            written += 2 * self.ids().numel() * model.config.get_text_config().hidden_size * itemsize
        return int(_SPACE_MARGIN * written)

    def _warnings(self, recipe: Recipe, layers: list[LayerReport]) -> tuple[str, ...]:
        warnings = [*few_tokens(layers, self.calibration.min_tokens)]
        target, bits = (recipe.then or recipe).target, gguf.bits_of(self.opened.source.folder)
        if isinstance(target, IntGrid) and bits is not None and target.bits >= bits:
            origin = gguf.origin(self.opened.source.folder)
            warnings.append(
                f"the dense weights were decoded from {origin}: they are on a {bits}-bit grid already, "
                f"so rounding them to {target.bits} bits says little"
            )
        if methods.needs(recipe) == "gram":
            tokens, widest = self.ids().numel(), max(layer.cols for layer in layers)
            if tokens < widest:
                warnings.append(f"{tokens} calibration tokens are fewer than the widest matrix's {widest} inputs")
        return tuple(warnings)


@dataclass(slots=True)
class _Told:
    """A plan in the making as an iterator that keeps what it came to."""

    making: Generator[PlanProgress, None, LayerPlan | None]
    found: LayerPlan | None = None

    def __iter__(self) -> Iterator[PlanProgress]:
        self.found = yield from self.making


def _noted(reports: Sequence[BlockReport]) -> Iterator[str]:
    """What departed from the plain procedure, block by block."""
    for report in reports:
        if report.note:
            yield f"block {report.block}: {report.note}"
        for layer in report.layers:
            if layer.note:
                yield f"block {report.block}, {layer.name}: {layer.note}"


def _block_bytes(walked: Walked) -> bytes:
    return save(codec.encode_block(walked.results))


def _hidden_bytes(walked: Walked) -> bytes | None:
    if walked.hidden is None or not walked.alone or walked.report.block + 1 == walked.report.blocks:
        return None
    inputs = {"hidden": walked.hidden} | ({} if walked.dense is None else {"dense": walked.dense})
    return save({name: states.cpu().contiguous() for name, states in inputs.items()})


def load(
    model: str | ModelRef,
    recipe: str | Recipe = "dense",
    cache: str | None = None,
    *,
    calibration: Calibration | None = None,
    device: str = "auto",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model under a recipe, ready to use; the compressed weights come from the cache, or are made now and kept.

    Args:
        model: `pocket`, `pocket-4m`, a folder in hub layout, a hub id, or a ModelRef.
        recipe: its text form, e.g. `gptq@4bit`, or a Recipe; `dense` is the model as it is.
        cache: the cache's folder; None is `KICK_CACHE`, else the default cache.
        calibration: the text that data-aware methods look at; None is the default Calibration.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The transformers model, in evaluation mode, and its tokenizer.

    Raises:
        BadRequest: the model, recipe, calibration or device is unknown or does not fit.
        KickError: the model cannot be read, or the cache cannot be used.
    """
    ref = model if isinstance(model, ModelRef) else ModelRef(model)
    store = open_store(cache)
    builder = ArtifactBuilder(store, open_for(ref, store, device), calibration or Calibration())
    for _ in builder.make(parse(recipe)):
        pass
    return builder.opened.model, builder.opened.tokenizer
