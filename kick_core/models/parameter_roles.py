"""What each parameter of a block is, seen while the block works on a few tokens.

It is multiplied (with its true input axis), looked up, convolved, or used number by number. A router is a product whose
numbers a choice of experts, or their mixture, is made of; routers and gates of one number stay as they are, in all
families. A parameter that is multiplied in a form that is not known is a problem, and its block is not compressed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kick_core.models.block_calls import entering, window_axis
from kick_core.models.products import BEFORE, LOOKUPS, Part, ProductWatch, changes_nothing_else


@dataclass(frozen=True, slots=True)
class Stack:
    """A parameter as `pieces` matrices [rows, cols] = [out, in] one behind the other, each lying as [in, out] when
    `transposed`."""

    path: str
    pieces: int
    rows: int
    cols: int
    transposed: bool
    plain: bool = True
    """Whether it is a linear that was called as one, or a stack of a kind that the library takes apart itself."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of a piece as it lies in memory."""
        return (self.cols, self.rows) if self.transposed else (self.rows, self.cols)


@dataclass(frozen=True, slots=True)
class Left:
    """A parameter that is not compressed, how many numbers it holds, and the reason."""

    path: str
    weights: int
    reason: str


@dataclass(frozen=True, slots=True)
class Layout:
    """The parameters of one kind of block. `output` is what the block returned in the probe; `axis` that of the windows
    in its hidden states. `problem` says what was not understood; such a block is not compressed."""

    stacks: tuple[Stack, ...]
    left: tuple[Left, ...]
    output: Any
    axis: int
    problem: str = ""


@dataclass
class _Work:
    """What was seen of a block at work, by parameter path."""

    parts: dict[str, set[Part]] = field(default_factory=dict)
    inputs: dict[str, set[Any]] = field(default_factory=dict)
    uses: dict[str, set[str]] = field(default_factory=dict)
    routers: set[str] = field(default_factory=set)
    widths: dict[str, set[int]] = field(default_factory=dict)
    last: str = ""
    traced: dict[int, dict[str, int]] = field(default_factory=dict)
    held: list[Any] = field(default_factory=list)

    def product(self, path: str, part: Part, inputs: Tensor) -> None:
        self.parts.setdefault(path, set()).add(part)
        self.inputs.setdefault(path, set()).add((inputs.data_ptr(), inputs.shape))
        self.held.append(inputs)
        self.last = path

    def use(self, path: str, name: str) -> None:
        self.uses.setdefault(path, set()).add(name)
        if name.endswith(BEFORE):
            self.last = path

    def ran(self, name: str, args: Any, result: Any) -> None:
        """Follow the numbers that a product made, until they are multiplied again, or chosen from."""
        results = [r for r in (result if isinstance(result, (tuple, list)) else (result,)) if isinstance(r, Tensor)]
        if self.last:
            self.traced.update({_address(r): {self.last: r.numel()} for r in results})
            self.last = ""
        elif name in _CHOICES or (name == "_softmax" and self._among_all_outputs(*args[:2])):
            self.routers.update(self.traced.get(_address(args[0]), {}))
        elif name not in _ATTENTION:
            origins: dict[str, int] = {}
            for tensor in args:
                for one in tensor if isinstance(tensor, (list, tuple)) else (tensor,):
                    if isinstance(one, Tensor):
                        origins |= self.traced.get(_address(one), {})
            for one in results if origins else ():
                # numbers that were spread over something else (keys to choose from) are no router's any more
                followed = {path: count for path, count in origins.items() if one.numel() <= count}
                self.traced[_address(one)] = followed | self.traced.get(_address(one), {})
        self.held += results

    def _among_all_outputs(self, scores: Tensor, axis: int) -> bool:
        """Whether a softmax runs over all outputs of one matrix, as one that mixes experts does."""
        parts = [part for path in self.traced.get(_address(scores), {}) for part in self.parts.get(path, ())]
        return any(part.rows == scores.shape[axis] for part in parts) and axis in (-1, scores.dim() - 1)


_CHOICES = ("topk", "sort", "argmax", "argsort", "max", "gather")
_ATTENTION = ("bmm", "mm", "addmm", "baddbmm", "_grouped_mm")


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def watched(
    block: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any, shared: set[int], width: int
) -> Layout:
    work, called = _Work(), set[nn.Module]()
    hidden, _ = entering(args, kwargs)
    axis = window_axis(hidden)
    parameters = {n: p for n, p in block.named_parameters() if p.is_floating_point() and p.dim() >= 2}

    def hook(name: str) -> Callable[..., None]:
        def note(module: nn.Module, _args: Any, output: Any) -> None:
            called.add(module)
            outs = output if isinstance(output, (tuple, list)) else (output,)
            work.widths.setdefault(name, set()).update(
                o.shape[-1] for o in outs if isinstance(o, Tensor) and o.dim() and o.is_floating_point()
            )

        return note

    handles = [
        module.register_forward_hook(hook(name)) for name, module in block.named_modules() if module is not block
    ]
    try:
        with ProductWatch(parameters, work.product, work.use, work.ran):
            output = forward(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    stacks, left, problems = _sorted(block, parameters, work, {hidden.shape[-1], width}, shared, called)
    problem = (
        problems[0]
        if problems
        else ""
        if stacks
        else "nothing in its blocks is a matrix that tokens are multiplied with"
    )
    return Layout(tuple(stacks), tuple(left), output, axis, problem)


def _sorted(
    block: nn.Module,
    parameters: dict[str, nn.Parameter],
    work: _Work,
    width: set[int],
    shared: set[int],
    called: set[nn.Module],
) -> tuple[list[Stack], list[Left], list[str]]:
    modules = dict(block.named_modules())
    whole = sum(parameter.numel() for parameter in parameters.values())
    routers = {_choosing(path, work, modules, width) for path in work.routers}
    stacks: list[Stack] = []
    left: list[Left] = []
    problems: list[str] = []
    for path in _ordered(block, parameters):
        parameter, module = parameters[path], modules[path.rpartition(".")[0]]
        parts, uses = work.parts.get(path, set()), work.uses.get(path, set())
        reason = ""
        if id(parameter) in shared:
            reason = "shared by several blocks"
        elif any(path == root or path.startswith(f"{root}.") for root in routers):
            reason = "router"
        elif not parts and not _odd_use(parts, uses):
            reason = _why_left(path, module, uses, modules, called)
        elif min(parameter.shape) == 1 or (parts and all(min(part.rows, part.cols) == 1 for part in parts)):
            reason = "gate"
        if reason == "" and (odd := _odd_use(parts, uses)):
            # a matrix in disguise is not passed over; a few numbers that mix streams may be
            if parameter.numel() > _SMALL * whole:
                problems.append(f"{path} {tuple(parameter.shape)}: {odd}")
                continue
            reason = odd
        if reason:
            left.append(Left(path, parameter.numel(), reason))
            continue
        stack = _stack(path, parameter, module, parts, uses, len(work.inputs.get(path, ())))
        if not parts and not uses and module in called:
            stack = "its module was at work, but no operator was seen to read it"
        if isinstance(stack, str):
            problems.append(f"{path} {tuple(parameter.shape)}: {stack}")
        else:
            plain = module in called or not parts if stack.pieces == 1 else hasattr(module, "has_gate")
            stacks.append(replace(stack, plain=plain and (not stack.transposed or isinstance(module, Conv1D))))
    return stacks, left, problems


UNUSED = "not used on text"
_SMALL = 0.01
"""The largest share of a block's weights that is left although it is multiplied in some other form."""


def _odd_use(parts: set[Part], uses: set[str]) -> str:
    """What is done with a parameter that makes it a matrix in disguise; "" where that is not so."""
    for name in sorted(uses):
        if name.endswith(BEFORE):
            return f"it is changed ({name.removesuffix(BEFORE)}) before it is multiplied"
        if not parts and "conv" not in name and name not in LOOKUPS and not changes_nothing_else(name):
            return f"it is read by {name}, which is no product that is known"
    return ""


def _ordered(block: nn.Module, parameters: dict[str, nn.Parameter]) -> Iterator[str]:
    """Parameters module by module; pieces of one module's stacks are listed piece by piece later."""
    for name, module in block.named_modules():
        for own, _ in module.named_parameters(recurse=False):
            path = f"{name}.{own}" if name else own
            if path in parameters:
                yield path


def _choosing(path: str, work: _Work, modules: dict[str, nn.Module], width: set[int]) -> str:
    """The largest module around a router's matrix that puts out choices, and no hidden states."""
    root = path
    name = path.rpartition(".")[0]
    while name:
        widths = work.widths.get(name)
        if widths is not None:
            if width & widths:
                break
            root = name
        name = name.rpartition(".")[0]
    return root


def _why_left(
    path: str, module: nn.Module, uses: set[str], modules: dict[str, nn.Module], called: set[nn.Module]
) -> str:
    if not uses:
        return "" if _expert(path, modules, called) else UNUSED
    if any("conv" in name for name in uses):
        return "convolution"
    if uses <= LOOKUPS:
        return "embedding"
    return "norm" if "norm" in type(module).__name__.lower() else "recurrence or scale"


def _expert(path: str, modules: dict[str, nn.Module], called: set[nn.Module]) -> bool:
    """Whether the parameter is an expert's that nobody chose: it is in one of several like modules, and another was at
    work."""
    parts = path.split(".")
    for at in range(len(parts) - 1, 0, -1):
        siblings = modules.get(".".join(parts[:at]))
        if isinstance(siblings, nn.ModuleList) and parts[at].isdecimal() and len({type(m) for m in siblings}) == 1:
            return any(m in called or any(c in called for c in m.modules()) for m in siblings)
    return False


def _stack(
    path: str, parameter: nn.Parameter, module: nn.Module, parts: set[Part], uses: set[str], inputs: int
) -> Stack | str:
    """A parameter's matrices as products use them; or what is odd about it."""
    if isinstance(module, nn.Linear | Conv1D) and path.endswith("weight"):
        transposed = isinstance(module, Conv1D)
        rows, cols = parameter.T.shape if transposed else parameter.shape
        whole = Stack(path, 1, rows, cols, transposed)
        wrong = [p for p in parts if p.cols != cols or (p.transposed != transposed and min(p.rows, p.cols) > 1)]
        if wrong:
            return "its products sum over another axis than its inputs"
        if uses:
            return f"it is multiplied, and also read by {sorted(uses)[0]}"
        if inputs == 1 or not any(part.rows < rows for part in parts):
            return whole
    if uses:
        return f"it is multiplied, and also read by {sorted(uses)[0]}"
    shapes = {(p.rows, p.cols, p.transposed) for p in parts}
    if len(shapes) != 1 or any(not p.whole for p in parts):
        return "it is multiplied in parts of several shapes"
    ((rows, cols, transposed),) = shapes
    if parameter.dim() == 3 and not transposed and rows % parameter.shape[1] == 0 and cols == parameter.shape[2]:
        rows = parameter.shape[1]
    if parameter.numel() % (rows * cols) or any(p.offset % (rows * cols) for p in parts):
        return "it is multiplied in parts that do not fill it"
    return Stack(path, parameter.numel() // (rows * cols), rows, cols, transposed)
