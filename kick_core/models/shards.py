"""A model's tensors, read one by one from its mapped files.

Dense weights are never copied to be kept: what a mask is applied to, what a model wears again after a
compressed one, and the blocks of a model that is larger than memory all come from here, and the pages of a
file that nobody needs any more are the operating system's to drop.
"""

from __future__ import annotations

import ctypes
import re
import weakref
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel

from kick_core.errors import KickError
from kick_core.models.blocks import decoder_blocks
from kick_core.models.checkpoint_names import origins
from kick_core.models.opener import config_of, opener
from kick_core.models.source import Source, opening
from kick_core.models.tensor_files import TensorFiles


class Shards:
    """A model's parameters by name, however they lie in its files. Files are mapped only while a tensor is used."""

    def __init__(self, source: Source, model: PreTrainedModel) -> None:
        self._files = TensorFiles(source)
        self._model = weakref.proxy(model)
        self._origins = origins(model, self._files.names)[0]
        self._assembled: dict[tuple[str, torch.dtype], Tensor] = {}
        self._sender = ThreadPoolExecutor(1)
        self._sent: tuple[tuple[list[str], list[torch.dtype], torch.device], Future[Any]] | None = None

    def holds(self, names: Iterable[str]) -> bool:
        """Whether all of these parameters are in the files."""
        return all(name in self._origins for name in names)

    def plain(self, names: Iterable[str]) -> bool:
        """Whether all of these parameters are in the files, a tensor each."""
        return all(name in self._origins and self._origins[name].conversion is None for name in names)

    def read(self, name: str, dtype: torch.dtype) -> Tensor:
        """One parameter in `dtype`, on the CPU, never to be written to: a view of the mapped file, if it is a tensor of
        it. Parameters in pieces are kept until some of another block are read."""
        if self._origins[name].conversion is None:
            return self._made(name, dtype)[name]
        assembled = self._assembled
        if (name, dtype) not in assembled:
            block = _block(name)
            assembled = {key: kept for key, kept in assembled.items() if _block(key[0]) == block}
            assembled |= {(made, dtype): tensor for made, tensor in self._made(name, dtype).items()}
            self._assembled = assembled
        return assembled[name, dtype]

    def _made(self, name: str, dtype: torch.dtype) -> dict[str, Tensor]:
        """A parameter, and those that come out of the same conversion."""
        origin = self._origins[name]
        tensors = {piece.name: self._files.read(piece.name).to(dtype) for piece in origin.pieces}
        return origin.assemble(self._model, tensors)

    def copies(self, names: list[str], dtypes: list[torch.dtype], device: torch.device) -> list[Tensor]:
        """Tensors of our own on a device: those that were sent ahead, where these were."""
        # a copy: pages of a private mapping that are written to stay in memory, and would be read again as dense
        if self._sent is None or self._sent[0] != (names, dtypes, device):
            return self._copied(names, dtypes, device)
        sent, self._sent = self._sent[1], None
        tensors, arrived = sent.result()
        stream = torch.cuda.current_stream(device)
        stream.wait_event(arrived)
        for tensor in tensors:
            tensor.record_stream(stream)
        return tensors

    def _copied(self, names: list[str], dtypes: list[torch.dtype], device: torch.device) -> list[Tensor]:
        pairs = zip(names, dtypes, strict=True)
        return [self._made(name, dtype)[name].to(device, copy=True) for name, dtype in pairs]

    def send_ahead(self, names: list[str], dtypes: list[torch.dtype], device: torch.device) -> None:
        """Have a thread read tensors and copy them to a GPU over a stream of its own, for the next `copies`."""

        def send() -> tuple[list[Tensor], torch.cuda.Event]:
            with torch.cuda.stream(torch.cuda.Stream(device)):
                tensors = self._copied(names, dtypes, device)
                return tensors, torch.cuda.current_stream(device).record_event()

        if self._sent is None or self._sent[0] != (names, dtypes, device):
            self._sent = (names, dtypes, device), self._sender.submit(send)


def path_of(model: PreTrainedModel, wanted: nn.Module) -> str:
    """A module's path inside its model."""
    return next(name for name, module in model.named_modules() if module is wanted)


def _block(name: str) -> str:
    """The path of the block that a parameter is of."""
    found = re.match(r".*?\.\d+\.", name)
    return found[0] if found else ""


def mapped(model: PreTrainedModel, shards: Shards) -> bool:
    """Whether the blocks' parameters are in the files a tensor each, so that reading one again costs nothing."""
    try:
        prefix = path_of(model, decoder_blocks(model))
    except KickError:  # it can be asked all the same, but not compressed
        return False
    return shards.plain(name for name, _ in model.named_parameters() if name.startswith(f"{prefix}."))


def open_streamed(source: Source, dtype: torch.dtype | None, device: torch.device) -> PreTrainedModel | None:
    """The model with everything in place but its blocks, which stay on meta; None where files do not fit that.

    `resident` brings one block at a time.
    """
    with opening(source):
        config = config_of(source)
        wanted = dtype or config.dtype or torch.float32
        with init_empty_weights(include_buffers=False):
            model: PreTrainedModel = opener(source, config).from_config(config, dtype=wanted)
    shards = Shards(source, model)
    try:
        prefix = f"{path_of(model, decoder_blocks(model))}."
    except KickError:
        return None
    _keep_dtypes(model, wanted)
    for name, parameter in list(model.named_parameters()):
        if parameter.is_meta and not name.startswith(prefix) and shards.holds([name]):
            _set(model, name, shards.read(name, parameter.dtype).to(device))
    model.tie_weights()
    lost = [name for name, p in model.named_parameters() if p.is_meta and not name.startswith(prefix)]
    inside = [name for name, _ in model.named_parameters() if name.startswith(prefix)]
    if lost or not shards.holds(inside):
        return None  # opening it as a whole tells which
    for name, buffer in list(model.named_buffers()):
        owner, _, own = name.rpartition(".")
        values = shards.read(name, buffer.dtype).clone() if shards.holds([name]) else buffer
        model.get_submodule(owner)._buffers[own] = values.to(device)
    take_generation_config(model, source)
    return model.eval()


def _keep_dtypes(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Give parameters on meta that the library keeps in float32 that dtype, as it does when it opens a model."""
    kept = model._get_dtype_plan(dtype)
    pattern = "|".join(name.replace("*", ".*") for name in kept)  # of parts of names, as the library reads them
    for name, parameter in list(model.named_parameters()) if kept else ():
        if re.search(pattern, name):
            _set(model, name, torch.empty_like(parameter, dtype=torch.float32))


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
    for name, values in zip(names, shards.copies(*_wanted(blocks, prefix, block), device), strict=True):
        _set(module, name, values)
    if device.type == "cuda" and block + 1 < len(blocks):
        shards.send_ahead(*_wanted(blocks, prefix, block + 1), device)
    try:
        yield
    finally:
        for name in names:
            _set(module, name, torch.empty_like(module.get_parameter(name), device="meta"))
        _trim()


def _wanted(blocks: nn.ModuleList, prefix: str, block: int) -> tuple[list[str], list[torch.dtype]]:
    """A block's parameters in its model, and their dtypes."""
    parameters = dict(blocks[block].named_parameters())
    return [f"{prefix}.{block}.{name}" for name in parameters], [p.dtype for p in parameters.values()]


def _trim() -> None:
    """Hand freed memory back to the system. glibc keeps freed blocks of up to 32 MB, which are a matrix's size, and
    the pile grows from decoder block to decoder block."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
