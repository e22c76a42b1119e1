"""What a sweep opens before its first cell: the model's weights and every task's questions, side by side.

Of a large model each takes seconds, like the hash of its files, and none needs another: reading and copying weights,
hashing and tokenising let go of the interpreter. Only keys need the hash, so that no cell is looked up, and nothing is
made or asked, before it is there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from kick_core import methods, tasks, timing
from kick_core.artifacts import planners
from kick_core.errors import KickError
from kick_core.records import Example
from kick_core.spec import Recipe
from kick_core.sweeps import sweep_keys
from kick_core.sweeps.request import SweepJob

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

    from kick_core.artifacts.loaded_model import Weights
    from kick_core.evaluation import PromptTarget
    from kick_core.models.source import Source
    from kick_core.runs.measure import TaskData
    from kick_core.tasks import PromptSpec

_ROOM = 4
"""Free memory of a GPU over a model's bytes from which it is opened there as a whole: it lies there twice, beside
activations and statistics."""


@dataclass
class Questions:
    """The data of a sweep's tasks, each read once: whether it can be read is asked before the model is opened."""

    _examples: dict[tuple[object, str], tuple[Example, ...]] = field(default_factory=dict)

    def load(self, spec: PromptSpec, data: str) -> tuple[Example, ...]:
        """The examples of a spec's data. Raises what its reader raises."""
        key = (spec.load, data)
        if key not in self._examples:
            self._examples[key] = spec.load(data)
        return self._examples[key]

    def unreadable(self, job: SweepJob) -> dict[str, str]:
        """Tasks whose data cannot be read, with the reason; the others of the sweep do not wait for them.

        Raises:
            KickError: where no task is left, or there is only one.
        """
        skipped: dict[str, str] = {}
        for name in job.tasks if job.data != tasks.POCKET else ():
            try:
                self.load(tasks.get(name, job.data).asking(job.protocol), job.data)
            except KickError as error:
                if len(skipped) + 1 == len(job.tasks):
                    raise
                skipped[name] = str(error)
        return skipped


@dataclass(frozen=True, slots=True)
class Opening:
    """A sweep's model and questions, opened; what the model's files hash to may still be unknown.

    Attributes:
        states: Of the model's files before they were opened (`source.file_states`).
        tokenizer: The model's.
        weights: The model itself.
        data: Each task's examples, running text among them where fidelity is measured on it.
    """

    states: tuple[str, ...]
    tokenizer: PreTrainedTokenizerBase
    weights: Weights
    data: dict[str, TaskData]


def begin(job: SweepJob, source: Source, questions: Questions) -> Opening | None:
    """Open a sweep while the files of its model are being hashed.

    Returns:
        None where that fails: whoever opens the sweep in its turn meets the reason again, where it is reported.
    """
    try:
        skipped = questions.unreadable(job)
        left = tuple(name for name in job.tasks if name not in skipped)
        return open_parts(replace(job, tasks=left), source, questions)
    except Exception:
        return None


def open_parts(job: SweepJob, source: Source, questions: Questions, *, plan_only: bool = False) -> Opening:
    """Open a sweep's model, with its tasks' questions read beside it.

    Args:
        job: What is asked for.
        source: The model's files, hashed or not.
        questions: What was read of the tasks' data before.
        plan_only: Leave the model's blocks on disk.

    Raises:
        BadRequest: For what cannot be evaluated.
        KickError: For files that cannot be opened.
    """
    from kick_core.models.source import context_of, file_states, opening

    states = file_states(source)
    with timing.stage("import"):
        from kick_core.artifacts.loaded_model import open_weights
        from kick_core.evaluation import PromptTarget
        from kick_core.models.loading import open_tokenizer
        from kick_core.models.opener import config_of
    tokenizer = open_tokenizer(source, job.bos)
    with opening(source):
        config = config_of(source)
    target = PromptTarget(tokenizer, context_of(config))
    streamed = plan_only or job.hosted or not _whole(job, source, job.parsed())
    reader = ThreadPoolExecutor(2, "reader")
    reading = reader.submit(_read_tasks, job, target, questions)
    warming = reader.submit(_warm_up, job, config) if job.tasks and not streamed else None
    try:
        weights = open_weights(source, job.dtype, job.device, streamed=streamed)
        data = reading.result()
        if warming:
            warming.result()
        return Opening(states, tokenizer, weights, data)
    finally:
        reader.shutdown(wait=False, cancel_futures=True)


def _warm_up(job: SweepJob, config: PreTrainedConfig) -> None:
    """Make ready what the model will be asked with."""
    import torch

    from kick_core.engine.warmup import warm_up
    from kick_core.models.loading import device_of

    own = getattr(config.get_text_config(), "dtype", None) or torch.float32
    dtype = own if job.dtype == "auto" else getattr(torch, job.dtype)
    with timing.stage("warm-up"):
        warm_up(config, dtype, device_of(job.device))


def _read_tasks(job: SweepJob, target: PromptTarget, questions: Questions) -> dict[str, TaskData]:
    """The examples of every task, and of the running text that fidelity is measured on."""
    from kick_core.runs import measure as runs

    draws = runs.Draws(job.shots, job.fewshot_seed, job.repeats, job.ids, job.subject)
    names = dict.fromkeys([*job.tasks, *([tasks.running_text()] if job.fidelity else [])])
    with timing.stage("questions"):
        return {
            name: runs.task_data(
                tasks.get(name, job.data),
                target,
                job.data,
                job.protocol,
                job.prompting,
                draws if name in job.tasks else None,
                questions.load,
            )
            for name in names
        }


def _whole(job: SweepJob, source: Source, recipes: Sequence[Recipe]) -> bool:
    """Whether the model is opened as a whole: to be evaluated (a plan may do that too), to be trained where it fits
    into memory, or because a GPU has room: its blocks are then sent there once, not whenever one is worked on.
    """
    if job.tasks or job.fidelity or any(map(planners.evaluates, recipes)):
        return True
    size = sum(path.stat().st_size for path in source.weight_files)
    if any((recovery := methods.recovery(recipe)) and recovery.trains for recipe in recipes):
        return size < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if sweep_keys.device(job.device) != "cuda":
        return False
    import torch

    from kick_core.models.loading import device_of

    return torch.cuda.mem_get_info(device_of(job.device))[0] > _ROOM * size
