"""What a sweep is, before it is run: the keys of its cells, the sizes of its model and the lengths of its prompts.

The keys of artifacts and runs hold hashes of calibration tokens and of windows. Those need the tokenizer, which brings
torch: seconds, for a plan that has nothing left to do. So whoever opens a sweep notes its `SweepKeys` in `plans/`
(they are small), in a file whose name is made of everything that they follow from: the model's files, the request, the
files of the calibration and the data, and this program's own. Whatever changes, the note is simply not found. A note
only plans; a cell that is run computes its own key again.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import kick_core
from kick_core import keys, stats, tasks
from kick_core.models.source import find
from kick_core.spec import DENSE
from kick_core.store import Store
from kick_core.store.files import replace_file
from kick_core.sweeps.request import SweepJob
from kick_core.tasks.data import task_files

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from kick_core.records import Example
    from kick_core.runs.measure import TaskData
    from kick_core.sweeps.grid import Sweep
    from kick_core.tasks import PromptSpec

SAMPLE = 64
"""Examples of a task whose tokens are counted; they are in random order, so these stand for all."""


@dataclass(frozen=True, slots=True)
class ModelSizes:
    """What work and bytes follow from.

    Attributes:
        parameters: All weights of the model.
        blocks: Decoder blocks.
        matrices: Shapes (out, in) of the linears of one block.
        head: Weights of the output head.
        attention: Width of attention, heads times head size.
        bits: Bits per dense weight.
    """

    parameters: int
    blocks: int
    matrices: tuple[tuple[int, int], ...]
    head: int
    attention: int
    bits: int

    @property
    def prunable(self) -> int:
        """Weights in the linears of all blocks."""
        return self.blocks * sum(rows * cols for rows, cols in self.matrices)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The model of a sweep.

    Attributes:
        name: As the user called it, aliases resolved.
        fingerprint: Hash of its files.
        dtype: Of its weights once open.
        decoder: What decoded files that were quantized already; empty for plain ones.
        device: Kind of device that computes, `cpu` or `cuda`.
        device_name: The device's own name, for its specification; empty where it has none.
        window: Tokens of a perplexity window.
        rows: Most rows of a batch.
        calibration: Calibration tokens.
        sizes: What work and bytes follow from.
        unused_bos: The beginning-of-sequence token, where the tokenizer names it but begins no text with it.
    """

    name: str
    fingerprint: str
    dtype: str
    decoder: str
    device: str
    device_name: str
    window: int
    rows: int
    calibration: int
    sizes: ModelSizes
    unused_bos: str = ""


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """A task's data for one model.

    Attributes:
        examples: Key of its examples.
        total: How many there are.
        kind: As `tasks.PromptSpec.kind`.
        new_tokens: Tokens that one example may write at most, all turns together.
        lengths: For `SAMPLE` examples the length of every sequence read and written, new tokens at their most; of a
            question with options without the beginning that it shares with one before.
    """

    examples: str
    total: int
    kind: str
    new_tokens: float
    lengths: tuple[tuple[int, ...], ...]


Names = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class SweepKeys:
    """The keys of every cell of a sweep, by task and recipe text.

    Attributes:
        model: The model.
        artifacts: Weights key of each recipe.
        runs: Run key of each task and recipe.
        again: Run key of each task for dense in other batches (the noise floor).
        fidelity: Key of each recipe's comparison of distributions.
        texts: Key of each task's and recipe's reading of dense's texts.
        tasks: Each task's data.
        skipped: Tasks that were left out because their data cannot be read, with the reason.
    """

    model: ModelFacts
    artifacts: Names = field(default_factory=dict)
    runs: Mapping[str, Names] = field(default_factory=dict)
    again: Names = field(default_factory=dict)
    fidelity: Names = field(default_factory=dict)
    texts: Mapping[str, Names] = field(default_factory=dict)
    tasks: Mapping[str, TaskFacts] = field(default_factory=dict)
    skipped: Names = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The keys as JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""
        model = dict(data["model"])
        sizes = {**model.pop("sizes")}
        sizes["matrices"] = tuple((rows, cols) for rows, cols in sizes["matrices"])
        facts_of = {
            name: TaskFacts(**{**facts, "lengths": tuple(map(tuple, facts["lengths"]))})
            for name, facts in data["tasks"].items()
        }
        return cls(**{**data, "model": ModelFacts(**model, sizes=ModelSizes(**sizes)), "tasks": facts_of})

    def joined(self, other: Self) -> Self:
        """These keys and the other's, which count where both have one."""
        merged: dict[str, Any] = {}
        for name in (one.name for one in fields(self) if one.name != "model"):
            own, theirs = getattr(self, name), getattr(other, name)
            nested = name in ("runs", "texts")
            merged[name] = {**own, **theirs} if not nested else {
                task: {**own.get(task, {}), **theirs.get(task, {})} for task in {**own, **theirs}
            }  # fmt: skip
        return replace(other, **merged)

    def cover(self, job: SweepJob) -> bool:
        """Whether every cell of a sweep is among them."""
        recipes = [recipe.text for recipe in job.parsed()]

        def whole(names: Names) -> bool:
            return all(text in names for text in recipes)

        if not whole(self.artifacts):
            return False
        if not all(task in self.tasks and whole(self.runs.get(task, {})) for task in job.tasks):
            return False
        if not job.fidelity:
            return True
        read = all(task not in self.texts or whole(self.texts[task]) for task in job.tasks)
        return read and tasks.running_text() in self.tasks and whole(self.fidelity)


def recall(store: Store, job: SweepJob) -> SweepKeys | None:
    """The keys of a sweep, if all of them are known. Opens neither weights nor tokenizer, and needs no torch."""
    if job.hosted:  # which vLLM there is, or how much memory, is seen only by looking
        return None
    known = _noted(_path(store, job))
    return known if known is not None and known.cover(job) else None


def remember(store: Store, sweep: Sweep) -> SweepKeys:
    """Note the keys of an open sweep beside those that were known before.

    Returns:
        The open sweep's own keys.
    """
    path = _path(store, sweep.job)
    known = _noted(path)
    replace_file(path, json.dumps((known.joined(sweep.keys) if known else sweep.keys).to_json()).encode())
    return sweep.keys


def _noted(path: Path) -> SweepKeys | None:
    try:
        return SweepKeys.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # only a memo: it is made again


def keys_of(sweep: Sweep) -> SweepKeys:
    """The keys of an open sweep. `Sweep.keys` holds them once they are computed."""
    loaded = sweep.data | ({sweep.text.task.name: sweep.text} if sweep.text else {})
    known = SweepKeys(
        model=_model(sweep),
        artifacts={recipe.text: sweep.builder.key(recipe) for recipe in sweep.recipes},
        runs={name: {r.text: sweep.card(r, name).key for r in sweep.recipes} for name in sweep.data},
        again={name: sweep.card(DENSE, name, again=True).key for name in sweep.data},
        tasks={name: _task(sweep, data) for name, data in loaded.items()},
    )
    if not sweep.text:
        return known
    from kick_core.runs import dense_replay, fidelity

    builder, session, text = sweep.builder, sweep.session, sweep.text
    return replace(
        known,
        fidelity={r.text: fidelity.card(builder, r, session, text).key for r in sweep.recipes},
        texts={
            name: {r.text: dense_replay.card(builder, r, session, data).key for r in sweep.recipes}
            for name, data in sweep.data.items()
            if data.task.kind in dense_replay.KINDS
        },
    )


def _model(sweep: Sweep) -> ModelFacts:
    from kick_core.models.tokenization import unused_bos

    opened, calibration, device = sweep.builder.opened, sweep.builder.calibration, sweep.builder.opened.model.device
    name = ""
    if device.type == "cuda":
        import torch

        name = torch.cuda.get_device_name(device)
    return ModelFacts(
        name=opened.source.name,
        fingerprint=opened.source.fingerprint,
        dtype=opened.dtype,
        decoder=opened.decoder,
        device=device.type,
        device_name=name,
        window=sweep.session.window,
        rows=sweep.session.plan.rows,
        calibration=calibration.most_windows * (calibration.length or min(2048, opened.source.context)),
        sizes=sizes(opened.model),
        unused_bos=unused_bos(opened.tokenizer),
    )


def sizes(model: PreTrainedModel) -> ModelSizes:
    """The sizes of an open model, or of one on the meta device."""
    from kick_core.models.blocks import decoder_blocks, matrices

    blocks, config = decoder_blocks(model), model.config.get_text_config()
    head = getattr(model.get_output_embeddings(), "weight", None)
    heads = getattr(config, "num_attention_heads", None) or 1  # a recurrence has none
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    shapes = [matrix.read().shape for matrix in matrices(blocks[0])]
    return ModelSizes(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        blocks=len(blocks),
        matrices=tuple((int(rows), int(cols)) for rows, cols in shapes),
        head=0 if head is None else head.numel(),
        attention=width * heads,
        bits=8 * model.dtype.itemsize,
    )


def _task(sweep: Sweep, data: TaskData) -> TaskFacts:
    """A task's facts, with the lengths of some examples."""
    from kick_core.models.tokenization import dialogue, encode

    tokenizer, way, sample = sweep.session.tokenizer, data.spec, data.examples[:SAMPLE]
    lengths: list[tuple[int, ...]] = []
    questions: list[list[int]] = []  # questions that begin alike share one reading of that
    written = 0
    for example in sample:
        match way.kind:
            case "perplexity":
                lengths.append((len(example.meta.get("ids") or encode(tokenizer, example.prompt[0])),))
            case "dialogue":
                turns = range(1, len(example.prompt) + 1)
                replies = [""] * len(example.prompt)
                texts = [dialogue(tokenizer, example.prompt[:n], replies[: n - 1], way.template) for n in turns]
                lengths.append(tuple(len(encode(tokenizer, t)) + way.new_tokens * (n + 1) for n, t in enumerate(texts)))
                written += way.new_tokens * len(example.prompt)
            case "choose":
                options = sum(len(encode(tokenizer, option)) for option in example.choices)
                questions.append(encode(tokenizer, _sent(tokenizer, way, example)))
                shared = max((stats.common_prefix(questions[-1], before) for before in questions[:-1]), default=0)
                lengths.append((len(questions[-1]) - shared + options,))
            case _:
                prompt = len(encode(tokenizer, _sent(tokenizer, way, example)))
                new = way.times_prompt * prompt or way.new_tokens
                lengths.append((prompt + new,))
                written += new
    return TaskFacts(data.key, len(data.examples), way.kind, written / len(sample), tuple(lengths))


def _sent(tokenizer: PreTrainedTokenizerBase, spec: PromptSpec, example: Example) -> str:
    """A prompt as it is sent where the context has room for all its worked examples."""
    from kick_core.evaluation import prompting

    return prompting.text(tokenizer, spec, example, prompting.most_shots(spec, example))


# --- what a note's name is made of ---------------------------------------------------------------------------


def _path(store: Store, job: SweepJob) -> Path:
    source = find(job.reference, store)
    identity = {
        "model": source.fingerprint,
        "dtype": job.dtype,
        "bos": job.bos,
        "device": device(job.device),
        "calibration": {**asdict(job.calibration), "file": _states(Path(job.calibration.source))},
        "data": job.data,
        "files": _states(Path(job.data))
        + _states_of(task_files.files(job.data) if task_files.is_file(job.data) else ()),
        "protocol": job.protocol,
        "prompting": job.prompting,
        "draws": [job.shots, job.fewshot_seed, job.repeats, list(job.ids), job.subject],
        "host": [job.engine, job.device_map, job.max_memory],
        "program": _program(),
    }
    return store.root / "plans" / f"{keys.key('plan', identity)}.json"


def _states(path: Path) -> list[list[Any]]:
    """Names, sizes and times of a file, or of all files of a folder; nothing for what is neither."""
    if path.is_file():
        return _states_of([path])
    return _states_of(sorted(path.rglob("*"))) if path.is_dir() else []


def _states_of(paths: Iterable[Path]) -> list[list[Any]]:
    return [[str(path), (state := path.stat()).st_size, state.st_mtime_ns] for path in paths]


@cache
def _program() -> str:
    """A hash over the state of every file of this package, data included."""
    root = Path(kick_core.__file__).parent
    files = sorted(path for path in root.rglob("*") if path.suffix in (".py", ".json", ".jsonl", ".txt", ".jinja"))
    return keys.sha256_text(keys.canonical([kick_core.__version__, _states_of(files)]))


_DRIVERS = ("nvidia0", "nvidiactl", "dxg", "kfd")
"""Without one of these in /dev no Linux offers torch a device."""


def device(name: str) -> str:
    """The kind of device that a name means. Imports torch only where there may be more than a CPU."""
    if name not in ("auto", "all") or not _accelerated():
        return "cpu" if name == "auto" else name.partition(":")[0]
    from kick_core.models.loading import device_of

    return device_of(name).type


def _accelerated() -> bool:
    return sys.platform != "linux" or any(os.path.exists(f"/dev/{driver}") for driver in _DRIVERS)


def gpus() -> int:
    """How many GPUs this machine has. Imports torch only where there may be one."""
    if not _accelerated():
        return 0
    import torch

    return torch.cuda.device_count()
