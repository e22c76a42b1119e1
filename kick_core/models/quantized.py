"""Folders that are quantized already (GPTQ, pack-quantized, MXFP4) open as ordinary models: we decode them.

No other package is needed, and what is computed with is exactly what the codes stand for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from kick_core.errors import KickError
from kick_core.models import gguf
from kick_core.models.checkpoint_names import origins, unexpected
from kick_core.models.file_formats import GPTQ, PACKED, Grid, described, read_gptq, read_packed
from kick_core.models.mxfp4 import MXFP4, read_mxfp4
from kick_core.models.opener import config_of, opener
from kick_core.models.shards import take_generation_config
from kick_core.models.source import Source
from kick_core.models.tensor_files import TensorFiles


@dataclass(frozen=True, slots=True)
class _Format:
    """How packed weights lie in a folder.

    Attributes:
        parts: Endings of the tensors that one weight is packed in; the first is that of its codes.
        ending: What the weight's own name ends with instead.
        read: Decodes the weight of a name without ending: (name, the files' tensors, settings, dtype).
    """

    parts: tuple[str, ...]
    ending: str
    read: Callable[[str, Mapping[str, Tensor], Mapping[str, Any], torch.dtype], Tensor]


def _of_grid(read: Callable[[str, Mapping[str, Tensor], Mapping[str, Any]], Grid]) -> Callable[..., Tensor]:
    return lambda name, tensors, settings, dtype: read(name, tensors, settings).weight(dtype)


_FORMATS = {
    GPTQ: _Format((".qweight", ".qzeros", ".scales", ".g_idx"), ".weight", _of_grid(read_gptq)),
    PACKED: _Format(
        (".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx"),
        ".weight",
        _of_grid(read_packed),
    ),
    MXFP4: _Format(("_blocks", "_scales"), "", read_mxfp4),
}


def quantization(source: Source) -> Mapping[str, Any] | None:
    """The folder's `quantization_config`, when it has one. Raises KickError for a method that is not read."""
    config: Mapping[str, Any] | None = source.config.get("quantization_config")
    if config is not None and config.get("quant_method") not in _FORMATS:
        raise KickError(
            f"{source.folder} is quantized by {config.get('quant_method')!r}: {', '.join(_FORMATS)} and plain models "
            f"are read; take the model's plain folder (bfloat16 or the like), or a GGUF file"
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
    form = _FORMATS[str(settings["quant_method"])]
    return [name for name in names if not name.endswith(form.parts)] + [
        f"{name}{form.ending}" for name in _packed(names, form)
    ]


def _packed(names: Iterable[str], form: _Format) -> list[str]:
    """The names, without ending, of a folder's packed weights."""
    codes = form.parts[0]
    return [name.removesuffix(codes) for name in names if name.endswith(codes)]


def _decoded(source: Source, settings: Mapping[str, Any], dtype: torch.dtype) -> dict[str, Tensor]:
    form = _FORMATS[str(settings["quant_method"])]
    tensors: dict[str, Tensor] = {}
    for path in source.weight_files:
        tensors |= load_file(path)
    state = {name: tensor for name, tensor in tensors.items() if not name.endswith(form.parts)}
    for name in _packed(tensors, form):
        try:
            state[f"{name}{form.ending}"] = form.read(name, tensors, settings, dtype)
        except (KeyError, IndexError, ValueError, RuntimeError) as error:
            raise KickError(f"{source.folder}: the tensors of {name} do not fit together ({error})") from error
    return state
