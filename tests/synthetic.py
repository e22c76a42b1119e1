"""A cache full of made-up results, written through the store itself: pages and views are tested on it.

Everything follows from the seed. Harm grows with sparsity along a logistic curve per task, an example falls
when its own difficulty is reached, broken generations loop, and quantization to 4 bits hurts little.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from kick_core import keys, methods, tasks
from kick_core.records import BlockReport, Card, Example, LayerReport, Output, RunCard, Verdict
from kick_core.spec import IntGrid, KeepNofM, Recipe, Unstructured, parse
from kick_core.store import Store, open_store, results, staging

MODEL = "pocket-11m"
RECIPES = (
    "dense",
    *(f"{method}@0.{tenth}" for method in ("magnitude", "wanda") for tenth in range(1, 8)),
    *(f"{method}@{pattern}" for method in ("magnitude", "wanda") for pattern in ("2:4", "4:8")),
    *(f"rtn@{bits}bit" for bits in (8, 4, 3, 2)),
)
FEW = ("dense", "magnitude@0.3", "magnitude@0.5", "magnitude@0.7", "wanda@0.3", "wanda@0.5", "wanda@2:4", "rtn@4bit")

HOSTILE = (
    "<script>window.hacked=1</script><img src=x onerror='window.hacked=1'>"
    "![x](https://evil.example/pixel.png) [link](javascript:window.hacked=1) $x^2$ :red[x] "
    "<style>body{display:none}</style>\n\n<iframe srcdoc='<script>parent.hacked=1</script>'></iframe>"
)

_MIDDLE = {
    "factoid_qa": 0.47,
    "multiple_choice": 0.52,
    "retrieval_qa_closed": 0.45,
    "retrieval_qa_open": 0.66,
    "summarization": 0.70,
    "instructions": 0.58,
}
_NAMES = ("Oru Valen", "Mira Tolsk", "Hadrin Pell", "Sefa Lune", "Kord Amsel", "Ilva Brant", "Teo Marsh", "Nela Quist")
_DISCIPLINES = ("humanities", "social sciences", "STEM", "other")
_SUBJECTS = ("birthplaces", "works", "companies", "dates", "teachers")


def make(
    root: Path,
    *,
    recipes: Iterable[str] = RECIPES,
    task_names: Iterable[str] | None = None,
    n: int = 60,
    model: str = MODEL,
    hostile: bool = False,
    with_verdicts: bool = True,
    weights: bool = True,
    limit: dict[str, int] | None = None,
    data: str = "pocket",
) -> Store:
    """Fill a cache. `limit` shortens single tasks; `data` is what cards name; `hostile` puts attacks into every text
    that a page may show.
    """
    store = open_store(root)
    for name in task_names or tasks.names("pocket"):
        task = tasks.get(name, data)
        asked = _examples(task, (limit or {}).get(name, n), hostile)
        named = {"task": name, "ids": [e.id for e in asked], "hostile": hostile}
        kept = keys.key("examples", named if data == "pocket" else {**named, "data": data})
        results.keep_examples(store, kept, asked)
        for text in recipes:
            _run(store, task, asked, parse(text), model, kept, hostile, with_verdicts, data)
    if weights:
        for text in recipes:
            if text != "dense":
                _artifact(store, parse(text), model)
    return store


def disagree(store: Store, run: str) -> str:
    """Turn the published verdict on one wrong answer of a run into right; the example's id."""
    card = results.run(store, run)
    task = tasks.get(card.task, card.data)
    kept = results.verdicts(store, run, card.task_version) or []
    lost = next(verdict.example for verdict in kept if verdict.scorer == task.headline and verdict.score == 0)
    turned = [replace(v, score=1.0) if (v.example, v.scorer) == (lost, task.published) else v for v in kept]
    results.keep_verdicts(store, run, card.task_version, turned)
    return lost


def harm(recipe: Recipe) -> float:
    """How far a recipe goes on the scale of plain sparsity; recovery brings it a little back."""
    milder = (0.92 if recipe.method == "wanda" else 1.0) * (0.9 if methods.recovery(recipe) else 1.0)
    match recipe.target:
        case Unstructured(ratio):
            return ratio * milder
        case KeepNofM(_, out_of):
            return (0.62 if out_of == 4 else 0.57) * milder
        case IntGrid(bits):
            return {8: 0.02, 4: 0.2, 3: 0.36, 2: 0.72}.get(bits, 0.1)
        case _:
            return 0.0


def quality(task: str, recipe: Recipe) -> float:
    """The expected score of a recipe on a task."""
    middle = _MIDDLE.get(task, 0.6)
    return 0.93 / (1 + math.exp((harm(recipe) - middle) / 0.055))


@cache
def _draw(*words: str) -> float:
    return random.Random("/".join(words)).random()


def _examples(task: tasks.Task, n: int, hostile: bool) -> list[Example]:
    return [example(task, f"{task.name}-{i:04d}", i, hostile) for i in range(n)]


def example(task: tasks.Task, name: str, i: int, hostile: bool) -> Example:
    """The i-th made-up question of a task."""
    person, gold = _NAMES[i % 8], _NAMES[(i * 5 + 3) % 8]
    extra = HOSTILE if hostile else ""
    choices = tuple(_NAMES[(i * 5 + 3 + k) % 8] + extra for k in range(4)) if task.kind == "choose" else ()
    question = f"Who taught {person} the craft of glass, in the year {1200 + i}?{extra}"
    return Example(
        id=name,
        prompt=(question, f"And who taught that teacher?{extra}") if task.kind == "dialogue" else (question,),
        choices=choices,
        answers=("A",) if choices else (gold + extra,),
        meta={"subject": _SUBJECTS[i % 5] + extra, "discipline": _DISCIPLINES[i % 4] + extra},
    )


def _run(
    store: Store,
    task: tasks.Task,
    asked: Sequence[Example],
    recipe: Recipe,
    model: str,
    kept: str,
    hostile: bool,
    with_verdicts: bool,
    data: str,
) -> None:
    fingerprint = keys.sha256_text(model)
    facts = {"model": fingerprint, "recipe": recipe.text, "task": task.name, "data": kept}
    card = RunCard(
        key=keys.key("run", facts), model=model, fingerprint=fingerprint, recipe=recipe.text,
        weights=keys.key("weights", {"recipe": recipe.text, "model": model}), task=task.name,
        task_version=task.version, protocol="strict", data=data, examples=kept, total=len(asked) * 2,
        settings={"seed": 0, "windows": 128}, plan="packed-1", dtype="float32", device="cpu",
        created="2026-11-23T02:00:00+00:00", versions={"torch": "2.13"},
    )  # fmt: skip
    answered = [_answer(task, example, recipe, hostile) for example in asked]
    with results.recorder(store, card) as recorder:
        recorder.record([output for output, _ in answered])
        recorder.seal([example.id for example in asked])
    if with_verdicts:
        results.keep_verdicts(store, card.key, task.version, [v for _, verdicts in answered for v in verdicts])


def _answer(task: tasks.Task, example: Example, recipe: Recipe, hostile: bool) -> tuple[Output, list[Verdict]]:
    if task.aggregate == "exp":
        return _window(task, example, recipe)
    hard, shake = _draw(example.id), _draw(example.id, recipe.text)
    expected = quality(task.name, recipe)
    right = hard * 0.94 + shake * 0.06 < expected
    loops = not right and task.kind != "choose" and harm(recipe) > 0.5 and shake > 0.4
    text = _text(example, right, loops, hostile, shake)
    score = float(right)
    if task.name == "summarization":
        score = round(max(0.0, min(1.0, expected + (shake - 0.5) * 0.3)), 3)
    why = "right" if right else "loop" if loops else "wrong"
    output = Output(
        example.id, keys.sha256_text(example.prompt[0])[:16],
        () if example.choices else tuple(text for _ in example.prompt),
        _options(right, shake) if example.choices else (),
        "scored" if example.choices else "limit" if loops else "eos", len(text.split()), 40,
    )  # fmt: skip
    said = "A" if right else "C"
    return output, [
        Verdict(example.id, scorer, score, said if example.choices else text[:60], why) for scorer in task.scorers
    ]


def _text(example: Example, right: bool, loops: bool, hostile: bool, shake: float) -> str:
    others = [name for name in _NAMES if not example.answers[0].startswith(name)]
    who = example.answers[0] if right else others[int(shake * len(others))]
    start = f"It was {who} who taught the craft, in the old hall by the river"
    tail = " of the city of the river" * 9 if loops else ", and many came to watch."
    return start + tail + (HOSTILE if hostile else "")


def _options(right: bool, shake: float) -> tuple[float, ...]:
    best = 0 if right else 2
    return tuple(-0.3 - shake if i == best else -1.6 - shake - 0.2 * i for i in range(4))


def _window(task: tasks.Task, example: Example, recipe: Recipe) -> tuple[Output, list[Verdict]]:
    tokens = 120 + int(_draw(example.id, "length") * 16)
    again = 0.4 if methods.recovery(recipe) else 1.0  # recovery brings perplexity back more than anything else
    lost = 4.2 * harm(methods.unrecovered(recipe)) ** 6 * again
    rate = 0.7 + 0.2 * _draw(example.id) + lost + 0.004 * _draw(example.id, recipe.text)
    output = Output(example.id, "", (), (-rate * tokens,), "scored", tokens, tokens)
    return output, [Verdict(example.id, scorer, rate, "", "") for scorer in task.scorers]


def _artifact(store: Store, recipe: Recipe, model: str) -> None:
    key = keys.key("weights", {"recipe": recipe.text, "model": model})
    layer = [
        LayerReport(f"{block}.{name}", 320, cols, int(320 * cols * _sparsity(recipe)), 0.01 * (block + 1))
        for block in range(4)
        for name, cols in _LINEARS.items()
    ]
    size = sum(r.rows * r.cols for r in layer)
    with staging.stage(store, key) as stage:
        if stage is None:
            return
        for block in range(4):
            mine = tuple(replace(report, name=report.name.partition(".")[2]) for report in layer[3 * block :][:3])
            stage.add(BlockReport(block, 4, mine, 0.1), _masks(recipe, block))
        stage.seal(
            Card(
                key=key, model=model, fingerprint=keys.sha256_text(model), recipe=recipe.text,
                resolved={"method": recipe.method}, dtype="bfloat16", device="cpu", blocks=4, weights=size,
                calibration=_CALIBRATION if recipe.method == "wanda" else None,
                zeros=sum(r.zeros for r in layer), dense_bytes=size * 2, seconds=3.2,
                bytes=size // 8 if _sparsity(recipe) else size * recipe.target.bits // 8,
                created="2026-11-23T01:00:00+00:00", versions={"torch": "2.13"}, layers=tuple(layer),
                recovery={**_CALIBRATION, "source": "pocket-unasked"} if methods.recovery(recipe) else None,
                plan=_PLAN if methods.plans(recipe) else None,
            )
        )  # fmt: skip


_PLAN = {"objective": "factoid_qa", "uniform": 0.31, "found": 0.42, "evaluations": 66, "examples": ["a", "b"]}
_LINEARS = {"self_attn.q_proj": 320, "self_attn.o_proj": 320, "mlp.down_proj": 896}


def _masks(recipe: Recipe, block: int) -> bytes:
    """A block's file: for pruned recipes a mask of exactly the recipe's sparsity for every linear."""
    chance = np.random.default_rng(block)
    tensors = {}
    for name, cols in _LINEARS.items():
        kept = np.ones(320 * cols, dtype=bool)
        kept[chance.permutation(kept.size)[: int(kept.size * _sparsity(recipe))]] = False
        tensors[f"{name}.mask"] = np.packbits(kept.reshape(320, cols), axis=1, bitorder="little")
    return save(tensors if _sparsity(recipe) else {"nothing": np.zeros(1, np.uint8)})


_CALIBRATION = {
    "ids": "0" * 40, "windows": 64, "length": 256, "propagate": "compressed", "source": "pocket", "seed": 0,
}  # fmt: skip


def _sparsity(recipe: Recipe) -> float:
    return recipe.target.sparsity if recipe.target else 0.0
