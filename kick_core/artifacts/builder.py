"""Where artifacts are made: one open model, one calibration, one store.

What is there is never made again; what was stopped goes on at its block; what another process makes is
waited for. With dense propagation all recipes that look at data are made in one pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kick_core import methods, timing
from kick_core.artifacts import planners
from kick_core.artifacts.loaded_model import OpenModel, artifact_key, calibration_facts, dense_key, open_for
from kick_core.compression import block_files, codec
from kick_core.compression.calibration import token_windows, window_length
from kick_core.compression.recovery import adapters
from kick_core.compression.resume import InputsDiffer, Resume
from kick_core.compression.walk import (
    Walked,
    few_tokens,
    make_card,
    needs_data,
    walk,
    walk_many,
)
from kick_core.errors import BadRequest, KickError
from kick_core.methods import storage
from kick_core.methods.recovery_options import Recovery
from kick_core.models import gguf
from kick_core.models.blocks import decoder_blocks
from kick_core.models.source import settled
from kick_core.records import BlockReport, Card, LayerPlan, LayerReport, PlanProgress
from kick_core.spec import DENSE, Calibration, IntGrid, ModelRef, Recipe, parse
from kick_core.store import Store, open_store, weight_artifacts
from kick_core.store.block_writer import BlockWriter, Content
from kick_core.store.files import Buffers, free_bytes, require_space
from kick_core.store.weight_artifacts import NextInputs, Stage

_SPACE_MARGIN = 1.1
"""Space demanded on disk over what will be written."""
_ANEW = "begun anew: the blocks that were finished give other activations on this machine"


@dataclass
class ArtifactBuilder:
    """One open model, one calibration, one store: where artifacts are made.

    `inputs_share` is the part of a block's work that keeping the next one's inputs may take beside it; where it takes
    more, who goes on works them out again.
    """

    store: Store
    opened: OpenModel
    calibration: Calibration
    inputs_share: float = 0.05
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
        try:
            reports = yield from self._walk_on(recipe, stage, plan)
        except InputsDiffer:
            stage.begin_anew()
            opened.restore_dense()
            opened.active_key = f"unfinished {key}"
            reports = yield from self._walk_on(recipe, stage, plan, _ANEW)
        with timing.stage("seal"):
            self._seal(stage, recipe, reports, time.perf_counter() - began, plan.facts if plan else None)
        opened.active_key = key

    def _walk_on(
        self, recipe: Recipe, stage: Stage, plan: LayerPlan | None, note: str = ""
    ) -> Generator[BlockReport, None, list[BlockReport]]:
        """Walk over the blocks that are not finished. A report may come a moment before its block is on the disk.

        Raises:
            InputsDiffer: The finished blocks cannot be built upon.
        """
        opened, reports = self.opened, self._finished(stage, recipe)
        yield from reports
        if reports and len(reports) == reports[0].blocks:
            self._apply_whole(stage, reports)
            return reports
        ids = self.ids().to(opened.model.device) if needs_data(recipe) else None
        with BlockWriter(self.inputs_share) as writer:
            for walked in walk(
                opened.model, recipe, ids, propagate=self.calibration.propagate, hold=opened.hold, plan=plan,
                resume=self._resume(stage, recipe, reports), min_tokens=self.calibration.min_tokens,
                before_method=writer.wait,
            ):  # fmt: skip
                report, note = (replace(walked.report, note=note) if note else walked.report), ""
                writer.add(stage, report, _content(walked, keep=self._keeps_inputs(recipe, walked, writer)))
                reports.append(report)
                yield report
        return reports

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
            stage.add(report, block_files.content(block_files.sent_to_host(written)()))
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
            layers.append(replace(told[name], name=matrix.name, zeros=zeros, loss=None))
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
            require_space(self.store.root, sum(self._expected_bytes(recipe) for recipe, _ in ours))
            plans = {}
            for recipe, stage in ours:
                for told in (planning := _Told(self._planned(recipe, stage))):
                    yield recipe, told
                plans[recipe] = planning.found
            try:
                reports = yield from self._walk_many(dict(ours), plans)
            except InputsDiffer:
                for _, stage in ours:
                    stage.begin_anew()
                reports = yield from self._walk_many(dict(ours), plans, _ANEW)
            with timing.stage("seal"):
                for recipe, stage in ours:
                    plan = plans[recipe]
                    seconds = sum(report.seconds for report in reports[recipe])
                    self._seal(stage, recipe, reports[recipe], seconds, plan.facts if plan else None)

    def _walk_many(
        self, stages: dict[Recipe, Stage], plans: dict[Recipe, LayerPlan | None], note: str = ""
    ) -> Generator[tuple[Recipe, BlockReport], None, dict[Recipe, list[BlockReport]]]:
        """`_walk_on` for many recipes in one dense pass."""
        opened = self.opened
        reports = {recipe: self._finished(stage, recipe) for recipe, stage in stages.items()}
        for recipe, finished in reports.items():
            yield from ((recipe, report) for report in finished)
        notes = dict.fromkeys(stages, note)
        with BlockWriter() as writer:
            for recipe, walked in walk_many(
                opened.model, list(stages), self.ids().to(opened.model.device), hold=opened.hold,
                plans={recipe: plan for recipe, plan in plans.items() if plan is not None},
                resume={recipe: _resume_at(stages[recipe], found) for recipe, found in reports.items()},
                min_tokens=self.calibration.min_tokens, before_method=writer.wait,
            ):  # fmt: skip
                note, notes[recipe] = notes[recipe], ""
                report = replace(walked.report, note=note) if note else walked.report
                writer.add(stages[recipe], report, _content(walked, keep=False))
                reports[recipe].append(report)
                yield recipe, report
        return reports

    def _seal(
        self,
        stage: Stage,
        recipe: Recipe,
        reports: list[BlockReport],
        seconds: float,
        plan: dict[str, Any] | None = None,
        recovery: dict[str, Any] | None = None,
    ) -> None:
        layers = [replace(layer, name=f"{report.block}.{layer.name}") for report in reports for layer in report.layers]
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

    def _finished(self, stage: Stage, recipe: Recipe) -> list[BlockReport]:
        """The finished blocks of a stopped make; none where an older program left them, which took no digest."""
        reports = stage.reports()
        followed = [report.block for report in reports if report.block + 1 < report.blocks]
        if not needs_data(recipe) or all(stage.next_inputs(block) for block in followed):
            return reports
        stage.begin_anew()
        return []

    def _resume(self, stage: Stage, recipe: Recipe, reports: Sequence[BlockReport]) -> Resume:
        """Where a stopped make goes on, at the last inputs that were kept."""
        if not needs_data(recipe):
            self._apply_whole(stage, reports)
            return Resume(len(reports))
        found = _resume_at(stage, reports)
        if saved := stage.saved_input(len(reports)):
            found = replace(found, saved=saved[0], **load_file(saved[1]))
        return replace(found, apply=lambda block: self._apply_finished(stage, block))

    def _apply_whole(self, stage: Stage, reports: Sequence[BlockReport]) -> None:
        for report in reports if not self.opened.streamed else ():
            self._apply_finished(stage, report.block)

    def _apply_finished(self, stage: Stage, block: int) -> None:
        self.opened.apply_block(block, load_file(stage.block_file(block)))

    def _keeps_inputs(self, recipe: Recipe, walked: Walked, writer: BlockWriter) -> bool:
        """Whether the next block's inputs are kept, so that who goes on need not work them out: where there is time and
        room for it."""
        if walked.hidden is None or not walked.alone:
            return False
        size = walked.hidden.nbytes * (1 if walked.dense is None else 2)
        room = free_bytes(self.store.root) - self._expected_bytes(recipe)
        return 2 * size < room and writer.affords(size, walked.report.seconds)

    def _expected_bytes(self, recipe: Recipe) -> int:
        """Bytes that an artifact takes, and a tenth more."""
        matrices = [matrix.read() for matrix in self.opened.block_matrices(0)]
        shapes = [storage.Shape(*matrix.shape) for matrix in matrices]
        block = storage.size(methods.resolve(recipe), shapes, matrices[0].element_size()).stored
        return int(_SPACE_MARGIN * len(decoder_blocks(self.opened.model)) * block)

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


def _resume_at(stage: Stage, reports: Sequence[BlockReport]) -> Resume:
    known = [stage.next_inputs(report.block) for report in reports]
    batches = [following.batches for following in known if following is not None]
    last = known[-1] if known else None
    return Resume(len(reports), batches=batches, digest=last.digest if last else "")


def _content(walked: Walked, *, keep: bool) -> Content:
    """A block as its writer takes it: on its way to the host, without a hold on what it was made of."""
    with timing.stage("encode"):
        tensors = block_files.sent_to_host(codec.encode_block(walked.results))
    saved: Callable[[], dict[str, Tensor]] | None = None
    if keep:
        streams = {"hidden": walked.hidden, "dense": walked.dense}
        saved = block_files.sent_to_host({name: states for name, states in streams.items() if states is not None})
    digest, batches = walked.digest, walked.batches

    def content() -> tuple[Buffers, NextInputs | None]:
        inputs = block_files.content(saved()) if saved else None
        return block_files.content(tensors()), NextInputs(digest, batches, inputs) if digest else None

    return content


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
