"""One compressed matrix as its artifact stores it: described parts instead of tensors told apart by their names.

The names, types and shapes of the parts are the file format, which cache/README.md describes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from kick_core.errors import KickError

_TENSORS = ("dense", "mask", "values", "scales", "zeros", "columns", "outliers", "groups", "lora_b", "lora_a")
"""Parts that are stored under their own name; `codes` and `group_size` need a word more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredMatrix:
    """A matrix [rows, cols] in a block's file. A part that its method does not need is None.

    Attributes:
        dense: [rows, cols], the matrix as it is.
        mask: uint8 [rows, ceil(cols / 8)], a bit per weight, 1: kept; beside `lora_b` the places that it may change.
        values: The kept values, row by row, in the model's dtype; None where they are the base model's.
        codes: uint8 [rows, ceil(cols * bits / 8)], packed.
        bits: Bits per code, 2 to 8.
        scales: float32 [rows, groups].
        zeros: uint8 [rows, groups], the code that stands for 0.
        groups: int32 [cols], the group of every column, where they are not consecutive.
        group_size: Columns per group, where they are.
        columns: float32 [cols], factors that undo a scaling before rounding.
        outliers: int32, the numbers of the columns that stayed the base model's.
        lora_b: [rows, rank], a low-rank update of what the codes stand for.
        lora_a: [rank, cols], its other factor.
    """

    dense: Tensor | None = None
    mask: Tensor | None = None
    values: Tensor | None = None
    codes: Tensor | None = None
    bits: int = 0
    scales: Tensor | None = None
    zeros: Tensor | None = None
    groups: Tensor | None = None
    group_size: int = 0
    columns: Tensor | None = None
    outliers: Tensor | None = None
    lora_b: Tensor | None = None
    lora_a: Tensor | None = None

    @property
    def complete(self) -> bool:
        """Whether there is enough to give a matrix back."""
        if self.codes is None:
            return self.dense is not None or self.mask is not None
        grouped = self.groups is not None or self.group_size > 0
        return self.scales is not None and self.zeros is not None and grouped

    @property
    def only_mask(self) -> bool:
        """Whether the mask is all that is stored: kept weights are the base model's."""
        return self.mask is not None and self.values is None and self.codes is None

    def to_tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors of the file, as `<name>.<part>`."""
        parts = {part: tensor for part in _TENSORS if (tensor := getattr(self, part)) is not None}
        if self.codes is not None:
            parts[f"codes{self.bits}"] = self.codes
        if self.group_size:
            parts["group_size"] = torch.tensor([self.group_size], dtype=torch.int32)
        return {f"{name}.{part}": tensor for part, tensor in parts.items()}

    @classmethod
    def from_tensors(
        cls, name: str, tensors: Mapping[str, Tensor], device: torch.device | str | None = None
    ) -> StoredMatrix:
        """The inverse of `to_tensors`, out of the tensors of a whole block.

        Args:
            name: The matrix's name inside its block.
            tensors: The block's tensors.
            device: Where the parts should lie; None: where they are.

        Raises:
            KickError: The block holds no such matrix, or a part of it is missing.
        """

        def part(kind: str) -> Tensor | None:
            tensor = tensors.get(f"{name}.{kind}")
            return tensor if tensor is None or device is None else tensor.to(device)

        bits = next((bits for bits in range(2, 9) if f"{name}.codes{bits}" in tensors), 0)
        size = tensors.get(f"{name}.group_size")
        stored = cls(
            **{kind: part(kind) for kind in _TENSORS},
            codes=part(f"codes{bits}"),
            bits=bits,
            group_size=0 if size is None else int(size),
        )
        if not stored.complete:
            raise KickError(f"the artifact does not hold all of {name}: `kick verify --deep` sets it aside")
        return stored
