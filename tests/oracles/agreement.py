"""How well ours and a peer's result for one matrix agree; which matrices and recipes are compared.

Tests assert on these figures, `benchmarks/oracles.py` prints them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from kick_core import compress_matrix, methods
from kick_core.spec import parse
from tests.oracles import peers
from tests.oracles.peers import GPTQMODEL, LLMCOMPRESSOR

MATRICES = {"plain": (256, 512, None), "dead input": (192, 384, 5)}
"""Name: outputs, inputs, which input is always 0."""


@cache
def problem(name: str) -> tuple[Tensor, Tensor]:
    """A matrix and correlated inputs, some loud, as in language models: weight [out, in], inputs [16, 64, in]."""
    rows, cols, dead = MATRICES[name]
    make = torch.Generator().manual_seed(cols)
    mixing = torch.randn(cols, cols, generator=make) / cols**0.5
    inputs = torch.randn(16, 64, cols, generator=make) @ mixing
    inputs[..., ::9] *= 8
    if dead is not None:
        inputs[..., dead] = 0
    return torch.randn(rows, cols, generator=make) / cols**0.5, inputs


@dataclass(frozen=True, slots=True)
class Case:
    """One comparison: the same recipe of one matrix by a peer and by us."""

    peer: str
    recipe: str
    matrix: str

    @property
    def method(self) -> str:
        return parse(self.recipe).method


@dataclass(frozen=True, slots=True)
class Agreement:
    """`same`: share of equal decisions (kept or dropped; the code). `error`: our output error ‖(W-Ŵ)X‖² over the
    peer's."""

    same: float
    error: float

    def within(self, bounds: Agreement) -> bool:
        """Whether it is at least as good as `bounds`, whose `error` is the largest distance from 1."""
        return self.same >= bounds.same and abs(self.error - 1) <= bounds.error


BOUNDS = {
    "magnitude": Agreement(1.0, 0.0),
    "wanda": Agreement(1.0, 0.0),
    # the peer drops one weight too many a block of a ratio, and sums in another order: a near tie may turn
    "sparsegpt": Agreement(0.999, 1e-3),
    # one code that turns at a tie moves what is to its right
    "gptq": Agreement(0.995, 1e-2),
}
"""What is demanded of a method's worst case."""


def output_error(weight: Tensor, found: Tensor, inputs: Tensor) -> float:
    """‖(W-Ŵ)X‖², in float64."""
    rows = inputs.reshape(-1, inputs.shape[-1]).double()
    return float((rows @ (found - weight).double().T).square().sum())


def compare(peer: str, recipe: str, weight: Tensor, inputs: Tensor) -> Agreement:
    """Compress one matrix by both."""
    ours = compress_matrix(weight, inputs, recipe)
    theirs = peers.compress(peer, weight, inputs, methods.resolve(parse(recipe)))
    if ours.codes is None:
        same = (ours.weight == 0) == (theirs.weight == 0)
    else:
        assert theirs.codes is not None
        same = ours.codes == theirs.codes
    errors = [output_error(weight, made, inputs) for made in (ours.weight, theirs.weight)]
    return Agreement(float(same.double().mean()), errors[0] / errors[1])


def measure(case: Case) -> Agreement:
    """The agreement of one case."""
    return compare(case.peer, case.recipe, *problem(case.matrix))


def cases() -> Iterator[Case]:
    """Everything that both sides can do in the same way."""
    for matrix in MATRICES:
        for text in _recipes(LLMCOMPRESSOR):
            if not (matrix == "dead input" and unlike(text)):
                yield Case(LLMCOMPRESSOR, text, matrix)
        for text in _recipes(GPTQMODEL):
            yield Case(GPTQMODEL, text, matrix)


def unlike(recipe: str) -> bool:
    """What differs from llm-compressor where an input is dead: it fixes static scales before that input's weights are
    set to 0; GPTQModel, the published code and we do so afterwards. `test_matrices` shows that it is just that."""
    return "static_groups=true" in recipe


def _recipes(peer: str) -> Iterator[str]:
    """What a peer can do as we do."""
    if peer == LLMCOMPRESSOR:
        yield from ("magnitude@0.5", "magnitude@0.7")
        yield from (f"wanda@{goal}" for goal in ("0.5", "0.7", "1:2", "2:4", "4:8"))
        yield from (f"sparsegpt@{goal}" for goal in ("0.5", "0.7", "1:2", "2:4", "4:8"))
    fixed = ",static_groups=true" if peer == LLMCOMPRESSOR else ""
    for symmetric in ("true", "false"):
        for bits in (8, 4, 3, 2):
            for group in (32, 128, -1):
                yield f"gptq@{bits}bit,group={group},sym={symmetric}" + (fixed if group != -1 else "")
    for bits in (4, 3):
        yield f"gptq@{bits}bit,group=-1,act_order=true"
        yield f"gptq@{bits}bit,group=128,static_groups=true,act_order=true"
        if peer == GPTQMODEL:
            yield f"gptq@{bits}bit,group=128,act_order=true"
            yield f"gptq@{bits}bit,group=128,static_groups=true"
            yield f"gptq@{bits}bit,group=128,mse=true"


UNLIKE = tuple(filter(unlike, _recipes(LLMCOMPRESSOR)))
