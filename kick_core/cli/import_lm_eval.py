"""`kick import-lm-eval DENSE COMPRESSED...`: samples that lm-evaluation-harness logged become runs of the cache."""

from __future__ import annotations

import json
import re
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kick_core import keys, methods, tasks, views
from kick_core.cli import score_tables
from kick_core.errors import BadRequest
from kick_core.provenance import now
from kick_core.records import RunCard
from kick_core.spec import parse
from kick_core.store import Store, open_store, results
from kick_core.tasks.data import lm_eval
from kick_core.tasks.data.lm_eval import Samples
from kick_core.tasks.verdicts import score

_RECIPE = re.compile(r"([a-z][a-z0-9_]*)[@_-](0\.\d+|\d+:\d+|\d+bit)")
"""A recipe in the name of a folder or a file: wanda@0.5, wanda-0.5, gptq_4bit."""


def run(args: Namespace) -> int:
    """Import the samples of dense and of compressed models, and print how they compare."""
    store = open_store(args.cache)
    recipes = _recipes(args.compressed, args.recipes)
    dense = _read(Path(args.dense))
    model = args.model_name or _named(Path(args.dense))
    read = [("dense", samples) for samples in dense.values()]
    for path, recipe in zip(args.compressed, recipes, strict=True):
        own = _as_in_dense(_read(Path(path)), dense, Path(path), Path(args.dense))
        if not (shared := [task for task in dense if task in own]):
            raise BadRequest(f"{path} holds {_listed(own)}, and {args.dense} {_listed(dense)}: no task is in both")
        read += [(recipe, _same_questions(path, dense[task], own[task])) for task in shared]
        for task in own.keys() - dense.keys():
            print(f"kick: {task} of {path} is left out: dense was not asked it", file=sys.stderr)
    frame = views.scores_of(store, [_keep(store, model, recipe, samples) for recipe, samples in read])
    score_tables.print_imported(frame, store, "json" if args.json else args.format)
    return 0


def _recipes(paths: Sequence[str], given: Sequence[str]) -> list[str]:
    """The recipe of every compressed file: as given, or read out of its name."""
    if given and len(given) != len(paths):
        raise BadRequest(
            f"{len(given)} --recipe for {len(paths)} compressed samples: give one for each, in their order"
        )
    found = []
    for at, path in enumerate(paths):
        match = None if given else _recipe_in_names(Path(path))
        if not given and match is None:
            raise BadRequest(f"what was done to the model of {path}? Say it: --recipe wanda@0.5, one for each file")
        recipe = parse(given[at] if given else f"{match[1]}@{match[2]}")  # type: ignore[index]
        methods.resolve(recipe)
        if recipe.target is None:
            raise BadRequest(f"--recipe {recipe.text}: dense stands first; then come compressed models")
        found.append(recipe.text)
    return found


def _recipe_in_names(path: Path) -> re.Match[str] | None:
    """The recipe in the name of a file, its folders or the folder that the harness made in it, the innermost first."""
    inner = (file.parent.name for file in path.rglob("samples_*.jsonl")) if path.is_dir() else ()
    for name in (*inner, *reversed(path.resolve().parts)):
        for match in _RECIPE.finditer(name.lower()):
            if match[1] in methods.names():
                return match
    return None


def _named(dense: Path) -> str:
    """The model's name: the folder that the harness made for it (of `runs/dense` one inside), or the file's own."""
    file = next(iter(sorted(dense.rglob("samples_*.jsonl"))), dense) if dense.is_dir() else dense
    return file.resolve().parent.name.rpartition("__")[2] or dense.stem


def _read(path: Path) -> dict[str, Samples]:
    """Task -> samples of a file, or of all files of a folder, the newest of each task; subtasks of a group that the
    harness gives one score are merged."""
    if not path.is_dir():
        samples = lm_eval.read(path)
        return {samples.task: samples}
    newest = {
        lm_eval.task_name(file): file for file in sorted(path.rglob("samples_*.jsonl"), key=lambda file: file.stem)
    }
    if not newest:
        raise BadRequest(f"{path} holds no samples_*.jsonl: run lm_eval with --log_samples --output_path {path}")
    every: dict[str, Samples] = {}
    for task, file in newest.items():
        try:
            every[task] = lm_eval.read(file, task)
        except BadRequest as error:
            print(f"kick: left out: {error}", file=sys.stderr)
    if not every:
        raise BadRequest(f"{path} holds no task with options or written answers")
    for group, subtasks in lm_eval.groups(path, every).items():
        parts = [every[task] for task in subtasks if task in every]
        if len({(part.kind, part.metrics) for part in parts}) == 1:
            every = {task: samples for task, samples in every.items() if task not in subtasks}
            every[group] = lm_eval.merged(parts, group)
    return every


def _as_in_dense(
    own: dict[str, Samples], dense: Mapping[str, Samples], path: Path, dense_path: Path
) -> dict[str, Samples]:
    """Single files under names of the user's say no task: they are of dense's, and the prompts' hashes tell if not."""
    if path.is_dir() or dense_path.is_dir() or (lm_eval.says_task(path) and lm_eval.says_task(dense_path)):
        return own
    (samples,), (task,) = own.values(), dense
    return {task: lm_eval.read(path, task)} if samples.task != task else own


def _listed(found: Mapping[str, Samples]) -> str:
    return ", ".join(sorted(found)[:6]) + (" …" if len(found) > 6 else "")


def _same_questions(path: str, dense: Samples, own: Samples) -> Samples:
    """A compressed model's answers to the questions that dense was asked too, in dense's order."""
    for what, theirs, ours in (
        ("scored by", (own.kind, *own.metrics), (dense.kind, *dense.metrics)),
        ("read by the filter", (own.filter,), (dense.filter,)),
    ):
        if theirs != ours:
            raise BadRequest(
                f"{path}, {own.task}: {what} {', '.join(theirs)}, dense {what} {', '.join(ours)}: the same version of "
                f"the task is needed"
            )
    answers = {output.example: output for output in own.outputs}
    kept = [output for output in dense.outputs if output.example in answers]
    if other := [output.example for output in kept if answers[output.example].prompt_hash != output.prompt_hash]:
        raise BadRequest(
            f"{path}, {own.task}: {len(other)} of {len(kept)} prompts are not those of dense ({other[0]}, …): the same "
            f"shots, templates and versions are needed"
        )
    if not kept:
        raise BadRequest(f"{path}, {own.task}: no question is one that dense was asked")
    golds = {example.id: example.answers for example in own.examples}
    if other := [each.id for each in dense.examples if golds.get(each.id, each.answers) != each.answers]:
        raise BadRequest(
            f"{path}, {own.task}: {len(other)} of {len(kept)} targets are not those of dense ({other[0]}, …): the same "
            f"version of the data is needed"
        )
    return replace(dense, outputs=tuple(answers[output.example] for output in kept))


def _keep(store: Store, model: str, recipe: str, samples: Samples) -> str:
    """Keep one model's answers to one task as a run; the same samples are the same run."""
    settings: dict[str, Any] = {
        "kind": samples.kind,
        "engine": {"name": "lm_eval", "version": "samples"},
        lm_eval.SETTING: {"task": samples.task, "kind": samples.kind, "metrics": list(samples.metrics)},
    }
    fingerprint = keys.sha256_text(f"lm_eval {model}")
    content, answers = (
        keys.sha256_text(json.dumps([record.to_json() for record in records], sort_keys=True))
        for records in (samples.examples, samples.outputs)
    )
    weights = keys.key("weights", {"imported": fingerprint, "recipe": recipe})
    identity = {"settings": settings, "weights": weights, "examples": content, "answers": answers}
    card = RunCard(
        key=keys.key("run", identity),
        model=model,
        fingerprint=fingerprint,
        recipe=recipe,
        weights=weights,
        task=samples.own_task,
        task_version=1,
        protocol="strict",
        data=tasks.OFFICIAL,
        examples=keys.key("examples", {"task": samples.own_task, "content": content}),
        total=len(samples.examples),
        settings=settings,
        plan="lm-evaluation-harness",
        dtype="",
        device="",
        created=now(),
        versions={},
    )
    results.keep_examples(store, card.examples, samples.examples)
    with results.recorder(store, card) as recorder:
        if not recorder.sealed:
            recorder.record(samples.outputs)
            recorder.seal([output.example for output in samples.outputs])
    score(store, card.key)
    return card.key
