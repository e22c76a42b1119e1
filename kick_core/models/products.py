"""Which matrices a forward multiplies with, on which axis, and with what: seen below every way of writing a product.

However a model spells it (a linear, `@`, einsum, a batched or grouped product over experts), a product reaches
PyTorch's dispatcher as one of a few operators. There an operand is recognised by the memory that it shares with a
parameter, and its strides tell along which axis of the parameter the product sums.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
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
_JOINS = ("cat", "stack")
LOOKUPS = frozenset({"embedding", "index", "index_select", "gather", "embedding_renorm"})
"""Operators that read rows of a table."""
BEFORE = " before a product"
"""The end of a use's name, after an operator's: its result, made of parameters alone, is what is multiplied."""
_SCALES = frozenset(
    ("sum", "mean", "cumsum", "max", "amax", "amin", "linalg_vector_norm", "norm", "_softmax", "_log_softmax",
     "native_layer_norm", "native_group_norm", "_fused_rms_norm", "rms_norm", "layer_norm",
     "cat", "stack", "expand", "repeat", "copy", "_to_copy", "clone", "constant_pad_nd", "roll", "flip", "index_put")
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Memory:
    """A stretch of memory that holds a parameter's values, its own or a copy in another order.

    Attributes:
        path: The parameter's.
        begin: The offset of the stretch in its storage, in elements.
        size: Its elements.
        base: The offset in the parameter of its first element.
        axes: Of the copy, as (size, step here, step in the parameter), the longest step here first.
    """

    path: str
    begin: int
    size: int
    base: int
    axes: tuple[tuple[int, int, int], ...]

    def place(self, offset: int) -> int:
        """Where in the parameter the element at `offset` of this memory is."""
        rest, place = offset - self.begin, self.base
        for _, here, there in self.axes:
            count, rest = divmod(rest, here)
            place += count * there
        return place

    def steps(self, size: int, step: int) -> list[tuple[int, int]] | None:
        """An axis of a view of this memory as (size, step in the parameter), outermost first; None without steps."""
        found: list[tuple[int, int]] = []
        for length, here, there in reversed(self.axes):
            if size == 1:
                break
            if step and step % here == 0 and step < length * here:
                taken = min(size, length * here // step)
                if size % taken:
                    return None
                found.append((taken, there * (step // here)))
                size, step = size // taken, length * here
        return found[::-1] if size == 1 else None


class ProductWatch(TorchDispatchMode):
    """Reports, while active, every product with one of `parameters`, and every other operator that reads one.

    A copy of parameters, of pieces of one or of several behind one another, is followed to the products that it is
    used in. What an operator makes of parameters alone is followed too, and a product with it is reported as a use.
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
            _address(tensor): [_Memory(path, tensor.storage_offset(), tensor.numel(), 0, ((tensor.numel(), 1, 1),))]
            for path, tensor in parameters.items()
            if tensor.numel()
        }
        self.changed: dict[int, tuple[str, str]] = {}
        self.held: list[Tensor] = []  # so that the memory of copies is not taken for another's

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

    def _of(self, tensor: Any) -> list[_Memory]:
        return self.memory.get(_address(tensor), []) if isinstance(tensor, Tensor) else []

    def _see(self, weight: Tensor, inputs: Tensor) -> None:
        """`weight` [in, out] or [batch, in, out] is multiplied with `inputs` [..., tokens, in]."""
        if (changed := self.changed.get(_address(weight))) is not None:
            self.use(changed[0], f"{changed[1]}{BEFORE}")
            return
        memories = self._of(weight)
        if not memories:
            return
        if weight.dim() == 2:
            self._report(memories, weight, inputs)
        elif weight.stride(0) == 0:  # one matrix for the whole batch
            self._report(memories, weight[0], inputs.reshape(-1, inputs.shape[-1]))
        else:
            for number in range(len(weight)):
                self._report(memories, weight[number], inputs[number])

    def _report(self, memories: list[_Memory], weight: Tensor, inputs: Tensor) -> None:
        """One product, by the stretches of memory that the weight [in, out] lies in: each holds some of its outputs."""
        first, (cols, rows), step = weight.storage_offset(), weight.shape, max(1, weight.stride(1))
        at = max(0, bisect_right(memories, first, key=lambda memory: memory.begin) - 1)
        for memory in (memories[place] for place in range(at, len(memories))):
            begin, end = (-(-(edge - first) // step) for edge in (memory.begin, memory.begin + memory.size))
            begin, end = max(0, begin), min(rows, end)
            if begin >= rows:
                return
            if end <= begin:  # another tensor of the same storage
                continue
            if end - begin < rows and weight.stride(0) * (cols - 1) >= step:  # its inputs lie in several stretches
                self.use(memory.path, "a product in parts")
                return
            self._report_part(memory, weight[:, begin:end], inputs)

    def _report_part(self, memory: _Memory, weight: Tensor, inputs: Tensor) -> None:
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
        """An operator, other than a product, may have read parameters: copied, changed, or used them."""
        tensors = [tensor for tensor in _tensors(args) if tensor.numel()]
        known = [tensor for tensor in tensors if self._of(tensor) or _address(tensor) in self.changed]
        if not known or (isinstance(result, Tensor) and _address(result) == _address(known[0])):
            return
        if isinstance(result, Tensor) and (copies := self._copied(name, args, known, result)):
            self._keep(self.memory, result, copies)
            return
        mixed = any(one.is_floating_point() and one.dim() and not any(one is k for k in known) for one in tensors)
        for tensor in known:
            path = self.changed[_address(tensor)][0] if _address(tensor) in self.changed else self._of(tensor)[0].path
            if isinstance(result, Tensor) and not mixed and name not in LOOKUPS:
                self._keep(self.changed, result, (path, name))
            self.use(path, name)

    def _keep(self, places: dict[int, Any], result: Tensor, what: Any) -> None:
        places[_address(result)] = what
        self.held.append(result)

    def _copied(self, name: str, args: Any, sources: list[Tensor], result: Tensor) -> list[_Memory]:
        """The stretches of a copy of (pieces of) parameters; none where the operator does more than copy."""
        if result.storage_offset() or any(not self._of(source) for source in sources):
            return []
        if name in _CASTS and result.shape == sources[0].shape:
            return _stretches(self._of(sources[0]), sources[0], result)
        elif name in _JOINS and len(sources) == len(args[0]) and result.is_contiguous() and not any(args[1:]):
            begins = itertools.accumulate((source.numel() for source in sources), initial=0)
            parts = [
                _stretch(self._of(source), source, source.new_empty(source.shape, device="meta").stride(), begin)
                for source, begin in zip(sources, begins, strict=False)
            ]
        elif name in _GATHERS and result.is_contiguous() and sources[0].dim() > 1:
            index = _first_index(name, args)
            pieces = [] if index is None else [sources[0][number] for number in index.reshape(-1).tolist()]
            steps = result.stride()[result.dim() - sources[0].dim() + 1 :]
            parts = [
                _stretch(self._of(piece), piece, steps, number * piece.numel()) for number, piece in enumerate(pieces)
            ]
        else:
            return []
        return [part for part in parts if part is not None] if None not in parts else []


def _stretches(memories: list[_Memory], source: Tensor, result: Tensor) -> list[_Memory]:
    """A copy of `source`, a view of the memories; one stretch per entry of its first axes where it must be (several
    stretches are copied, or one for every row of a batch). None where it is not even."""
    whole = _stretch(memories, source, result.stride(), result.storage_offset())
    if whole is not None or source.dim() < 2 or not result.is_contiguous():
        return [whole] if whole is not None else []
    each = [_stretches(memories, one, copy) for one, copy in zip(source, result, strict=True)]
    return list(itertools.chain.from_iterable(each)) if all(each) else []


def _stretch(memories: list[_Memory], source: Tensor, steps: Sequence[int], begin: int) -> _Memory | None:
    """A copy of `source`, a view of one of the memories, whose axes have these steps; None where it is not even."""
    first = source.storage_offset()
    last = first + sum((n - 1) * step for n, step in zip(source.shape, source.stride(), strict=True))
    holder = next((m for m in memories if m.begin <= first and last < m.begin + m.size), None)
    own = [holder.steps(n, step) for n, step in zip(source.shape, source.stride(), strict=True)] if holder else []
    if holder is None or any(there is None or len(there) > 1 for there in own):
        return None
    axes = [(n, h, there[0][1]) for n, h, there in zip(source.shape, steps, own, strict=True) if there and n > 1]
    order = sorted(axes, key=lambda axis: -axis[1])
    return _Memory(holder.path, begin, source.numel(), holder.place(first), tuple(order))


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


def _first_index(name: str, args: Any) -> Tensor | None:
    """The index of an indexing along the first axis alone."""
    places, first = ((*args[1], None, None)[:2], len(args[1]) == 1) if name == "index" else ((args[2],), args[1] == 0)
    index = places[0] if first else None
    numbers = isinstance(index, Tensor) and index.dtype in (torch.int64, torch.int32)
    return index if numbers else None


def changes_nothing_else(name: str) -> bool:
    """Whether an operator works number by number, or is one of those that norms, scales and recurrences are made of."""
    packet = getattr(torch.ops.aten, name, None)
    overloads = [] if packet is None else [getattr(packet, overload) for overload in packet.overloads()]
    return name in _SCALES or any(torch.Tag.pointwise in one.tags for one in overloads)


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
