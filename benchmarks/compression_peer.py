"""How long llm-compressor takes for the blocks that `compression_gpu.py` times: the same shape, weights and tokens.

It is no dependency and wants an older transformers than ours, so it runs by itself, on the same machine:

    python benchmarks/compression_peer.py --json out.json
    python benchmarks/compression_peer.py --small

A block's seconds are the difference between a walk over three blocks and one over a single block, both warm.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BARS = {"wanda": 0.55, "sparsegpt": 1.5, "gptq": 1.5}
"""Seconds a block that ours may take, for reading them side by side."""


def llama(layers: int, hidden: int, intermediate: int, heads: int, device: str) -> LlamaForCausalLM:
    """As `_bench.Bench.model` makes it."""
    config = LlamaConfig(
        vocab_size=1024, hidden_size=hidden, intermediate_size=intermediate, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=heads, max_position_embeddings=2048, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


def modifiers() -> dict[str, Callable[[], Any]]:
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier
    from llmcompressor.modifiers.quantization import GPTQModifier

    what: dict[str, Any] = {"targets": ["Linear"], "ignore": ["lm_head"]}
    return {
        "wanda": lambda: WandaPruningModifier(sparsity=0.5, mask_structure="0:0", **what),
        "sparsegpt": lambda: SparseGPTModifier(sparsity=0.5, mask_structure="0:0", **what),
        "gptq": lambda: GPTQModifier(scheme="W4A16", **what),
    }


def tokenizer() -> PreTrainedTokenizerFast:
    """It is asked for where there are ids already."""
    words = Tokenizer(WordLevel({"<pad>": 0, "<unk>": 1}, unk_token="<unk>"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", unk_token="<unk>")


def seconds(make: Callable[[], Any], layers: int, ids: torch.Tensor, sizes: tuple[int, int, int], device: str) -> float:
    from datasets import Dataset

    data = Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": torch.ones_like(ids).tolist()})
    data.set_format("torch")
    model = llama(layers, *sizes, device)
    with tempfile.TemporaryDirectory() as folder:  # it looks for a configuration where the model says it comes from
        model.config.save_pretrained(folder)
        model.name_or_path = model.config._name_or_path = folder
        return _timed(model, data, make, ids, device)


def _timed(model: LlamaForCausalLM, data: Any, make: Callable[[], Any], ids: torch.Tensor, device: str) -> float:
    from llmcompressor import oneshot

    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    oneshot(
        model=model, processor=tokenizer(), dataset=data, recipe=[make()],
        max_seq_length=ids.shape[1], num_calibration_samples=len(ids),
        pipeline="sequential", sequential_targets=["LlamaDecoderLayer"], log_dir=None,
    )  # fmt: skip
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", type=Path, help="where the figures go")
    arguments.add_argument("--small", action="store_true", help="sizes for a CPU")
    arguments.add_argument("--only", nargs="+", default=list(BARS), choices=list(BARS))
    given = arguments.parse_args()
    device = "cpu" if given.small else "cuda"
    sizes, windows, length = ((256, 640, 4), 8, 64) if given.small else ((4096, 11008, 32), 128, 2048)
    ids = torch.randint(0, 1024, (windows, length), generator=torch.Generator().manual_seed(1))
    names = ("torch", "transformers", "llmcompressor", "compressed-tensors")
    found: dict[str, Any] = {
        "benchmark": "compression_peer", "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": {name: version(name) for name in names}, "windows": windows, "length": length,
    }  # fmt: skip
    for name in given.only:
        make = modifiers()[name]
        try:
            seconds(make, 1, ids[:2], sizes, device)  # what is compiled or loaded once
            one, three = (seconds(make, layers, ids, sizes, device) for layers in (1, 3))
            found[name] = {"block": (three - one) / 2, "one": one, "three": three, "our_bar": BARS[name]}
        except Exception as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:500], "trace": traceback.format_exc()[-1500:]}
        print("PEER", name, json.dumps(found[name]), flush=True)
        if given.json:
            given.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
