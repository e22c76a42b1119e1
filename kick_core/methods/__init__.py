"""The compression methods: one file each, and the file's name is the method's name.

A method file holds one literal, `CARD`, and one pure function:

    compress(weight, stats, target, options) -> CompressedMatrix

`weight` [out, in], `stats` the statistics of the linear's inputs, `target` what to reach. Nothing else goes
in, and the weight is never changed in place. The card is read without importing the file (it is a literal),
so that planning and keys do not wait for torch. Files without a card are shared parts.
"""

from kick_core.methods.application import apply, apply_stack, stacks
from kick_core.methods.base import (
    NEEDS,
    TARGETS,
    CompressedMatrix,
    InputStats,
    MethodCard,
    Need,
    TargetKind,
    moved,
)
from kick_core.methods.registry import Method, card, function, names, of_a_matrix
from kick_core.methods.resolution import (
    ALLOCATIONS,
    ERROR,
    GROUP,
    PERPLEXITY,
    SEARCH_VERSION,
    ResolvedRecipe,
    alloc,
    choices,
    kind_of,
    needs,
    objective,
    payload,
    plans,
    recovery,
    resolve,
    unrecovered,
)

__all__ = [
    "ALLOCATIONS",
    "ERROR",
    "GROUP",
    "NEEDS",
    "PERPLEXITY",
    "SEARCH_VERSION",
    "TARGETS",
    "CompressedMatrix",
    "InputStats",
    "Method",
    "MethodCard",
    "Need",
    "ResolvedRecipe",
    "TargetKind",
    "alloc",
    "apply",
    "apply_stack",
    "card",
    "choices",
    "function",
    "kind_of",
    "moved",
    "names",
    "needs",
    "objective",
    "of_a_matrix",
    "payload",
    "plans",
    "recovery",
    "resolve",
    "stacks",
    "unrecovered",
]
