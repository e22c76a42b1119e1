"""The tensors of a checkpoint that is written, under the names and in the pieces of the model's own folder.

What is not compressed (embeddings, heads, norms, routers, a vision tower, tensors that no class reads) is the folder's
own, bit for bit. So whoever opened the folder opens what is written, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import OpenModel
from kick_core.errors import BadRequest
from kick_core.methods.grid import group_of
from kick_core.models.bit_tensors import unpack_bits
from kick_core.models.blocks import Matrix, decoder_blocks, matrices
from kick_core.models.checkpoint_names import Origin, origins
from kick_core.models.file_formats import GPTQ, Grid, gptq_tensors, packed_tensors
from kick_core.models.opener import whole_model
from kick_core.models.quantized import plain_names
from kick_core.models.shards import path_of
from kick_core.models.tensor_files import TensorFiles
from kick_core.spec import DENSE, IntGrid, Recipe
from kick_core.store import weight_artifacts


@dataclass(frozen=True)
class Checkpoint:
    """An open model's folder, as what is written follows it."""

    opened: OpenModel

    @cached_property
    def files(self) -> TensorFiles:
        """The folder's tensors."""
        return TensorFiles(self.opened.source)

    @cached_property
    def origins(self) -> dict[str, Origin]:
        """Where the model's parameters lie in the folder, by the model's names."""
        return origins(self.opened.model, plain_names(self.opened.source))[0]

    @cached_property
    def blocks_path(self) -> str:
        """The blocks' path in the model."""
        return path_of(self.opened.model, decoder_blocks(self.opened.model))

    def module_in_folder(self, block: int, matrix: Matrix) -> str:
        """The name in the folder of the linear that a matrix is. Raises BadRequest where it is none."""
        path = f"{self.blocks_path}.{block}.{matrix.path}"
        origin = self.origins.get(path)
        if not isinstance(matrix.module, nn.Linear) or matrix.expert is not None or not path.endswith(".weight"):
            raise BadRequest(f"{matrix.name} is no plain linear: use --format dense")
        if origin is None or origin.conversion is not None:
            raise BadRequest(f"{matrix.name} does not lie in the folder as a tensor of its own: use --format dense")
        return origin.pieces[0].name.removesuffix(".weight")

    def kept(self, rewritten: Mapping[int, Origin]) -> Iterator[tuple[str, Tensor]]:
        """The folder's tensors that are not written anew."""
        anew = {piece.name for origin in rewritten.values() for piece in origin.pieces}
        plain, declared = set(plain_names(self.opened.source)), declared_dtype(self.opened)
        for name in self.files.names:
            if name in plain and name not in anew:
                tensor = self.files.read(name)
                yield name, tensor.to(self.opened.model.dtype) if tensor.dtype == declared else tensor

    def rewritten(self, recipe: Recipe) -> dict[int, Origin]:
        """What is written from the model, by identity: compressed matrices, and what the folder held as codes."""
        stored = set(self.files.names)
        origins = {id(o): o for o in self.origins.values() if any(piece.name not in stored for piece in o.pieces)}
        for number, block in enumerate(self.opened.blocks() if recipe != DENSE else ()):
            for matrix in matrices(block):
                origin = self.origins[f"{self.blocks_path}.{number}.{matrix.path}"]
                origins[id(origin)] = origin
        return origins


def left_linears(opened: OpenModel) -> list[str]:
    """Linears that are not compressed, by every name that a reader may know them by: in the model as it was opened
    here, and in the one that the folder's config names."""
    checkpoint = Checkpoint(opened)
    packed = {
        (f"{checkpoint.blocks_path}.{number}.{matrix.name}", checkpoint.module_in_folder(number, matrix))
        for number, block in enumerate(opened.blocks())
        for matrix in matrices(block)
    }
    names = _linears(opened.model) - {name for name, _ in packed}
    if (whole := whole_model(opened.source)) is not None:
        places = origins(whole, plain_names(opened.source))[0]
        stored = {module for _, module in packed}
        names |= {
            name
            for name in _linears(whole)
            if (origin := places.get(f"{name}.weight")) is None
            or origin.pieces[0].name.removesuffix(".weight") not in stored
        }
    return sorted(names)


def _linears(model: PreTrainedModel) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}


def declared_dtype(opened: OpenModel) -> torch.dtype | None:
    """The dtype that the folder's config names, if the model was opened in another one."""
    config = opened.source.config
    for own in (config, *(value for value in config.values() if isinstance(value, dict))):
        if isinstance(name := own.get("dtype", own.get("torch_dtype")), str):
            declared = getattr(torch, name.removeprefix("torch."), None)
            return declared if declared != opened.model.dtype else None
    return None


def written_tensors(
    builder: ArtifactBuilder, recipe: Recipe, form: str, target: IntGrid | None
) -> Iterator[tuple[str, Tensor]]:
    """The checkpoint's tensors by name, on the CPU, block after block.

    An open model has the recipe applied already; on a streamed one it is applied to each block while that is in memory.
    """
    opened = builder.opened
    checkpoint, model = Checkpoint(opened), opened.model
    anew = checkpoint.rewritten(recipe)
    yield from checkpoint.kept(anew)
    inside = f"{checkpoint.blocks_path}."
    state = model.state_dict()
    for origin in anew.values():
        if not origin.target.startswith(inside):
            yield from _plain(model, origin, {name: state[name] for name in origin.parameters})
    for number, block in enumerate(decoder_blocks(model)):
        prefix = f"{inside}{number}."
        own = {key: origin for key, origin in anew.items() if origin.target.startswith(prefix)}
        with with_recipe(builder, recipe, number) as stored:
            if target is not None:
                yield from _grids(checkpoint, number, block, stored, form, target)
                for matrix in matrices(block):
                    own.pop(id(checkpoint.origins[f"{prefix}{matrix.path}"]), None)
            values = {f"{prefix}{name}": tensor for name, tensor in block.state_dict().items()}
            for origin in own.values():
                yield from _plain(model, origin, {name: values[name] for name in origin.parameters})


def _plain(model: PreTrainedModel, origin: Origin, values: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in origin.take_apart(model, values).items():
        yield name, tensor.detach().cpu().contiguous()


@contextmanager
def with_recipe(builder: ArtifactBuilder, recipe: Recipe, block: int) -> Iterator[dict[str, Tensor]]:
    """A block in memory with the recipe applied, and the artifact's tensors of it."""
    with builder.opened.hold(block):
        stored = {} if recipe == DENSE else weight_artifacts.tensors(builder.store, builder.key(recipe), block, "pt")
        if builder.opened.streamed and stored:
            builder.opened.apply_block(block, stored)
        yield stored


def _grids(
    checkpoint: Checkpoint, number: int, block: nn.Module, stored: dict[str, Tensor], form: str, target: IntGrid
) -> Iterator[tuple[str, Tensor]]:
    """A block's compressed linears in their packed form."""
    write = gptq_tensors if form == GPTQ else packed_tensors
    for matrix in matrices(block):
        grid = _stored_grid(matrix.name, stored, matrix.read().shape[1], target)
        yield from write(checkpoint.module_in_folder(number, matrix), grid, target.symmetric).items()


def _stored_grid(name: str, stored: dict[str, Tensor], cols: int, target: IntGrid) -> Grid:
    size = cols if target.group == -1 else target.group
    assert size is not None
    groups = stored.get(f"{name}.groups", group_of(cols, target))
    codes = unpack_bits(stored[f"{name}.codes{target.bits}"], target.bits, cols)
    return Grid(codes, stored[f"{name}.scales"], stored[f"{name}.zeros"], groups, target.bits)
