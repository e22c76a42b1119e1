"""Random Llamas made on the device, and clocks: what the engine's benchmarks share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

SEVEN_B = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32}
SMALL = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 4, "num_attention_heads": 4}

BFLOAT16_PEAK = 700e12
"""Sustained bfloat16 operations a second of a Hopper GPU: for floors."""

BANDWIDTHS = {"H200": 4.8e12, "H100": 3.35e12}
"""Bytes a second of their memory, as the maker's data sheets say."""


def bandwidth(device: torch.device) -> float:
    """Of this card; of the H200, on which the bars were set, where it is another."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else ""
    return next((rate for card, rate in BANDWIDTHS.items() if card in name), BANDWIDTHS["H200"])


def llama(small: bool, layers: int | None = None) -> PreTrainedModel:
    """A bfloat16 Llama with random weights: the shape of Llama-2-7B, with fewer layers if named, or a small one for a
    CPU."""
    device = "cpu" if small else "cuda"
    shape = (SMALL if small else SEVEN_B) | ({"num_hidden_layers": layers} if layers else {})
    config = LlamaConfig(vocab_size=32000, max_position_embeddings=4096, **shape)
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device(device):
        model = LlamaForCausalLM(config).eval()
    torch.set_default_dtype(before)
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def linear_weights(model: PreTrainedModel) -> int:
    """Weights that every token is multiplied with, without the output layer."""
    return sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2 and ".layers." in n)


def seconds(device: torch.device, work: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock seconds of some work, with the device idle before and after, and what it gave."""
    _settle(device)
    began = time.perf_counter()
    found = work()
    _settle(device)
    return time.perf_counter() - began, found


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def device_facts(device: torch.device) -> dict[str, Any]:
    """What the device is called."""
    if device.type != "cuda":
        return {"device": "cpu", "threads": torch.get_num_threads()}
    return {"device": torch.cuda.get_device_name(), "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 1)}
