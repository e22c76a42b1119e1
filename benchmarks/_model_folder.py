"""A model folder with random weights, the pocket model's tokenizer and a text to calibrate on."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kick_core.english import calibration_documents
from kick_core.pocket import POCKET_MODELS

SHARD = "5GB"


@dataclass(frozen=True)
class Shape:
    """A Llama's: 7B's proportions at any width.

    Attributes:
        layers: Decoder blocks.
        hidden: Width; 4096 is a 7B's.
    """

    layers: int
    hidden: int

    @property
    def intermediate(self) -> int:
        return 11008 if self.hidden == 4096 else -(-self.hidden * 43 // 16 // 32) * 32

    @property
    def heads(self) -> int:
        return max(1, self.hidden // 128)

    @property
    def block_weights(self) -> int:
        """Weights of a block's linears."""
        return 4 * self.hidden**2 + 3 * self.hidden * self.intermediate

    def config(self) -> LlamaConfig:
        return LlamaConfig(
            vocab_size=32000 if self.hidden >= 2048 else 4096, hidden_size=self.hidden,
            intermediate_size=self.intermediate, num_hidden_layers=self.layers, num_attention_heads=self.heads,
            num_key_value_heads=self.heads, max_position_embeddings=4096,
        )  # fmt: skip


def make(folder: Path, shape: Shape, device: torch.device) -> None:
    """Write the folder: weights in hub layout (bfloat16 for a GPU, float32 for a CPU), tokenizer, `text.txt`."""
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if device.type == "cuda" else torch.float32)
    try:
        with device:
            model = LlamaForCausalLM(shape.config())
    finally:
        torch.set_default_dtype(before)
    model.save_pretrained(folder, max_shard_size=SHARD)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(POCKET_MODELS["pocket-4m"] / name, folder)
    (folder / "text.txt").write_text("\n\n".join(calibration_documents()), encoding="utf-8")
