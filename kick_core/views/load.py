"""Which runs there are and what they hold, read column by column and remembered.

A page asks the same sealed files again at every click. They never change under one name, so what was read is
kept in memory by (name, modification time), and a new part or a new scorer version is simply another name.
Texts stay in Arrow tables until one example is opened.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kick_core import tasks
from kick_core.errors import KickError
from kick_core.records import CHOSEN, Example, Output, RunCard
from kick_core.spec import Recipe, parse
from kick_core.store import Store, lineage, results
from kick_core.store.tables import read_table
from kick_core.tasks.data import questions
from kick_core.views import recipe_labels, verdict_columns
from kick_core.views.verdict_columns import KEPT, VerdictColumns

AGAIN = "again"
"""The setting of a run that asked dense a second time to measure the evaluator's own noise; it is no result."""

POCKET, OFFICIAL = DATA = (tasks.POCKET, tasks.OFFICIAL)
"""The two kinds of data that a task has: the pocket world's, and the benchmark's own, from the hub or a folder."""

NOT_IN_PACK = "(words not in the pack)"
"""What is shown for an answer that a compact pack left out."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A run with what its card means: the parsed recipe and the task as this program knows it."""

    card: RunCard
    recipe: Recipe
    task: tasks.Task

    @property
    def key(self) -> str:
        return self.card.key


def stamp(store: Store) -> str:
    """A cheap word that changes whenever something measured comes or goes: a run, a part, verdicts, an artifact, a
    comparison with dense, a judging.

    Also when the user says which model was tuned from which.
    """
    newest, count = 0, 0
    rooms = ("results", "weights", "examples", "fidelity", "judgments", "replies")
    for path in (path for room in rooms for path in (store.root / room).glob("??/*")):
        newest, count = max(newest, path.stat().st_mtime_ns), count + 1
    for path in store.beside:  # never changes: one more or one less is all that can happen
        newest, count = max(newest, path.stat().st_mtime_ns), count + 1
    for path in store.root.glob(lineage.FILE):
        newest, count = max(newest, path.stat().st_mtime_ns), count + 1
    return f"{count}-{newest}"


def asked(store: Store) -> list[Asked]:
    """All runs that this program can read: of known tasks, under recipes that parse, with an intact card."""
    return _all(store)[0]


def unread(store: Store) -> int:
    """How many runs this program cannot read: of another version's tasks or recipes, or with a damaged card."""
    return _all(store)[1]


def _all(store: Store) -> tuple[list[Asked], int]:
    runs = [_readable(store, key) for key in store.keys("results") if results.parts(store, key)]
    readable = [run for run in runs if run is not None]
    return readable, len(runs) - len(readable)


def _readable(store: Store, key: str) -> Asked | None:
    """One run; None where it is gone or cannot be read (`kick verify` names damaged cards and `kick list` runs of
    another version's tasks)."""
    try:
        return _asked(store, key, (store.folder("results", key) / "run.json").stat().st_mtime_ns)
    except (KickError, OSError):
        return None


@lru_cache(maxsize=4096)
def _asked(store: Store, key: str, changed: int) -> Asked:
    return one(store, key)


def one(store: Store, key: str) -> Asked:
    """One run. Raises KickError when it is not there."""
    card = results.run(store, key)
    return Asked(card, parse(card.recipe), tasks.of_run(card))


def some(store: Store, keys: Iterable[str]) -> list[Asked]:
    """The runs under some keys; those that are gone or cannot be read are left out, as in `asked`."""
    return [run for key in keys if (run := _readable(store, key)) is not None]


def alike(run: Asked) -> tuple[str, ...]:
    """What two runs must share for their answers to be compared. Today's scorers judge both, whatever the version."""
    card = run.card
    settings = json.dumps(card.settings, sort_keys=True)
    return (
        card.fingerprint, card.task, card.protocol, card.examples, card.dtype, settings,
    )  # fmt: skip


def is_result(run: Asked) -> bool:
    """Whether a run measured a recipe as its task is asked: not the evaluator's own noise, not with other shots, not
    on examples chosen by id or subject."""
    return not run.card.settings.keys() & {AGAIN, CHOSEN, "shots", "fewshot_seed"}


def engine_of(run: Asked) -> str:
    """Which engine answered, for people: this package's, `vllm 0.33.0`, or over which devices a model was spread."""
    about = run.card.settings.get("engine")
    own = "kick" if "layers" not in run.card.settings else f"kick, layers {run.card.settings['layers']}"
    return own if about is None else f"{about['name']} {about['version']}"


def asked_most(engines: Iterable[str]) -> str:
    """Of the engines of some runs the one that most have; this package's where two have as many."""
    counted = Counter(engines)
    return max(counted, key=lambda name: (counted[name], name == "kick"), default="kick")


def kind_of_data(data: str) -> str:
    """Of which kind the data is that a card names: "pocket" or "official"."""
    return POCKET if data == POCKET else OFFICIAL


def own_task(task: str) -> bool:
    """Whether a task asks a file of the user's own questions, which no other task can be asked on."""
    return task in questions.TASKS.values()


def answers_to(run: Asked, protocol: str) -> bool:
    """Whether a run was asked as a protocol asks. What both ask alike was run once, as "strict"."""
    return run.card.protocol == protocol or (protocol == "paper" and asked_alike(run))


def asked_alike(run: Asked) -> bool:
    """Whether both protocols put this run's questions alike to a model, so that it counts for both."""
    return run.task.paper in (None, run.task.strict)


def dense_of(run: Asked, among: Iterable[Asked]) -> Asked | None:
    """The dense run to compare with: asked alike, by the same batch plan and on the same device if possible."""
    card = run.card
    fits = [other for other in among if other.recipe.target is None and alike(other) == alike(run)]
    return max(
        fits,
        key=lambda o: (o.card.plan == card.plan, o.card.device == card.device, o.card.created),
        default=None,
    )


def model_names(among: Iterable[Asked]) -> dict[str, str]:
    """Fingerprint -> name for people; a name that stands for two different models gets a piece of the hash."""
    found = {run.card.fingerprint: run.card.model for run in among}
    names = list(found.values())
    return {print_: f"{name} ({print_[:6]})" if names.count(name) > 1 else name for print_, name in found.items()}


def asked_name(name: str) -> str:
    """The name that a model was asked under, for one that `model_names` had to tell from another."""
    return re.sub(r" \([0-9a-f]{6}\)$", "", name)


def sparsity_series(run: Asked, among: Iterable[Asked]) -> list[Asked]:
    """The same method on the same examples from mild to harsh, one run per target, beginning with dense.

    Dense has no method: its series is itself alone. Options count, so another group size is another series. Of several
    artifacts of one recipe it takes that which was asked the most tasks, then the newer, as `scores.current` does.
    """
    among = list(among)
    asked_of: dict[str, set[str]] = {}
    for other in among:
        asked_of.setdefault(other.card.weights, set()).add(other.card.task)
    family = [
        other
        for other in among
        if alike(other) == alike(run)
        and recipe_labels.kind(other.recipe) == recipe_labels.kind(run.recipe)
        and recipe_labels.method(other.recipe) == recipe_labels.method(run.recipe)
    ]
    family.sort(key=lambda other: (len(asked_of[other.card.weights]), other.card.created))
    steps = {other.recipe.text: other for other in family}
    steps[run.recipe.text] = run
    dense = dense_of(run, among)
    rest = sorted(steps.values(), key=lambda other: recipe_labels.severity(other.recipe))
    return [dense, *rest] if dense and run.recipe.target else rest


# --- what a run holds --------------------------------------------------------------------------------------


def verdicts(store: Store, run: Asked) -> Mapping[str, VerdictColumns]:
    """Scorer -> verdicts. Stored ones when they fit the task's version, else derived from the outputs."""
    if path := results.verdict_file(store, run.key, run.task.version):
        return verdict_columns.stored(path, os.stat(path).st_mtime_ns)
    return _derived(store, run.key, run.task.name, results.measured(store, run.key))


_VERDICTS = pa.schema(
    [("example", pa.string()), ("scorer", pa.string()), ("score", pa.float64()), ("extracted", pa.string()),
     ("why", pa.string())]
)  # fmt: skip


@lru_cache(maxsize=KEPT)
def _derived(store: Store, key: str, task: str, measured: int) -> dict[str, VerdictColumns]:
    run = one(store, key)
    examples = {example.id: example for example in results.examples(store, run.card.examples)}
    rows = [
        verdict.to_json()
        for output in results.outputs(store, key)
        if output.example in examples
        for verdict in tasks.judge(run.task, examples[output.example], output)
    ]
    return verdict_columns.of_table(pa.Table.from_pylist(rows, schema=_VERDICTS)) if rows else {}


def tokens(store: Store, run: Asked) -> dict[str, int]:
    """Example -> number of generated (perplexity: predicted) tokens."""
    return _tokens(tuple(results.parts(store, run.key)))


@lru_cache(maxsize=KEPT)
def _tokens(paths: tuple[Path, ...]) -> dict[str, int]:
    table = _answers(paths)
    return dict(zip(table.column("example").to_pylist(), table.column("tokens").to_pylist(), strict=True))


def answers(store: Store, key: str) -> pa.Table:
    """All sealed outputs of a run as one Arrow table."""
    return _answers(tuple(results.parts(store, key)))


@lru_cache(maxsize=KEPT)
def _answers(paths: tuple[Path, ...]) -> pa.Table:
    try:
        return pa.concat_tables([pq.read_table(path) for path in paths])
    except (OSError, pa.ArrowException) as error:
        raise KickError(f"outputs are damaged ({error}): `kick verify --deep` names the file") from error


def thinned(store: Store, key: str) -> bool:
    """Whether a pack left out some of a run's answers; those that are left are no sample of them."""
    return _thinned(tuple(results.parts(store, key)))


@lru_cache(maxsize=4096)
def _thinned(paths: tuple[Path, ...]) -> bool:
    stops = (read_table(path, ["stop"]).column("stop") for path in paths)
    return any(pc.any(pc.equal(stop, tasks.LEFT_OUT)).as_py() for stop in stops)


def answer(store: Store, key: str, example: str) -> Output | None:
    """One example's output in a run, or None when it was not asked."""
    table = answers(store, key)
    at = _places(tuple(results.parts(store, key))).get(example)
    return None if at is None else Output.from_json(table.slice(at, 1).to_pylist()[0])


@lru_cache(maxsize=KEPT)
def _places(paths: tuple[Path, ...]) -> dict[str, int]:
    return {name: at for at, name in enumerate(_answers(paths).column("example").to_pylist())}


def examples(store: Store, key: str) -> dict[str, Example]:
    """The questions of a task's data by id, in the task's order."""
    return _examples(store, key, tuple(results.examples_files(store, key)))


@lru_cache(maxsize=32)
def _examples(store: Store, key: str, files: tuple[Path, ...]) -> dict[str, Example]:
    return {example.id: example for example in results.examples(store, key)}


def task_titles(among: Iterable[str] | None = None) -> dict[str, str]:
    """Task name -> title, in reading order; all listed tasks, or those of `among` that this program knows.

    Tasks of one's own come last, by name.
    """
    wanted = set(tasks.names() if among is None else among)
    own = sorted(name for name in wanted if name.partition("/")[0] in tasks.OWN and "/" in name)
    return {name: tasks.record(name).title for name in (*tasks.names(unlisted=True), *own) if name in wanted}


def scorer_rule(store: Store, run_key: str, scorer: str) -> str:
    """What a scorer of a run's task counts, in one sentence."""
    return tasks.about_scorer(one(store, run_key).task, scorer)


def chance(store: Store, run: Asked) -> float:
    """The score of blind guessing: one of the options of a choice; nan where there is nothing to guess."""
    return _chance(store, run.card.examples) if run.task.kind == "choose" else math.nan


@lru_cache(maxsize=32)
def _chance(store: Store, key: str) -> float:
    options = results.example_columns(store, key, ["choices"]).column("choices")
    counts = pc.list_value_length(options).to_numpy()
    counts = counts[counts > 0]  # nan > 0 is False: nothing to choose from
    return float(np.mean(1 / counts)) if counts.size else math.nan
