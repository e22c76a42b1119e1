"""What a sweep should do: recipes and tasks of one model as the user wrote them, and the named sweeps (presets)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from kick_core import methods, tasks
from kick_core.artifacts import planners
from kick_core.errors import BadRequest, nearest
from kick_core.models.source import ALIASES
from kick_core.pocket import POCKET_MODELS
from kick_core.spec import DENSE, Calibration, ModelRef, Recipe, parse
from kick_core.tasks import OFFICIAL, POCKET, paper
from kick_core.tasks.data import hub, questions, task_files
from kick_core.tasks.elicitation import parse_prompting


@dataclass(frozen=True, slots=True)
class SweepJob:
    """A sweep as the user asked for it: recipes and tasks of one model, as texts.

    Attributes:
        model: Hub id, folder or the name of a pocket model.
        recipes: Recipe texts; `parsed` checks them.
        tasks: Names of tasks; empty to compress only.
        limit: Number of examples of each task; None is all.
        limits: Overrides `limit` for single tasks.
        calibration: What methods that need data are calibrated on.
        data: `pocket`, `official` or a folder with the official files.
        protocol: `strict` or `paper`.
        device: `auto`, `cpu`, `cuda`, `cuda:N`, or `all` GPUs.
        dtype: `auto` is the model's own.
        revision: Of a hub model.
        fidelity: Compare every recipe's distributions with dense's on the perplexity windows.
        noise_floor: Evaluate dense a second time in other batches, for what the evaluator alone changes.
        shots: Worked examples before a question; None is the task's own number.
        engine: `kick`, or `vllm` with its settings after commas.
        device_map: `auto` spreads the evaluated model over all devices, memory and disk.
        max_memory: What a device map may take, e.g. `0=20GiB,cpu=60GiB`.
        fewshot_seed: Draws which worked examples are shown; None: the first ones.
        repeats: Answers to each question of a sampled task.
        ids: The only examples of each task that are asked; empty: all.
        subject: The only subject, discipline, bucket or category that is asked about; empty: all.
        prompting: The form of a question: `auto`, `raw`, `chat` or `shots:K`; the paper's protocol is always raw.
        bos: `auto` as the tokenizer does, or `always`: every text begins with the beginning-of-sequence token.
    """

    model: str
    recipes: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)
    data: str = "pocket"
    protocol: str = "strict"
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    fidelity: bool = False
    noise_floor: bool = False
    shots: int | None = None
    engine: str = "kick"
    device_map: str | None = None
    max_memory: str = ""
    prompting: str = "auto"
    fewshot_seed: int | None = None
    repeats: int = 1
    ids: tuple[str, ...] = ()
    subject: str = ""
    bos: str = "auto"

    def to_json(self) -> dict[str, Any]:
        """The job as JSON values, with its tag."""
        return {"kind": "sweep", **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote, of this version or an earlier one without a tag."""
        values = {name: value for name, value in data.items() if name != "kind"}
        for name in ("recipes", "tasks", "ids"):
            values[name] = tuple(values.get(name, ()))
        return cls(**{**values, "calibration": Calibration(**values.get("calibration", {}))})

    @property
    def hosted(self) -> bool:
        """Whether another backend than the open model is evaluated (vLLM, a model spread over devices)."""
        return self.engine != "kick" or self.device_map is not None

    @property
    def reference(self) -> ModelRef:
        """The model as `models.source.find` wants it."""
        return ModelRef(self.model, self.revision, self.dtype, self.bos)  # type: ignore[arg-type]

    def limit_of(self, task: str) -> int | None:
        """The number of examples of one task; None is all."""
        return self.limits.get(task, self.limit)

    def parsed(self) -> tuple[Recipe, ...]:
        """The recipes, checked, each once.

        Raises:
            BadRequest: For a recipe that cannot be made, before anything is opened.
        """
        recipes = tuple(dict.fromkeys(parse(text) for text in self.recipes))
        for recipe in recipes:
            methods.resolve(recipe)
            if (name := methods.objective(recipe)) not in (None, methods.ERROR, methods.PERPLEXITY):
                data = str(dict(methods.resolve(recipe).options)["search_data"])
                task = tasks.get(str(name), data)
                if data == POCKET:
                    planners.searched_on(recipe, task, data)
        return recipes

    def check(self) -> tuple[Recipe, ...]:
        """Refuse what cannot be evaluated, before anything is opened.

        Returns:
            The recipes, as `parsed`.

        Raises:
            BadRequest: For an unknown recipe, task, data, protocol or form of prompting, a limit below 1, or options
                that exclude each other.
        """
        recipes = self.parsed()
        if self.hosted and self.fidelity:
            raise BadRequest(
                "--fidelity compares whole distributions, which only the open model gives: leave --engine and "
                "--device-map out, or --fidelity"
            )
        tasks.protocol_of(self.protocol)
        parse_prompting(self.prompting)
        if (
            self.tasks
            and self.data != POCKET
            and not questions.is_file(self.data)
            and not task_files.is_file(self.data)
        ):
            hub.folder(self.data)
        for name in self.tasks:
            tasks.get(name, self.data)
            if questions.is_file(self.data) and name.partition("/")[0] not in questions.TASKS.values():
                raise BadRequest(
                    f"{name} cannot be asked on {self.data}, which holds questions of your own: leave it out"
                )
            limit = self.limit_of(name)
            if limit is not None and limit < 1:
                raise BadRequest(f"limit {limit} for {name}: at least 1 example is needed")
            if self.ids or self.subject:
                self._check_chosen(name, recipes)
        return recipes

    def _check_chosen(self, name: str, recipes: Iterable[Recipe]) -> None:
        for recipe in recipes:
            if planners.searched_on(recipe, tasks.get(name, self.data), self.data):
                raise BadRequest(
                    f"{recipe.text} was found on examples of {name} itself, which are never evaluated: leave --ids and "
                    "--subject out"
                )


def skipped_text(skipped: Mapping[str, str]) -> str:
    """What to say when a sweep is done but for tasks whose data cannot be read."""
    named = "; ".join(f"{name} ({reason})" for name, reason in skipped.items())
    return f"not measured: {named}; everything else is done and kept"


CHECK = 32
"""Examples per task of a check; few, and the check says so."""

_CHECK_LONG = 4
"""The same where an example is a window of text or a dialogue: minutes on a CPU."""


def check_job(job: SweepJob) -> SweepJob:
    """The sweep that `kick check` reads: dense on every task of `job`, on few examples unless it says how many."""
    if job.limit is not None:
        return replace(job, recipes=(DENSE.text,))
    long = [name for name in job.tasks if tasks.get(name, job.data).kind in ("perplexity", "dialogue")]
    return replace(job, recipes=(DENSE.text,), limit=CHECK, limits=dict.fromkeys(long, _CHECK_LONG))


def check_tasks(model: str, data: str = "auto") -> tuple[str, ...]:
    """What a check asks where no task is named: all listed tasks of the data; of the hub's only those that ship."""
    data = data_for(model, (), data)
    shipped = data == OFFICIAL
    return tuple(name for name in tasks.names(data) if tasks.get(name, data).shipped or not shipped)


AUTO = "auto"
"""The data that suits the model and the tasks."""


def data_for(model: str, names: Iterable[str] = (), requested: str = AUTO) -> str:
    """The data that tasks are asked on where none is named.

    Args:
        model: as the user names it.
        names: the tasks that are to be asked; empty: all that suit the model.
        requested: a data name, which is returned as it is, or `auto`.

    Returns:
        `pocket` where the pocket world has every named task, or the model comes from there; else `official`. A command
        says so where another model is asked about that world (`foreign`).
    """
    if requested != AUTO:
        return requested
    names = set(names)
    if names:
        return POCKET if names <= set(tasks.names(POCKET, unlisted=True)) else OFFICIAL
    return POCKET if of_pocket(model) else OFFICIAL


def of_pocket(model: str) -> bool:
    """Whether a model was trained on the pocket world."""
    return ALIASES.get(model, model) in POCKET_MODELS


def foreign(job: SweepJob) -> str:
    """What to say of a sweep that asks a model about a world it has never read; "" for every other one."""
    knowledge = {name for name in job.tasks if tasks.get(name, job.data).measures == "knowledge"}
    if job.data != POCKET or of_pocket(job.model) or not knowledge:
        return ""
    return (
        f"{job.model} has never read the pocket models' fictional world, which {', '.join(sorted(knowledge))} ask "
        f"about on data pocket: the scores mean nothing; use --preset facts, a world_facts task, or --data"
    )


_FACTS_WINDOWS = 4
"""Windows of up to 2,048 tokens for perplexity in the preset `facts`: enough to see it move, on two cores too."""

_DEMO_EXAMPLES = 200
"""Examples per task in the demo, but for tasks whose record says another number."""

_LEVELS = tuple(f"0.{tenth}" for tenth in range(1, 8))


_PRUNERS, _ROUNDERS = ("magnitude", "wanda", "sparsegpt"), ("rtn", "gptq")


PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "recipes": (
            "dense",
            *(f"{m}@{level}" for m in _PRUNERS for level in (*_LEVELS, "2:4", "4:8")),
            *(f"{m}@{bits}bit" for m in _ROUNDERS for bits in (8, 4, 3, 2)),
        ),
        "limit": _DEMO_EXAMPLES,
        "calibration": Calibration(windows=32, length=256),
    },
    "facts": {
        "recipes": (
            "dense",
            "magnitude@0.3",
            "magnitude@0.5",
            "wanda@0.2",
            "wanda@0.3",
            "wanda@0.4",
            "wanda@0.5",
            "wanda@2:4",
            "sparsegpt@0.5",
            "sparsegpt@2:4",
            "gptq@4bit,group=64",
            "gptq@3bit,group=64",
        ),
        "limit": 48,  # with all shipped tasks under 20 minutes on two cores for a model of 135 M weights in float32
        "calibration": Calibration(windows=16, length=512, propagate="dense"),
    },
    "paper": {
        "recipes": (
            "dense",
            *(
                f"{m}@{level}"
                for m in _PRUNERS
                for level in (*(f"{s / 100:.12g}" for s in range(5, 85, 5)), "1:2", "2:4", "4:8")
            ),
            *(f"{m}@{bits}bit,sym=false" for m in _ROUNDERS for bits in (8, 4, 2)),
        ),
    },
    "table2": {
        "recipes": ("dense", "gptq@8bit,sym=false", "awq@8bit", "int8_outlier@8bit"),
        "tasks": paper.EXPERIMENTS["table2"],
    },
    "table3": {
        "recipes": ("dense", *(f"{m}@{level}" for m in _PRUNERS for level in _LEVELS[:5])),
        "tasks": paper.EXPERIMENTS["table3"],
    },
    "disciplines": {
        "recipes": (
            "dense",
            *(f"{m}@{level}" for m in _PRUNERS for level in (*_LEVELS, "2:4", "4:8")),
            *(f"gptq@{bits}bit" for bits in (8, 4)),
        ),
        "tasks": paper.EXPERIMENTS["disciplines"],
    },
    "families": {
        "recipes": ("dense", "magnitude@0.5", "wanda@0.3", "wanda@0.5", "wanda@2:4", "gptq@4bit"),
        "tasks": paper.EXPERIMENTS["families"],
    },
    "perplexity-vs-tasks": {
        "recipes": ("dense", *(f"{m}@{level}" for m in _PRUNERS for level in _LEVELS)),
        "tasks": paper.EXPERIMENTS["perplexity-vs-tasks"],
    },
}
"""Named sweeps. `paper` is LLM-KICK's grid (section 3 and its scripts): 5 to 80 % by 5, 1:2, 2:4, 4:8. The others are
single tables and figures of it; `kick_core.sweeps.experiments` has those that take several sweeps. `facts` needs no
network: it is what a real model is asked first. Which tasks `demo`, `facts` and `paper` ask is in the tasks' own
records (see `preset`)."""


def preset(name: str, model: str, data: str = AUTO) -> SweepJob:
    """A named sweep of one model.

    Args:
        name: one of `PRESETS`.
        model: what is compressed and asked.
        data: the data it will be asked on; `auto` is the pocket world, and what ships for real models in `facts`. Tasks
            without such data are left out of `demo` and `paper`.

    Raises:
        BadRequest: no preset of this name.
    """
    if name not in PRESETS:
        raise nearest(name, PRESETS, "preset")
    if data == AUTO:
        data = OFFICIAL if name == "facts" else POCKET
    job = SweepJob(model=model, data=data, **PRESETS[name])
    records = [tasks.get(task, data) for task in sorted(tasks.names(data, unlisted=True))]
    if name == "paper":
        return replace(job, tasks=tuple(task.name for task in records if task.in_paper))
    if name == "demo":
        counts = {task.name: task.demo_examples for task in records if task.demo_examples is not None}
        limits = {task: count for task, count in counts.items() if count != job.limit}
        return replace(job, tasks=tuple(counts), limits=limits)
    if name == "facts":
        shipped = [task for task in records if task.shipped and task.listed]
        limits = {task.name: _FACTS_WINDOWS for task in shipped if task.kind == "perplexity"}
        return replace(job, tasks=tuple(task.name for task in shipped), limits=limits)
    return replace(job, tasks=tuple(task for task in job.tasks if task in {record.name for record in records}))
