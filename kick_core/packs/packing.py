"""From a cache to a pack: one model's runs, the questions that may be passed on, the cards of the artifacts.

Of an output the pack leaves out what no page and no scorer of a stored verdict reads: token ids, prompt hashes, the
likeliest token's log-probability and the entropy. A compact pack leaves out more (see `_compact`), and says so.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import PurePath
from typing import Any

from kick_core import tasks
from kick_core.errors import BadRequest, KickError, nearest
from kick_core.keys import sha256_text
from kick_core.packs import tables
from kick_core.packs.container import Header, assemble
from kick_core.records import Card, Example, RunCard
from kick_core.spec import parse
from kick_core.store import Store, results, weight_artifacts
from kick_core.tasks.data import questions

FIRST = 100
"""Examples of every task whose answers a compact pack keeps, whatever became of them."""

LABELS = (
    "subject", "discipline", "bucket", "category", "tier", "popularity", "popularity_unit", "cluster", "words", "bytes",
    "left_out",
)  # fmt: skip
"""What is kept of a question that may not be passed on: what it is grouped by, none of its words."""

LICENCE, SIZE, SHIPPED = "licence", "size", "shipped"
"""Why questions are left out. Those that ship with this package are filled in from it."""

LARGE = 4_000_000
"""Characters of a task's prompts from which a compact pack leaves the questions out."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What goes into a pack.

    Attributes:
        model: its name in the cache, the last part of its folder's path, or its fingerprint's beginning.
        recipes: recipe texts; empty: all. Dense always comes along.
        tasks: names of tasks; empty: all.
        limit: the first examples of every task; None: all.
        compact: leave out answers that tell nothing new.
        own_questions: pass the questions of the user's own files on.
        name: what the model is called in the pack; empty: its name, of a path the last part.
        device: what measured, in words; empty: the kinds of devices.
        commit: of the program that measured.
    """

    model: str
    recipes: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    compact: bool = False
    own_questions: bool = False
    name: str = ""
    device: str = ""
    commit: str = ""


def build(store: Store, selection: Selection) -> tuple[Header, bytes]:
    """One model's results as a pack.

    Args:
        store: the cache that holds them.
        selection: which, and how.

    Returns:
        The header, without its sections, and the pack's bytes: the same for the same results and selection.

    Raises:
        BadRequest: a model, recipe or task that the cache has no results of.
    """
    runs = _selected(store, selection)
    name = selection.name or _last_part(runs[0].model)
    groups: dict[str, list[RunCard]] = defaultdict(list)
    for card in runs:
        groups[card.examples].append(card)
    sections: dict[str, bytes] = {}
    left_out = [_NEVER, *([_COMPACT] if selection.compact else [])]
    outputs, measured = 0, dict[str, int]()
    licences: dict[str, str] = {}
    for key in sorted(groups):
        examples = results.examples(store, key)
        task = tasks.get(groups[key][0].task, groups[key][0].data)
        reason = _reason(task, groups[key][0], examples, selection)
        sections[f"questions/{key}"] = _questions(task, groups[key][0], examples, reason)
        if reason in _WHY:
            left_out.append(f"{task.title}: {_WHY[reason]}")
        licences[task.name] = task.licence
        table, counts = tables.answers(store, task, groups[key], examples, selection.limit, _compact(selection, task))
        sections[f"answers/{key}"] = table
        measured |= counts
        outputs += sum(counts.values())
    artifacts = [_artifact(card, name, selection) for card in _artifacts(store, runs)]
    rows = [_run(store, card, name, measured[card.key]) for card in runs]
    days = sorted(card.created[:10] for card in runs)
    header = Header(
        model=name, fingerprint=runs[0].fingerprint, recipes=tuple(dict.fromkeys(card.recipe for card in runs)),
        tasks=tuple(sorted({card.task for card in runs})), runs=len(runs), outputs=outputs,
        devices=(selection.device,) if selection.device else tuple(sorted({card.device for card in runs})),
        measured=(days[0], days[-1]), commit=selection.commit, versions=runs[-1].versions, licences=licences,
        compact=selection.compact, left_out=tuple(dict.fromkeys(left_out)),
    )  # fmt: skip
    first = {"runs": canonical_json(rows), "artifacts": canonical_json(artifacts)}
    return header, assemble(header, first | sections)


_NEVER = "Weights, token ids, entropies, comparisons of whole distributions and judgments are not in a pack."
_COMPACT = (
    "A compact pack keeps the verdicts of the scorers that are reported; of answers dense's, those whose verdict is "
    f"another than dense's and the first {FIRST}; of options the one that was chosen."
)
_WHY = {
    LICENCE: "the questions may not be passed on; unpacking with --data DIR beside the official data fills them in.",
    SIZE: "the questions are left out for their size; unpacking with --data DIR fills them in.",
}


def _selected(store: Store, selection: Selection) -> list[RunCard]:
    """The runs that are wanted, dense first, in an order of their own."""
    known = results.runs(store)
    wanted = selection.model
    cards = [card for card in known if wanted in (card.model, _last_part(card.model), card.fingerprint)]
    if not cards and len(wanted) >= 6:
        cards = [card for card in known if card.fingerprint.startswith(wanted)]
    if not cards:
        raise nearest(wanted, dict.fromkeys(card.model for card in known), "measured model")
    if len(prints := {card.fingerprint for card in cards}) > 1:
        raise BadRequest(
            f"{len(prints)} models of {store.root} are called {wanted!r}: name one by its fingerprint, "
            f"{' or '.join(sorted(print_[:12] for print_ in prints))}"
        )
    recipes = {parse(text).text for text in selection.recipes}
    for word, names, there in (
        ("recipe", recipes, {card.recipe for card in cards}),
        ("task", set(selection.tasks), {card.task for card in cards}),
    ):
        if unknown := sorted(names - there):
            raise nearest(unknown[0], sorted(there), f"measured {word}")
    cards = [
        card
        for card in cards
        if (not recipes or card.recipe in recipes | {"dense"})
        and (not selection.tasks or card.task in selection.tasks)
        and not (selection.compact and _CHECKS & card.settings.keys())
    ]
    if selection.limit is not None and selection.limit < 1:
        raise BadRequest(f"limit {selection.limit}: at least 1 example is needed")
    return sorted(cards, key=lambda card: (card.recipe != "dense", card.recipe, card.task, card.key))


_CHECKS = {"again", "shots"}
"""Settings of runs that measure the evaluator or another number of shots; they are no results of a recipe."""


def _last_part(model: str) -> str:
    """The name that a model is known by elsewhere: of a path the last part, without a GGUF file's suffix."""
    path = PurePath(model)
    return path.name.removesuffix(".gguf") if path.is_absolute() or model.startswith((".", "~")) else model


def _reason(task: tasks.Task, card: RunCard, examples: Sequence[Example], selection: Selection) -> str:
    """Why a task's questions stay here; empty where they may go along."""
    if not task.licence and not (questions.is_file(card.data) and selection.own_questions):
        return LICENCE
    if not selection.compact:
        return ""
    if task.shipped and task.kind != "perplexity" and shipped_key(task.name) == card.examples:
        return SHIPPED
    return SIZE if task.kind == "perplexity" or _size(examples) > LARGE else ""


def shipped(task: tasks.Task) -> tuple[Example, ...]:
    """The questions of a task that ships its own."""
    return task.strict.load(tasks.OFFICIAL)


@cache
def shipped_key(name: str) -> str:
    """The key of the questions of a task that ships its own, which packs of several models share."""
    return results.examples_key(name, shipped(tasks.get(name, tasks.OFFICIAL)))


def _size(examples: Sequence[Example]) -> int:
    return sum(len(part) for example in examples for part in example.prompt)


def _questions(task: tasks.Task, card: RunCard, examples: Sequence[Example], reason: str) -> bytes:
    """A task's questions, or what stands for them: ids and labels, under a key that is their hash."""
    rows: list[Any] = [(outline(example, reason) if reason else example).to_json() for example in examples]
    return canonical_json({"task": task.name, "protocol": card.protocol, "left_out": reason, "examples": rows})


def outline(example: Example, reason: str) -> Example:
    """What is kept of a question that is left out: its id, how many options it has, and what it is grouped by."""
    meta = {name: value for name, value in example.meta.items() if name in LABELS}
    if passage := example.meta.get("passage"):
        meta["cluster"] = sha256_text(str(passage))[:16]
    words = f"(not in the pack: {reason})"
    return Example(example.id, (words,), ("",) * len(example.choices), (), meta | {"left_out": reason})


def _compact(selection: Selection, task: tasks.Task) -> int | None:
    """How many examples keep their answers whatever became of them; None: all do, as in running text."""
    return FIRST if selection.compact and task.kind != "perplexity" else None


def _run(store: Store, card: RunCard, name: str, measured: int) -> dict[str, Any]:
    """A run's card as it travels: without this machine's paths and names, with how long its sittings took."""
    data = card.data
    if PurePath(data).is_absolute() or "/" in data or data.startswith(("~", ".")):
        data = PurePath(data).name if questions.is_file(data) else tasks.OFFICIAL
    sittings = [[one.examples, one.tokens, round(one.seconds, 3)] for one in results.timings(store, card.key)]
    return {"card": replace(card, model=name, data=data).to_json(), "measured": measured, "sittings": sittings}


def _artifacts(store: Store, runs: Sequence[RunCard]) -> list[Card]:
    cards = {}
    for key in dict.fromkeys(card.weights for card in runs):
        try:
            cards[key] = weight_artifacts.card(store, key)
        except KickError:  # dense has none, and an artifact may have been collected
            continue
    return [cards[key] for key in sorted(cards)]


def _artifact(card: Card, name: str, selection: Selection) -> dict[str, Any]:
    layers = card.layers
    if selection.compact:
        layers = tuple(
            replace(layer, loss=None if layer.loss is None else float(f"{layer.loss:.3g}"), seconds=0.0)
            for layer in layers
        )
    return replace(card, model=name, host="", layers=layers).to_json()


def canonical_json(value: Mapping[str, Any] | Sequence[Any]) -> bytes:
    """JSON that depends on nothing but the value; fractions are allowed, NaN is not."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")
