"""The network that is trained: a Llama small enough to read at once.

Training uses this module and not transformers, so that `torch.compile` sees one plain graph and the numbers do not
depend on a library's release. Every parameter carries the name it has in `LlamaForCausalLM`: the state dict is the
checkpoint. `tests/pocket/test_models.py` holds the two implementations against each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class Shape:
    """What tells one pocket model from another. All widths are multiples of 64, so N:M and grouped targets fit."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int = 4096
    positions: int = 512
    rope_theta: float = 10000.0
    norm_epsilon: float = 1e-5

    def __post_init__(self) -> None:
        if self.hidden % self.heads or self.heads % self.key_value_heads:
            raise ValueError(f"{self.heads} heads over {self.key_value_heads} do not divide a width of {self.hidden}")

    @property
    def head_width(self) -> int:
        return self.hidden // self.heads


class RMSNorm(nn.Module):
    """Root-mean-square normalisation, computed in float32 as transformers does."""

    def __init__(self, width: int, epsilon: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.epsilon = epsilon

    def forward(self, hidden: Tensor) -> Tensor:
        wide = hidden.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.epsilon)
        return (self.weight * wide.to(hidden.dtype)).to(hidden.dtype)


def rotary_table(shape: Shape, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines, each [length, head_width]."""
    exponents = torch.arange(0, shape.head_width, 2, device=device, dtype=torch.float32) / shape.head_width
    angles = torch.arange(length, device=device, dtype=torch.float32)[:, None] / shape.rope_theta**exponents
    doubled = torch.cat((angles, angles), dim=-1)
    return doubled.cos(), doubled.sin()


def rotate(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotary position embedding of [batch, heads, length, head_width], halves rotated as in Llama."""
    first, second = states.chunk(2, dim=-1)
    return (states * cosines + torch.cat((-second, first), dim=-1) * sines).to(states.dtype)


class Attention(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        narrow = shape.key_value_heads * shape.head_width
        self.q_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.k_proj = nn.Linear(shape.hidden, narrow, bias=False)
        self.v_proj = nn.Linear(shape.hidden, narrow, bias=False)
        self.o_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)

    def forward(self, hidden: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        batch, length, width = hidden.shape

        def split(states: Tensor, heads: int) -> Tensor:
            return states.view(batch, length, heads, self.shape.head_width).transpose(1, 2)

        query = rotate(split(self.q_proj(hidden), self.shape.heads), cosines, sines)
        key = rotate(split(self.k_proj(hidden), self.shape.key_value_heads), cosines, sines)
        value = split(self.v_proj(hidden), self.shape.key_value_heads)
        mixed = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=self.shape.key_value_heads != self.shape.heads
        )
        return self.o_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class MLP(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.intermediate, bias=False)
        self.down_proj = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.down_proj(functional.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class Block(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden, shape.norm_epsilon)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.norm_epsilon)
        self.mlp = MLP(shape)

    def forward(self, hidden: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
        hidden = hidden + self.self_attn(self.input_layernorm(hidden), cosines, sines)
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Trunk(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden, shape.norm_epsilon)


class Network(nn.Module):
    """Token ids [batch, length] to logits [batch, length, vocabulary]; the output matrix is the embedding's."""

    def __init__(self, shape: Shape, seed: int = 0) -> None:
        super().__init__()
        self.shape = shape
        self.model = Trunk(shape)
        self.initialise(seed)

    def initialise(self, seed: int) -> None:
        """The matrices that write to the residual stream begin at zero, so that every layer first sees the words
        themselves: matching a word with its earlier mention is then found several times sooner.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            silent = name.endswith(("o_proj.weight", "down_proj.weight"))
            scale = 0.1 if "embed" in name else 0.0 if silent else parameter.shape[1] ** -0.5
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.model.embed_tokens(tokens)
        if torch.is_autocast_enabled(hidden.device.type):
            # The residual stream in the precision in which the weights are shipped, and half the traffic.
            hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
        cosines, sines = rotary_table(self.shape, tokens.shape[1], tokens.device)
        for block in self.model.layers:
            hidden = block(hidden, cosines, sines)
        return functional.linear(self.model.norm(hidden), self.model.embed_tokens.weight)

    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())
