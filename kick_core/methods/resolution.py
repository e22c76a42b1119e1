"""Recipes resolved: defaults filled in, what cannot be done refused, and what follows from a recipe alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NewType

from kick_core.errors import BadRequest, nearest
from kick_core.methods import recovery_options
from kick_core.methods.base import NEEDS, MethodCard, Need, TargetKind
from kick_core.methods.registry import card, names
from kick_core.spec import LARGEST, BitBudget, IntGrid, KeepNofM, Option, Recipe, Target, Unstructured, parse


def kind_of(target: Target) -> TargetKind:
    """The kind of a target, as cards list them.

    Args:
        target: Any of the four target types of `kick_core.spec`.
    """
    match target:
        case Unstructured():
            return "ratio"
        case KeepNofM():
            return "pattern"
        case IntGrid():
            return "bits"
        case BitBudget():
            return "budget"


_EXAMPLE = {"ratio": "0.5", "pattern": "2:4", "bits": "4bit", "budget": "4.5bpw"}


ResolvedRecipe = NewType("ResolvedRecipe", Recipe)
"""A recipe with every option spelled out, as `resolve` returns it; methods take no other."""


def resolve(recipe: Recipe) -> ResolvedRecipe:
    """Fill in the default options of a recipe's methods and refuse what they cannot do.

    Args:
        recipe: As parsed, or resolved already.

    Returns:
        The recipe with every option and the group of every grid spelled out; of a resolved one, an equal recipe.

    Raises:
        BadRequest: A method or option is unknown, a value is out of range, or a method does not take its target.
    """
    if recipe.target is None:
        return ResolvedRecipe(recipe)
    method = card(recipe.method)
    if recipe.then and not card(recipe.then.method).joins:
        joiners = ", ".join(name for name in names() if card(name).joins)
        raise BadRequest(f"{recipe.then.method} cannot keep another method's mask; after '+' stands one of: {joiners}")
    if recipe.then and method.plans:
        raise BadRequest(f"{recipe.method} is made alone: nothing can stand after '+'")
    if kind_of(recipe.target) not in method.targets:
        can = ", ".join(f"{recipe.method}@{_EXAMPLE[kind]}" for kind in method.targets)
        raise BadRequest(f"{recipe.method} cannot reach {recipe.target.text!r}; it takes e.g. {can}")
    recovery_options.refuse_inside(recipe)
    recovers = recovery_options.options(dict(recipe.options))
    args = dict(recovery_options.without(recipe).options)
    allocation = str(args.pop("alloc", "uniform"))
    if allocation not in ALLOCATIONS or (
        allocation != "uniform" and (method.plans or not isinstance(recipe.target, Unstructured))
    ):
        raise BadRequest(
            f"alloc={allocation}: uniform (every block alike) or, for a ratio of single weights, owl (blocks with "
            f"outliers keep more) or search (what an objective likes best)"
        )
    search = _searching(args, method, allocation)
    for name, value in args.items():
        if name not in method.options:
            raise _unknown_option(name, method, search)
        _of_type(name, value, method.options[name], method.name)
    then = resolve(recipe.then) if recipe.then else None
    options = (
        {**method.options, **args} | ({} if allocation == "uniform" else {"alloc": allocation}) | search | recovers
    )
    if "choices" in options:
        choices(str(options["choices"]))
    return ResolvedRecipe(Recipe(recipe.method, _own_grid(recipe, method), tuple(options.items()), then))


def _of_type(name: str, value: Option, default: Option, method: str) -> None:
    if type(value) is not type(default) and not (isinstance(default, float) and type(value) is int):
        raise BadRequest(f"option {name}={value} of {method}: a {type(default).__name__} is expected, e.g. {default}")


recovery, unrecovered = recovery_options.of, recovery_options.without
"""How a recipe recovers, and the recipe that it recovers from."""

ALLOCATIONS = ("uniform", "owl", "search")


def alloc(recipe: Recipe) -> str:
    """How a recipe's sparsity is shared out over the blocks; an option of every method that takes a ratio."""
    return str(dict(recipe.options).get("alloc", "uniform"))


# --- recipes that look at the whole model first --------------------------------------------------------------

SEARCH_VERSION = 1
"""To be raised when a search may find something else: part of the key of whatever was searched."""

ERROR, PERPLEXITY = "error", "perplexity"
"""Objectives beside the tasks: the sum of the matrices' output errors, perplexity on calibration windows."""

_STEPS: dict[str, Option] = {"search_steps": 64, "search_seed": 0}
_EXAMPLES: dict[str, Option] = {"search_examples": 200, "search_data": "pocket"}
FEWEST = 20
"""Examples that a search must at least look at."""


def _searching(args: dict[str, Option], known: MethodCard, allocation: str) -> dict[str, Option]:
    """The options of a search, defaults filled in; they are taken out of `args`."""
    if allocation != "search" and "objective" not in known.options:
        return {}
    objective = args.pop("objective", known.options.get("objective", ERROR))
    _of_type("objective", objective, ERROR, known.name)
    defaults = {"objective": objective}
    if objective != ERROR:
        defaults |= {} if known.lines else _STEPS
        defaults |= {} if objective == PERPLEXITY else _EXAMPLES
    for name in (*_STEPS, *_EXAMPLES):
        if name in args and name not in defaults:
            raise BadRequest(f"option {name}: it says nothing with {known.name} and objective={objective}")
    options = {name: args.pop(name, default) for name, default in defaults.items()}
    for name, default in defaults.items():
        _of_type(name, options[name], default, known.name)
    for name, least in (("search_steps", 1), ("search_seed", 0), ("search_examples", FEWEST)):
        if not least <= int(options.get(name, least)) <= LARGEST:
            raise BadRequest(f"{name}={options[name]}: at least {least} is needed")
    if options.get("search_data", "pocket") not in ("pocket", "official"):
        raise nearest(str(options["search_data"]), ("pocket", "official"), "data of a search")
    return options


def plans(recipe: Recipe) -> bool:
    """Whether a recipe looks at the whole model before the first matrix is compressed.

    Args:
        recipe: Resolved or not.
    """
    return recipe.target is not None and (card(recipe.method).plans or alloc(recipe) == "search")


def objective(recipe: Recipe) -> str | None:
    """What a recipe's search minimizes: "error", "perplexity" or a task's name; None where nothing is searched.

    Args:
        recipe: Resolved or not.
    """
    if not plans(recipe):
        return None
    name = dict(resolve(recipe).options).get("objective")
    return None if name is None else str(name)


def choices(text: str) -> tuple[ResolvedRecipe, ...]:
    """The recipes that a mixture may choose from.

    Args:
        text: Recipes between slashes, as in `choices=gptq@4bit/gptq@3bit`.

    Returns:
        At least two different recipes, resolved.

    Raises:
        BadRequest: A recipe is wrong or itself looks at the whole model, or there are fewer than two.
    """
    recipes = tuple(dict.fromkeys(resolve(parse(word)) for word in text.split("/")))
    for choice in recipes:
        if plans(choice) or alloc(choice) != "uniform":
            raise BadRequest(f"choice {choice.text!r} looks at the whole model itself: a mixture takes plain recipes")
    if len(recipes) < 2:
        raise BadRequest(f"choices={text}: a mixture needs two at least, e.g. choices=gptq@4bit/gptq@3bit")
    return recipes


GROUP = 128
"""Inputs that share a scale, where nothing else is said: the size that GPTQ's and AWQ's authors use."""


def _own_grid(recipe: Recipe, known: MethodCard) -> Target:
    """The target with the grid's open values filled in, the method's own first."""
    target = recipe.target
    if not isinstance(target, IntGrid):
        assert target is not None
        return target
    group = known.grid.get("group", GROUP)
    if "group" in known.grid and target.group not in (None, group):
        raise BadRequest(f"group={target.group}: {known.name} has its own grid (group={group})")
    symmetric = known.grid.get("symmetric", target.symmetric)
    if symmetric != target.symmetric:
        raise BadRequest(f"sym={str(target.symmetric).lower()}: {known.name} has its own grid")
    return replace(target, group=group if target.group is None else target.group)


def needs(recipe: Recipe) -> Need:
    """The most that any part of a recipe needs to know of the inputs.

    Args:
        recipe: Resolved or not.
    """
    parts = [part for part in (recipe, recipe.then) if part and part.target]
    levels: list[Need] = [card(part.method).needs for part in parts] + (["norms"] if alloc(recipe) != "uniform" else [])
    if (plan := recovery(recipe)) and not plan.trains:
        levels.append("norms")  # it needs the calibration windows on their way through the blocks
    return max(levels, key=NEEDS.index, default="nothing")


def _unknown_option(name: str, known: MethodCard, searched: Mapping[str, Option]) -> BadRequest:
    takes = (*known.options, *(("group", "sym") if "bits" in known.targets else ()), *searched)
    if name in ("objective", *_STEPS, *_EXAMPLES):
        return BadRequest(f"option {name}: nothing is searched by {known.name} without alloc=search")
    if not takes:
        return BadRequest(f"option {name!r}: {known.name} takes no options")
    return nearest(name, takes, "option")


def payload(recipe: Recipe) -> dict[str, Any]:
    """A recipe as it enters keys and cards: every default spelled out, fractions as text.

    Args:
        recipe: Resolved or not.

    Returns:
        Plain JSON values without floats; with the versions of the methods, so that new numbers get new keys.
    """
    full = resolve(recipe)
    if full.target is None:
        return {"method": "dense"}
    facts: dict[str, Any] = {
        "method": full.method,
        "version": card(full.method).version,
        "target": full.target.text,
        "options": {name: str(v) if isinstance(v, float) else v for name, v in full.options},
    }
    if isinstance(full.target, IntGrid):
        facts["group"], facts["sym"] = full.target.group, full.target.symmetric
    if full.then:
        facts["then"] = payload(full.then)
    if plans(full):
        facts["search"] = SEARCH_VERSION
    if "choices" in dict(full.options):
        facts["choices"] = [payload(choice) for choice in choices(str(dict(full.options)["choices"]))]
    return facts
