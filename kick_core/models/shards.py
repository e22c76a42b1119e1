"""A model's tensors, read one by one from its mapped files.

Dense weights are never copied to be kept: what a mask is applied to, what a model wears again after a
compressed one, and the blocks of a model that is larger than memory all come from here, and the pages of a
file that nobody needs any more are the operating system's to drop.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from safetensors import safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from kick_core.errors import KickError
from kick_core.models.blocks import decoder_blocks
from kick_core.models.source import Source, opening


class Shards:
    """Every tensor of a checkpoint by its name in the file. A file is mapped only while a tensor of it is used."""

    def __init__(self, source: Source) -> None:
        self._places: dict[str, Path] = {}
        for path in source.weight_files:
            with safe_open(path, framework="pt") as file:
                self._places |= dict.fromkeys(file.keys(), path)
        self._sender = ThreadPoolExecutor(1)
        self._sent: tuple[tuple[list[str], torch.dtype, torch.device], Future[Any]] | None = None

    def holds(self, names: Iterable[str]) -> bool:
        """Whether all of these are stored under just these names."""
        return all(name in self._places for name in names)

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """One tensor in `dtype`, on the CPU: a view of the mapped file, never to be written to."""
        with safe_open(self._places[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor.to(dtype)

    def copies(self, names: list[str], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        """Tensors of our own on a device: those that were sent ahead, where these were."""
        # a copy: pages of a private mapping that are written to stay in memory, and would be read again as dense
        if self._sent is None or self._sent[0] != (names, dtype, device):
            return [self.read(name, dtype).to(device, copy=True) for name in names]
        sent, self._sent = self._sent[1], None
        tensors, arrived = sent.result()
        stream = torch.cuda.current_stream(device)
        stream.wait_event(arrived)
        for tensor in tensors:
            tensor.record_stream(stream)
        return tensors

    def send_ahead(self, names: list[str], dtype: torch.dtype, device: torch.device) -> None:
        """Have a thread read tensors and copy them to a GPU over a stream of its own, for the next `copies`."""

        def send() -> tuple[list[Tensor], torch.cuda.Event]:
            with torch.cuda.stream(torch.cuda.Stream(device)):
                tensors = [self.read(name, dtype).to(device, copy=True) for name in names]
                return tensors, torch.cuda.current_stream(device).record_event()

        if self._sent is None or self._sent[0] != (names, dtype, device):
            self._sent = (names, dtype, device), self._sender.submit(send)


def path_of(model: PreTrainedModel, wanted: nn.Module) -> str:
    """A module's path inside its model."""
    return next(name for name, module in model.named_modules() if module is wanted)


def streams(model: PreTrainedModel, shards: Shards) -> bool:
    """Whether the blocks' parameters are stored under their own names, one tensor each."""
    try:
        prefix = path_of(model, decoder_blocks(model))
    except KickError:  # it can be asked all the same, but not compressed
        return False
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
    if any(p.is_meta and not name.startswith(f"{prefix}.") for name, p in model.named_parameters()):
        return None  # stored under another name, or missing: opening it as a whole tells which
    for name, buffer in list(model.named_buffers()):
        owner, _, own = name.rpartition(".")
        model.get_submodule(owner)._buffers[own] = buffer.to(device)
    take_generation_config(model, source)
    return model.eval()


def take_generation_config(model: PreTrainedModel, source: Source) -> None:
    """Where answers end stands in a file of its own, which a model that is made from its config does not read."""
    with suppress(OSError):  # there need not be one
        model.generation_config = GenerationConfig.from_pretrained(
            source.folder, trust_remote_code=False, local_files_only=True
        )


def _set(model: nn.Module, name: str, value: Tensor) -> None:
    owner, _, own = name.rpartition(".")
    setattr(model.get_submodule(owner), own, nn.Parameter(value, requires_grad=False))


@contextmanager
def resident(model: PreTrainedModel, shards: Shards | None, block: int, device: torch.device) -> Iterator[None]:
    """Have one block's weights in place while it is worked on; with no shards the model is all in place.

    Held twice, it stays until the outer one lets go.
    """
    blocks = decoder_blocks(model)
    module, prefix = blocks[block], path_of(model, blocks)
    if shards is None or not next(module.parameters()).is_meta:
        yield
        return
    names = [name for name, _ in module.named_parameters()]
    found = shards.copies([f"{prefix}.{block}.{name}" for name in names], model.dtype, device)
    for name, values in zip(names, found, strict=True):
        _set(module, name, values)
    if device.type == "cuda" and block + 1 < len(blocks):
        following = [f"{prefix}.{block + 1}.{name}" for name, _ in blocks[block + 1].named_parameters()]
        shards.send_ahead(following, model.dtype, device)
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
