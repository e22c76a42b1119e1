"""Kernels made ready while a model's weights are read: the first texts and options of a process wait for neither.

A kernel of Triton is compiled on its first use on a machine, half a second each, and found again in a cache of files by
later processes; libraries of products and attention are loaded on their first use in a process. Both follow from a
model's sizes alone.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedConfig

from kick_core.engine.batching import any_length, head_sizes
from kick_core.engine.pages import PAGE, page_columns
from kick_core.methods.select import kernels as runs_kernels


@torch.inference_mode()
def warm_up(config: PreTrainedConfig, dtype: torch.dtype, device: torch.device) -> None:
    """Use every kernel once on a few numbers of the shapes that a model of this config has; call it beside the reading
    of the model's weights. What fails here is left for the model's own forwards to meet.

    Args:
        config: Of the model that is being opened.
        dtype: Of its weights.
        device: Nothing is done where this is no CUDA device with Triton.
    """
    try:
        if runs_kernels(device) is not None:
            _use_kernels(config.get_text_config(), dtype, device)
    except (ArithmeticError, AttributeError, RuntimeError, TypeError, ValueError):
        return  # an architecture that names its sizes otherwise, no memory, or no compiler: nothing is lost but time


def _use_kernels(config: Any, dtype: torch.dtype, device: torch.device) -> None:
    from kick_core.engine import kernels, paged_attention

    (heads, pairs, width), rows, tokens = head_sizes(config), 16, 16

    def made(*shape: int) -> torch.Tensor:
        return torch.zeros(*shape, dtype=dtype, device=device)

    values = made(rows, tokens, config.hidden_size)
    kernels.normed(values, made(config.hidden_size), 1e-6)
    kernels.gated(*(made(rows, tokens, int(config.intermediate_size)) for _ in range(2)))
    query, key = (made(rows, tokens, count, width).transpose(1, 2) for count in (heads, pairs))
    query, key = kernels.turned(query, key, *(made(1, tokens, width) for _ in range(2)))
    torch.nn.functional.linear(values, made(16, config.hidden_size))
    with any_length():
        torch.nn.functional.scaled_dot_product_attention(query, query, query, is_causal=True)
    table = torch.zeros(rows, page_columns(config, 1) // PAGE, dtype=torch.int32, device=device)
    where = torch.zeros(rows, dtype=torch.int64, device=device)
    keys, values = (made(2, pairs, PAGE, width) for _ in range(2))
    paged_attention.put_prompts(key[:1], key[:1], keys, values, table, where[:1])
    paged_attention.put(key[:, :, :1], key[:, :, :1], keys, values, table, where)
    paged_attention.attend(query[:, :, :1], keys, values, table, where, width**-0.5)
