"""Building artifacts: one open model, one calibration, one store.

What is in the store is never built again; what was stopped goes on at its block; what another process builds is
waited for. With dense propagation all recipes that look at data are built in one pass.
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
from kick_core.artifacts import planners, sealing, training
from kick_core.artifacts.loaded_model import OpenModel, artifact_key, calibration_facts, dense_key, open_for
from kick_core.compression import block_files, codec
from kick_core.compression.calibration import token_windows
from kick_core.compression.resume import InputsDiffer, Resume
from kick_core.compression.walk import (
    Walked,
    needs_data,
    walk,
    walk_many,
)
from kick_core.methods import storage
from kick_core.models.blocks import decoder_blocks
from kick_core.models.source import settled
from kick_core.records import BlockReport, LayerPlan, PlanProgress
from kick_core.spec import DENSE, Calibration, ModelRef, Recipe, parse
from kick_core.store import Store, open_store, staging, weight_artifacts
from kick_core.store.block_writer import BlockWriter, Content
from kick_core.store.files import Buffers, free_bytes, require_space
from kick_core.store.staging import NextInputs, Stage

_SPACE_MARGIN = 1.1
"""Space demanded on disk over what will be written."""
_ANEW = "begun anew: the blocks that were finished give other activations on this machine"


@dataclass
class ArtifactBuilder:
    """Builds the artifacts of one open model with one calibration into one store.

    Attributes:
        store: The cache.
        opened: The model.
        calibration: What data-aware methods read; defaults that depend on the model are filled in.
        inputs_share: The part of a block's work that keeping the next block's inputs may take beside it; where it takes
            more, a resumed build computes them again.
        training_texts: Token ids [windows, length] that trainings have read, by their settings.
    """

    store: Store
    opened: OpenModel
    calibration: Calibration
    inputs_share: float = 0.05
    _ids: Tensor | None = None
    training_texts: dict[Calibration, Tensor] = field(default_factory=dict)
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
        """The calibration as a recipe's key and card hold it; None where the recipe looks at no data.

        Args:
            recipe: Resolved or not.
        """
        return calibration_facts(self.calibration, self.ids()) if needs_data(recipe) else None

    def key(self, recipe: Recipe) -> str:
        """The key of the weights under a recipe, built or not; computed once, because a sweep needs it for every cell.

        Args:
            recipe: Resolved or not.
        """
        if recipe not in self._keys:
            self._keys[recipe] = self._computed_key(recipe)
        return self._keys[recipe]

    def _computed_key(self, recipe: Recipe) -> str:
        if recipe == DENSE:
            return dense_key(self.opened)
        recovery = methods.recovery(recipe)
        text = training.text(self, recovery) if recovery and recovery.trains else None
        return artifact_key(self.opened, recipe, self.facts(recipe), text)

    def built(self, recipe: Recipe) -> bool:
        """Whether a recipe's weights are in the store; dense always are.

        Args:
            recipe: Resolved or not.
        """
        return recipe == DENSE or weight_artifacts.has(self.store, self.key(recipe))

    def apply_recipe(self, recipe: Recipe) -> None:
        """Apply the weights of a recipe that is built already to the model.

        Args:
            recipe: Dense or any other.

        Raises:
            KickError: The artifact is not there, or damaged.
        """
        if recipe == DENSE:
            self.opened.restore_dense()
        else:
            self.opened.apply_weights(self.store, self.key(recipe))

    def read_ahead(self, recipe: Recipe) -> None:
        """Have a recipe's artifact read while the model is asked; nothing where it is not built, or dense.

        Args:
            recipe: The next one that will be applied.
        """
        if recipe != DENSE and not self.opened.streamed:
            self.opened.ahead.begin(self.store, self.key(recipe))

    def make(self, recipe: Recipe) -> Iterator[BlockReport | PlanProgress]:
        """Build the artifact if it is not there, and apply it to the model.

        A stopped build goes on at its block. If another process builds the same one, this waits and takes it.

        Args:
            recipe: Resolved or not.

        Yields:
            A report per block; before them, of a recipe that looks at the whole model, how far it is with that.

        Raises:
            BadRequest: The recipe cannot be applied to this model or calibration.
            KickError: A matrix cannot be compressed, or the disk has no space.
        """
        methods.resolve(recipe)
        key = self.key(recipe)
        if recipe != DENSE and not weight_artifacts.has(self.store, key):
            recovery = methods.recovery(recipe)
            trained = recovery if recovery and recovery.trains else None
            if trained:
                yield from training.build_base(self, recipe, trained)
            with staging.stage(self.store, key) as stage:
                if stage is not None:
                    if trained:
                        yield from training.train(self, recipe, trained, stage)
                    else:
                        yield from self._walk(recipe, key, stage)
        if not self.opened.streamed:
            self.apply_recipe(recipe)

    def _planned(self, recipe: Recipe, stage: Stage) -> Generator[PlanProgress, None, LayerPlan | None]:
        """What a recipe does to every matrix, where that must be planned: once, kept until the artifact is there.

        The model has its dense weights before and afterwards.
        """
        if not methods.plans(recipe):
            return None
        if (stored := stage.plan()) is not None:
            return stored
        ids = self.ids().to(self.opened.model.device)
        plan = yield from planners.find(
            planners.PlannerContext(self.opened, methods.resolve(recipe), ids, stage.folder)
        )
        stage.keep_plan(plan)
        return plan

    def _walk(self, recipe: Recipe, key: str, stage: Stage) -> Iterator[BlockReport | PlanProgress]:
        opened, began = self.opened, time.perf_counter()
        opened.remember_dense()
        opened.restore_dense()
        require_space(self.store.root, self.expected_bytes(recipe))
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
            sealing.seal(self, stage, recipe, reports, time.perf_counter() - began, plan.facts if plan else None)
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
                writer.add(stage, report, *_content(walked, keep=self._keeps_inputs(recipe, walked, writer)))
                reports.append(report)
                yield report
        return reports

    def make_all(self, recipes: Sequence[Recipe]) -> Iterator[tuple[Recipe, BlockReport | PlanProgress]]:
        """Build all recipes that are missing, look at data and recover nothing in one pass of the dense model.

        The artifacts are those that `make` builds one by one; the model stays dense.

        Args:
            recipes: Of a calibration with `propagate="dense"`.

        Yields:
            A report per recipe and block.
        """
        calibrated = {r for r in recipes if needs_data(r) and not methods.recovery(r)}
        missing = sorted({r for r in calibrated if not self.built(r)}, key=self.key)
        opened = self.opened
        opened.remember_dense()
        opened.restore_dense()
        with ExitStack() as locks:
            stages = [(r, locks.enter_context(staging.stage(self.store, self.key(r)))) for r in missing]
            staged = [(recipe, stage) for recipe, stage in stages if stage is not None]
            if not staged:
                return
            require_space(self.store.root, sum(self.expected_bytes(recipe) for recipe, _ in staged))
            plans = {}
            for recipe, stage in staged:
                for progress in (planning := _PlanInProgress(self._planned(recipe, stage))):
                    yield recipe, progress
                plans[recipe] = planning.plan
            try:
                reports = yield from self._walk_many(dict(staged), plans)
            except InputsDiffer:
                for _, stage in staged:
                    stage.begin_anew()
                reports = yield from self._walk_many(dict(staged), plans, _ANEW)
            with timing.stage("seal"):
                for recipe, stage in staged:
                    plan = plans[recipe]
                    seconds = sum(report.seconds for report in reports[recipe])
                    sealing.seal(self, stage, recipe, reports[recipe], seconds, plan.facts if plan else None)

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
                resume={recipe: _resume_at(stages[recipe], finished) for recipe, finished in reports.items()},
                min_tokens=self.calibration.min_tokens, before_method=writer.wait,
            ):  # fmt: skip
                note, notes[recipe] = notes[recipe], ""
                report = replace(walked.report, note=note) if note else walked.report
                writer.add(stages[recipe], report, *_content(walked, keep=False))
                reports[recipe].append(report)
                yield recipe, report
        return reports

    def _finished(self, stage: Stage, recipe: Recipe) -> list[BlockReport]:
        """The finished blocks of a stopped build; none where an older program left them, which took no digest."""
        reports = stage.reports()
        followed = [report.block for report in reports if report.block + 1 < report.blocks]
        if not needs_data(recipe) or all(stage.next_inputs(block) for block in followed):
            return reports
        stage.begin_anew()
        return []

    def _resume(self, stage: Stage, recipe: Recipe, reports: Sequence[BlockReport]) -> Resume:
        """Where a stopped build goes on, at the last inputs that were kept."""
        if not needs_data(recipe):
            self._apply_whole(stage, reports)
            return Resume(len(reports))
        resume = _resume_at(stage, reports)
        if saved := stage.saved_input(len(reports)):
            resume = replace(resume, saved=saved[0], **load_file(saved[1]))
        return replace(resume, apply=lambda block: self._apply_finished(stage, block))

    def _apply_whole(self, stage: Stage, reports: Sequence[BlockReport]) -> None:
        for report in reports if not self.opened.streamed else ():
            self._apply_finished(stage, report.block)

    def _apply_finished(self, stage: Stage, block: int) -> None:
        self.opened.apply_block(block, load_file(stage.block_file(block)))

    def _keeps_inputs(self, recipe: Recipe, walked: Walked, writer: BlockWriter) -> bool:
        """Whether the next block's inputs are kept, so that a resumed build need not compute them: where there is time
        and disk space for it."""
        if walked.hidden is None or not walked.alone:
            return False
        size = walked.hidden.nbytes * (1 if walked.dense is None else 2)
        room = free_bytes(self.store.root) - self.expected_bytes(recipe)
        return 2 * size < room and writer.affords(size, walked.report.seconds)

    def expected_bytes(self, recipe: Recipe) -> int:
        """Bytes that an artifact takes, and a tenth more.

        Args:
            recipe: Resolved or not.
        """
        matrices = [matrix.read() for matrix in self.opened.block_matrices(0)]
        shapes = [storage.Shape(*matrix.shape) for matrix in matrices]
        block = storage.size(methods.resolve(recipe), shapes, matrices[0].element_size()).stored
        return int(_SPACE_MARGIN * len(decoder_blocks(self.opened.model)) * block)


@dataclass(slots=True)
class _PlanInProgress:
    """A plan in progress as an iterator that keeps the generator's result."""

    making: Generator[PlanProgress, None, LayerPlan | None]
    plan: LayerPlan | None = None

    def __iter__(self) -> Iterator[PlanProgress]:
        self.plan = yield from self.making


def _resume_at(stage: Stage, reports: Sequence[BlockReport]) -> Resume:
    known = [stage.next_inputs(report.block) for report in reports]
    batches = [following.batches for following in known if following is not None]
    last = known[-1] if known else None
    return Resume(len(reports), batches=batches, digest=last.digest if last else "")


def _content(walked: Walked, *, keep: bool) -> tuple[Content, int]:
    """A block as its writer takes it, and its bytes: on its way to the host, without a hold on what it was made of."""
    with timing.stage("encode"):
        encoded = codec.encode_block(walked.results)
        tensors = block_files.sent_to_host(encoded)
    saved: Callable[[], dict[str, Tensor]] | None = None
    streams = {"hidden": walked.hidden, "dense": walked.dense} if keep else {}
    states = {name: states for name, states in streams.items() if states is not None}
    if states:
        saved = block_files.sent_to_host(states)
    size = sum(tensor.nbytes for tensor in (*encoded.values(), *states.values()))
    digest, batches = walked.digest, walked.batches

    def content() -> tuple[Buffers, NextInputs | None]:
        inputs = block_files.content(saved()) if saved else None
        return block_files.content(tensors()), NextInputs(digest, batches, inputs) if digest else None

    return content, size


def load(
    model: str | ModelRef,
    recipe: str | Recipe = "dense",
    cache: str | None = None,
    *,
    calibration: Calibration | None = None,
    device: str = "auto",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a model under a recipe, ready to use; the compressed weights come from the cache, or are built now and kept.

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
