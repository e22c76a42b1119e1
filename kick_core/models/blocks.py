"""The decoder blocks of a model, the matrices inside them, and what a block is called with.

Nothing here knows an architecture by name. Blocks are the list of equal modules that is as long as the model
has layers; matrices are its linears (and GPT-2's transposed ones); shared inputs are seen by watching which
linears are handed the very same tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kick_core.errors import KickError


def decoder_blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The model's decoder blocks, in order."""
    layers = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    found = [
        module
        for module in model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == layers and len({type(m) for m in module}) == 1
    ]
    if not found:
        raise KickError(
            f"{type(model).__name__}: no list of {layers} equal decoder blocks was found; "
            f"only decoder-only language models can be compressed"
        )
    return found[0]


@dataclass(frozen=True, slots=True)
class Matrix:
    """One weight matrix of a block, always seen as [out, in].

    It may lie transposed (GPT-2's Conv1D), or be one expert's slice of a tensor [experts, …]. `path` is its
    parameter's inside the block.
    """

    name: str
    path: str
    module: nn.Module
    transposed: bool = False
    expert: int | None = None

    @property
    def parameter(self) -> nn.Parameter:
        found: nn.Parameter = getattr(self.module, self.path.rpartition(".")[2])
        return found

    @property
    def stored(self) -> Tensor:
        """The values as they lie in memory, sharing it."""
        return self.of(self.parameter.detach(), turned=False)

    def of(self, values: Tensor, *, turned: bool = True) -> Tensor:
        """This matrix's part of its parameter's values, [out, in] when `turned`."""
        mine = values if self.expert is None else values[self.expert]
        return mine.T if turned and self.transposed else mine

    def read(self) -> Tensor:
        return self.of(self.parameter.detach())

    def write(self, weight: Tensor) -> None:
        """Replace the weight's values in place, so that tied and shared parameters stay tied."""
        self.stored.copy_(weight.T if self.transposed else weight)


def matrices(block: nn.Module) -> list[Matrix]:
    """Every linear inside a block, experts' included, in definition order. Routers stay as they are.

    Raises KickError for weights of three dimensions that are not one matrix an expert: nothing is left out
    silently.
    """
    found = []
    for name, module in block.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            found.append(Matrix(name, f"{name}.weight", module, transposed=isinstance(module, Conv1D)))
        else:
            found += _experts(name, module)
    return found


def _experts(name: str, module: nn.Module) -> list[Matrix]:
    stacked = {own: p for own, p in module.named_parameters(recurse=False) if p.dim() == 3 and min(p.shape) > 1}
    if not stacked:
        return []
    if {len(p) for p in stacked.values()} != {getattr(module, "num_experts", None)}:
        raise KickError(
            f"{name or type(module).__name__} holds weights {sorted(stacked)} that are no experts' matrices"
        )
    transposed = bool(getattr(module, "is_transposed", False))
    return [
        Matrix(f"{name}.{expert}.{own}", f"{name}.{own}", module, transposed, expert)
        for expert in range(module.num_experts)
        for own in stacked
    ]


@dataclass(slots=True)
class Call:
    """What the model hands to one block beside the hidden states."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class _Stop(Exception):
    pass


@torch.no_grad()
def first_inputs(model: PreTrainedModel, ids: Tensor) -> tuple[Tensor, list[Call]]:
    """Hidden states that enter block 0 for `ids` [batch, length], and every block's call for this shape.

    The blocks are passed over (each returns what it was given), so this costs no more than an embedding.
    Caches never enter: a second pass over the same tokens would attend to the first.
    """
    blocks = decoder_blocks(model)
    taken: list[tuple[Tensor, Call]] = []
    wrap = _returns_tuple(model, blocks[0], ids)

    def passing(hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
        taken.append((hidden, Call(args, _plain(kwargs))))
        if len(taken) == len(blocks):
            raise _Stop  # what comes after the blocks would be for nothing
        return (hidden,) if wrap else hidden

    with _replaced_forwards(blocks, passing), suppress(_Stop):
        model(input_ids=ids.to(model.device), use_cache=False)
    if len(taken) != len(blocks):
        raise KickError(f"{type(model).__name__} called {len(taken)} of its {len(blocks)} blocks")
    return taken[0][0], [call for _, call in taken]


def _plain(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "past_key_values"} | {"use_cache": False}


def _returns_tuple(model: PreTrainedModel, block: nn.Module, ids: Tensor) -> bool:
    """Whether this family's blocks return a tuple; seen by running one token through the first block."""
    seen: list[Any] = []

    def hook(_module: nn.Module, _args: Any, output: Any) -> None:
        seen.append(isinstance(output, tuple))
        raise _Stop

    handle = block.register_forward_hook(hook)
    try:
        model(input_ids=ids[:1, :1].to(model.device), use_cache=False)
    except _Stop:
        pass
    finally:
        handle.remove()
    return bool(seen and seen[0])


@contextmanager
def _replaced_forwards(blocks: nn.ModuleList, forward: Callable[..., Any]) -> Iterator[None]:
    try:
        for block in blocks:
            block.forward = forward
        yield
    finally:
        for block in blocks:
            if "forward" in block.__dict__:
                del block.__dict__["forward"]


def run_block(block: nn.Module, hidden: Tensor, call: Call) -> Tensor:
    """One block's output hidden states [batch, length, width]."""
    output = block(hidden, *call.args, **call.kwargs)
    result: Tensor = output[0] if isinstance(output, tuple) else output
    return result


@contextmanager
def watched_inputs(block: nn.Module, see: Callable[[tuple[str, ...], Tensor], None]) -> Iterator[None]:
    """Call `see(names, input)` once for every distinct input of the block's matrices, during its forwards.

    Products are watched where they happen, so experts are seen with just the tokens that were routed to
    them. Matrices that are handed the very same tensor share one call under all their names, in order of use.
    """
    by_place = {_place(matrix.stored): matrix.name for matrix in matrices(block)}
    pending: dict[int, tuple[list[str], Tensor]] = {}

    def watch(weight: Tensor, inputs: Tensor) -> None:
        if (name := by_place.get(_place(weight))) is not None:
            # holding the tensor keeps its identity from being reused before the block is done
            pending.setdefault(_identity(inputs), ([], inputs))[0].append(name)

    def flush(_module: nn.Module, _args: Any, _output: Any) -> None:
        for found, tensor in pending.values():
            see(tuple(found), tensor)
        pending.clear()

    handle = block.register_forward_hook(flush)
    try:
        with _WatchedProducts(watch):
            yield
    finally:
        handle.remove()


def _place(weight: Tensor) -> tuple[int, torch.Size]:
    return weight.data_ptr(), weight.shape


def _identity(inputs: Tensor) -> int:
    # GPT-2's Conv1D hands each of its products a fresh view of one and the same tensor
    return inputs.data_ptr() if inputs._base is not None else id(inputs)


_PLAIN = (torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__)


def plain_products(model: PreTrainedModel) -> bool:
    """Whether some of the blocks' linears have a forward of their own."""
    linears = (m for block in decoder_blocks(model) for m in block.modules() if isinstance(m, nn.Linear))
    return any(type(linear).forward is not nn.Linear.forward for linear in linears)


class _WatchedProducts(TorchFunctionMode):
    """Looks at every matrix product of the forms that linears take: F.linear, addmm for Conv1D, and the plain product
    with a transposed weight of linears that have a forward of their own (Falcon's)."""

    def __init__(self, watch: Callable[[Tensor, Tensor], None]) -> None:
        super().__init__()
        self.watch = watch

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is nn.functional.linear:
            self.watch(args[1], args[0])
        elif function is torch.addmm:
            self.watch(args[2], args[1])
        elif function in _PLAIN and args[1].dim() == 2:
            self.watch(args[1].T, args[0])
        return function(*args, **(kwargs or {}))


@contextmanager
def eager_experts(model: PreTrainedModel) -> Iterator[None]:
    """Let experts be computed one by one, so that each one's inputs can be seen."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "has_gate") and hasattr(m, "config")}
    before = [(config, config._experts_implementation) for config in configs.values()]
    try:
        for config, _ in before:
            config._experts_implementation = "eager"
        yield
    finally:
        for config, name in before:
            config._experts_implementation = name
