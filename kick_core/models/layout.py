"""What every parameter of a decoder block is: a matrix that is compressed, or something that is left, and why.

Nothing is known by name. Before any work the library's own forward reads a few tokens, one block of every kind is
watched at work, and each floating-point parameter of two or more dimensions is put down by what is done with it:
multiplied (with its true input axis), looked up, convolved, or used element by element. A router is a product whose
numbers a choice of experts is made of; routers and gates of one number stay as they are, in all families.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from kick_core.errors import KickError
from kick_core.models.block_calls import (
    Hold,
    all_in_place,
    eager_experts,
    entering,
    plain_forward,
    probe_ids,
    replaced_forwards,
    with_hidden,
)
from kick_core.models.parameter_roles import UNUSED, Layout, watched

_LAYOUT = "_kick_layout"


def layout_of(block: nn.Module) -> Layout | None:
    """What was found of a block by `understand`, if it was."""
    found: Layout | None = block.__dict__.get(_LAYOUT)
    return found


@torch.no_grad()
def understand(model: PreTrainedModel, blocks: nn.ModuleList, hold: Hold = all_in_place) -> None:
    """Find every block's layout, once per model: one block of each kind is run on a few tokens.

    Args:
        model: An open model; weights may be on meta where `hold` brings them.
        blocks: Its decoder blocks.
        hold: Has a block's weights in place.

    Raises:
        KickError: When the model does not call its blocks one after the other, once each.
    """
    if all(layout_of(block) is not None for block in blocks):
        return
    try:
        layouts = _layouts(model, blocks, hold, each=False)
    except (KickError, torch.OutOfMemoryError):
        raise
    except Exception:  # a block needs what one before it leaves for it: then all are run
        layouts = _layouts(model, blocks, hold, each=True)
    if any(left.reason == UNUSED for layout in layouts for left in layout.left):  # by one of its kind; by others too?
        layouts = _layouts(model, blocks, hold, each=True, alike=False)
    for block, layout in zip(blocks, layouts, strict=True):
        block.__dict__[_LAYOUT] = layout


def _layouts(
    model: PreTrainedModel, blocks: nn.ModuleList, hold: Hold, *, each: bool, alike: bool = True
) -> list[Layout]:
    """Every block's layout; blocks of a kind that was watched are passed over, or run too when `each`. Without `alike`
    every block is a kind of its own."""
    kinds: dict[Any, Layout] = {}
    kind_of: dict[int, Any] = {}
    order: list[int] = []
    shared, width = _shared(blocks), int(model.get_input_embeddings().weight.shape[-1])

    def stand_in(index: int, block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            order.append(index)
            if len(order) > 4 * len(blocks):
                raise _Stop
            kind = kind_of[index] = _kind(block, args, kwargs) if alike else index
            with hold(index) if each or kind not in kinds else nullcontext():
                if kind not in kinds:
                    kinds[kind] = watched(block, forward, args, kwargs, shared, width)
                elif each:
                    return forward(*args, **kwargs)
            return with_hidden(kinds[kind].output, entering(args, kwargs)[0])

        return call

    with replaced_forwards(blocks, stand_in), eager_experts(model), suppress(_Stop):
        plain_forward(model, probe_ids(model))
    if order != list(range(len(blocks))):
        again = ", some again" if len(order) != len(set(order)) else ""
        raise KickError(
            f"{type(model).__name__} called {len(set(order))} of its {len(blocks)} blocks{again}: only models that "
            f"pass once from block to block can be compressed"
        )
    return [kinds[kind_of[index]] for index in range(len(blocks))]


class _Stop(Exception):
    pass


def _kind(block: nn.Module, args: Any, kwargs: dict[str, Any]) -> Any:
    """What blocks that are like each other have in common: what they are made of, and what they are handed."""
    parameters = tuple((name, p.shape) for name, p in block.named_parameters())
    handed = tuple(value is None for value in args), frozenset(name for name, v in kwargs.items() if v is not None)
    return type(block), parameters, tuple((name, type(m)) for name, m in block.named_modules()), handed


def _shared(blocks: nn.ModuleList) -> set[int]:
    """Parameters, by identity, that stand in more than one block."""
    once: set[int] = set()
    twice: set[int] = set()
    for block in blocks:
        own = {id(p) for p in block.parameters()}
        twice |= once & own
        once |= own
    return twice
