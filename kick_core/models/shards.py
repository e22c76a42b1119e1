"""A model's tensors, read one by one from its mapped files.

Dense weights are never copied to be kept: what a mask is applied to, what a model wears again after a
compressed one, and the blocks of a model that is larger than memory all come from here, and the pages of a
file that nobody needs any more are the operating system's to drop.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from kick_core.models.blocks import decoder_blocks
from kick_core.models.source import Source, opening
from kick_core.spec import KickError


class Shards:
    """Every tensor of a checkpoint by its name in the file. A file is mapped only while a tensor of it is used."""

    def __init__(self, source: Source) -> None:
        self._places: dict[str, Path] = {}
        for path in source.weight_files:
            with safe_open(path, framework="pt") as file:
                self._places |= dict.fromkeys(file.keys(), path)

    def holds(self, names: Iterable[str]) -> bool:
        """Whether all of these are stored under just these names."""
        return all(name in self._places for name in names)

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """One tensor in `dtype`, on the CPU: a view of the mapped file, never to be written to."""
        with safe_open(self._places[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor.to(dtype)


def path_of(model: PreTrainedModel, wanted: nn.Module) -> str:
    """A module's path inside its model."""
    return next(name for name, module in model.named_modules() if module is wanted)


def streams(model: PreTrainedModel, shards: Shards) -> bool:
    """Whether the blocks' parameters are stored under their own names, one tensor each."""
    prefix = path_of(model, decoder_blocks(model))
    return shards.holds(name for name, _ in model.named_parameters() if name.startswith(f"{prefix}."))


def open_streamed(source: Source, dtype: torch.dtype | None, device: torch.device) -> PreTrainedModel | None:
    """The model with everything in place but its blocks, which stay on meta; None where files do not fit that.

    `resident` brings one block at a time.
    """
    with opening(source):
        config = AutoConfig.from_pretrained(source.folder, trust_remote_code=False, local_files_only=True)
        wanted = dtype or config.dtype or torch.float32
        with init_empty_weights(include_buffers=False):
            model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=wanted)
    shards = Shards(source)
    if not streams(model, shards):
        return None
    prefix = path_of(model, decoder_blocks(model))
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta and not name.startswith(f"{prefix}.") and shards.holds([name]):
            _set(model, name, shards.read(name, wanted).to(device))
    model.tie_weights()
    left = [n for n, p in model.named_parameters() if p.is_meta and not n.startswith(f"{prefix}.")]
    if left:
        raise KickError(f"{source.folder}: {len(left)} missing keys, first {left[0]!r}")
    for name, buffer in list(model.named_buffers()):
        owner, _, own = name.rpartition(".")
        model.get_submodule(owner)._buffers[own] = buffer.to(device)
    return model.eval()


def _set(model: nn.Module, name: str, value: Tensor) -> None:
    owner, _, own = name.rpartition(".")
    setattr(model.get_submodule(owner), own, nn.Parameter(value, requires_grad=False))


@contextmanager
def resident(model: PreTrainedModel, shards: Shards | None, block: int, device: torch.device) -> Iterator[None]:
    """Have one block's weights in place while it is worked on; with no shards the model is all in place.

    Held twice, it stays until the outer one lets go.
    """
    module = decoder_blocks(model)[block]
    if shards is None or not next(module.parameters()).is_meta:
        yield
        return
    prefix = path_of(model, module)
    names = [name for name, _ in module.named_parameters()]
    for name in names:
        # a copy: pages of a private mapping that are written to stay in memory, and would be read again as dense
        _set(module, name, shards.read(f"{prefix}.{name}", model.dtype).to(device, copy=True))
    try:
        yield
    finally:
        for name in names:
            _set(module, name, torch.empty_like(module.get_parameter(name), device="meta"))
        _trim()


def _trim() -> None:
    """Hand freed memory back to the system. glibc keeps freed blocks of up to 32 MB, which are a matrix's size, and
    the pile grows from decoder block to decoder block."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
