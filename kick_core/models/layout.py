"""What every parameter of a decoder block is: a matrix that is compressed, or something that is left, and why.

Nothing is known by name. Before any work the library's own forward reads a few tokens, one block of every kind is
watched at work, and each floating-point parameter of two or more dimensions is put down by what is done with it:
multiplied (with its true input axis), looked up, convolved, or used element by element. A router is a product whose
numbers a choice of experts is made of; routers and gates of one number stay as they are, in all families.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kick_core.errors import KickError
from kick_core.models.products import Part, ProductWatch

Hold = Callable[[int], AbstractContextManager[None]]
"""Has a block's weights in place while it is worked on (see `kick_core.models.shards.resident`)."""

PROBED = (2, 19)
"""Windows and tokens of the probe. A prime, which is no count of heads, experts or channels."""


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


_LAYOUT = "_kick_layout"


def layout_of(block: nn.Module) -> Layout | None:
    """What was found of a block by `understand`, if it was."""
    found: Layout | None = block.__dict__.get(_LAYOUT)
    return found


def all_in_place(block: int) -> AbstractContextManager[None]:
    """The `Hold` of a model that is in memory as a whole."""
    return nullcontext()


@torch.no_grad()
def understand(model: PreTrainedModel, blocks: nn.ModuleList, hold: Hold = all_in_place) -> None:
    """Find every block's layout, once per model: one block of each kind is run on a few tokens.

    Args:
        model: An open model; weights may be on meta where `hold` brings them.
        blocks: Its decoder blocks.
        hold: Has a block's weights in place.

    Raises:
        KickError: When the model does not call its blocks one after the other, once each.
    """
    if all(layout_of(block) is not None for block in blocks):
        return
    try:
        kinds = _kinds(model, blocks, hold, each=False)
    except (KickError, torch.OutOfMemoryError):
        raise
    except Exception:  # a block needs what one before it leaves for it: then all are run
        kinds = _kinds(model, blocks, hold, each=True)
    for block in blocks:
        block.__dict__[_LAYOUT] = kinds[_kind(block)]


def _kinds(model: PreTrainedModel, blocks: nn.ModuleList, hold: Hold, *, each: bool) -> dict[Any, Layout]:
    """The layout of every kind of block; blocks of a known kind are passed over, or run too when `each`."""
    kinds: dict[Any, Layout] = {}
    order: list[int] = []
    shared, width = _shared(blocks), int(model.get_input_embeddings().weight.shape[-1])

    def stand_in(index: int, block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            order.append(index)
            if len(order) > 4 * len(blocks):
                raise _Stop
            kind = _kind(block)
            with hold(index) if each or kind not in kinds else nullcontext():
                if kind not in kinds:
                    kinds[kind] = _watched(block, forward, args, kwargs, shared, width)
                elif each:
                    return forward(*args, **kwargs)
            return with_hidden(kinds[kind].output, entering(args, kwargs)[0])

        return call

    with replaced_forwards(blocks, stand_in), eager_experts(model), suppress(_Stop):
        plain_forward(model, probe_ids(model))
    if order != list(range(len(blocks))):
        again = ", some again" if len(order) != len(set(order)) else ""
        raise KickError(
            f"{type(model).__name__} called {len(set(order))} of its {len(blocks)} blocks{again}: only models that "
            f"pass once from block to block can be compressed"
        )
    return kinds


class _Stop(Exception):
    pass


def probe_ids(model: PreTrainedModel, seed: int = 0) -> Tensor:
    """Random token ids [windows, tokens] of the probe's size."""
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    made = torch.randint(
        vocabulary // 4, max(vocabulary // 2, 1), PROBED, generator=torch.Generator().manual_seed(seed)
    )
    return made.to(model.device)


def plain_forward(model: PreTrainedModel, ids: Tensor) -> Any:
    """The library's own forward, without a cache."""
    return model(input_ids=ids, use_cache=False)


def _kind(block: nn.Module) -> Any:
    parameters = tuple((name, p.shape) for name, p in block.named_parameters())
    return type(block), parameters, tuple((name, type(m)) for name, m in block.named_modules())


def _shared(blocks: nn.ModuleList) -> set[int]:
    """Parameters, by identity, that stand in more than one block."""
    once: set[int] = set()
    twice: set[int] = set()
    for block in blocks:
        own = {id(p) for p in block.parameters()}
        twice |= once & own
        once |= own
    return twice


# --- one block at work -----------------------------------------------------------------------------------------------


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

    def ran(self, name: str, args: Any, result: Any) -> None:
        """Follow the numbers that a product made, until they are multiplied again, or chosen from."""
        results = [r for r in (result if isinstance(result, (tuple, list)) else (result,)) if isinstance(r, Tensor)]
        if self.last:
            self.traced.update({_address(r): {self.last: r.numel()} for r in results})
            self.last = ""
        elif name in _CHOICES:
            self.routers.update(self.traced.get(_address(args[0]), {}))
        elif name not in _ATTENTION:
            origins: dict[str, int] = {}
            for tensor in args:
                for one in tensor if isinstance(tensor, (list, tuple)) else (tensor,):
                    if isinstance(one, Tensor):
                        origins |= self.traced.get(_address(one), {})
            for one in results if origins else ():
                # numbers that were spread over something else (keys to choose from) are no router's any more
                kept = {path: count for path, count in origins.items() if one.numel() <= count}
                self.traced[_address(one)] = kept | self.traced.get(_address(one), {})
        self.held += results


_CHOICES = ("topk", "sort", "argmax", "argsort", "max", "gather")
_ATTENTION = ("bmm", "mm", "addmm", "baddbmm", "_grouped_mm")
_LOOKUPS = {"embedding", "index", "index_select", "gather", "embedding_renorm"}


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _watched(
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
        elif not parts:
            reason = _why_left(path, module, uses, modules, called)
        elif min(parameter.shape) == 1 or all(min(part.rows, part.cols) == 1 for part in parts):
            reason = "gate"
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
        return "" if _expert(path, modules, called) else "not used on text"
    if any("conv" in name for name in uses):
        return "convolution"
    if uses <= _LOOKUPS:
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


# --- what a block is handed and gives back ---------------------------------------------------------------------------


def entering(args: Any, kwargs: dict[str, Any]) -> tuple[Tensor, str]:
    """The hidden states among a block's arguments, and the name under which they are handed ("": the first place)."""
    if args and isinstance(args[0], Tensor):
        return args[0], ""
    for name in ("hidden_states", *kwargs):
        if isinstance(value := kwargs.get(name), Tensor) and value.is_floating_point() and value.dim() >= 3:
            return value, name
    raise KickError("a decoder block was handed no hidden states")


def leaving(output: Any) -> Tensor:
    """The hidden states that a block gives back."""
    found = (
        output
        if isinstance(output, Tensor)
        else next(iter(output.values() if isinstance(output, dict) else output), None)
    )
    if not isinstance(found, Tensor):
        raise KickError("a decoder block gave no hidden states back")
    return found


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """A block's output with other hidden states in it."""
    if isinstance(output, Tensor):
        return hidden
    if isinstance(output, dict):
        first = next(iter(output))
        return type(output)({**output, first: hidden})
    return type(output)((hidden, *output[1:])) if type(output) in (tuple, list) else (hidden, *output[1:])


def window_axis(hidden: Tensor) -> int:
    """Along which axis of a probe's hidden states the windows stand: the one before the tokens."""
    for axis in range(hidden.dim() - 1):
        if tuple(hidden.shape[axis : axis + 2]) == PROBED:
            return axis
    raise KickError(f"hidden states {tuple(hidden.shape)} of {PROBED[0]} windows of {PROBED[1]} tokens show neither")


@contextmanager
def replaced_forwards(
    blocks: nn.ModuleList, stand_in: Callable[[int, nn.Module, Callable[..., Any]], Callable[..., Any]]
) -> Iterator[None]:
    """Blocks whose forward is another, made from their number, themselves and their own forward."""
    before = [block.__dict__.get("forward") for block in blocks]
    try:
        for index, block in enumerate(blocks):
            block.forward = stand_in(index, block, block.forward)
        yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            if own is not None:
                block.forward = own
            elif "forward" in block.__dict__:
                del block.__dict__["forward"]


@contextmanager
def eager_experts(model: PreTrainedModel) -> Iterator[None]:
    """Let experts be computed one by one, so that each one's inputs can be seen."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "has_gate") and hasattr(m, "config")}
    before = [(config, config._experts_implementation) for config in configs.values()]
    try:
        for config, _ in before:
            config._experts_implementation = "eager"
        yield
    finally:
        for config, name in before:
            config._experts_implementation = name
