"""What the cache holds: artifacts and their sizes, which cells are measured, and what a recipe would weigh."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kick_core import methods, tasks
from kick_core.errors import KickError
from kick_core.methods import storage
from kick_core.models import source
from kick_core.records import Card
from kick_core.spec import Calibration, Recipe, parse
from kick_core.store import Store, results, weight_artifacts
from kick_core.tasks import POCKET
from kick_core.views import load, matrices, recipe_labels

POCKETS = ("pocket-11m", "pocket-4m")
"""The models that ship with the tool; both can always be asked for."""

WEIGHTS = {
    "model": "str",
    "recipe": "str",
    "label": "str",
    "method": "str",
    "kind": "str",
    "sparsity": "float",
    "target": "float",
    "bits_per_weight": "float",
    "alone": "float",
    "share": "float",
    "dense_bytes": "int",
    "bytes": "int",
    "weights": "int",
    "seconds": "float",
    "calibration": "str",
    "device": "str",
    "dtype": "str",
    "warnings": "int",
    "created": "str",
    "key": "str",
}


def cards(store: Store) -> list[Card]:
    """The cards of all artifacts that can be read; `kick verify` names the others."""
    return _cards(store, store.keys("weights"))


def known_cards(store: Store) -> list[Card]:
    """The same, and the cards of artifacts that were measured elsewhere, whose weights are not here."""
    return _cards(store, sorted({*store.keys("weights"), *store.keys(weight_artifacts.CARDS)}))


def _cards(store: Store, keys: Iterable[str]) -> list[Card]:
    found = []
    for key in keys:
        path = weight_artifacts.card_path(store, key)
        try:
            found.append(_card(path, path.stat().st_mtime_ns))
        except (OSError, ValueError, TypeError, KickError):
            continue
    return found


@lru_cache(maxsize=1024)
def _card(path: Path, changed: int) -> Card:
    return Card.from_json(json.loads(path.read_text()))


def weights(store: Store, model: str | None = None) -> pd.DataFrame:
    """One row per compressed artifact: what it is and what it weighs.

    Two sizes, not to be mixed up. `bytes` is what the cache stores: for methods that only choose weights, one
    bit each or less, because the kept values are the dense model's and nested masks share a file. `alone` (bytes)
    and `bits_per_weight` are what the compressed linears need without the dense model at hand; `share` is that
    beside `dense_bytes`.
    """
    stored = weight_artifacts.sizes(store)
    rows = [
        _weighed(card) | {"bytes": stored.get(card.key, card.bytes)}
        for card in cards(store)
        if model in (None, card.model, card.fingerprint)
    ]
    frame = pd.DataFrame(rows, columns=list(WEIGHTS)).astype(WEIGHTS)
    order = sorted(
        frame.index, key=lambda at: (frame.at[at, "model"], recipe_labels.order(parse(str(frame.at[at, "recipe"]))))
    )
    return frame.loc[order].reset_index(drop=True)


def _weighed(card: Card) -> dict[str, Any]:
    recipe = parse(card.recipe)
    alone = storage.card_size(card).alone
    return {
        "model": card.model,
        "recipe": card.recipe,
        "label": recipe_labels.label(recipe),
        "method": recipe_labels.method(recipe),
        "kind": recipe_labels.kind(recipe),
        "sparsity": card.sparsity,
        "target": recipe_labels.severity(recipe),
        "bits_per_weight": 8 * alone / card.weights if card.weights else math.nan,
        "alone": alone,
        "share": alone / card.dense_bytes if card.dense_bytes else math.nan,
        "dense_bytes": card.dense_bytes,
        "weights": card.weights,
        "seconds": card.seconds,
        "calibration": calibrated(card.calibration),
        "device": card.device,
        "dtype": card.dtype,
        "warnings": len(card.warnings),
        "created": card.created,
        "key": card.key,
    }


def left_alone(card: Card) -> str:
    """What of the blocks' weights was left as it is and why, in words, with the share that was compressed."""
    whole = card.weights + sum(int(part["weights"]) for part in card.left.values())
    parts = []
    for reason, part in sorted(card.left.items(), key=lambda item: -int(item[1]["weights"])):
        more = ", …" * (len(part["names"]) > 3)
        parts.append(f"{reason} {int(part['weights']) / whole:.1%} ({', '.join(part['names'][:3])}{more})")
    return f"{'; '.join(parts)}; compressed is {card.share:.1%} of the blocks' weights" if parts else ""


def calibrated(facts: Mapping[str, Any] | None) -> str:
    """A calibration as a card tells it, in words."""
    if not facts:
        return "none"
    said = f"{facts.get('windows', '?')} windows of {facts.get('length', '?')} tokens of {facts.get('source', '?')}"
    return f"{said}, seed {facts.get('seed', '?')}"[:120] + (" (dense)" if facts.get("propagate") == "dense" else "")


LAYERS = {
    "block": "int", "name": "str", "linear": "str", "rows": "int", "cols": "int", "sparsity": "float",
    "loss": "float", "note": "str",
}  # fmt: skip


def layers(store: Store, key: str) -> pd.DataFrame:
    """What happened to every linear of an artifact: block, names, shape, sparsity, relative error.

    `linear` is the last part of its module's `name` inside the block.
    """
    path = weight_artifacts.card_path(store, key)
    rows = []
    for layer in _card(path, path.stat().st_mtime_ns).layers:
        block, _, name = layer.name.partition(".")
        about = (int(block), name, name.rpartition(".")[2], layer.rows, layer.cols)
        rows.append((*about, layer.zeros / (layer.rows * layer.cols), layer.loss, layer.note))
    return pd.DataFrame(rows, columns=list(LAYERS)).astype(LAYERS)


# --- before pressing anything ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Preview:
    """What a recipe would make of a model. `card` when it was made already; numbers are nan when unknown.

    `bytes` and `bits_per_weight` are what the compressed linears need alone, by the recipe; `stored` the bytes of a
    made one in the cache, which may share files with others; `seconds` what making it took, or the median of the
    same method's artifacts, of this model if there are such.
    """

    recipe: Recipe
    card: Card | None
    bytes: float
    dense_bytes: float
    bits_per_weight: float
    seconds: float
    stored: float = math.nan


def preview(store: Store, model: str, text: str, calibration: Calibration | None = None) -> Preview:
    """Sizes of a recipe before anything is pressed. Raises BadRequest when the method cannot do it.

    With a calibration, only an artifact that saw this calibration (or needs none) counts as made.
    """
    recipe = methods.resolve(parse(text))
    known = cards(store)
    mine = [card for card in known if model in (card.model, card.fingerprint)]
    made = [card for card in mine if _same(card, recipe) and _saw(card, calibration)]
    card = max(made, key=lambda card: card.created) if made else None
    weights, dense_bytes = _weight(model, card or (mine[-1] if mine else None))
    if recipe.target is None or not weights:
        return Preview(recipe, None, math.nan, math.nan, math.nan, math.nan)
    like = card or (mine[-1] if mine else None)
    bits = _bits(recipe, card, like, 8 * dense_bytes / weights)
    seconds = card.seconds if card else _estimate(recipe, mine, known, weights)
    stored = weight_artifacts.sizes(store).get(card.key, math.nan) if card else math.nan
    return Preview(recipe, card, bits * weights / 8, dense_bytes, bits, seconds, stored)


def _bits(recipe: Recipe, card: Card | None, like: Card | None, dense: float) -> float:
    """Bits per weight without the dense model: by the recipe's own artifact, else by the shapes in another's."""
    if card is not None:
        return 8 * storage.card_size(card).alone / card.weights
    shapes = [storage.Shape(layer.rows, layer.cols) for layer in like.layers] if like else []
    return storage.bits_per_weight(recipe, dense, shapes)


def _weight(model: str, like: Card | None) -> tuple[int, int]:
    """How many weights a model's linears have and their dense bytes: by an artifact, else by its files' headers."""
    if like is not None:
        return like.weights, like.dense_bytes
    found = matrices.linears(model)
    return sum(linear.rows * linear.cols for linear in found), sum(linear.bytes for linear in found)


def _estimate(recipe: Recipe, mine: Sequence[Card], all_: Sequence[Card], weights: int) -> float:
    """Seconds that making it may take: as this method took for this model, else for any, by the weight."""
    for among in (mine, all_):
        kin = [
            card
            for card in among
            if card.weights and recipe_labels.method(parse(card.recipe)) == recipe_labels.method(recipe)
        ]
        if kin:
            return weights * float(np.median([card.seconds / card.weights for card in kin]))
    return math.nan


def _same(card: Card, recipe: Recipe) -> bool:
    try:
        return methods.resolve(parse(card.recipe)) == recipe
    except KickError:
        return False


def _saw(card: Card, calibration: Calibration | None) -> bool:
    """Whether an artifact was made with this calibration, as far as its card tells."""
    if calibration is None or not card.calibration:
        return True
    asked = {name: value for name, value in asdict(calibration).items() if value is not None}
    return all(card.calibration.get(name, value) == value for name, value in asked.items())


def methods_known() -> list[methods.MethodCard]:
    """The cards of all methods, in the order in which pages offer them."""
    return sorted(map(methods.card, methods.names()), key=lambda card: card.order)


def method_groups() -> dict[str, list[methods.MethodCard]]:
    """The cards of all methods by what kind of compression they are, in the field's terms."""
    groups: dict[str, list[methods.MethodCard]] = {}
    for card in methods_known():
        groups.setdefault(_group(card), []).append(card)
    return groups


def _group(card: methods.MethodCard) -> str:
    if "bits" in card.targets:
        return "quantization"
    if "budget" in card.targets:
        return "mixed"
    return "structured pruning" if card.lines else "pruning"


def calibration_of(store: Store, keys: Iterable[str]) -> list[str]:
    """The calibrations, in words, of those of these artifacts that looked at data."""
    wanted = set(keys)
    return sorted(
        {calibrated(card.calibration) for card in known_cards(store) if card.key in wanted and card.calibration}
    )


def calibration_used(store: Store, model: str, recipes: Iterable[str]) -> Calibration | None:
    """How the newest of these recipes' artifacts was calibrated, else the newest of any; None where none was.

    What is asked anew with it is asked of the weights that the rest of the grid was measured on.
    """
    wanted = set(recipes)
    seen = [card for card in cards(store) if model in (card.model, card.fingerprint) and card.calibration]
    card = max(seen, key=lambda card: (card.recipe in wanted, card.created), default=None)
    if card is None or card.calibration is None:
        return None
    names = {field.name for field in fields(Calibration)}
    return Calibration(**{name: value for name, value in card.calibration.items() if name in names})


def command(
    store: Store,
    model: str,
    recipe: str,
    task: str,
    *more: str,
    protocol: str = "strict",
    data: str = POCKET,
    dtype: str = "",
    prompting: str = "",
) -> str:
    """The command that measures a cell like its neighbours: the same data, protocol, calibration, dtype and prompts.

    `more` are further words of it; `data` is what a card names, a folder perhaps; the model's own `dtype` is left out.
    """
    words = ["kick", "sweep", model, "--recipe", recipe, "--task", task, *more]
    words += [] if protocol == "strict" else ["--protocol", protocol]
    words += [] if data == POCKET else ["--data", data]
    words += ["--dtype", dtype] if dtype and dtype != source.own_dtype(model) else []
    words += ["--prompting", prompting] if prompting else []
    return shlex.join([*words, *_calibration_flags(store, model, recipe)])


def _calibration_flags(store: Store, model: str, recipe: str) -> list[str]:
    """What `kick` must be told to meet the same artifact again; nothing for methods that look at no data."""
    found = parse(recipe)
    looks = found.target is not None and methods.needs(found) != "nothing"
    used = calibration_used(store, model, [recipe]) if looks else None
    if used is None:
        return []
    usual, flags = asdict(source.settled(Calibration(), model)), {"source": "--calibration"}
    told = {name: value for name, value in asdict(used).items() if value != usual[name]}
    return [
        word for name, value in told.items() for word in (flags.get(name, f"--{name.replace('_', '-')}"), str(value))
    ]


def at_home(model: str) -> bool:
    """Whether a model's files are on this machine, so that it can be compressed and asked without a network."""
    return source.local(model) is not None


# --- which cells are measured ------------------------------------------------------------------------------

COVERAGE = ("recipe", "label", "kind", "severity", "task", "title", "n", "wanted", "total", "state", "run")


def coverage(
    store: Store, model: str, *, more: Iterable[str] = (), protocol: str | None = None, data: str | None = None
) -> pd.DataFrame:
    """Every task under every recipe that has a run or an artifact (or is named in `more`): how much is measured.

    `protocol` and `data` ("pocket" or "official"): only what was asked so counts, and by the engine that was asked
    most, as `current` has it. `wanted` is what the best-measured
    recipe has of that task; `state` is done, partial or missing.
    """
    known = load.asked(store)
    names = load.model_names(known)
    among = [
        run
        for run in known
        if model in (run.card.model, run.card.fingerprint, names[run.card.fingerprint])
        and load.is_result(run)
        and data in (None, load.kind_of_data(run.card.data))
    ]
    engine = load.asked_most(map(load.engine_of, among))
    among = [
        run for run in among if load.engine_of(run) == engine and (protocol is None or load.answers_to(run, protocol))
    ]
    recipes = {run.recipe.text: run.recipe for run in among}
    recipes |= {card.recipe: parse(card.recipe) for card in cards(store) if card.model == model}
    recipes |= {text: parse(text) for text in more}
    recipes = dict(sorted(recipes.items(), key=lambda item: recipe_labels.order(item[1])))
    best: dict[tuple[str, str], tuple[int, str]] = {}
    for run in among:
        cell = (run.recipe.text, run.card.task)
        best[cell] = max(best.get(cell, (0, "")), (results.measured(store, run.key), run.key))
    totals = {run.card.task: max(run.card.total, 0) for run in among}
    rows = []
    listed = load.task_titles((*tasks.names(data), *totals))
    for task, title in listed.items():
        wanted = max((n for (_, of), (n, _) in best.items() if of == task), default=0)
        for text, recipe in recipes.items():
            n, key = best.get((text, task), (0, ""))
            state = "missing" if n == 0 else "done" if n >= wanted else "partial"
            about = (text, recipe_labels.label(recipe), recipe_labels.kind(recipe), recipe_labels.severity(recipe))
            rows.append((*about, task, title, n, wanted, totals.get(task, 0), state, key))
    return pd.DataFrame(rows, columns=list(COVERAGE))


def models(store: Store) -> list[str]:
    """Names of the models that have results or artifacts, those with most results first."""
    among = load.asked(store)
    names = load.model_names(among)
    counted = pd.Series([names[run.card.fingerprint] for run in among], dtype="str").value_counts()
    measured = [str(name) for name in counted.index]
    return list(dict.fromkeys([*measured, *(card.model for card in cards(store))]))
