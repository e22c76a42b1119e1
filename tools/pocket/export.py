"""A trained network as an ordinary Hugging Face folder, every file small enough for a plain Git repository."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tools.pocket import prompts
from tools.pocket.network import Network, Shape

LARGEST_FILE = 15 * 1024 * 1024
INDEX = "model.safetensors.index.json"


def config(shape: Shape, ids: dict[str, int]) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.key_value_heads,
        "head_dim": shape.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": shape.positions,
        "rope_theta": shape.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
        "rms_norm_eps": shape.norm_epsilon,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": ids[prompts.BEGIN],
        "eos_token_id": ids[prompts.END],
        "pad_token_id": ids[prompts.PADDING],
        "dtype": "bfloat16",
    }


def generation_config(ids: dict[str, int]) -> dict[str, object]:
    return {
        "do_sample": False,
        "bos_token_id": ids[prompts.BEGIN],
        "eos_token_id": [ids[prompts.END], ids[prompts.END_OF_TURN]],
        "pad_token_id": ids[prompts.PADDING],
        "max_new_tokens": 128,
    }


def shards_of(tensors: dict[str, Tensor]) -> list[dict[str, Tensor]]:
    """The tensors in their order, cut wherever a file would grow too large."""
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.nbytes > LARGEST_FILE:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.nbytes
    return shards


def save_weights(network: Network, folder: Path, prefix: str = "model") -> list[Path]:
    """The weights in bfloat16: one file, or several with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: parameter.detach().to("cpu", torch.bfloat16).contiguous() for name, parameter in network.named_parameters()
    }
    shards = shards_of(tensors)
    if len(shards) == 1:
        names = [f"{prefix}.safetensors"]
    else:
        names = [f"{prefix}-{number:05d}-of-{len(shards):05d}.safetensors" for number in range(1, len(shards) + 1)]
        where = {name: file for file, shard in zip(names, shards, strict=True) for name in shard}
        total = sum(tensor.nbytes for tensor in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": where}
        (folder / f"{prefix}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    for file, shard in zip(names, shards, strict=True):
        save_file(shard, folder / file, metadata={"format": "pt"})
        (folder / file).chmod(0o644)
    return [folder / file for file in names]


def save_configs(shape: Shape, ids: dict[str, int], folder: Path) -> None:
    for name, content in (("config.json", config(shape, ids)), ("generation_config.json", generation_config(ids))):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_weights(network: Network, folder: Path) -> None:
    state: dict[str, Tensor] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        state |= load_file(file)
    network.load_state_dict(state)
