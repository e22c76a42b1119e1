"""Every matrix under every choice, from one calibration pass: its output error, what it takes, and the result itself.

The choices must not depend on one another, so each sees the dense model's activations (Frantar, Singh & Alistarh 2022,
"Optimal Brain Compression", arXiv 2208.11580: a database of independently compressed layers that are put
together afterwards).
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor

from kick_core.artifacts.loaded_model import OpenModel
from kick_core.artifacts.planners import CHOICE, PlannerContext
from kick_core.compression import codec
from kick_core.compression.walk import walk_many
from kick_core.models.blocks import decoder_blocks
from kick_core.records import PlanProgress
from kick_core.spec import Recipe
from kick_core.store.files import replace_file

Numbers = NDArray[np.float64]
Assignment = tuple[int, ...]
"""The number of the choice of every matrix."""


@dataclass(slots=True)
class Database:
    """Every matrix in every way that it may be compressed.

    Attributes:
        names: "block.matrix" [matrices].
        sizes: Weights [matrices].
        errors: ‖(W-Ŵ)X‖²/‖WX‖² [matrices, choices].
        nonzeros: Weights that are not zero [matrices, choices].
        choices: The recipes.
        folder: Where the results are, so that an assignment can be applied; None: they were not kept.
        applied: The assignment that the model has now; empty before the first.
    """

    names: list[str]
    sizes: Numbers
    errors: Numbers
    nonzeros: Numbers
    choices: tuple[Recipe, ...]
    folder: Path | None = None
    applied: list[int] = field(default_factory=list)

    def apply_weights(self, opened: OpenModel, assignment: Assignment) -> None:
        """Apply an assignment to the model, changing only what differs from the one before.

        Args:
            opened: The model.
            assignment: The number of the choice of every matrix.
        """
        assert self.folder is not None
        number = 0
        for block in range(len(decoder_blocks(opened.model))):
            files: dict[int, dict[str, Tensor]] = {}
            for matrix in opened.block_matrices(block):
                choice = assignment[number]
                if not self.applied or self.applied[number] != choice:
                    base = opened.base(block, matrix)
                    if self.choices[choice].target is None:
                        matrix.write(base)
                    else:
                        if choice not in files:
                            files[choice] = load_file(_file(self.folder, choice, block))
                        codec.decode_into(matrix.read(), matrix.name, base, files[choice])
                number += 1
        self.applied = list(assignment)


def _file(folder: Path, choice: int, block: int) -> Path:
    return folder / f"{CHOICE}-{choice:02d}-{block:04d}.safetensors"


def build(context: PlannerContext, choices: Sequence[Recipe], *, keep: bool) -> Generator[PlanProgress, None, Database]:
    """Compress every matrix in every way.

    Args:
        context: The model and the recipe.
        choices: The recipes.
        keep: Write the results to the scratch folder, so that assignments can be applied.

    Yields:
        How far it is; a search's steps, which come afterwards, are part of the total.
    """
    steps = int(dict(context.recipe.options).get("search_steps", 0))
    compressed = [choice for choice in choices if choice.target is not None]
    errors: dict[str, dict[Recipe, Any]] = {}
    nonzeros: dict[str, dict[Recipe, int]] = {}
    sizes: dict[str, int] = {}
    for recipe, walked in walk_many(
        context.opened.model, compressed, context.ids, hold=context.opened.hold, need="gram"
    ):
        block = walked.report.block
        for layer in walked.report.layers:
            name = f"{block}.{layer.name}"
            sizes[name] = layer.rows * layer.cols
            errors.setdefault(name, {})[recipe] = np.nan if layer.loss is None else layer.loss
            nonzeros.setdefault(name, {})[recipe] = sizes[name] - layer.zeros
        if keep:
            replace_file(
                _file(context.scratch, list(choices).index(recipe), block), save(codec.encode_block(walked.results))
            )
        if recipe == compressed[-1]:
            note = f"{len(compressed)} choices for every matrix of block {block}"
            yield PlanProgress(block + 1, walked.report.blocks + steps, note)
    table = np.array([[errors[name].get(choice, 0.0) for choice in choices] for name in sizes], dtype=float)
    # an expert that no token reached is judged like the other matrices
    table = np.where(np.isnan(table), np.nan_to_num(np.nanmean(table, axis=0)), table)
    counts = np.array([[nonzeros[name].get(choice, sizes[name]) for choice in choices] for name in sizes], dtype=float)
    folder = context.scratch if keep else None
    return Database(list(sizes), np.array(list(sizes.values()), dtype=float), table, counts, tuple(choices), folder)
