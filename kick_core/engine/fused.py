"""A forward on a GPU in fewer kernels: what stands in for a model's own operations while it is asked.

A step of decoding reads all weights and the cache once, a pack multiplies; what else they do should be short. Nothing
here knows an architecture by name: what looks like an RMS norm, a gated MLP or rotary positions is tried on random
numbers first, and left as it is where the stand-in gives something else.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

ATTENTION = "kick_cached_attention"

NOT_HERE = ("position_bias", "softcap", "s_aux", "cache")
"""What some families hand to attention beside keys, values and a mask: then it is left to the library."""

_ROTARY = "apply_rotary_pos_emb"

_TRIED = 16
"""Rows of random numbers that a stand-in for a gated MLP is tried on at most."""


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Attention of one token a row over a cache, by our kernel; anything else as the library does it."""
    plain = all(kwargs.get(name) is None for name in NOT_HERE) and query.dtype == key.dtype == value.dtype
    scale = float(kwargs.get("scaling") or query.shape[-1] ** -0.5)
    if (layer := getattr(key, "cache_layer", None)) is not None:  # see `pages.lent`
        if not plain:
            raise NotImplementedError("attention of another kind over texts in pages")  # the form is not taken then
        return layer.attend(module, query, key, value, **kwargs), None
    shapes = query.shape[2] == 1 and key.shape == value.shape and query.shape[-1] == key.shape[-1] <= 256
    if not plain or not shapes or attention_mask is None or attention_mask.shape[1] != 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    from kick_core.engine import kernels

    return kernels.attend(query, key, value, attention_mask, scale), None


AttentionInterface.register(ATTENTION, _attention)


class FusedPatches:
    """What is put in place of a model's modules and functions, for forwards of so many tokens at least."""

    def __init__(self, model: PreTrainedModel, tokens: int) -> None:
        self.forwards: list[tuple[nn.Module, Callable[..., Tensor]]] = []
        draw = torch.Generator().manual_seed(0)

        def given(like: Tensor, *shape: int) -> Tensor:
            return torch.randn(shape, generator=draw).to(like)

        known: dict[Any, bool] = {}

        def tried(kind: Any, trial: Callable[[], bool]) -> bool:
            if kind not in known:
                known[kind] = trial()
            return known[kind]

        inside: set[nn.Module] = set()
        for module in model.modules():
            if "forward" in module.__dict__ or module in inside:  # somebody else's already
                continue
            found = _norm(module, given, tried) or _gated_mlp(module, tokens, given, tried)
            if found is None and tokens == 1 and _plain_linear(module):
                found = partial(_linear, module)
            if found is not None:
                self.forwards.append((module, found))
                inside.update(module.children())
        spaces = {id(s): s for m in model.modules() if _ROTARY in (s := vars(sys.modules[type(m).__module__]))}
        like = torch.empty(0, dtype=model.dtype, device=model.device)
        self.rotary = [
            (s, stand_in) for s in spaces.values() if (stand_in := _rotary(s[_ROTARY], partial(given, like)))
        ]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        before = [(space, space[_ROTARY]) for space, _ in self.rotary]
        try:
            for module, forward in self.forwards:
                module.forward = forward
            for space, function in self.rotary:
                space[_ROTARY] = function
            yield
        finally:
            for module, _ in self.forwards:
                del module.__dict__["forward"]
            for space, function in before:
                space[_ROTARY] = function


def _alike(found: Tensor, wanted: Tensor) -> bool:
    """Equal but for rounding."""
    if found.shape != wanted.shape or found.dtype != wanted.dtype:
        return False
    off, whole = (found.float() - wanted.float()).norm(), wanted.float().norm()
    return bool(off <= max(4 * torch.finfo(wanted.dtype).eps, 1e-5) * whole)


def _plain_linear(module: Any) -> bool:
    """Nothing but a product, with its weight lying as usual, and nobody's hand on it."""
    if type(module) is not nn.Linear or "forward" in vars(module):
        return False
    return module.weight.stride(1) == 1 and not module.weight.is_meta


def _linear(module: nn.Linear, inputs: Tensor) -> Tensor:
    from kick_core.engine import kernels

    if inputs.numel() != module.in_features or inputs.dtype != module.weight.dtype:
        return nn.functional.linear(inputs, module.weight, module.bias)
    return kernels.one_row(inputs, module.weight, module.bias)


Tried = Callable[[Any, Callable[[], bool]], bool]
"""The result of a trial, which modules of one kind share: (what tells the kind, the trial)."""


def _norm(module: nn.Module, given: Callable[..., Tensor], tried: Tried) -> Callable[..., Tensor] | None:
    weight = getattr(module, "weight", None)
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if "RMSNorm" not in type(module).__name__ or not isinstance(epsilon, float):
        return None
    if not isinstance(weight, nn.Parameter) or weight.dim() != 1 or weight.is_meta:
        return None
    from kick_core.engine import kernels

    def normed(values: Tensor) -> Tensor:
        return kernels.normed(values, weight, epsilon)

    def sound() -> bool:
        values = given(weight, 2, 1, len(weight))
        return _alike(normed(values), module(values))

    return normed if tried((type(module), len(weight), weight.dtype, epsilon), sound) else None


def _gated_mlp(
    module: nn.Module, tokens: int, given: Callable[..., Tensor], tried: Tried
) -> Callable[..., Tensor] | None:
    parts: list[Any] = [getattr(module, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
    act = getattr(module, "act_fn", None)
    if act is None or not all(map(_plain_linear, parts)):
        return None
    gate, up, down = parts
    if gate.bias is not None or up.bias is not None or gate.weight.shape != up.weight.shape:
        return None
    from kick_core.engine import kernels

    def mlp(values: Tensor) -> Tensor:
        if tokens == 1 and values.numel() == gate.in_features:
            return _linear(down, kernels.one_row_gated(values, gate.weight, up.weight))
        linear = nn.functional.linear
        return linear(kernels.gated(linear(values, gate.weight), linear(values, up.weight)), down.weight, down.bias)

    def sound() -> bool:
        values = given(gate.weight, min(tokens, _TRIED), 1, gate.in_features)
        return _alike(nn.functional.silu(values), act(values)) and _alike(mlp(values), module(values))

    return mlp if tried((type(module), type(act), getattr(act, "__name__", ""), gate.weight.shape), sound) else None


def _rotary(function: Callable[..., Any], given: Callable[..., Tensor]) -> Callable[..., Any] | None:
    """The stand-in for a family's rotary positions, where they are turned by halves."""
    from kick_core.engine import kernels

    def rotary(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *args: Any, **kwargs: Any) -> Any:
        usual = q.dim() == k.dim() == 4 and q.shape[2:] == k.shape[2:] and len(q) == len(k)
        whole = usual and cos.shape == sin.shape and cos.shape in [(rows, *q.shape[2:]) for rows in (1, len(q))]
        alike = len({t.dtype for t in (q, k, cos, sin)}) == len({t.stride(-1) for t in (q, k, cos, sin)}) == 1
        if args or kwargs or not whole or not alike or q.stride(-1) != 1:
            return function(q, k, cos, sin, *args, **kwargs)
        return kernels.turned(q, k, cos, sin)

    query, key, angles = given(2, 4, 3, 32), given(2, 2, 3, 32), given(2, 3, 16).repeat(1, 1, 2)
    try:
        wanted = function(query, key, angles.cos(), angles.sin())
    except (TypeError, RuntimeError):  # another family's arguments
        return None
    found = rotary(query, key, angles.cos(), angles.sin())
    sound = len(wanted) == 2 and all(_alike(one, other) for one, other in zip(found, wanted, strict=True))
    return rotary if sound else None
