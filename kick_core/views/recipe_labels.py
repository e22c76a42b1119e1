"""Recipes in words and numbers: what a label, an axis and an order need to know of them."""

from __future__ import annotations

import math
from dataclasses import replace

from kick_core import methods
from kick_core.methods import storage
from kick_core.methods.resolution import kind_of
from kick_core.spec import BitBudget, IntGrid, Recipe, Unstructured, parse


def parts(recipe: Recipe) -> list[Recipe]:
    """A recipe's own part and, for a joint one, the part that comes after it."""
    return [replace(recipe, then=None), *([recipe.then] if recipe.then else [])]


def method(recipe: Recipe) -> str:
    """wanda; sparsegpt+gptq for a joint recipe; with whatever options were written, rtn (group=64); wanda + lora.

    Recipes of one method in this sense differ in their target alone, so that a line through them means one thing.
    """
    made = "+".join(part.method + _options(part) for part in parts(methods.unrecovered(recipe)))
    return made + _with_recovery(recipe)


def recovered(recipe: Recipe) -> str:
    """How a recipe recovers, with whatever options were written: lora, lora (rank=4); empty where it does not."""
    written = dict((recipe.then or recipe).options)
    how = written.pop("recover", "")
    more = [
        f"{name.removeprefix('recover_')}={value}" for name, value in written.items() if name.startswith("recover_")
    ]
    return f"{how} ({', '.join(more)})" if how and more else str(how)


def _with_recovery(recipe: Recipe) -> str:
    how = recovered(recipe)
    return f" + {how}" if how else ""


def _options(recipe: Recipe) -> str:
    written = recipe.text.partition(",")[2]
    return f" ({written})" if written else ""


def kind(recipe: Recipe) -> str:
    """dense, ratio, pattern, bits, or joint (pruned, then quantized; or each matrix in its own way)."""
    if recipe.then or isinstance(recipe.target, BitBudget):
        return "joint"
    return "dense" if recipe.target is None else kind_of(recipe.target)


def _part_target(recipe: Recipe) -> str:
    match recipe.target:
        case Unstructured(ratio):
            return f"{100 * ratio:.4g} %"
        case IntGrid(bits):
            return f"{bits} bit"
        case BitBudget(bits):
            return f"{bits:.4g} bits a weight"
        case None:
            return "dense"
        case target:
            return target.text


def target_label(recipe: Recipe) -> str:
    """The target in words: 50 %, 2:4, 4 bit, 2:4 + 4 bit."""
    return " + ".join(_part_target(part) for part in parts(recipe))


def _label(recipe: Recipe) -> str:
    if recipe.target is None:
        return "dense"
    return f"{recipe.method} {_part_target(recipe)}{_options(recipe)}"


def label(recipe: Recipe) -> str:
    """A recipe in words, with whatever options were written."""
    return " + ".join(_label(part) for part in parts(methods.unrecovered(recipe))) + _with_recovery(recipe)


def label_of(text: str) -> str:
    """A recipe's text in words. Raises BadRequest for what is no recipe, or one that no method takes."""
    recipe = parse(text)
    methods.resolve(recipe)
    return label(recipe)


KINDS = ("dense", "ratio", "pattern", "bits", "joint")
"""In the order in which pages list them."""


def order(recipe: Recipe) -> tuple[object, ...]:
    """Sorts recipes for people: dense, then by method, kind, from mild to harsh."""
    return recipe.target is not None, method(recipe), KINDS.index(kind(recipe)), severity(recipe), recipe.text


def sparsity(recipe: Recipe) -> float:
    """The share of weights that a recipe drops."""
    return max((part.target.sparsity for part in parts(recipe) if part.target), default=0.0)


def bits(recipe: Recipe) -> float:
    """The width of the codes; nan where nothing is quantized."""
    return float(next((part.target.bits for part in parts(recipe) if isinstance(part.target, IntGrid)), math.nan))


def severity(recipe: Recipe) -> float:
    """Orders recipes of one kind from mild to harsh; dense is mildest."""
    match kind(recipe):
        case "ratio" | "pattern":
            return sparsity(recipe)
        case "bits":
            return 1 - bits(recipe) / 16
        case "joint":
            return 1 - storage.bits_per_weight(methods.unrecovered(recipe)) / 16
        case _:
            return 0.0
