"""The peer of the engine's texts: transformers' `generate` over prompts sorted by length, padded on the left."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

ROWS = 16
"""Of a batch."""


@torch.inference_mode()
def texts(model: Any, prompts: Sequence[Sequence[int]], new_tokens: int) -> list[tuple[int, ...]]:
    """Greedy continuations of `new_tokens` tokens each, the longest prompts first; in the order of the prompts."""
    order = sorted(range(len(prompts)), key=lambda item: len(prompts[item]), reverse=True)
    continuations: dict[int, tuple[int, ...]] = {}
    for at in range(0, len(order), ROWS):
        some = [(item, list(prompts[item])) for item in order[at : at + ROWS]]
        length = len(some[0][1])
        ids = torch.tensor([[0] * (length - len(ids)) + ids for _, ids in some], device=model.device)
        mask = torch.tensor([[0] * (length - len(ids)) + [1] * len(ids) for _, ids in some], device=model.device)
        written = model.generate(
            ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        continuations |= {item: tuple(row) for (item, _), row in zip(some, written[:, length:].tolist(), strict=True)}
    return [continuations[item] for item in range(len(prompts))]
