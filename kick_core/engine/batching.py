"""The shape policy: which lengths and how many rows a forward has, and what happens when memory runs out."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kick_core.methods.select import kernels

Ids = Sequence[int]
Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The shape policy. All sizes are tokens, if not rows.

    `tokens` bounds rows x length of one batch, `rows` its rows; prompts are padded to `shortest` or to multiples of
    `step`, and read at most `prompt` tokens at a time before decoding. A pack has rows of `row` tokens, `pack`
    tokens in all, after shared prefixes that are padded to multiples of `room`; so are the caches of decoding.
    `kernels` lets packs and decoding use our own (see `fused`); `compiled` instead lets torch.compile fuse the small
    operations of decoding on CUDA: a minute per shape, for long runs.
    `notes` collects what departed from the plan: it is no part of the plan's identity, and whoever stores a run
    stores it too.
    """

    tokens: int
    rows: int
    step: int = 64
    shortest: int = 32
    prompt: int = 4096
    row: int = 256
    pack: int = 2048
    room: int = 16
    kernels: bool = False
    compiled: bool = False
    notes: list[str] = field(default_factory=list, compare=False, repr=False)

    @property
    def text(self) -> str:
        """What keys and pages say of it."""
        return (
            f"padded to {self.shortest} or multiples of {self.step}, {self.rows} rows, {self.tokens} tokens, "
            f"prompts by {self.prompt}; options in packs of {self.pack} tokens, rows of {self.row}, prefixes padded "
            f"to {self.room}" + "; by kernels" * self.kernels + "; decoding compiled" * self.compiled
        )

    def length(self, tokens: int) -> int:
        """The padded length for a prompt of so many tokens."""
        return self.shortest if tokens <= self.shortest else round_up(tokens, self.step)

    def batch_rows(self, length: int) -> int:
        """Rows of every batch of prompts padded to `length`."""
        return max(1, min(self.rows, self.tokens // length))

    def note(self, text: str) -> None:
        """Remember once what departed from the plan."""
        if text not in self.notes:
            self.notes.append(text)


def round_up(tokens: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-tokens // step) * step


def plan_for(device: torch.device) -> BatchPolicy:
    """The shape policy of a kind of device."""
    if device.type == "cpu":
        return BatchPolicy(tokens=16384, rows=64, step=16, shortest=16)
    there = kernels(device) is not None
    return BatchPolicy(tokens=65536, rows=256, prompt=16384, row=512, pack=16384, room=128, kernels=there)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are asked together: `items` are positions in the list of prompts, without the filling."""

    items: tuple[int, ...]
    rows: int
    length: int


def batches(lengths: Sequence[int], plan: BatchPolicy) -> list[Batch]:
    """Put prompts of these lengths into batches: by padded length, within it in their own order."""
    by_length: dict[int, list[int]] = {}
    for item, tokens in enumerate(lengths):
        by_length.setdefault(plan.length(tokens), []).append(item)
    made = []
    for length in sorted(by_length):
        rows, items = plan.batch_rows(length), by_length[length]
        made += [Batch(tuple(items[i : i + rows]), rows, length) for i in range(0, len(items), rows)]
    return made


def rows_matter(model: PreTrainedModel) -> bool:
    """Whether the bits of one row may depend on how many rows there are.

    On a CPU in half precision they usually do not (the order in which a product is summed up is the same for any
    number of rows, and masked columns behind the last token add exact zeros); that is tried out here with products
    as wide as the model's. In float32 on a CPU the difference stays below 1e-5. On an accelerator the library picks
    other kernels for other shapes.
    """
    if model.device.type != "cpu":
        return True
    return model.dtype != torch.float32 and not _rows_alike(
        model.dtype, int(model.config.get_text_config().hidden_size)
    )


@cache
def _rows_alike(dtype: torch.dtype, width: int) -> bool:
    made = torch.Generator().manual_seed(0)
    for inner, outer in ((width, 3 * width), (3 * width, width)):
        weight = torch.randn(outer, inner, generator=made).to(dtype)
        rows = torch.randn(64, inner, generator=made).to(dtype)
        whole = torch.nn.functional.linear(rows, weight)
        if any(not torch.equal(torch.nn.functional.linear(rows[:n], weight), whole[:n]) for n in (1, 2, 5, 16, 33)):
            return False
    attend = torch.nn.functional.scaled_dot_product_attention
    query, keys, values = (torch.randn(4, 4, n, 32, generator=made) for n in (1, 1024, 1024))
    mask = torch.full((4, 1, 1, 1024), torch.finfo(torch.float32).min)
    mask[..., :100] = 0
    found = [attend(query, keys[:, :, :n], values[:, :, :n], attn_mask=mask[..., :n]) for n in (112, 256, 528, 1024)]
    return all(torch.equal(found[0], other) for other in found[1:])


def in_parts(
    items: Sequence[Item], rows: int, ask: Callable[[Sequence[Item], int], Found], plan: BatchPolicy
) -> Iterator[Found]:
    """Ask for all items, `rows` at a time; when memory runs out, go on with half as many rows.

    `ask(part, rows)` does a part of at most `rows` items in a forward of `rows` rows. What was yielded stays valid.
    Raises torch.OutOfMemoryError when one row does not fit either.
    """
    at = 0
    while at < len(items):
        part = items[at : at + rows]
        try:
            found = ask(part, rows)
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
            found = None
        if found is None:  # out of the handler, whose traceback would keep the tensors alive
            plan.note(f"out of memory with {rows} rows, went on with {rows // 2}")
            rows //= 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        at += len(part)
        yield found


@dataclass(frozen=True, slots=True)
class Padded:
    """Left-padded ids, attention mask and positions, each int64 [rows, length]."""

    ids: Tensor
    mask: Tensor
    positions: Tensor

    @property
    def inputs(self) -> dict[str, Any]:
        return {"input_ids": self.ids, "attention_mask": self.mask, "position_ids": self.positions}


def padded(prompts: Sequence[Ids], rows: int, length: int, filler: int, device: torch.device) -> Padded:
    """Prompts as the first rows of a batch; rows beyond them are copies of the last one."""
    ids = torch.full((rows, length), filler)
    mask = torch.zeros(rows, length, dtype=torch.int64)
    for row in range(rows):
        prompt = prompts[min(row, len(prompts) - 1)]
        ids[row, length - len(prompt) :] = torch.tensor(prompt)
        mask[row, length - len(prompt) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return Padded(ids.to(device), mask.to(device), positions.to(device))


def logits_of(model: PreTrainedModel, inputs: dict[str, Any], keep: int | Tensor) -> Tensor:
    """Logits at the last `keep` positions, or at the positions `keep` [rows, n] of every row: float32 [rows, n, V]."""
    output = answer(model, inputs, keep)
    if isinstance(keep, int):
        return logits_in(output, keep)
    logits: Tensor = output.logits
    if "logits_to_keep" not in _parameters(model):
        logits = logits.gather(1, keep[..., None].expand(-1, -1, logits.shape[-1]))
    return logits.float()


def answer(model: PreTrainedModel, inputs: dict[str, Any], keep: int | Tensor) -> Any:
    """What the model's forward gives back for those of the inputs that it takes."""
    inputs = inputs | {"logits_to_keep": keep}
    return model(**{name: value for name, value in inputs.items() if accepts(model, name)})


def logits_in(output: Any, keep: int) -> Tensor:
    """The last `keep` logits [rows, keep, V], float32, of a forward that may have given all of them."""
    logits: Tensor = output.logits
    return logits[:, -keep:].float()


def _parameters(model: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(getattr(model, "forward", model)).parameters


def accepts(model: Any, name: str) -> bool:
    """Whether a model's forward takes an argument of this name, or any."""
    parameters = _parameters(model)
    return name in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
