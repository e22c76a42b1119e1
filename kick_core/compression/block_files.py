"""A block's tensors as the content of a safetensors file, without a copy of them; from a GPU through pinned memory."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_DTYPES = {
    torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.int32: "I32", torch.float32: "F32", torch.float64: "F64", torch.int64: "I64",
}  # fmt: skip
"""Names of the format, in the order in which its own writer puts tensors last to first."""


def content(tensors: Mapping[str, Tensor]) -> list[bytes | memoryview]:
    """The parts of the very file that `safetensors.torch.save` makes: its header, and the tensors' own memory.

    Args:
        tensors: On the CPU; they must not change until the file is written.
    """
    order = list(_DTYPES)
    names = sorted(tensors, key=lambda name: (-order.index(tensors[name].dtype), name))
    parts: list[bytes | memoryview] = []
    header, at = {}, 0
    for name in names:
        tensor = tensors[name].detach().contiguous()
        header[name] = {
            "dtype": _DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes],
        }  # fmt: skip
        at += tensor.nbytes
        parts.append(tensor.flatten().view(torch.uint8).numpy().data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return [struct.pack("<Q", len(text)) + text, *parts]


def sent_to_host(tensors: Mapping[str, Tensor]) -> Callable[[], dict[str, Tensor]]:
    """Begin to copy tensors from a GPU into pinned memory, which torch reuses for the next block's.

    Returns:
        What waits for the copies and gives them. Tensors on the CPU are given as they are.
    """
    device = next((tensor.device for tensor in tensors.values() if tensor.is_cuda), None)
    if device is None:
        return lambda: dict(tensors)
    copies = {name: _sent(tensor) if tensor.is_cuda else tensor for name, tensor in tensors.items()}
    arrived = torch.cuda.current_stream(device).record_event()

    def received() -> dict[str, Tensor]:
        arrived.synchronize()
        return copies

    return received


def _sent(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True).copy_(tensor, non_blocking=True)
