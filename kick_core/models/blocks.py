"""The decoder blocks of a model, the matrices inside them, and what a block is called with.

Nothing here knows an architecture by name. Blocks are the list of modules beside the token embedding that is as long
as the model has layers; which of their parameters are matrices is seen by watching them at work (`layout`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kick_core.errors import KickError
from kick_core.models.block_calls import (
    Hold,
    all_in_place,
    eager_experts,
    entering,
    leaving,
    plain_forward,
    replaced_forwards,
    with_hidden,
)
from kick_core.models.layout import layout_of, understand
from kick_core.models.parameter_roles import Layout, Left, Stack
from kick_core.models.products import Part, ProductWatch
from kick_core.stats import common_prefix

__all__ = [
    "Call",
    "Hold",
    "Matrix",
    "all_in_place",
    "decoder_blocks",
    "eager_experts",
    "first_inputs",
    "found_otherwise",
    "left_alone",
    "matrices",
    "once_overlooked",
    "plain_products",
    "require_understood",
    "run_block",
    "understood",
    "watched_inputs",
]


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The model's decoder blocks, in order.

    They are the list that stands nearest to the token embedding, never a tower of another kind: of those as long as
    the config has layers, or else of those that hold most of the model's weights.

    Raises:
        KickError: When there is no such list.
    """
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)}
    outer = {n: m for n, m in lists.items() if not any(n.startswith(f"{other}.") for other in lists if other != n)}
    home = _embedding_path(model)
    near = {name: common_prefix(name.split("."), home) for name in outer}
    nearest = [outer[name] for name in outer if near[name] == max(near.values())]
    largest = max([m for m in nearest if len(m) == layers] or nearest, key=_size, default=None)
    if largest is None or layers is None or 2 * _size(largest) < sum(map(_size, nearest)):
        raise KickError(
            f"{type(model).__name__}: no list of {layers} decoder blocks was found beside its token embedding"
        )
    return largest


def _embedding_path(model: PreTrainedModel) -> list[str]:
    try:
        embedding = model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        embedding = None
    return next((name.split(".") for name, module in model.named_modules() if module is embedding), [])


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def understood(model: PreTrainedModel, hold: Hold = all_in_place) -> nn.ModuleList:
    """The decoder blocks, each with its layout found.

    Raises:
        KickError: When something in them was not understood: such a model is not compressed.
    """
    blocks = decoder_blocks(model)
    try:
        understand(model, blocks, hold)
    except (KickError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise KickError(f"{type(model).__name__}: a few tokens could not be read block by block ({reason})") from error
    require_understood(model, blocks)
    return blocks


def require_understood(model: PreTrainedModel, blocks: nn.ModuleList) -> None:
    """Raises KickError, with what it is, when something in a block was not understood."""
    for number, block in enumerate(blocks):
        layout = layout_of(block)
        if layout is not None and layout.problem:
            raise KickError(f"{type(model).__name__} cannot be compressed: block {number}: {layout.problem}")


@dataclass(frozen=True, slots=True)
class Matrix:
    """One weight matrix of a block, always seen as [out, in].

    It may lie transposed (GPT-2's Conv1D), or be one expert's piece of a parameter. `path` is its parameter's inside
    the block.
    """

    name: str
    path: str
    module: nn.Module
    transposed: bool = False
    expert: int | None = None
    pieces: int = 1
    size: tuple[int, int] = (0, 0)
    """Rows and columns as they lie in memory, where the parameter's shape does not tell."""

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter that holds it."""
        found: nn.Parameter = getattr(self.module, self.path.rpartition(".")[2])
        return found

    @property
    def stored(self) -> Tensor:
        """The values as they lie in memory, sharing it."""
        return self.of(self.parameter.detach(), turned=False)

    def of(self, values: Tensor, *, turned: bool = True) -> Tensor:
        """This matrix's part of its parameter's values, [out, in] when `turned`."""
        if self.expert is None:
            mine = values if values.dim() == 2 else values.reshape(self.size)
        elif len(values) == self.pieces and values.dim() == 3:
            mine = values[self.expert]
        else:  # pieces one below the other in one tall matrix, or of a tensor with more axes
            mine = values.view(self.pieces, *self.size)[self.expert]
        return mine.T if turned and self.transposed else mine

    def read(self) -> Tensor:
        """The weight [out, in], sharing the parameter's memory."""
        return self.of(self.parameter.detach())

    def write(self, weight: Tensor) -> None:
        """Replace the weight's values in place, so that tied and shared parameters stay tied."""
        self.stored.copy_(weight.T if self.transposed else weight)


def matrices(block: nn.Module) -> list[Matrix]:
    """The matrices of a block that are compressed, experts' included, in definition order.

    Where the block was not seen at work (a model on meta, to be sized), its linears and stacks of three dimensions.
    """
    layout = layout_of(block)
    stacks = {stack.path: stack for stack in (_assumed(block) if layout is None else layout.stacks)}
    found: list[Matrix] = []
    for name, module in block.named_modules():
        paths = [f"{name}.{own}" if name else own for own, _ in module.named_parameters(recurse=False)]
        own = [stacks[path] for path in paths if path in stacks]
        linear = isinstance(module, nn.Linear | Conv1D)
        for stack in (stack for stack in own if stack.pieces == 1):
            title = name if linear else stack.path
            found.append(Matrix(title, stack.path, module, stack.transposed, size=stack.size))
        several = [stack for stack in own if stack.pieces > 1]
        for expert in range(max((stack.pieces for stack in several), default=0)):
            for stack in (stack for stack in several if expert < stack.pieces):
                title = f"{name}.{expert}.{stack.path.rpartition('.')[2]}"
                found.append(Matrix(title, stack.path, module, stack.transposed, expert, stack.pieces, stack.size))
    return found


def _assumed(block: nn.Module) -> Iterator[Stack]:
    for name, module in block.named_modules():
        for own, parameter in module.named_parameters(recurse=False):
            path, transposed = f"{name}.{own}", bool(getattr(module, "is_transposed", isinstance(module, Conv1D)))
            if isinstance(module, nn.Linear | Conv1D) and own == "weight":
                yield Stack(path, 1, parameter.shape[0], parameter.shape[1], transposed)
            elif parameter.dim() == 3 and min(parameter.shape) > 1:
                pieces, rows, cols = parameter.shape
                yield Stack(path, pieces, rows, cols, transposed)


def found_otherwise(model: PreTrainedModel) -> bool:
    """Whether watching the blocks found other matrices than their linears and stacks of three dimensions: what was
    taken before blocks were watched, and still names what is made of all models where both agree."""
    blocks = decoder_blocks(model)
    return any(_listed(layout.stacks) != _listed(_assumed(b)) for b in blocks if (layout := layout_of(b)) is not None)


def _listed(stacks: Iterable[Stack]) -> list[Any]:
    return [(stack.path, stack.pieces, stack.transposed) for stack in stacks]


def once_overlooked(model: PreTrainedModel) -> bool:
    """Whether some products were not seen before they were watched below every way of writing them."""
    layouts = [layout for block in decoder_blocks(model) if (layout := layout_of(block)) is not None]
    return any(not stack.plain for layout in layouts for stack in layout.stacks)


def left_alone(model: PreTrainedModel) -> list[Left]:
    """What of the blocks is not compressed, with the reason; paths begin with the block's number."""
    return [
        Left(f"{number}.{left.path}", left.weights, left.reason)
        for number, block in enumerate(decoder_blocks(model))
        if (layout := layout_of(block)) is not None
        for left in layout.left
    ]


@dataclass(slots=True)
class Call:
    """What the model hands to one block beside the hidden states, which go to the first place or the one named."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    place: str = ""

    def bound(self, hidden: Tensor) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """All arguments of the block."""
        if self.place:
            return self.args, {**self.kwargs, self.place: hidden}
        return (hidden, *self.args), self.kwargs


def call_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Tensor, Call]:
    """A block's arguments as hidden states and the rest. Caches never enter: a second pass over the same tokens would
    attend to the first."""
    hidden, place = entering(args, kwargs)
    rest = {name: value for name, value in kwargs.items() if name not in ("past_key_values", place)}
    if "use_cache" in rest:
        rest["use_cache"] = False
    return hidden, Call(args if place else args[1:], rest, place)


class _Stop(Exception):
    pass


@torch.no_grad()
def first_inputs(model: PreTrainedModel, ids: Tensor, hold: Hold = all_in_place) -> tuple[Tensor, list[Call]]:
    """Hidden states that enter block 0 for `ids` [batch, length], and every block's call for this shape.

    The blocks are passed over (each returns what it was given), so this costs no more than an embedding.
    """
    blocks = decoder_blocks(model)
    understand(model, blocks, hold)
    taken: list[tuple[Tensor, Call]] = []

    def passing(_index: int, block: nn.Module, _forward: Any) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            taken.append(call_of(args, kwargs))
            if len(taken) == len(blocks):
                raise _Stop  # what comes after the blocks would be for nothing
            return with_hidden(_known(block).output, taken[-1][0])

        return forward

    with replaced_forwards(blocks, passing), suppress(_Stop):
        plain_forward(model, ids.to(model.device))
    return taken[0][0], [call for _, call in taken]


def _known(block: nn.Module) -> Layout:
    layout = layout_of(block)
    assert layout is not None
    return layout


def run_block(block: nn.Module, hidden: Tensor, call: Call) -> Tensor:
    """One block's output hidden states, shaped as what enters it."""
    args, kwargs = call.bound(hidden)
    return leaving(block(*args, **kwargs))


@contextmanager
def watched_inputs(block: nn.Module, see: Callable[[tuple[str, ...], Tensor], None]) -> Iterator[None]:
    """Call `see(names, input)` once for every distinct input of the block's matrices, during its forwards.

    Products are watched where they happen, so experts are seen with just the tokens that were routed to
    them. Matrices that are handed the very same tensor share one call under all their names, in order of use.

    Raises:
        KickError: When a matrix is used in a way that its layout does not know.
    """
    pieces: dict[str, dict[int, Matrix]] = {}
    for matrix in matrices(block):
        pieces.setdefault(matrix.path, {})[matrix.expert or 0] = matrix
    parameters = {path: next(iter(own.values())).parameter for path, own in pieces.items()}
    pending: dict[Any, tuple[list[str], Tensor]] = {}

    def product(path: str, part: Part, inputs: Tensor) -> None:
        # holding the tensor keeps its memory from being used again before the block is done
        key = (inputs.data_ptr(), inputs.shape, inputs.stride(), inputs.dtype)
        names = pending.setdefault(key, ([], inputs))[0]
        names += [name for name in _names(path, part, pieces[path]) if name not in names]

    def use(path: str, name: str) -> None:
        raise KickError(f"{path} is read by {name} where only products were expected")

    def flush(_module: nn.Module, _args: Any, _output: Any) -> None:
        for found, tensor in pending.values():
            see(tuple(found), tensor)
        pending.clear()

    handle = block.register_forward_hook(flush)
    try:
        with ProductWatch(parameters, product, use):
            yield
    finally:
        handle.remove()


def _names(path: str, part: Part, own: dict[int, Matrix]) -> list[str]:
    """The matrices of a parameter that a product with a part of it used."""
    first = own[0]
    rows, cols = first.read().shape
    if part.cols != cols or (part.transposed != first.transposed and min(part.rows, part.cols) > 1):
        raise KickError(f"{path} is multiplied along another axis than in the probe")
    size = rows * cols
    at, count = part.offset // size, max(1, part.rows // rows)
    return [own[number].name for number in range(at, at + count)]


def plain_products(model: PreTrainedModel) -> bool:
    """Whether some of the blocks' linears have a forward of their own."""
    linears = (m for block in decoder_blocks(model) for m in block.modules() if isinstance(m, nn.Linear))
    return any(type(linear).forward is not nn.Linear.forward for linear in linears)
