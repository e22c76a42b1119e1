"""Tiny random models for tests: big enough to have structure, small enough to cost nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kick_core.pocket import POCKET_MODELS


def tiny_llama(*, seed: int = 0, hidden: int = 64, layers: int = 2, vocabulary: int = 4096) -> LlamaForCausalLM:
    """A float32 Llama with grouped-query attention, tied embeddings and weights large enough to matter."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(4.0)
    return model


def save_tiny(folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Write a tiny model with the pocket tokenizer in hub layout."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in POCKET_MODELS["pocket-11m"].iterdir():
        if path.suffix == ".jinja" or (path.suffix == ".json" and "token" in path.name):
            shutil.copy(path, folder)
    tiny_llama(seed=seed).to(dtype).save_pretrained(folder)
    return folder


def token_ids(windows: int = 10, length: int = 32, *, seed: int = 0, vocabulary: int = 4096) -> torch.Tensor:
    """Random calibration windows."""
    return torch.randint(6, vocabulary, (windows, length), generator=torch.Generator().manual_seed(seed))
