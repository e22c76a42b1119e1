"""The forward of Llama-shaped models on a CPU, over tokens that stand in no rows: the library's bits, faster.

A batch of prompts in rows holds filling, and prompts begin alike: a third to a half of its tokens are computed for
nothing. Products, norms and activations look at one token at a time; only attention looks at rows. So every distinct
token is computed once (a token is distinct when something before it is), and laid out in the library's rows for the
attention alone. Behind the last layer's attention only the tokens go on whose logits are read. Matrices that share an
input are one, and what lies between them is done some tokens at a time, so that it stays in the processor's cache.

Nothing of this changes a number where a token's bits do not depend on how many there are (`rows_matter`); whether that
is so, and whether the model is what it looks like, is tried out once a model, against the library's own forward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from kick_core.engine.batching import Ids, rows_matter

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Attention of one layer: its number, queries [n, heads, width], keys and values [n, key heads, width] of n tokens;
returns [n, heads x width]."""

_CHUNK = 512
"""Tokens whose activations between two attentions are held at a time: about a megabyte."""


_LARGE = 1 << 28
"""Bytes of weights from which the library's forward is taken: matrices are put together anew for every call, because
weights change in place, and the copy must stay small beside memory and beside the work."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """One decoder block. Weights [out, in]; `heads` is q, k and v one below the other, `gates` gate and up."""

    first: nn.Module
    heads: Tensor
    out: Tensor
    second: nn.Module
    gates: Tensor
    down: Tensor


class DedupForward:
    """A Llama-shaped model as it is now: a change of its weights needs another one."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Copies the matrices that are put together: two thirds of the blocks' weights."""
        inner, config = model.model, model.config
        self.model, self.embed, self.norm, self.rotary = model, inner.embed_tokens, inner.norm, inner.rotary_emb
        self.attention = [block.self_attn for block in inner.layers]
        self.width = self.attention[0].head_dim
        self.queries, self.keys = config.num_attention_heads, config.num_key_value_heads
        self.layers = [_layer(block) for block in inner.layers]

    def states(self, ids: Tensor, positions: Tensor, attend: Attend, keep: Tensor | None = None) -> Tensor:
        """What the head reads, [n, hidden], for tokens `ids` at `positions`, int64 [n]; `keep` [k]: of these alone."""
        hidden = self.embed(ids)
        cos, sin = (part[0, :, None] for part in self.rotary(hidden[None], positions[None]))
        sin = torch.cat([-sin[..., : self.width // 2], sin[..., self.width // 2 :]], -1)
        for number, layer in enumerate(self.layers):
            found = attend(number, *self._heads(layer, hidden, cos, sin))
            if keep is not None and number + 1 == len(self.layers):
                hidden, found = hidden[keep], found[keep]
            _finish(layer, hidden, found)
        return _normed(self.norm, hidden)

    def head(self, states: Tensor) -> Tensor:
        """Logits [..., vocabulary] in the model's dtype."""
        found: Tensor = self.model.lm_head(states)
        return found

    def logits(self, states: Tensor) -> Tensor:
        """Logits in float32."""
        return self.head(states).float()

    def _heads(self, layer: _Layer, hidden: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of all tokens."""
        turning = self.queries + self.keys
        made = hidden.new_empty(len(hidden), turning + self.keys, self.width)
        for rows in _chunks(len(hidden)):
            raw = nn.functional.linear(_normed(layer.first, hidden[rows]), layer.heads).view_as(made[rows])
            turned = made[rows, :turning]
            # halves change places, and the sign of `sin` is the one that rotating gives them
            torch.mul(raw[:, :turning], cos[rows], out=turned)
            turned += raw[:, :turning].roll(self.width // 2, -1) * sin[rows]
            made[rows, turning:] = raw[:, turning:]
        return made[:, : self.queries], made[:, self.queries : turning], made[:, turning:]


def _layer(block: nn.Module) -> _Layer:
    attention, mlp = block.self_attn, block.mlp
    heads = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight]
    gates = torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight])
    out, down = attention.o_proj.weight, mlp.down_proj.weight
    return _Layer(block.input_layernorm, torch.cat(heads), out, block.post_attention_layernorm, gates, down)


def _chunks(count: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, count, _CHUNK))


def _normed(norm: nn.Module, hidden: Tensor) -> Tensor:
    """The library's RMS norm, with fewer intermediate results."""
    wide = hidden.float()
    scale = wide.square().mean(-1, keepdim=True).add_(norm.variance_epsilon).rsqrt_()
    return wide.mul_(scale).to(hidden.dtype).mul_(norm.weight)


def _finish(layer: _Layer, hidden: Tensor, found: Tensor) -> None:
    """What comes behind a layer's attention, added to `hidden` in place."""
    for rows in _chunks(len(hidden)):
        part = hidden[rows]
        part += nn.functional.linear(found[rows], layer.out)
        gate, up = nn.functional.linear(_normed(layer.second, part), layer.gates).chunk(2, -1)
        part += nn.functional.linear(nn.functional.silu(gate).mul_(up), layer.down)


@dataclass(frozen=True, slots=True)
class Rows:
    """Which token stands where in the rows that attention looks at: `cells` int64 [rows, length], a token's number
    in each. `tokens` are those that first stand here, and `places` [their count] their cells, counted row by row."""

    cells: Tensor
    tokens: Tensor
    places: Tensor

    def spread(self, values: Tensor) -> Tensor:
        """Values per token [n, heads, width] as attention takes them: [rows, heads, length, width]."""
        rows, length = self.cells.shape
        return values[self.cells.view(-1)].view(rows, length, *values.shape[1:]).transpose(1, 2)

    def collect(self, found: Tensor) -> Tensor:
        """What attention found [rows, length, heads, width] for `tokens`: [their count, heads x width]."""
        return found.flatten(2).flatten(0, 1)[self.places]


@dataclass(frozen=True, slots=True)
class Flat:
    """The distinct tokens of some sequences: `ids` and `positions` int64 [n], the rows of every length, and for each
    sequence the token that ends it, int64 [sequences]."""

    ids: Tensor
    positions: Tensor
    rows: tuple[Rows, ...]
    last: Tensor


def flat(prompts: Sequence[Ids], lengths: Sequence[int]) -> Flat:
    """Lay prompts out, those of one padded length (neighbours) in rows of it, padded on the right."""
    known: dict[tuple[int, int], int] = {}
    ids: list[int] = []
    positions: list[int] = []
    last: list[int] = []
    rows: list[Rows] = []
    at = 0
    while at < len(prompts):
        length, seen = lengths[at], len(ids)
        cells: list[list[int]] = []
        fresh: list[int] = []
        while at < len(prompts) and lengths[at] == length:
            token, row = -1, []
            for position, code in enumerate(prompts[at]):
                found = known.get((token, code))
                if found is None:
                    found = known[token, code] = len(ids)
                    fresh.append(len(cells) * length + position)
                    ids.append(code)
                    positions.append(position)
                token = found
                row.append(token)
            # behind a prompt stands its own last token: nothing before it sees that
            cells.append(row + [token] * (length - len(row)))
            last.append(token)
            at += 1
        rows.append(Rows(torch.tensor(cells), torch.arange(seen, len(ids)), torch.tensor(fresh, dtype=torch.int64)))
    return Flat(torch.tensor(ids), torch.tensor(positions), tuple(rows), torch.tensor(last))


def causal(lean: DedupForward, laid: Flat, kept: Callable[[int, int, Tensor, Tensor], None] | None = None) -> Attend:
    """Attention as in rows without a mask; `kept(layer, first row, keys, values)` is handed those of every length."""

    def attend(number: int, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        found = queries.new_empty(len(queries), queries.shape[1] * queries.shape[2])
        first = 0
        for rows in laid.rows:
            own, seen = rows.spread(keys), rows.spread(values)
            if kept is not None:
                kept(number, first, own, seen)
            out = attention(lean, number, rows.spread(queries), own, seen, None)
            found[rows.tokens] = rows.collect(out)
            first += len(rows.cells)
        return found

    return attend


def attention(
    lean: DedupForward, number: int, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None
) -> Tensor:
    """The library's own: [rows, heads, length, width] each to [rows, length, heads, width]."""
    found: Tensor = sdpa_attention_forward(
        lean.attention[number], queries, keys, values, mask, scaling=lean.attention[number].scaling
    )[0]
    return found


_tried: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


def lean(model: PreTrainedModel) -> DedupForward | None:
    """The model without the library's forward, where it is one of these and gives the same bits; else None."""
    if model.device.type != "cpu" or model.dtype == torch.float32 or rows_matter(model) or not _looks_right(model):
        return None
    if model not in _tried:
        _tried[model] = _same_bits(model)
    return DedupForward(model) if _tried[model] else None


_MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _looks_right(model: PreTrainedModel) -> bool:
    """Whether it is a small Llama with nothing added: neither adapters nor other kinds of linears, nor hooks of a
    device map."""
    config = model.config
    if type(model) is not LlamaForCausalLM or model.training or hasattr(model, "hf_device_map"):
        return False
    if config._attn_implementation != "sdpa" or config.hidden_act != "silu":
        return False
    if sum(parameter.nbytes for parameter in model.parameters()) >= _LARGE:
        return False
    found = [
        (part, name) for block in model.model.layers for part in (block.self_attn, block.mlp) for name in _MATRICES
    ]
    linears = [getattr(part, name) for part, name in found if hasattr(part, name)]
    return all(type(linear) is nn.Linear and linear.bias is None for linear in linears)


@torch.inference_mode()
def _same_bits(model: PreTrainedModel) -> bool:
    made = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (3, 48), generator=made)
    ids[1, :20] = ids[0, :20]
    ours, laid = DedupForward(model), flat(ids.tolist(), [48] * 3)
    states = ours.states(laid.ids, laid.positions, causal(ours, laid))
    theirs = model(input_ids=ids, use_cache=False).logits.float()
    mine = ours.logits(states)[laid.rows[0].cells]
    return torch.equal(mine.nan_to_num(), theirs.nan_to_num())
