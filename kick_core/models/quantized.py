"""Folders that are quantized already (GPTQ, pack-quantized) open as ordinary models: we decode them.

No other package is needed, and what is computed with is exactly what the codes stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from kick_core.errors import KickError
from kick_core.models import gguf
from kick_core.models.checkpoint_names import origins, unexpected
from kick_core.models.file_formats import GPTQ, PACKED, Grid, described, read_gptq, read_packed
from kick_core.models.opener import config_of, opener
from kick_core.models.shards import take_generation_config
from kick_core.models.source import Source
from kick_core.models.tensor_files import TensorFiles

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
    config = config_of(source)
    del config.quantization_config
    wanted = dtype or config.dtype or torch.bfloat16
    state = _decoded(source, settings, wanted)
    model: PreTrainedModel = opener(source, config, state).from_config(config, dtype=wanted)
    places, unused = origins(model, state)
    try:
        values: dict[str, Tensor] = {}
        for origin in set(places.values()):
            values |= origin.assemble(model, state)
        found = model.load_state_dict(values, strict=False)
    except RuntimeError as error:  # of torch: sizes that differ
        raise KickError(
            f"{source.folder}: its tensors do not fit its config.json ({str(error).splitlines()[-1].strip()})"
        ) from error
    lost = sorted({*found.missing_keys} - set(model.all_tied_weights_keys or ()))
    if missing := lost + unexpected(model, unused) + sorted(found.unexpected_keys):
        raise KickError(f"{source.folder}: {len(missing)} missing or unexpected keys, first {missing[0]!r}")
    model.tie_weights()
    take_generation_config(model, source)
    return model


def plain_names(source: Source) -> list[str]:
    """The names of a folder's tensors, those of packed linears as the weights that they stand for."""
    names = TensorFiles(source).names
    settings = quantization(source)
    if settings is None:
        return names
    ending = _READERS[str(settings["quant_method"])][0]
    packed = [f"{name.removesuffix(ending)}.weight" for name in names if name.endswith(ending)]
    return [name for name in names if name.rpartition(".")[2] not in _PARTS] + packed


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
