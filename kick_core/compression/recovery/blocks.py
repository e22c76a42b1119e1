"""One compressed block fitted to the dense one's outputs: Adam over the kept weights, or over a grid's scales.

With f the dense block, f̂ the compressed one, X the dense model's activations before it and X̂ those of the compressed
model so far, ‖f̂(X̂) - f(X)‖² is made small, so a block also makes up for what the blocks before it lost. Masks and codes
stay. (EBFT: Guo et al. 2024, arXiv 2402.12419; A Free Lunch in LLM Compression: arXiv 2510.14444.)

A matrix's learning rate is a share of the root mean square of its weights (or scales), falling linearly to 0. Sums are
float32 in a fixed order and the windows' order follows from the seed: on a CPU the same bytes each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.func import functional_call

from kick_core.compression.activations import Inputs
from kick_core.compression.recovery import memory_errors_named
from kick_core.errors import KickError
from kick_core.methods import CompressedMatrix
from kick_core.methods.grid import dequantize
from kick_core.methods.recovery_options import Recovery
from kick_core.models.block_calls import leaving
from kick_core.models.blocks import Matrix, matrices


@dataclass(frozen=True, slots=True)
class Fitted:
    """A block's matrices after the fit, and its relative output error ‖f̂(X̂) - f(X)‖² / ‖f(X)‖² before and after."""

    results: dict[str, CompressedMatrix]
    before: float
    after: float


@dataclass(slots=True)
class _Loose:
    """One matrix with the numbers that may move: kept weights [out, in], or scales [out, groups], float32.

    `weight` makes the whole matrix [out, in], float32, from them; `settled` the result that is kept.
    """

    matrix: Matrix
    numbers: Tensor
    weight: Callable[[Tensor], Tensor]
    settled: Callable[[Tensor], CompressedMatrix]


def reconstruct(
    block: nn.Module, index: int, inputs: Inputs, wanted: Tensor, results: dict[str, CompressedMatrix], how: Recovery
) -> Fitted:
    """Fit a compressed block, in place, to the dense block's outputs `wanted` [windows, length, width].

    `inputs` are what the compressed block is given. A fit that ends no better than it began is thrown away. Raises
    KickError when it comes to no numbers.
    """
    loose = [_loosened(matrix, results[matrix.name]) for matrix in matrices(block)]
    before, energy = _error(block, index, inputs, wanted)
    with torch.enable_grad(), memory_errors_named(f"fitting block {index}"):
        sizes = [_size(one.numbers) for one in loose]
        adam = torch.optim.Adam([{"params": [one.numbers.requires_grad_()]} for one in loose])
        parts = list(_batches(inputs, how))
        for step, rows in enumerate(parts):
            for group, size in zip(adam.param_groups, sizes, strict=True):
                group["lr"] = how.rate * size * (1 - step / len(parts))
            hidden = inputs.hidden[rows].to(inputs.device)
            call = inputs.call(len(hidden), index)
            args, kwargs = call.bound(hidden)
            output = leaving(functional_call(block, _weights(block, loose), args, kwargs))
            loss = (output.float() - wanted[rows.to(wanted.device)].to(output.device).float()).square().mean() / energy
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
    fitted = {one.matrix.name: one.settled(one.numbers.detach()) for one in loose}
    unfitted = [(one.matrix, one.matrix.read().clone()) for one in loose]
    for one in loose:
        one.matrix.write(fitted[one.matrix.name].weight)
    after, _ = _error(block, index, inputs, wanted)
    if math.isnan(after):
        raise KickError(f"block {index}: recover_rate={how.rate} is too high, the fit came to no numbers: lower it")
    if after < before:
        return Fitted(results | fitted, before, after)
    for matrix, weight in unfitted:
        matrix.write(weight)
    return Fitted(results, before, before)


def _batches(inputs: Inputs, how: Recovery) -> Iterator[Tensor]:
    """Places of the windows of every step [batch]: all windows in a new order each time round."""
    windows, length = len(inputs.hidden), inputs.length
    order = torch.Generator().manual_seed(how.seed)
    left: Tensor = torch.empty(0, dtype=torch.int64)
    for _ in range(max(1, how.tokens // (min(inputs.batch, windows) * length))):
        if not len(left):
            left = torch.randperm(windows, generator=order)
        rows, left = left[: inputs.batch], left[inputs.batch :]
        yield rows.to(inputs.hidden.device)


def _size(numbers: Tensor) -> float:
    """The root mean square of what is not 0."""
    moving = numbers[numbers != 0]
    return float(moving.square().mean().sqrt()) if len(moving) else 0.0


def _error(block: nn.Module, index: int, inputs: Inputs, wanted: Tensor) -> tuple[float, float]:
    """The block's relative output error, and the mean square of what is wanted."""
    lost = whole = 0.0
    for rows, output in inputs.outputs(block, index):
        goal = wanted[rows].to(output.device).float()
        lost += float((output.float() - goal).square().sum())
        whole += float(goal.square().sum())
    whole = max(whole, 1e-30)
    return lost / whole, whole / wanted.numel()


def _weights(block: nn.Module, loose: list[_Loose]) -> dict[str, Tensor]:
    """The block's parameters by path, matrices made from the loose numbers (experts in one tensor again)."""
    experts: dict[str, list[Tensor]] = {}
    weights = {name: parameter.detach() for name, parameter in block.named_parameters()}
    for one in loose:
        weight = one.weight(one.numbers)
        values = (weight.T if one.matrix.transposed else weight).to(one.matrix.parameter.dtype)
        if one.matrix.expert is None:
            weights[one.matrix.path] = values
        else:
            experts.setdefault(one.matrix.path, []).append(values)
    return weights | {path: torch.stack(parts).view(weights[path].shape) for path, parts in experts.items()}


def _loosened(matrix: Matrix, result: CompressedMatrix) -> _Loose:
    if result.codes is not None:
        return _scales(matrix, result)
    mask = result.weight != 0 if result.mask is None else result.mask
    dtype = result.weight.dtype

    def weight(values: Tensor) -> Tensor:
        return values * mask

    def settled(values: Tensor) -> CompressedMatrix:
        return replace(result, weight=weight(values).to(dtype), mask=mask, updated=True)

    return _Loose(matrix, result.weight.float().clone(), weight, settled)


def _scales(matrix: Matrix, result: CompressedMatrix) -> _Loose:
    codes, zeros, groups = result.codes, result.zeros, result.groups
    assert codes is not None and zeros is not None and groups is not None and result.scales is not None
    dtype = result.weight.dtype

    def weight(scales: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        values = dequantize(codes, scales, zeros, groups, dtype, result.columns)
        if result.outliers is None:
            return values
        loud = torch.zeros(values.shape[1], dtype=torch.bool, device=values.device).index_fill_(
            0, result.outliers, True
        )
        return torch.where(loud, result.weight.to(dtype), values)

    def settled(scales: Tensor) -> CompressedMatrix:
        return replace(result, weight=weight(scales, dtype), scales=scales.contiguous())

    return _Loose(matrix, result.scales.float().clone(), weight, settled)
