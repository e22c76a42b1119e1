"""Caches of any kind: keys and values, sliding windows, states of recurrences and convolutions.

A batch's rows are repeated, taken out and put in another order by choosing rows of every tensor that a cache holds,
whatever its layers are called: the library's own methods leave out what some kinds of layers keep.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

_KINDS = ("full_attention", "sliding_attention")


def window_of(layer: Any) -> int:
    """How many tokens a cache's layer sees, the present one included; 0: all of a text."""
    return int(getattr(layer, "sliding_window", 0) or 0)


def windows_of(model: PreTrainedModel) -> dict[str, int]:
    """What the layers of each kind see, as `window_of` counts it.

    Returns:
        Kinds as the config names them, "" where it names none; nothing where a layer keeps anything but keys and values
        of all tokens or of those in a window.
    """
    layers = DynamicCache(config=model.config).layers
    if not {type(layer) for layer in layers} <= {DynamicLayer, DynamicSlidingWindowLayer}:
        return {}
    sizes = list(map(window_of, layers))
    names = getattr(model.config.get_text_config(), "layer_types", None) or [""] * len(sizes)
    kinds = dict(zip(names, sizes, strict=False))
    known = set(kinds) <= {"", *_KINDS} and all(kinds[name] == size for name, size in zip(names, sizes, strict=False))
    return kinds if known else {}


_OWN = "_kick_own_cache"


def new_cache(model: PreTrainedModel) -> DynamicCache | None:
    """An empty cache for a model; None where the model refuses the library's and makes one of its own."""
    own: bool | None = model.__dict__.get(_OWN)
    if own is None:
        own = _makes_its_own(model)
        model.__dict__[_OWN] = own
    return None if own else DynamicCache(config=model.config)


@torch.inference_mode()
def _makes_its_own(model: PreTrainedModel) -> bool:
    ids = torch.ones(1, 2, dtype=torch.int64, device=model.device)
    try:
        model(input_ids=ids, past_key_values=DynamicCache(config=model.config), use_cache=True)
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return True
    return False


def select_rows(cache: Any, rows: Tensor) -> None:
    """Let a cache, in place, go on with these rows [n] (int64) of its batch, in this order; a row may come again."""
    count = _rows(cache)
    if count:
        _select(cache, rows, count, set())


def _rows(cache: Any) -> int:
    """How many rows a cache's batch has: the first length of most of its tensors."""
    sizes = [len(tensor) for tensor in _tensors(cache, set()) if tensor.dim() > 1]
    return max(set(sizes), key=sizes.count) if sizes else 0


def _tensors(holder: Any, seen: set[int]) -> list[Tensor]:
    found: list[Tensor] = []
    for _, value in _members(holder, seen):
        found += [value] if isinstance(value, Tensor) else _tensors(value, seen)
    return found


def _members(holder: Any, seen: set[int]) -> list[tuple[Any, Any]]:
    """The tensors that an object, list or dictionary holds, and the holders in it."""
    if id(holder) in seen:
        return []
    seen.add(id(holder))
    if isinstance(holder, dict):
        members = list(holder.items())
    elif isinstance(holder, list):
        members = list(enumerate(holder))
    else:
        members = list(vars(holder).items()) if hasattr(holder, "__dict__") else []
    return [(name, v) for name, v in members if isinstance(v, (Tensor, list, dict)) or _is_layer(v)]


def _is_layer(value: Any) -> bool:
    return type(value).__module__.startswith("transformers.") and hasattr(value, "__dict__") and not callable(value)


def _select(holder: Any, rows: Tensor, count: int, seen: set[int]) -> None:
    for name, value in _members(holder, seen):
        if not isinstance(value, Tensor):
            _select(value, rows, count, seen)
        elif value.dim() and len(value) == count:
            chosen = value.index_select(0, rows.to(value.device))
            if isinstance(holder, (dict, list)):
                holder[name] = chosen
            else:
                setattr(holder, name, chosen)
