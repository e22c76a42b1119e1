"""The compression methods: one file each, and the file's name is the method's name.

A method file holds one literal, `CARD`, and one pure function:

    compress(weight, seen, target, options) -> CompressedMatrix

`weight` [out, in], `seen` the statistics of the linear's inputs, `target` what to reach. Nothing else goes
in, and the weight is never changed in place. The card is read without importing the file (it is a literal),
so that planning and keys do not wait for torch; files that begin with an underscore are shared parts.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from kick_core.methods import _recovery
from kick_core.spec import BadRequest, IntGrid, KeepNofM, Option, Recipe, Target, Unstructured, nearest

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Need = Literal["nothing", "norms", "gram"]


@dataclass(frozen=True, slots=True)
class MethodCard:
    """What is known of a method without running it.

    `version` is raised by hand whenever its numbers may change, and is part of every key. `targets` are
    among "ratio", "pattern" and "bits". `needs` says which statistics of the inputs it reads: none, the
    squared norm of every input feature, or the Gram matrix X^T X. A method that `joins` can quantize what
    another one prunes: its function takes `prune`, a mask to keep (or a sparsity to reach on the way).
    `grid` names what of the integer grid is the method's own and cannot be chosen.
    """

    name: str
    title: str
    version: int
    targets: tuple[str, ...]
    needs: Need
    options: Mapping[str, Option]
    paper: str
    joins: bool = False
    grid: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """Statistics of a linear's inputs over all calibration tokens, float32.

    `norms` [in]: the sum over tokens of x_j². `peaks` [in]: the largest |x_j|. `gram` [in, in]: X^T X, when
    the method needs it. `tokens`: how many were seen. Padding never enters. `factors` keeps what was worked out
    from the Gram matrix (see `_solve`) for the next matrix, or recipe, that sees the same inputs.
    """

    tokens: int
    norms: Tensor | None = None
    gram: Tensor | None = None
    peaks: Tensor | None = None
    factors: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class CompressedMatrix:
    """The result for one matrix. `weight` [out, in] is what the model will compute with, in its own dtype.

    Pruning methods give `mask` [out, in] (True: kept). Quantizing methods give `codes` [out, in] (uint8),
    `scales` and `zeros` [out, groups] (float32; weight = (codes - zeros) * scales) and `groups` [in], the
    group of every input; where the method scaled columns before rounding, `columns` [in] scales them back,
    and `outliers` are the columns that stayed as they were. `updated` says that kept weights differ from the
    original ones. `note` records departures from the plain procedure, such as a Cholesky retry.
    """

    weight: Tensor
    mask: Tensor | None = None
    codes: Tensor | None = None
    scales: Tensor | None = None
    zeros: Tensor | None = None
    groups: Tensor | None = None
    columns: Tensor | None = None
    outliers: Tensor | None = None
    bits: int | None = None
    updated: bool = False
    note: str = ""


Told = TypeVar("Told", Seen, CompressedMatrix)


def moved(told: Told, device: torch.device | str) -> Told:
    """Statistics or a result with every tensor on another device."""
    values = {f.name: getattr(told, f.name) for f in fields(told)}
    return replace(told, **{name: value.to(device) for name, value in values.items() if hasattr(value, "to")})


Method = Callable[..., CompressedMatrix]


def names() -> tuple[str, ...]:
    """The methods there are, found by looking at file names."""
    return tuple(sorted(p.stem for p in Path(__file__).parent.glob("*.py") if not p.stem.startswith("_")))


@cache
def card(name: str) -> MethodCard:
    """A method's card, read from its file without running it. Raises BadRequest for an unknown method."""
    if name not in names():
        raise nearest(name, ("dense", *names()), "method")
    tree = ast.parse((Path(__file__).parent / f"{name}.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "CARD" for t in node.targets):
            return MethodCard(name=name, **ast.literal_eval(node.value))
    raise TypeError(f"kick_core/methods/{name}.py holds no literal CARD")


def function(name: str) -> Method:
    """A method's function; this is where torch is first needed."""
    card(name)
    method: Method = import_module(f"kick_core.methods.{name}").compress
    return method


def _kind(target: Target) -> str:
    match target:
        case Unstructured():
            return "ratio"
        case KeepNofM():
            return "pattern"
        case IntGrid():
            return "bits"


_EXAMPLE = {"ratio": "0.5", "pattern": "2:4", "bits": "4bit"}


def resolve(recipe: Recipe) -> Recipe:
    """Fill in the method's default options and refuse what the method cannot do.

    Raises BadRequest for an unknown method or option and for a target that the method does not take.
    """
    if recipe.target is None:
        return recipe
    known = card(recipe.method)
    if recipe.then and not card(recipe.then.method).joins:
        able = ", ".join(name for name in names() if card(name).joins)
        raise BadRequest(f"{recipe.then.method} cannot keep another method's mask; after '+' stands one of: {able}")
    if _kind(recipe.target) not in known.targets:
        can = ", ".join(f"{recipe.method}@{_EXAMPLE[kind]}" for kind in known.targets)
        raise BadRequest(f"{recipe.method} cannot reach {recipe.target.text!r}; it takes e.g. {can}")
    _recovery.refuse_inside(recipe)
    recovers = _recovery.options(dict(recipe.options))
    given = dict(_recovery.without(recipe).options)
    how = given.pop("alloc", "uniform")
    if how not in ALLOCATIONS or (how != "uniform" and not isinstance(recipe.target, Unstructured)):
        raise BadRequest(
            f"alloc={how}: uniform (every block alike) or, for a ratio, owl (blocks with outliers keep more)"
        )
    for name, value in given.items():
        if name not in known.options:
            raise _unknown_option(name, known)
        default = known.options[name]
        if type(value) is not type(default) and not (isinstance(default, float) and type(value) is int):
            raise BadRequest(
                f"option {name}={value} of {recipe.method}: a {type(default).__name__} is expected, e.g. {default}"
            )
    then = resolve(recipe.then) if recipe.then else None
    options = {**known.options, **given} | ({} if how == "uniform" else {"alloc": how}) | recovers
    return Recipe(recipe.method, _own_grid(recipe, known), tuple(options.items()), then)


recovery, unrecovered = _recovery.of, _recovery.without
"""How a recipe recovers, and the recipe that it recovers from."""

ALLOCATIONS = ("uniform", "owl")


def alloc(recipe: Recipe) -> str:
    """How a recipe's sparsity is shared out over the blocks; an option of every method that takes a ratio."""
    return str(dict(recipe.options).get("alloc", "uniform"))


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


NEEDS: tuple[Need, ...] = ("nothing", "norms", "gram")


def needs(recipe: Recipe) -> Need:
    """The most that any part of a recipe needs to know of the inputs."""
    parts = [part for part in (recipe, recipe.then) if part and part.target]
    found = [card(part.method).needs for part in parts] + (["norms"] if alloc(recipe) == "owl" else [])
    if (how := recovery(recipe)) and not how.trains:
        found.append("norms")  # it needs the calibration windows on their way through the blocks
    return max(found, key=NEEDS.index, default="nothing")


def apply(recipe: Recipe, weight: Tensor, seen: Seen) -> CompressedMatrix:
    """Compress one matrix by a resolved recipe.

    SparseGPT and GPTQ together are one sweep: the mask is chosen on weights that carry the rounding errors.
    Any other pair prunes first and quantizes what is left.
    """
    assert recipe.target is not None
    first, then = function(recipe.method), recipe.then
    if then is None:
        return first(weight, seen, recipe.target, dict(recipe.options))
    quantize = function(then.method)
    if (recipe.method, then.method) == ("sparsegpt", "gptq"):
        return quantize(weight, seen, then.target, dict(then.options), prune=recipe.target)
    pruned = first(weight, seen, recipe.target, dict(recipe.options))
    return quantize(pruned.weight, seen, then.target, dict(then.options), prune=pruned.mask)


def stacks(recipe: Recipe, device: torch.device) -> bool:
    """Whether a resolved recipe's method takes several matrices, or targets, at once on a device; see `apply_stack`."""
    module = import_module(f"kick_core.methods.{recipe.method}")
    return (
        recipe.then is None
        and hasattr(module, "compress_stack")
        and bool(module.stacks(device, recipe.target, dict(recipe.options)))
    )


def apply_stack(recipes: Sequence[Recipe], weights: Sequence[Tensor], seen: Seen) -> list[CompressedMatrix]:
    """Compress matrices of one shape that see the same inputs, by a recipe each that stacks: what `apply` makes of
    each, in less time. The recipes may differ in their targets alone."""
    (method, options) = {(recipe.method, recipe.options) for recipe in recipes}.pop()
    module = import_module(f"kick_core.methods.{method}")
    made: list[CompressedMatrix] = module.compress_stack(weights, seen, [r.target for r in recipes], dict(options))
    return made


def _unknown_option(name: str, known: MethodCard) -> BadRequest:
    takes = (*known.options, *(("group", "sym") if "bits" in known.targets else ()))
    if not takes:
        return BadRequest(f"option {name!r}: {known.name} takes no options")
    return nearest(name, takes, "option")


def payload(recipe: Recipe) -> dict[str, Any]:
    """A resolved recipe as it enters keys and cards: every default spelled out, fractions as text."""
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
    return facts
