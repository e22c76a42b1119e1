"""Attention of one new token a row on a CPU: two products over keys and values that lie side by side.

The library's kernel for whole texts takes twice as long for one query, and six times as long in half precision; keys
and values are kept in float32 therefore.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from kick_core.engine import fused

WIDE, PRODUCTS = "kick_wide_sdpa", "kick_one_query"
"""Registered names: the library's kernel in the dtype of keys and values, and products in place of it."""


def _wide(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention in the dtype of keys, values and mask; the result in that of the query."""
    found, _ = sdpa_attention_forward(module, query.to(key.dtype), key, value, attention_mask, **kwargs)
    return found.to(query.dtype), None


def _one_query(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    if query.shape[2] > 1 or attention_mask is None or any(kwargs.get(name) is not None for name in fused.NOT_HERE):
        return _wide(module, query, key, value, attention_mask, **kwargs)
    scale = float(kwargs.get("scaling") or query.shape[-1] ** -0.5)
    return attended(query, key, value, attention_mask, scale).transpose(1, 2).to(query.dtype), None


AttentionInterface.register(WIDE, _wide)
AttentionInterface.register(PRODUCTS, _one_query)


def attended(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scale: float) -> Tensor:
    """Attention of queries [rows, heads, 1, width] over keys and values [rows, groups, columns, width], in their dtype.

    `mask`, [rows, 1, 1, columns], is added. Returns [rows, heads, 1, width]; heads of a group stand side by side.
    """
    rows, heads = query.shape[:2]
    grouped = (query.to(keys.dtype) * scale).reshape(rows, keys.shape[1], -1, query.shape[-1])
    weights = torch.matmul(grouped, keys.transpose(-1, -2)).add_(mask).softmax(-1)
    return torch.matmul(weights, values).view(rows, heads, 1, values.shape[-1])


@cache
def keeps_bits(heads: int, groups: int, width: int) -> bool:
    """Whether on this machine a row's products give the same bits with any rows beside it and any columns behind its
    own, which are masked; a library may cut long sums elsewhere."""
    draw = torch.Generator().manual_seed(0)
    query = torch.randn(9, heads, 1, width, generator=draw)
    keys, values = (torch.randn(9, groups, 544, width, generator=draw) for _ in range(2))
    mask = torch.zeros(9, 1, 1, 544).masked_fill_(torch.arange(544) >= 90, torch.finfo(torch.float32).min)

    def of(rows: int, columns: int) -> Tensor:
        own_keys, own_values = (part[:rows, :, :columns].contiguous() for part in (keys, values))
        return attended(query[:rows], own_keys, own_values, mask[:rows, ..., :columns], width**-0.5)[:1]

    first = of(9, 96)
    return all(torch.equal(of(rows, columns), first) for rows, columns in ((1, 96), (4, 128), (9, 256), (2, 544)))
