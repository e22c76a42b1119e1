"""The decoder blocks of a model, the matrices inside them, and what a block is called with.

Nothing here knows an architecture by name. Blocks are the list of equal modules that is as long as the model
has layers; matrices are its linears (and GPT-2's transposed ones); shared inputs are seen by watching which
linears are handed the very same tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kick_core.spec import KickError


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
    """One weight matrix of a block, always seen as [out, in]."""

    name: str
    module: nn.Module

    def read(self) -> Tensor:
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight.detach().T if isinstance(self.module, Conv1D) else weight.detach()

    def write(self, weight: Tensor) -> None:
        """Replace the weight's values in place, so that tied and shared parameters stay tied."""
        own = self.module.weight
        assert isinstance(own, Tensor)
        with torch.no_grad():
            own.copy_(weight.T if isinstance(self.module, Conv1D) else weight)


def matrices(block: nn.Module) -> list[Matrix]:
    """Every linear inside a block, in definition order."""
    return [
        Matrix(name, module)
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and isinstance(module.weight, Tensor)
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
        return (hidden,) if wrap else hidden

    with _replaced_forwards(blocks, passing):
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
    """Call `see(names, input)` once for every distinct input of the block's linears, during its forwards.

    Linears that are handed the very same tensor share one call under all their names, in the order of use.
    """
    pending: dict[int, tuple[list[str], Tensor]] = {}

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def look(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            # holding the tensor keeps its identity from being reused before the block is done
            pending.setdefault(id(args[0]), ([], args[0]))[0].append(name)

        return look

    def flush(_module: nn.Module, _args: Any, _output: Any) -> None:
        for found, tensor in pending.values():
            see(tuple(found), tensor)
        pending.clear()

    handles = [matrix.module.register_forward_pre_hook(hook(matrix.name)) for matrix in matrices(block)]
    handles.append(block.register_forward_hook(flush))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
