"""The header of a safetensors file, read alone: where its tensors lie, without their bytes and without torch."""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

from kick_core.store.files import Damaged

_LONGEST = 100 << 20
"""Bytes of a header at most, as in the format's own library."""


def read_header(file: BinaryIO) -> dict[str, Any]:
    """The header of an open safetensors file, which is then at its data; offsets in the header count from there.

    Args:
        file: The file, at its beginning.

    Returns:
        Tensor name -> {"dtype", "shape", "data_offsets"}, and "__metadata__" where there is some.

    Raises:
        Damaged: The file does not begin with such a header.
    """
    try:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(min(length, _LONGEST)))
    except (ValueError, struct.error, RecursionError) as error:
        raise Damaged(f"no safetensors file ({error})") from error
    if not isinstance(header, dict):
        raise Damaged("no safetensors file (its header is no object)")
    return header
