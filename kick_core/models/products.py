"""Which matrices a forward multiplies with, on which axis, and with what: seen below every way of writing a product.

However a model spells it (a linear, `@`, einsum, a batched or grouped product over experts), a product reaches
PyTorch's dispatcher as one of a few operators. There an operand is recognised by the memory that it shares with a
parameter, and its strides tell along which axis of the parameter the product sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


@dataclass(frozen=True, slots=True)
class Part:
    """A piece [out, in] of a parameter's memory, as one product uses it.

    `offset` counts elements from the parameter's first; `transposed` pieces lie in memory as [in, out]. `pitch` is the
    distance of two rows in memory: the row's length where the piece is whole.
    """

    offset: int
    rows: int
    cols: int
    transposed: bool
    pitch: int

    @property
    def whole(self) -> bool:
        """Whether the piece lies in one stretch of memory."""
        return self.pitch == (self.rows if self.transposed else self.cols)


Product = Callable[[str, Part, Tensor], None]
"""Called with a parameter's path, the part that is multiplied, and its inputs [tokens, in]."""

Use = Callable[[str, str], None]
"""Called with a parameter's path and the name of an operator, other than a product, that reads it."""

_GATHERS = ("index", "index_select")
_CASTS = ("_to_copy", "clone", "contiguous", "_unsafe_view")


@dataclass(frozen=True, slots=True)
class _Memory:
    """A stretch of memory that holds a parameter's values, its own or a copy in another order.

    `axes` are (size, step here, step in the parameter), the longest step here first; the first axis of gathered pieces
    has no even step in the parameter, its places are `starts`.
    """

    path: str
    begin: int
    base: int
    axes: tuple[tuple[int, int, int], ...]
    starts: tuple[int, ...] = ()

    def place(self, offset: int) -> int:
        """Where in the parameter the element at `offset` of this memory is."""
        rest, found = offset - self.begin, self.base
        for number, (_, here, there) in enumerate(self.axes):
            count, rest = divmod(rest, here)
            found += self.starts[count] if self.starts and not number else count * there
        return found

    def steps(self, size: int, step: int) -> list[tuple[int, int]] | None:
        """An axis of a view of this memory as (size, step in the parameter), outermost first; None without steps."""
        found: list[tuple[int, int]] = []
        for number, (length, here, there) in reversed(list(enumerate(self.axes))):
            if size == 1:
                break
            if self.starts and not number:
                return None
            if step and step % here == 0 and step < length * here:
                taken = min(size, length * here // step)
                if size % taken:
                    return None
                found.append((taken, there * (step // here)))
                size, step = size // taken, length * here
        return found[::-1] if size == 1 else None


class ProductWatch(TorchDispatchMode):
    """Reports, while active, every product with one of `parameters`, and every other operator that reads one.

    `ran` is called with each operator's name, arguments and result, after it ran.
    """

    def __init__(
        self,
        parameters: dict[str, Tensor],
        product: Product,
        use: Use,
        ran: Callable[[str, Any, Any], None] | None = None,
    ) -> None:
        super().__init__()
        self.product, self.use, self.ran = product, use, ran
        self.memory = {
            _address(tensor): _Memory(path, tensor.storage_offset(), 0, ((tensor.numel(), 1, 1),))
            for path, tensor in parameters.items()
            if tensor.numel()
        }
        self.copies: list[Tensor] = []  # held, so that their memory is not taken for another's

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = function._schema.name.removeprefix("aten::").rstrip("_") or function._schema.name
        products = _PRODUCTS.get(name)
        if products is not None:
            for weight, inputs in products(args, kwargs):
                self._see(weight, inputs)
        result = function(*args, **kwargs)
        if products is None and not function.is_view:
            self._note(name, args, result)
        if self.ran is not None:
            self.ran(name, args, result)
        return result

    def _of(self, tensor: Any) -> _Memory | None:
        return self.memory.get(_address(tensor)) if isinstance(tensor, Tensor) else None

    def _see(self, weight: Tensor, inputs: Tensor) -> None:
        """`weight` [in, out] or [batch, in, out] is multiplied with `inputs` [..., tokens, in]."""
        memory = self._of(weight)
        if memory is None:
            return
        if weight.dim() == 2:
            self._report(memory, weight, inputs)
        elif weight.stride(0) == 0:  # one matrix for the whole batch
            self._report(memory, weight[0], inputs.reshape(-1, inputs.shape[-1]))
        else:
            for number in range(len(weight)):
                self._report(memory, weight[number], inputs[number])

    def _report(self, memory: _Memory, weight: Tensor, inputs: Tensor) -> None:
        cols, rows = weight.shape
        along, across = memory.steps(cols, weight.stride(0)), memory.steps(rows, weight.stride(1))
        if along is None or across is None or len(along) > 1:
            self.use(memory.path, "a product in parts")
            return
        first = memory.place(weight.storage_offset())
        step = along[0][1] if along else 1
        *outer, (own, pitch) = across or [(1, cols * step)]
        for offset in _offsets(first, outer):
            if step == 1 and not (pitch == 1 and own > 1):
                self.product(memory.path, Part(offset, own, cols, False, pitch), inputs)
            elif pitch == 1 or own == 1:
                self.product(memory.path, Part(offset, own, cols, True, step), inputs)
            else:
                self.use(memory.path, "a product in parts")

    def _note(self, name: str, args: Any, result: Any) -> None:
        for tensor in _tensors(args):
            memory = self._of(tensor)
            if memory is None or (isinstance(result, Tensor) and _address(result) == _address(tensor)):
                continue
            if isinstance(result, Tensor) and (copy := _copied(name, args, tensor, result, memory)) is not None:
                self.memory[_address(result)] = copy
                self.copies.append(result)
            else:
                self.use(memory.path, name)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _tensors(args: Any) -> Iterator[Tensor]:
    for value in args:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _offsets(first: int, axes: list[tuple[int, int]]) -> list[int]:
    found = [first]
    for size, step in axes:
        found = [offset + number * step for offset in found for number in range(size)]
    return found


def _copied(name: str, args: Any, source: Tensor, result: Tensor, memory: _Memory) -> _Memory | None:
    """What a copy of (pieces of) a parameter holds, where the operator only copies."""
    if memory.starts or result.storage_offset():
        return None
    first = memory.place(source.storage_offset())
    own = [memory.steps(size, step) for size, step in zip(source.shape, source.stride(), strict=True)]
    if any(steps is None or len(steps) > 1 for steps in own):
        return None
    there = [steps[0][1] if steps else 0 for steps in own]
    if name in _CASTS and result.shape == source.shape:
        axes = [(n, h, t) for n, h, t in zip(result.shape, result.stride(), there, strict=True) if n > 1]
        return _Memory(memory.path, 0, first, tuple(sorted(axes, key=lambda axis: -axis[1])))
    if name in _GATHERS and source is args[0] and source.dim() > 1:
        index = _first_index(name, args)
        if index is not None and result.is_contiguous():
            axes = list(zip(result.shape[index.dim() :], result.stride()[index.dim() :], there[1:], strict=True))
            starts = tuple(there[0] * number for number in index.reshape(-1).tolist())
            each = source[0].numel()
            return _Memory(memory.path, 0, first, ((len(starts), each, 0), *axes), starts)
    return None


def _first_index(name: str, args: Any) -> Tensor | None:
    """The index of an indexing along the first axis alone."""
    places, first = ((*args[1], None, None)[:2], len(args[1]) == 1) if name == "index" else ((args[2],), args[1] == 0)
    index = places[0] if first else None
    numbers = isinstance(index, Tensor) and index.dim() <= 1 and index.dtype in (torch.int64, torch.int32)
    return index if numbers else None


# --- products, as pairs of a weight [.., in, out] and its inputs [.., tokens, in] ------------------------------------

Pairs = Iterator[tuple[Tensor, Tensor]]


def _both(args: Any, _kwargs: Any) -> Pairs:
    left, right = args[:2]
    if right.dim() == 1:
        right = right[:, None]
    yield right, left
    yield left.transpose(-1, -2), right.transpose(-1, -2)


def _behind_a_sum(args: Any, kwargs: Any) -> Pairs:
    return _both(args[1:], kwargs)


def _linear(args: Any, _kwargs: Any) -> Pairs:
    yield args[1].t(), args[0].reshape(-1, args[0].shape[-1])


def _grouped(args: Any, kwargs: Any) -> Pairs:
    inputs, weight = args[:2]
    ends = args[2] if len(args) > 2 else kwargs.get("offs")
    if ends is None or weight.dim() != 3 or inputs.dim() != 2:
        yield from _both(args, kwargs)
        return
    start = 0
    for group, end in enumerate(ends.tolist()):
        if end > start:
            yield weight[group], inputs[start:end]
        start = end


_PRODUCTS: dict[str, Callable[[Any, Any], Pairs]] = {
    "mm": _both,
    "bmm": _both,
    "mv": _both,
    "addmm": _behind_a_sum,
    "addmv": _behind_a_sum,
    "baddbmm": _behind_a_sum,
    "addbmm": _behind_a_sum,
    "_addmm_activation": _behind_a_sum,
    "linear": _linear,
    "_grouped_mm": _grouped,
}
