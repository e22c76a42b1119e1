"""A model's blocks one at a time, for one batch of windows after the other, each called as the library's forward does.

Most models hand every block the same things whatever the text is: then calls are made once. Where what a block is
handed follows from the text (inputs of their own for every layer), from earlier blocks (shared keys and values, chosen
tokens), or is changed on the way, the library's forward is asked again for every batch and block, with the blocks
before it passed over; what those gave back beside the hidden states is carried per window.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from transformers import PreTrainedModel

from kick_core import timing
from kick_core.errors import KickError
from kick_core.models.block_calls import (
    Hold,
    all_in_place,
    eager_experts,
    leaving,
    plain_forward,
    probe_ids,
    replaced_forwards,
    with_hidden,
)
from kick_core.models.blocks import Call, call_of, first_inputs, understood
from kick_core.models.layout import layout_of

_PROVEN, _CARRIED = "_kick_way", "_kick_carried"
_CLOSE = {torch.float32: 1e-3, torch.float64: 1e-6}
"""How far what is handed may be from the library's, as a share of its norm; 2e-2 in half precision."""


class _Stop(Exception):
    pass


@dataclass(slots=True)
class Replay:
    """Calls of the blocks for windows of `ids` [windows, length].

    `carried` says that calls follow from the windows, `deep` that they follow from what all earlier blocks put out,
    which is then kept; `axis` is that of the windows in what blocks are handed.
    """

    model: PreTrainedModel
    blocks: nn.ModuleList
    ids: Tensor
    hold: Hold
    carried: bool
    deep: bool
    axis: int
    _calls: dict[int, list[Call]] = field(default_factory=dict)
    _states: dict[int, tuple[list[Any], Any]] = field(default_factory=dict)
    _outputs: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def begin(self, rows: slice) -> Tensor:
        """What enters block 0 for some windows, windows first."""
        hidden, calls = first_inputs(self.model, self.ids[rows], self.hold)
        self._calls.setdefault(rows.stop - rows.start, calls)
        return hidden.movedim(self.axis, 0)

    def call(self, windows: int, index: int) -> Call:
        """What a block is called with for so many windows, where that does not follow from which ones."""
        if windows not in self._calls:
            self._calls[windows] = first_inputs(self.model, self.ids[:windows], self.hold)[1]
        return self._calls[windows][index]

    def enter(self, rows: slice, index: int, hidden: Tensor) -> tuple[Tensor, Call]:
        """A block's hidden states, as it takes them, and its call, for windows whose `hidden` the block before left."""
        hidden = hidden.movedim(0, self.axis)
        if not self.carried:
            return hidden, self.call(rows.stop - rows.start, index)
        taken: list[tuple[Tensor, Call]] = []
        extras, boxes = self._state(rows) if index else (None, {})

        def passing(number: int, block: nn.Module, _forward: Any) -> Callable[..., Any]:
            def forward(*args: Any, **kwargs: Any) -> Any:
                own, call = call_of(args, kwargs)
                if number == index - 1:
                    _fill(call, boxes)
                    return _with_extras(layout_output(block), hidden, extras)
                if number == index:
                    _fill(call, boxes)
                    taken.append((own, call))
                    raise _Stop
                return with_hidden(layout_output(block), self._output(number, rows) if self.deep else own)

            return forward

        with replaced_forwards(self.blocks, passing), suppress(_Stop):
            plain_forward(self.model, self.ids[rows].to(self.model.device))
        return taken[0]

    def run(self, block: nn.Module, rows: slice, index: int, hidden: Tensor, *, keep: bool) -> Tensor:
        """A block's output for some windows, windows first; `keep` what the next block is handed beside it."""
        entering, call = self.enter(rows, index, hidden)
        args, kwargs = call.bound(entering)
        output = block(*args, **kwargs)
        left = leaving(output).movedim(self.axis, 0)
        if self.carried and keep:
            self._keep(rows, output, call)
        if self.deep and keep:
            self._outputs.update({(index, rows.start + n): window.cpu() for n, window in enumerate(left)})
        return left

    def _output(self, index: int, rows: slice) -> Tensor:
        found = torch.stack([self._outputs[index, number] for number in range(rows.start, rows.stop)])
        return found.to(self.model.device).movedim(0, self.axis)

    def _keep(self, rows: slice, output: Any, call: Call) -> None:
        count = rows.stop - rows.start
        leaves, shape = tree_flatten((_extras(output), _boxes(call)))
        for number in range(count):
            mine = [_part(leaf, number, count) for leaf in leaves]
            self._states[rows.start + number] = mine, shape

    def _state(self, rows: slice) -> tuple[Any, dict[str, Any]]:
        each = [self._states[number] for number in range(rows.start, rows.stop)]
        leaves = [_joined([own[at] for own, _ in each]) for at in range(len(each[0][0]))]
        found: tuple[Any, dict[str, Any]] = tree_unflatten(leaves, each[0][1])
        return found


def layout_output(block: nn.Module) -> Any:
    """What a block of this kind returned in the probe."""
    layout = layout_of(block)
    assert layout is not None
    return layout.output


def _extras(output: Any) -> Any:
    """What a block gives back beside hidden states."""
    if isinstance(output, Tensor):
        return None
    return tuple(output.values())[1:] if isinstance(output, dict) else tuple(output[1:])


def _with_extras(output: Any, hidden: Tensor, extras: Any) -> Any:
    if extras is None or isinstance(output, Tensor):
        return with_hidden(output, hidden)
    if isinstance(output, dict):
        return type(output)(zip(output, (hidden, *extras), strict=True))
    return [hidden, *extras] if isinstance(output, list) else (hidden, *extras)


def _boxes(call: Call) -> dict[str, Any]:
    """Dictionaries and lists that blocks are handed to leave things for one another."""
    return {
        name: list(value) if isinstance(value, list) else dict(value)
        for name, value in call.kwargs.items()
        if isinstance(value, (MutableMapping, list))
    }


def _fill(call: Call, boxes: dict[str, Any]) -> None:
    for name, content in boxes.items():
        box = call.kwargs.get(name)
        if isinstance(box, MutableMapping):
            box.update(content)
        elif isinstance(box, list):
            box[:] = content


@dataclass(frozen=True, slots=True)
class _Whole:
    """Something that is the same for all windows."""

    value: Any


def _part(leaf: Any, number: int, count: int) -> Any:
    if not isinstance(leaf, Tensor) or not leaf.dim() or len(leaf) % count:
        return _Whole(leaf)
    return leaf.detach().chunk(count)[number]


def _joined(parts: list[Any]) -> Any:
    return parts[0].value if isinstance(parts[0], _Whole) else torch.cat(parts)


@torch.no_grad()
def replay(model: PreTrainedModel, ids: Tensor, hold: Hold = all_in_place) -> Replay:
    """The blocks of a model over windows of ids; the first time it is proven to be what the library does.

    Raises:
        KickError: When what enters a block is not what the library's own forward hands it.
    """
    blocks = understood(model, hold)
    axis = layout_axis(blocks)
    way = model.__dict__.get(_PROVEN)
    if way is None:
        with timing.stage("prove"):
            way = _proven(model, blocks, hold, axis)
        model.__dict__[_PROVEN] = way
    return Replay(model, blocks, ids, hold, way[0], way[1], axis)


def carried(model: PreTrainedModel, hold: Hold = all_in_place) -> bool:
    """Whether what blocks are handed follows from the text. Raises KickError for a model that is not understood."""
    found: bool | None = model.__dict__.get(_CARRIED)
    if found is None:
        found = _follows_from_text(model, understood(model, hold), hold)
        model.__dict__[_CARRIED] = found
    return found


def _proven(model: PreTrainedModel, blocks: nn.ModuleList, hold: Hold, axis: int) -> tuple[bool, bool]:
    """Whether calls are carried, and deeply: the first way that is proven to be what the library does."""
    if not carried(model, hold):
        _prove(model, blocks, hold, (False, False), axis)
        return False, False
    try:
        _prove(model, blocks, hold, (True, False), axis)
        return True, False
    except KickError:
        _prove(model, blocks, hold, (True, True), axis)
        return True, True


def layout_axis(blocks: nn.ModuleList) -> int:
    """The axis of the windows in what blocks are handed."""
    layout = layout_of(blocks[0])
    assert layout is not None
    return layout.axis


def _follows_from_text(model: PreTrainedModel, blocks: nn.ModuleList, hold: Hold) -> bool:
    """Whether what blocks are handed beside hidden states depends on the windows, or on other blocks."""
    if any(leaf is not None for block in blocks for leaf in tree_leaves(_extras(layout_output(block)))):
        return True
    calls = [first_inputs(model, probe_ids(model, seed), hold)[1] for seed in (1, 2)]
    for one, other in zip(*calls, strict=True):
        if any(isinstance(value, (MutableMapping, list)) for value in one.kwargs.values()):
            return True
        pairs = zip(tree_leaves((one.args, one.kwargs)), tree_leaves((other.args, other.kwargs)), strict=True)
        if any(not torch.equal(a, b) for a, b in pairs if isinstance(a, Tensor) and isinstance(b, Tensor)):
            return True
    return False


def _prove(model: PreTrainedModel, blocks: nn.ModuleList, hold: Hold, way: tuple[bool, bool], axis: int) -> None:
    """Two windows, then two others: what every block is handed must be what the library's forward hands it."""
    ids = torch.cat([probe_ids(model, seed) for seed in (3, 4)])
    parts = slice(0, 2), slice(2, 4)
    with eager_experts(model):
        wanted = [_library_inputs(model, blocks, ids[rows], hold) for rows in parts]
        ours = Replay(model, blocks, ids, hold, way[0], way[1], axis)
        hidden = [ours.begin(rows) for rows in parts]
        for index, block in enumerate(blocks):
            with hold(index):
                for number, rows in enumerate(parts):
                    entering, call = ours.enter(rows, index, hidden[number])
                    if not _alike([entering, *_tensors(call)], wanted[number][index]):
                        raise KickError(
                            f"{type(model).__name__} cannot be compressed block by block: what block {index} is handed "
                            f"is not what the library's own forward hands it"
                        )
                    hidden[number] = ours.run(block, rows, index, hidden[number], keep=True)


def _library_inputs(model: PreTrainedModel, blocks: nn.ModuleList, ids: Tensor, hold: Hold) -> list[list[Tensor]]:
    taken: list[list[Tensor]] = []

    def looking(index: int, _block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            hidden, own = call_of(args, kwargs)
            taken.append([tensor.clone() for tensor in (hidden, *_tensors(own))])
            with hold(index):
                return forward(*args, **kwargs)

        return call

    with replaced_forwards(blocks, looking):
        plain_forward(model, ids)
    return taken


def _tensors(call: Call) -> list[Tensor]:
    boxes = _boxes(call)
    rest = {name: value for name, value in call.kwargs.items() if name not in boxes}
    return [leaf for leaf in tree_leaves((call.args, rest, boxes)) if isinstance(leaf, Tensor)]


def _alike(ours: list[Tensor], wanted: list[Tensor]) -> bool:
    if [tensor.shape for tensor in ours] != [tensor.shape for tensor in wanted]:
        return False
    return all(_close(own, other) for own, other in zip(ours, wanted, strict=True))


def _close(ours: Tensor, wanted: Tensor) -> bool:
    if not ours.is_floating_point():
        return torch.equal(ours, wanted)
    finite = wanted.isfinite()
    own, other = ours.where(finite, 0).double(), wanted.where(finite, 0).double()
    off = float((own - other).norm() / other.norm().clamp(min=1e-30))
    return torch.equal(finite, ours.isfinite()) and off <= _CLOSE.get(ours.dtype, 2e-2)
