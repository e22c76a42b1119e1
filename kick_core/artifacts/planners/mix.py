"""A mixture: every matrix is compressed in the way that serves the whole best, under one budget of bits.

What a matrix takes is counted as in a copy that stands alone (`methods.storage`): kept values and one bit each that
says where, codes, scales and zero points. What is chosen from is written in the recipe,
`choices=gptq@4bit/gptq@3bit/sparsegpt@2:4+gptq@4bit`; how is `objective`'s business (see `_search`). (Frantar, Singh &
Alistarh 2022, "Optimal Brain Compression", arXiv 2208.11580: mixed sparsity and precision under one constraint.)
"""

from __future__ import annotations

from collections.abc import Generator, Iterator

import numpy as np

from kick_core import methods
from kick_core.artifacts.planners import PlannerContext
from kick_core.artifacts.planners._database import build
from kick_core.artifacts.planners._search import solved
from kick_core.errors import BadRequest
from kick_core.methods import storage
from kick_core.models.blocks import decoder_blocks
from kick_core.records import LayerPlan, PlanProgress
from kick_core.spec import BitBudget, Recipe

CARD = {
    "title": "Mixture",
    "order": 130,
    "colour": "#5f7f2a",
    "symbol": "star",
    "version": 2,
    "targets": ("budget",),
    "needs": "gram",
    "options": {
        "choices": "gptq@8bit/gptq@4bit/gptq@3bit/gptq@2bit/sparsegpt@2:4+gptq@4bit/sparsegpt@0.5",
        "objective": "error",
    },
    "paper": "Frantar, Singh & Alistarh 2022, arXiv 2208.11580",
    "plans": True,
}


def plan(context: PlannerContext) -> Generator[PlanProgress, None, LayerPlan]:
    """One of the choices for every matrix. Raises BadRequest when even the smallest one does not fit the budget."""
    target, options = context.recipe.target, dict(context.recipe.options)
    assert isinstance(target, BitBudget)
    choices = methods.choices(str(options["choices"]))
    shapes = dict(_shapes(context))
    itemsize = context.opened.model.dtype.itemsize
    costs = {name: [_bits(choice, shape, itemsize) for choice in choices] for name, shape in shapes.items()}
    bits = np.array(list(costs.values())).sum(axis=0) / sum(shape.weights for shape in shapes.values())
    if bits.min() > target.bits:
        smallest = choices[int(bits.argmin())].text
        raise BadRequest(
            f"no choice takes {target.bits:.12g} bits a weight or less: {smallest} takes the least, {bits.min():.4g}"
        )
    database = yield from build(context, choices, keep=options["objective"] != methods.ERROR)
    # what one recipe for all matrices would be: the one with the least error among those that fit
    alone = np.where(bits <= target.bits, database.errors.sum(axis=0), np.inf)
    even = (int(alone.argmin()),) * len(database.names)
    table = np.array([costs[name] for name in database.names])
    return (yield from solved(context, database, table, target.bits * float(database.sizes.sum()), even))


def _shapes(context: PlannerContext) -> Iterator[tuple[str, storage.Shape]]:
    for block in range(len(decoder_blocks(context.opened.model))):
        for matrix in context.opened.block_matrices(block):
            yield f"{block}.{matrix.name}", storage.Shape(*matrix.read().shape)


def _bits(choice: Recipe, shape: storage.Shape, itemsize: int) -> float:
    """Bits of a matrix in a copy that stands alone."""
    return 8 * storage.matrix_size(choice, shape, itemsize).alone
