"""Blocks that no model of the library has: compressed on what their matrices are multiplied with, or refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from kick_core.compression.walk import walk
from kick_core.errors import KickError
from kick_core.models.blocks import left_alone, understood
from kick_core.spec import parse
from tests.tiny import token_ids

WIDTH, LAYERS, EXPERTS = 16, 4, 4


def weight(*shape):
    return nn.Parameter(torch.randn(shape) * 0.4)


class Block(nn.Module):
    """A block that notes, in plain words, which of its matrices sees what."""

    def __init__(self, number):
        super().__init__()
        self.number, self.noted = number, {}
        self.build()

    def note(self, name, matrix, rows):
        """`matrix` [out, in] is multiplied with `rows` [..., in]."""
        self.noted.setdefault(name, (matrix.detach().clone(), []))[1].append(rows.reshape(-1, rows.shape[-1]))

    def forward(self, hidden_states, early=None):
        return hidden_states + self.mixed(F.layer_norm(hidden_states, (WIDTH,)), early)


class Joined(Block):
    def build(self):
        self.first, self.second = weight(24, WIDTH), weight(8, WIDTH)
        self.last = weight(WIDTH, 32)

    def mixed(self, x, early):
        hidden = F.linear(x, torch.cat([self.first, self.second])).tanh()
        self.note("first", self.first, x)
        self.note("second", self.second, x)
        self.note("last", self.last, hidden)
        return F.linear(hidden, self.last)


class Heads(Block):
    """Parameters [in, heads, width of a head] and [heads, width of a head, out]."""

    def build(self):
        self.first, self.last = weight(WIDTH, 4, 6), weight(4, 6, WIDTH)

    def mixed(self, x, early):
        heads = torch.einsum("btd,dhk->bthk", x, self.first).tanh()
        self.note("first", self.first.flatten(1).T, x)
        self.note("last", self.last.flatten(0, 1).T, heads.flatten(2))
        return torch.einsum("bthk,hkd->btd", heads, self.last)


class Gathered(Block):
    """Experts whose weights are gathered for every token. Which of them see one token together changes."""

    def build(self):
        self.router, self.experts = nn.Linear(WIDTH, EXPERTS), weight(EXPERTS, WIDTH, WIDTH)

    def mixed(self, x, early):
        share, chosen = self.router(x).softmax(-1).topk(2)
        for expert in range(EXPERTS):
            self.note(f".{expert}.experts", self.experts[expert], x[(chosen == expert).any(-1)])
        return torch.einsum("btkf,btk->btf", torch.einsum("btd,btkfd->btkf", x, self.experts[chosen]), share)


class Mixture(Block):
    """Every expert reads every token, and a softmax mixes them: a router, though it chooses none."""

    def build(self):
        self.router, self.experts = nn.Linear(WIDTH, EXPERTS), weight(EXPERTS, WIDTH, WIDTH)

    def mixed(self, x, early):
        for expert in range(EXPERTS):
            self.note(f".{expert}.experts", self.experts[expert].T, x)
        outputs = torch.bmm(x.reshape(1, -1, WIDTH).expand(EXPERTS, -1, -1), self.experts)
        return torch.einsum("etd,te->td", outputs, self.router(x).softmax(-1).flatten(0, 1)).view_as(x)


class Late(Block):
    """Blocks of one make, of which only the last ones are handed an early block's hidden states."""

    def build(self):
        self.plain, self.skip = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)

    def mixed(self, x, early):
        self.note("plain", self.plain.weight, x)
        if early is None:
            return self.plain(x)
        self.note("skip", self.skip.weight, early)
        return self.plain(x) + self.skip(early)


class Scaled(Joined):
    def mixed(self, x, early):
        return F.linear(F.linear(x, torch.cat([self.first, self.second]) * 2).tanh(), self.last)


class Fused(Block):
    def build(self):
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)

    def mixed(self, x, early):
        return self.attention(x, x, x, need_weights=False)[0]


class Model(PreTrainedModel):
    config_class = PretrainedConfig

    def __init__(self, kind):
        config = PretrainedConfig(num_hidden_layers=LAYERS, hidden_size=WIDTH, vocab_size=128)
        super().__init__(config)
        self.embedding, self.head = nn.Embedding(128, WIDTH), nn.Linear(WIDTH, 128)
        self.layers = nn.ModuleList(kind(number) for number in range(LAYERS))

    def get_input_embeddings(self):
        return self.embedding

    def forward(self, input_ids, use_cache=False):
        hidden, early = self.embedding(input_ids), None
        for number, layer in enumerate(self.layers):
            hidden = layer(hidden, early=early if isinstance(layer, Late) and number >= LAYERS // 2 else None)
            early = hidden if number == 0 else early
        return CausalLMOutput(logits=self.head(hidden))


def make(kind):
    torch.manual_seed(0)
    return Model(kind).eval()


@torch.no_grad()
@pytest.mark.parametrize("kind", [Joined, Heads, Gathered, Mixture, Late])
def test_masks_are_those_of_what_each_matrix_sees(kind):
    model, ids = make(kind), token_ids(10, 24, vocabulary=128)
    for window in ids:
        model(window[None])
    noted = [layer.noted for layer in model.layers]
    for layer in model.layers:
        layer.note = lambda *_: None
    for inputs, walked in zip(noted, walk(model, parse("wanda@0.5"), ids, propagate="dense"), strict=True):
        assert walked.results.keys() == inputs.keys()
        for name, (matrix, rows) in inputs.items():
            scores = matrix.abs() * torch.cat(rows).square().sum(0).sqrt()
            mask = torch.ones_like(scores, dtype=torch.bool)
            mask.scatter_(1, scores.argsort(stable=True)[:, : scores.shape[1] // 2], False)
            assert torch.equal(walked.results[name].mask, mask), name
    expected = {"router"} if kind in (Gathered, Mixture) else {"not used on text"} if kind is Late else set()
    assert {left.reason for left in left_alone(model)} == expected


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Scaled, r"first \(24, 16\): it is changed \(mul\) before it is multiplied"),
        (Fused, r"in_proj_weight \(48, 16\): it is read by _native_multi_head_attention"),
    ],
)
def test_matrices_in_disguise_are_refused(kind, words):
    with pytest.raises(KickError, match=words):
        understood(make(kind))
