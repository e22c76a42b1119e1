"""The tensors of a folder's files, by the names that they have there."""

from __future__ import annotations

from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from kick_core.models.source import Source


class TensorFiles:
    """A folder's tensors by name. A file is mapped only while a tensor of it is used."""

    def __init__(self, source: Source) -> None:
        self._places: dict[str, Path] = {}
        for path in source.weight_files:
            with safe_open(path, framework="pt") as file:
                self._places |= dict.fromkeys(file.keys(), path)

    @property
    def names(self) -> list[str]:
        """All names, file by file."""
        return list(self._places)

    def read(self, name: str) -> Tensor:
        """A tensor as it is: a view of the mapped file, never to be written to."""
        with safe_open(self._places[name], framework="pt") as file:
            tensor: Tensor = file.get_tensor(name)
        return tensor
