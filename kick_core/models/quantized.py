"""Folders that are quantized already (GPTQ, pack-quantized) open as ordinary models: we decode them.

No other package is needed, and what is computed with is exactly what the codes stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kick_core.errors import KickError
from kick_core.models import gguf
from kick_core.models.file_formats import GPTQ, PACKED, Grid, described, read_gptq, read_packed
from kick_core.models.shards import take_generation_config
from kick_core.models.source import Source

_READERS: dict[str, tuple[str, Callable[[str, Mapping[str, Tensor], Mapping[str, Any]], Grid]]] = {
    GPTQ: (".qweight", read_gptq),
    PACKED: (".weight_packed", read_packed),
}
_PARTS = (
    "qweight", "qzeros", "scales", "g_idx",
    "weight_packed", "weight_scale", "weight_zero_point", "weight_shape", "weight_g_idx",
)  # fmt: skip


def quantization(source: Source) -> Mapping[str, Any] | None:
    """The folder's `quantization_config`, when it has one. Raises KickError for a method that is not read."""
    config: Mapping[str, Any] | None = source.config.get("quantization_config")
    if config is not None and config.get("quant_method") not in _READERS:
        raise KickError(
            f"{source.folder} is quantized by {config.get('quant_method')!r}: "
            f"{', '.join(_READERS)} and plain models are read"
        )
    return config


def decoder(source: Source) -> str:
    """Which decoder opens a folder that is quantized already, for cards and users; nothing for a plain one."""
    if origin := gguf.origin(source.folder):
        return f"transformers (decoded from {origin})"
    settings = quantization(source)
    return f"kick's own ({described(settings)})" if settings else ""


def open_quantized(source: Source, dtype: torch.dtype | None) -> PreTrainedModel:
    """The model with every packed linear decoded to `dtype` (None: the config's)."""
    settings = quantization(source)
    assert settings is not None
    config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False, local_files_only=True)
    del config.quantization_config
    wanted = dtype or config.dtype or torch.bfloat16
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=wanted)
    try:
        found = model.load_state_dict(_decoded(source, settings, wanted), strict=False)
    except RuntimeError as error:  # of torch: sizes that differ
        raise KickError(
            f"{source.folder}: its tensors do not fit its config.json ({str(error).splitlines()[-1].strip()})"
        ) from error
    tied = {"lm_head.weight"} if config.get_text_config().tie_word_embeddings else set()
    if missing := sorted({*found.missing_keys} - tied) + sorted(found.unexpected_keys):
        raise KickError(f"{source.folder}: {len(missing)} missing or unexpected keys, first {missing[0]!r}")
    model.tie_weights()
    take_generation_config(model, source)
    return model


def _decoded(source: Source, settings: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    ending, read = _READERS[str(settings["quant_method"])]
    tensors: dict[str, Tensor] = {}
    for path in source.weight_files:
        tensors |= load_file(path)
    state = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] not in _PARTS}
    for name in [name.removesuffix(ending) for name in tensors if name.endswith(ending)]:
        try:
            state[f"{name}.weight"] = read(name, tensors, settings).weight(dtype)
        except (KeyError, IndexError, ValueError, RuntimeError) as error:
            raise KickError(f"{source.folder}: the tensors of {name} do not fit together ({error})") from error
    return state
