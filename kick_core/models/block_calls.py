"""What the library's own forward hands to blocks, what they give back, and other forwards in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from kick_core.errors import KickError

Hold = Callable[[int], AbstractContextManager[None]]
"""Has a block's weights in place while it is worked on (see `kick_core.models.shards.resident`)."""

PROBED = (2, 19)
"""Windows and tokens of the probe. A prime, which is no count of heads, experts or channels."""


def all_in_place(block: int) -> AbstractContextManager[None]:
    """The `Hold` of a model that is in memory as a whole."""
    return nullcontext()


def probe_ids(model: PreTrainedModel, seed: int = 0) -> Tensor:
    """Random token ids [windows, tokens] of the probe's size."""
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    ids = torch.randint(vocabulary // 4, max(vocabulary // 2, 1), PROBED, generator=torch.Generator().manual_seed(seed))
    return ids.to(model.device)


def plain_forward(model: PreTrainedModel, ids: Tensor) -> Any:
    """The library's own forward, without a cache."""
    return model(input_ids=ids, use_cache=False)


def entering(args: Any, kwargs: dict[str, Any]) -> tuple[Tensor, str]:
    """The hidden states among a block's arguments, and the name under which they are handed ("": the first place)."""
    if args and isinstance(args[0], Tensor):
        return args[0], ""
    for name in ("hidden_states", *kwargs):
        if isinstance(value := kwargs.get(name), Tensor) and value.is_floating_point() and value.dim() >= 3:
            return value, name
    raise KickError("a decoder block was handed no hidden states")


def leaving(output: Any) -> Tensor:
    """The hidden states that a block gives back."""
    hidden = (
        output
        if isinstance(output, Tensor)
        else next(iter(output.values() if isinstance(output, dict) else output), None)
    )
    if not isinstance(hidden, Tensor):
        raise KickError("a decoder block gave no hidden states back")
    return hidden


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """A block's output with other hidden states in it."""
    if isinstance(output, Tensor):
        return hidden
    if isinstance(output, dict):
        first = next(iter(output))
        return type(output)({**output, first: hidden})
    return type(output)((hidden, *output[1:])) if type(output) in (tuple, list) else (hidden, *output[1:])


def window_axis(hidden: Tensor) -> int:
    """Along which axis of a probe's hidden states the windows stand: the one before the tokens."""
    for axis in range(hidden.dim() - 1):
        if tuple(hidden.shape[axis : axis + 2]) == PROBED:
            return axis
    raise KickError(f"hidden states {tuple(hidden.shape)} of {PROBED[0]} windows of {PROBED[1]} tokens show neither")


@contextmanager
def replaced_forwards(
    blocks: nn.ModuleList, stand_in: Callable[[int, nn.Module, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Blocks whose forward is another, made from their number, themselves and their own forward."""
    before = [block.__dict__.get("forward") for block in blocks]
    try:
        for index, block in enumerate(blocks):
            block.forward = stand_in(index, block, block.forward)
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is not None:
                block.forward = own
            elif "forward" in block.__dict__:
                del block.__dict__["forward"]


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
