"""Recipes carried out on matrices: one after another, or several of one shape at once."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING

from kick_core.methods.base import CompressedMatrix, InputStats
from kick_core.methods.registry import function
from kick_core.methods.resolution import ResolvedRecipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def apply(recipe: ResolvedRecipe, weight: Tensor, stats: InputStats) -> CompressedMatrix:
    """Compress one matrix by a resolved recipe.

    SparseGPT and GPTQ together are one sweep: the mask is chosen on weights that carry the rounding errors
    (SparseGPT, section 3.5). Any other pair prunes first and quantizes what is left.

    Args:
        recipe: Not dense.
        weight: [out, in], in the model's dtype; not changed.
        stats: Statistics of the linear's inputs, with what the recipe's methods need.

    Returns:
        The matrix after the recipe's last part.
    """
    assert recipe.target is not None
    first, then = function(recipe.method), recipe.then
    if then is None:
        return first(weight, stats, recipe.target, dict(recipe.options))
    quantize = function(then.method)
    if (recipe.method, then.method) == ("sparsegpt", "gptq"):
        return quantize(weight, stats, then.target, dict(then.options), prune=recipe.target)
    pruned = first(weight, stats, recipe.target, dict(recipe.options))
    return quantize(pruned.weight, stats, then.target, dict(then.options), prune=pruned.mask)


def stacks(recipe: ResolvedRecipe, device: torch.device) -> bool:
    """Whether a recipe's method takes several matrices, or several targets, in one call on a device.

    Args:
        recipe: Not dense.
        device: Where the matrices are.
    """
    module = import_module(f"kick_core.methods.{recipe.method}")
    return (
        recipe.then is None
        and hasattr(module, "compress_stack")
        and bool(module.stacks(device, recipe.target, dict(recipe.options)))
    )


def apply_stack(
    recipes: Sequence[ResolvedRecipe], weights: Sequence[Tensor], stats: InputStats
) -> list[CompressedMatrix]:
    """Compress matrices of one shape and the same inputs together: the result of `apply` for each, in less time.

    Args:
        recipes: One per matrix, for which `stacks` holds; they may differ in their targets alone.
        weights: [out, in] each.
        stats: Statistics of the inputs that all of them read.

    Returns:
        One result per matrix, in the same order.
    """
    (method, options) = {(recipe.method, recipe.options) for recipe in recipes}.pop()
    module = import_module(f"kick_core.methods.{method}")
    matrices: list[CompressedMatrix] = module.compress_stack(weights, stats, [r.target for r in recipes], dict(options))
    return matrices
