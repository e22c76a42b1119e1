"""The shape policy: which lengths and how many rows a forward has, and what happens when memory runs out."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel

from kick_core.methods.select import kernels

Ids = Sequence[int]
Item = TypeVar("Item")
Found = TypeVar("Found")


@dataclass(slots=True)
class Underway:
    """What of a batch that is being written is done.

    Attributes:
        texts: How many texts' worth of reading and writing.
    """

    texts: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """The shape policy. All sizes are tokens, if not rows.

    `tokens` bounds rows x length of one batch, `rows` its rows; prompts are padded to `shortest` or to multiples of
    `step`, and read at most `prompt` tokens at a time before decoding, those longer than `alone` one at a time (0:
    together too) or, for texts in pages, one behind the other in a row of `prompt` tokens. The caches of decoding may
    have more than `tokens` tokens where they fit into `cache` bytes. A pack has rows of `row` tokens, `pack` tokens in
    all, after shared prefixes that are padded to multiples of `room`.
    `kernels` lets packs and decoding use our own (see `fused`), and with `paged` texts of all lengths are written
    together (see `pages`), with `windows` running text is read by them too; `varied` is for prompts of many lengths
    (see `any_length`); `compiled` instead lets torch.compile fuse the small operations of decoding on CUDA: a minute
    per shape, for long runs.
    With `packed` the prompts of texts are read side by side behind beginnings that they share (see `prompt_packs`).
    `notes` collects what departed from the plan: it is no part of the plan's identity, and whoever stores a run
    stores it too. `underway` says what of a batch of texts is done before the first of them ends.
    """

    tokens: int
    rows: int
    step: int = 64
    shortest: int = 32
    prompt: int = 4096
    alone: int = 0
    cache: int = 0
    row: int = 256
    pack: int = 2048
    room: int = 16
    kernels: bool = False
    paged: bool = False
    windows: bool = False
    varied: bool = False
    packed: bool = False
    compiled: bool = False
    notes: list[str] = field(default_factory=list, compare=False, repr=False)
    underway: Underway = field(default_factory=Underway, compare=False, repr=False)

    @property
    def text(self) -> str:
        """What keys and pages say of it."""
        how = f"side by side in {self.prompt}" if self.paged else "alone"
        apart = f"; prompts above {self.alone} tokens {how}" * bool(self.alone)
        caches = "caches in pages" if self.paged else f"caches of 2^n columns, {self.cache >> 30} GiB"
        apart += f"; {caches}" * bool(self.cache)
        return (
            f"padded to {self.shortest} or multiples of {self.step}, {self.rows} rows, {self.tokens} tokens, "
            f"prompts by {self.prompt}; options in packs of {self.pack} tokens, rows of {self.row}, prefixes padded "
            f"to {self.room}{apart}"
            + "; by kernels" * self.kernels
            + ", windows too" * self.windows
            + ("; attention for any length" + ", of options too" * (not self.paged)) * self.varied
            + "; prompts of texts in packs, behind shared beginnings" * self.packed
            + "; decoding compiled" * self.compiled
        )

    def length(self, tokens: int) -> int:
        """The padded length for a prompt of so many tokens."""
        return self.shortest if tokens <= self.shortest else round_up(tokens, self.step)

    def batch_rows(self, length: int) -> int:
        """Rows of every batch of prompts padded to `length`."""
        return max(1, min(self.rows, self.tokens // length))

    def read_rows(self, length: int) -> int:
        """Rows of a forward that reads prompts padded to `length`."""
        return 1 if self.alone and length > self.alone else max(1, self.prompt // length)

    def note(self, text: str) -> None:
        """Remember once what departed from the plan."""
        if text not in self.notes:
            self.notes.append(text)


@contextmanager
def any_length() -> Iterator[None]:
    """Attention on a GPU as it is quickest for a few forwards of each shape.

    torch prefers cuDNN's on Hopper and later, which builds a plan for every new shape: a tenth of a second and more,
    where the forward of a 7B takes a twentieth.
    """
    with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
        yield


def attention_for(plan: BatchPolicy) -> AbstractContextManager[None]:
    """The attention that a plan's prompts are read by."""
    return any_length() if plan.varied else nullcontext()


def round_up(tokens: int, step: int) -> int:
    """The next multiple of `step`."""
    return -(-tokens // step) * step


def plan_for(device: torch.device) -> BatchPolicy:
    """The shape policy of a kind of device."""
    if device.type == "cpu":
        return BatchPolicy(tokens=16384, rows=64, step=16, shortest=16, packed=True)
    there = kernels(device) is not None
    return BatchPolicy(
        tokens=65536, rows=256, prompt=8192, alone=512, cache=16 << 30, row=512, pack=4096, room=128, kernels=there
    )


def cache_tokens(model: PreTrainedModel, plan: BatchPolicy) -> int:
    """Tokens that the caches of one batch may have: as many as the plan says of any model, or as fit into `cache`
    bytes. Nothing of it follows from how much memory is free: shapes, and so bits, must not."""
    token = token_bytes(model)
    return max(plan.tokens, plan.cache // token if token else 0)


def token_bytes(model: PreTrainedModel) -> int:
    """Bytes that keys and values of a token take; 0 where the config does not say."""
    config = model.config.get_text_config()
    _, pairs, width = head_sizes(config)
    return 2 * int(getattr(config, "num_hidden_layers", 0)) * pairs * width * model.dtype.itemsize


def head_sizes(config: Any) -> tuple[int, int, int]:
    """Heads of queries, heads of keys and values, and a head's width, as a text config tells them; 0: it does not."""
    heads = int(getattr(config, "num_attention_heads", 0))
    width = getattr(config, "head_dim", None) or (config.hidden_size // heads if heads else 0)
    return heads, int(getattr(config, "num_key_value_heads", None) or heads), int(width)


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
    """Whether the bits of one row may depend on how many rows there are, however many: then a forward's shape is
    fixed, and copies fill it up."""
    return not least_rows(model)


def least_rows(model: PreTrainedModel) -> int:
    """From how many rows on a row's bits do not depend on their number; 0 where they always may.

    On a CPU in half precision that is usually one (the order in which a product is summed up is the same for any
    number of rows, and masked columns behind the last token add exact zeros), or a few where a library has other
    kernels for vectors; it is tried out here with products as wide as the model's. In float32 on a CPU the difference
    stays below 1e-5. On an accelerator the library picks other kernels for other shapes.
    """
    if model.device.type != "cpu":
        return 0
    if model.dtype == torch.float32:
        return 1
    return _least_rows(model.dtype, int(model.config.get_text_config().hidden_size))


_ROWS_TRIED = (1, 2, 3, 4, 5, 8, 11, 16, 17, 24, 33, 64, 256)
_LEAST = (1, 2, 4, 8, 16)


@cache
def _least_rows(dtype: torch.dtype, width: int) -> int:
    made = torch.Generator().manual_seed(0)
    other: set[int] = set()
    for inner, outer in ((width, 3 * width), (3 * width, width)):
        weight = torch.randn(outer, inner, generator=made).to(dtype)
        rows = torch.randn(_ROWS_TRIED[-1], inner, generator=made).to(dtype)
        whole = torch.nn.functional.linear(rows, weight)
        other |= {n for n in _ROWS_TRIED if not torch.equal(torch.nn.functional.linear(rows[:n], weight), whole[:n])}
    attend = torch.nn.functional.scaled_dot_product_attention
    query, keys, values = (torch.randn(4, 4, n, 32, generator=made) for n in (1, 1024, 1024))
    mask = torch.full((4, 1, 1, 1024), torch.finfo(torch.float32).min)
    mask[..., :100] = 0
    found = [attend(query, keys[:, :, :n], values[:, :, :n], attn_mask=mask[..., :n]) for n in (112, 256, 528, 1024)]
    if not all(torch.equal(found[0], columns) for columns in found[1:]):
        return 0
    return next((least for least in _LEAST if least > max(other, default=0)), 0)


_TIMED = 64, 5
"""Rows of the products that are timed, and how often: milliseconds in all."""


def half_slowdown(model: PreTrainedModel) -> float:
    """How many times as long this machine's CPU takes for products in the model's dtype as in float32.

    Measured now, on products as wide as the model's; 1.0 for a model in float32 or on another device.
    """
    if model.device.type != "cpu" or model.dtype == torch.float32:
        return 1.0
    seconds = _product_seconds(model, (model.dtype, torch.float32))
    return seconds[model.dtype] / seconds[torch.float32]


def products_per_second(model: PreTrainedModel) -> float:
    """Operations a second of products as wide as the model's on this CPU, measured now; 0.0 on another device."""
    if model.device.type != "cpu":
        return 0.0
    width = int(model.get_input_embeddings().weight.shape[-1])
    return 2 * _TIMED[0] * 3 * width**2 / _product_seconds(model, (model.dtype,))[model.dtype]


def _product_seconds(model: PreTrainedModel, dtypes: Sequence[torch.dtype]) -> dict[torch.dtype, float]:
    rows, rounds = _TIMED
    width = int(model.get_input_embeddings().weight.shape[-1])
    seconds = dict.fromkeys(dtypes, math.inf)
    for _ in range(rounds):
        for dtype in seconds:
            inputs, weight = torch.ones(rows, width, dtype=dtype), torch.ones(3 * width, width, dtype=dtype)
            began = time.perf_counter()
            torch.nn.functional.linear(inputs, weight)
            seconds[dtype] = min(seconds[dtype], time.perf_counter() - began)
    return seconds


def forward_rows(model: PreTrainedModel, items: int, rows: int) -> int:
    """Rows that a forward for so many items has, where a full one has `rows`."""
    least = least_rows(model)
    return max(items, least) if least else rows


def positions(model: PreTrainedModel, rows: int) -> int:
    """Positions of every row whose logits are computed, so that the last product has rows enough too."""
    return -(-least_rows(model) // rows) or 1


_FIXED_ROWS = 8


def frugal(model: PreTrainedModel, plan: BatchPolicy) -> BatchPolicy:
    """The plan with few rows, for a CPU where every forward must have the same number: there a row that only fills
    costs as much as one that is asked."""
    if model.device.type != "cpu" or not rows_matter(model):
        return plan
    return replace(plan, rows=min(plan.rows, _FIXED_ROWS), pack=min(plan.pack, 2 * plan.row))


def in_parts(
    items: Sequence[Item], rows: int, ask: Callable[[Sequence[Item], int], Found], plan: BatchPolicy
) -> Iterator[Found]:
    """Ask for all items, `rows` at a time; when memory runs out, go on with half as many rows.

    `ask(part, rows)` does a part of at most `rows` items in a forward of `rows` rows. What was yielded stays valid.
    Raises torch.OutOfMemoryError when one row does not fit either.
    """
    return in_steps(items, rows, lambda part, rows: iter((ask(part, rows),)), plan)


def in_steps(
    items: Sequence[Item], rows: int, ask: Callable[[Sequence[Item], int], Iterator[Found]], plan: BatchPolicy
) -> Iterator[Found]:
    """As `in_parts`, where a part has several results; the last one says that it is done."""
    at = 0
    while at < len(items):
        part = items[at : at + rows]
        try:
            yield from ask(part, rows)
            at += len(part)
            continue
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        rows = fewer_rows(rows, plan)  # out of the handler, whose traceback would keep the tensors alive


def fewer_rows(rows: int, plan: BatchPolicy) -> int:
    """How many rows to go on with after memory ran out with so many; the plan notes it."""
    plan.note(f"out of memory with {rows} rows, went on with {rows // 2}")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return rows // 2


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
