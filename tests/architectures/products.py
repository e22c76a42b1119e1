"""What a model's own forward multiplies with each of its parameters, noted product by product.

Independent of the library under test: torch functions are watched where the model calls them (linear, matmul, bmm,
addmm, baddbmm, einsum, grouped products), an operand is recognised by the memory it shares with a parameter, and the
axis over which the product sums is read from the operand's strides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class Region(NamedTuple):
    """A matrix inside a parameter's memory: where it begins, its size, and whether it lies as [in, out]."""

    parameter: str
    offset: int
    rows: int
    cols: int
    transposed: bool

    def of(self, parameter: Tensor) -> Tensor:
        """The matrix [out, in] in a parameter's values (contiguous)."""
        flat = parameter.detach().reshape(-1)[self.offset : self.offset + self.rows * self.cols]
        return flat.view(self.cols, self.rows).T if self.transposed else flat.view(self.rows, self.cols)


@dataclass
class Products(TorchFunctionMode):
    """Collects, while active, the inputs [tokens, in] of every matrix of a model."""

    model: nn.Module
    inputs: dict[Region, list[Tensor]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()
        self.places = {
            parameter.untyped_storage().data_ptr(): (name, parameter)
            for name, parameter in self.model.named_parameters()
            if parameter.dim() >= 2
        }

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if (watch := _WATCHED.get(getattr(function, "__name__", ""))) is not None:
            with torch._C.DisableTorchFunction():
                watch(self, args, kwargs)
        return function(*args, **kwargs)

    def add(self, weight: Tensor, inputs: Tensor) -> None:
        """`weight` [..., in, out], as a product sees it, was multiplied with `inputs` [..., tokens, in]."""
        place = self.places.get(weight.untyped_storage().data_ptr()) if isinstance(weight, Tensor) else None
        if place is None:
            return
        name, parameter = place
        if weight.dim() == 1:
            weight = weight[:, None]
        if weight.dim() == 2:
            rows = inputs.reshape(-1, inputs.shape[-1])
            self._note(name, weight.storage_offset() - parameter.storage_offset(), weight, rows)
            return
        lead = torch.broadcast_shapes(weight.shape[:-2], inputs.shape[:-2])
        weight, inputs = weight.expand(*lead, *weight.shape[-2:]), inputs.expand(*lead, *inputs.shape[-2:])
        for matrix, rows in zip(weight.flatten(0, -3), inputs.flatten(0, -3), strict=True):
            self._note(name, matrix.storage_offset() - parameter.storage_offset(), matrix, rows)

    def _note(self, name: str, offset: int, weight: Tensor, rows: Tensor) -> None:
        cols, count = weight.shape
        transposed = weight.stride(1) == 1 and (weight.stride(0) != 1 or cols == 1) and count > 1
        region = Region(name, offset, count, cols, transposed)
        if len(rows):
            self.inputs.setdefault(region, []).append(rows.detach().float().clone())


def _linear(products: Products, args: Any, kwargs: Any) -> None:
    inputs, weight = args[0], args[1] if len(args) > 1 else kwargs["weight"]
    products.add(weight.T, inputs)


def _product(products: Products, args: Any, kwargs: Any) -> None:
    left, right, *_ = (*args, *(v for n, v in kwargs.items() if n in ("other", "mat2", "mat1", "batch1", "batch2")))
    products.add(right, left)
    if left.dim() > 1:
        products.add(left.transpose(-1, -2), right.transpose(-1, -2) if right.dim() > 1 else right[None])


def _added_product(products: Products, args: Any, kwargs: Any) -> None:
    _product(products, args[1:], kwargs)


def _grouped(products: Products, args: Any, kwargs: Any) -> None:
    inputs, weight = args[0], args[1]
    ends = kwargs.get("offs", args[2] if len(args) > 2 else None)
    if weight.dim() != 3 or ends is None or inputs.dim() != 2:
        return
    start = 0
    for group, end in enumerate(ends.tolist()):
        products.add(weight[group], inputs[start:end])
        start = end


def _einsum(products: Products, args: Any, kwargs: Any) -> None:
    equation, *operands = args
    operands = operands[0] if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else operands
    if len(operands) != 2 or "." in equation:
        return
    sides, out = equation.replace(" ", "").split("->")
    names = sides.split(",")
    for weight, own, inputs, other in (
        (operands[0], names[0], operands[1], names[1]),
        (operands[1], names[1], operands[0], names[0]),
    ):
        summed = [c for c in own if c in other and c not in out]
        shared = [c for c in own if c in other and c in out]
        free = [c for c in own if c not in other]
        if len(summed) != 1 or len(free) != 1:
            continue
        matrix = weight.permute([own.index(c) for c in (*shared, *summed, *free)])
        rest = [c for c in other if c not in summed and c not in shared]
        rows = inputs.permute([other.index(c) for c in (*shared, *rest, *summed)])
        products.add(matrix, rows.reshape(*rows.shape[: len(shared)], -1, rows.shape[-1]))


_WATCHED: dict[str, Callable[[Products, Any, Any], None]] = {
    "linear": _linear,
    "matmul": _product,
    "__matmul__": _product,
    "__rmatmul__": lambda products, args, kwargs: _product(products, args[::-1], kwargs),
    "mm": _product,
    "bmm": _product,
    "addmm": _added_product,
    "addmm_": _added_product,
    "baddbmm": _added_product,
    "einsum": _einsum,
    "grouped_mm": _grouped,
    "_grouped_mm": _grouped,
}


@torch.no_grad()
def inputs_of(model: nn.Module, ids: Tensor) -> dict[Region, Tensor]:
    """The inputs [tokens, in] of every matrix, from plain forwards of one window each."""
    with Products(model) as products:
        for window in ids:
            model(input_ids=window[None])
    return {region: torch.cat(rows) for region, rows in products.inputs.items()}
