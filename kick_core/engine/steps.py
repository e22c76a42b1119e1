"""The steps of decoding: a cache with room from the start, one forward per token, CUDA graphs where there is CUDA.

On an accelerator a step of a batch always has the same shape: the cache is read in its whole length and a mask
hides what is not written yet, so that one recorded graph serves every step. On a CPU only what is written is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kick_core.engine.plan import Padded, logits_of, round_up

Chooser = Callable[[Tensor, Tensor], Tensor]

_WIDE = "kick_wide_sdpa"

_BUCKET = 128
"""Where a cache is read in its whole length, that length is a multiple of this."""


def _wide_sdpa(
    module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """Scaled dot-product attention in the dtype of keys and values; the result in that of the query."""
    mask = attention_mask
    if mask is not None and mask.is_floating_point():
        mask = mask.to(key.dtype)
    found, _ = sdpa_attention_forward(module, query.to(key.dtype), key, value, mask, **kwargs)
    return found.to(query.dtype), None


AttentionInterface.register(_WIDE, _wide_sdpa)
AttentionMaskInterface.register(_WIDE, sdpa_mask)


def _wide(model: PreTrainedModel) -> bool:
    """Whether keys and values of earlier tokens are kept in float32: attention of one query in half precision takes
    six times as long on a CPU as in float32."""
    half = model.device.type == "cpu" and model.dtype in (torch.bfloat16, torch.float16)
    return half and model.config._attn_implementation == "sdpa" and plain_cache(model)


def plain_cache(model: PreTrainedModel) -> bool:
    """Whether all layers keep everything (no sliding windows, no states of other kinds)."""
    return all(type(layer) is DynamicLayer for layer in DynamicCache(config=model.config).layers)


@contextmanager
def _attention(model: PreTrainedModel, name: str) -> Iterator[None]:
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before


class _RoomyLayer(DynamicLayer):
    """A cache layer with room for all tokens from the start; the library's own copies all it holds at every step.

    The first update of a batch writes its prompts. With `where` [1] later ones are written at that place and the
    cache is read in its whole length; else it is read as far as it is written.
    """

    def __init__(self, room: int, dtype: torch.dtype | None, where: Tensor | None) -> None:
        super().__init__()
        self.room, self.kept_dtype, self.where = room, dtype, where
        self.used = 0

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.used:
            self._begin(key_states, value_states)
            return key_states, value_states  # prompts attend to themselves, in their own dtype
        if self.where is not None:
            self.all_keys.index_copy_(2, self.where, key_states)
            self.all_values.index_copy_(2, self.where, value_states)
            return self.all_keys, self.all_values
        start, self.used = self.used, self.used + key_states.shape[-2]
        self.all_keys[:, :, start : self.used] = key_states
        self.all_values[:, :, start : self.used] = value_states
        self._cut()
        return self.keys, self.values

    def _begin(self, keys: Tensor, values: Tensor) -> None:
        if not self.is_initialized:
            self.lazy_initialization(keys, values)
            dtype = self.kept_dtype or keys.dtype
            self.all_keys = keys.new_zeros(*keys.shape[:2], self.room, keys.shape[-1], dtype=dtype)
            self.all_values = values.new_zeros(*values.shape[:2], self.room, values.shape[-1], dtype=dtype)
        self.used = keys.shape[-2]
        self.all_keys[:, :, : self.used] = keys
        self.all_values[:, :, : self.used] = values
        self._cut()

    def _cut(self) -> None:
        self.keys, self.values = self.all_keys[:, :, : self.used], self.all_values[:, :, : self.used]

    def batch_select_indices(self, indices: Tensor) -> None:
        self.all_keys, self.all_values = self.all_keys[indices], self.all_values[indices]
        self._cut()


class Steps:
    """The steps of one batch after another: `begin`, then `next` once for every token that is wanted.

    `choose(logits, chance)` picks the tokens; without it the likeliest are taken. `whole` reads the cache in its
    whole length, as recorded graphs need it: on CUDA, where every layer's cache is plain. There the next step is
    begun before the last one's tokens are looked at. `compiled` lets torch.compile fuse a step's small operations;
    that takes a minute per shape and pays for long runs only.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        choose: Chooser | None = None,
        *,
        whole: bool | None = None,
        compiled: bool = False,
    ) -> None:
        self.model, self.choose = model, choose
        self.plain = plain_cache(model) and model.config._attn_implementation in ("sdpa", "eager")
        self.attention = _WIDE if _wide(model) else model.config._attn_implementation
        self.on_cuda = model.device.type == "cuda"
        self.whole = self.plain and (self.on_cuda if whole is None else whole)
        self.forward = _compiled(model) if compiled and self.whole else model
        self.shape = (0, 0)

    def begin(self, given: Padded, new_tokens: int, chances: Tensor | None) -> None:
        """Take up a batch; its prompts are read at the first `next`. `chances` [rows, new_tokens] are for `choose`."""
        (rows, length), device = given.ids.shape, self.model.device
        self.given, self.left, self.length, self.waiting = given, new_tokens, length, None
        room = round_up(length + new_tokens, _BUCKET) if self.whole else length + new_tokens
        if not (self.whole and self.shape == (rows, room)):
            self._make_room(rows, room)
        for layer in self.cache.layers:
            if isinstance(layer, _RoomyLayer):
                layer.used = 0
        self.padding = torch.nn.functional.pad(given.mask, (0, new_tokens), value=1)
        self.mask.fill_(torch.finfo(self.mask.dtype).min)
        self.mask[:, 0, 0, :length].masked_fill_(given.mask.bool(), 0)
        self.positions.copy_(given.positions[:, -1:])
        self.where.fill_(length)
        self.number.zero_()
        if chances is not None:
            self.chances[:, :new_tokens] = chances.to(device)

    def _make_room(self, rows: int, room: int) -> None:
        """Buffers of a new shape. What was recorded for the old one is forgotten."""
        device, kept_dtype = self.model.device, torch.float32 if self.attention == _WIDE else None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.warm = False
        self.shape = (rows, room)
        self.ids = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self.positions = torch.zeros(rows, 1, dtype=torch.int64, device=device)
        self.where = torch.zeros(1, dtype=torch.int64, device=device)
        self.number = torch.zeros(1, dtype=torch.int64, device=device)
        self.mask = torch.zeros(rows, 1, 1, room, dtype=kept_dtype or self.model.dtype, device=device)
        self.chances = torch.zeros(rows, room, device=device)
        self.cache = DynamicCache(config=self.model.config)
        where = self.where if self.whole else None
        self.cache.layers = [
            _RoomyLayer(room, kept_dtype, where) if type(layer) is DynamicLayer else layer for layer in self.cache.layers
        ]

    def next(self) -> list[int]:
        """The next token of every row."""
        if not self.on_cuda:
            self._advance()
            return self._tokens().tolist()
        if self.waiting is None:
            self.waiting = self._sent()
        tokens, ready = self.waiting
        self.waiting = self._sent() if self.left else None
        ready.synchronize()
        return tokens.tolist()

    def _tokens(self) -> Tensor:
        return self.ids[:, 0]

    def _sent(self) -> tuple[Tensor, torch.cuda.Event]:
        """Take a step, and begin to bring its tokens over."""
        self._advance()
        tokens = torch.empty(len(self.ids), dtype=torch.int64, pin_memory=True)
        tokens.copy_(self._tokens(), non_blocking=True)
        ready = torch.cuda.Event()
        ready.record()
        return tokens, ready

    def _advance(self) -> None:
        with _attention(self.model, self.attention):
            self._advanced()

    def _advanced(self) -> None:
        self.left -= 1
        if self.given is not None:
            inputs = self.given.inputs | {"past_key_values": self.cache, "use_cache": True}
            self.given = None
            self._chosen(logits_of(self.model, inputs, 1)[:, 0])
        elif self.graph is not None:
            self.graph.replay()
        elif self.warm and self.on_cuda and self.whole:
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self._step()
            self.graph.replay()
        else:
            self._step()
            self.warm = True

    def _step(self) -> None:
        """One token for every row. Nothing but tensors changes here where the cache is read as a whole."""
        if self.whole:
            self.mask.index_fill_(3, self.where, 0)
            mask = self.mask
        else:
            self.length += 1
            self.mask[..., self.length - 1] = 0
            mask = self.mask[..., : self.length] if self.plain else self.padding[:, : self.length]
        inputs = {
            "input_ids": self.ids,
            "attention_mask": mask,
            "position_ids": self.positions,
            "past_key_values": self.cache,
            "use_cache": True,
        }
        self._chosen(logits_of(self.forward, inputs, 1)[:, 0])
        self.where += 1

    def _chosen(self, logits: Tensor) -> None:
        if self.choose is None:
            tokens = logits.argmax(-1)
        else:
            tokens = self.choose(logits, self.chances.index_select(1, self.number)[:, 0])
        self.ids.copy_(tokens[:, None])
        self.positions += 1
        self.number += 1

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone."""
        index = torch.tensor(rows, device=self.model.device)
        if self.waiting is not None:
            tokens, ready = self.waiting
            ready.synchronize()
            self.waiting = (tokens[torch.tensor(rows)], ready)
        self.cache.batch_select_indices(index)
        self.ids, self.positions, self.mask = self.ids[index], self.positions[index], self.mask[index]
        self.padding, self.chances = self.padding[index], self.chances[index]
        self.shape, self.graph, self.warm = (0, 0), None, False


def _compiled(model: PreTrainedModel) -> Any:
    """The model's forward with its small operations fused, one shape at a time."""
    return torch.compile(model.forward, dynamic=False)
