"""The published procedures, written anew as a baseline: what the papers' code does, step for step.

Windows one by one, a float32 Hessian for every linear by itself (2/n X X^T, kept as a running mean), a Python
loop over columns in blocks of 128, a second pass to propagate. (Frantar & Alistarh 2023, arXiv 2301.00774;
Frantar et al. 2022, arXiv 2210.17323; Sun et al. 2023, arXiv 2306.11695; and their public code's order of work.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn


class Hessian:
    """One linear's running statistics: the Hessian (SparseGPT, GPTQ), or the inputs' mean squares (Wanda)."""

    def __init__(self, linear: nn.Linear, *, full: bool) -> None:
        self.linear, self.full, self.stats = linear, full, 0
        width, device = linear.in_features, linear.weight.device
        self.sums = torch.zeros((width, width) if full else (width,), device=device)

    def add(self, inputs: Tensor) -> None:
        samples = inputs.shape[0]
        columns = inputs.reshape(-1, inputs.shape[-1]).T
        self.sums *= self.stats / (self.stats + samples)
        self.stats += samples
        if self.full:
            columns = math.sqrt(2 / self.stats) * columns.float()
            self.sums += columns.matmul(columns.T)
        else:
            self.sums += torch.norm(columns.float(), p=2, dim=1) ** 2 / self.stats


def _inverse(hessian: Tensor, weight: Tensor) -> Tensor:
    dead = torch.diag(hessian) == 0
    hessian[dead, dead] = 1
    weight[:, dead] = 0
    spot = torch.arange(len(hessian), device=hessian.device)
    hessian[spot, spot] += 0.01 * torch.mean(torch.diag(hessian))
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(hessian)), upper=True)


def sparsegpt(linear: nn.Linear, hessian: Tensor, sparsity: float = 0.5) -> None:
    weight = linear.weight.data.float()
    inverse = _inverse(hessian, weight)
    for first in range(0, weight.shape[1], 128):
        last = min(first + 128, weight.shape[1])
        block, inner = weight[:, first:last].clone(), inverse[first:last, first:last]
        chosen, errors = torch.zeros_like(block), torch.zeros_like(block)
        scores = block**2 / torch.diag(inner).reshape(1, -1) ** 2
        bound = torch.sort(scores.flatten())[0][int(scores.numel() * sparsity)]
        mask = scores <= bound
        for i in range(last - first):
            column, pivot = block[:, i], inner[i, i]
            kept = column.clone()
            kept[mask[:, i]] = 0
            chosen[:, i] = kept
            error = (column - kept) / pivot
            block[:, i:] -= error.unsqueeze(1).matmul(inner[i, i:].unsqueeze(0))
            errors[:, i] = error
        weight[:, first:last] = chosen
        weight[:, last:] -= errors.matmul(inverse[first:last, last:])
    linear.weight.data = weight.to(linear.weight.dtype)


def gptq(linear: nn.Linear, hessian: Tensor, bits: int = 4, group: int = 128) -> None:
    weight = linear.weight.data.float()
    inverse = _inverse(hessian, weight)
    top, middle = 2**bits - 1, 2 ** (bits - 1)
    for first in range(0, weight.shape[1], 128):
        last = min(first + 128, weight.shape[1])
        block, inner = weight[:, first:last].clone(), inverse[first:last, first:last]
        chosen, errors = torch.zeros_like(block), torch.zeros_like(block)
        for i in range(last - first):
            if (first + i) % group == 0:
                part = weight[:, first + i : first + i + group]
                scale = (part.abs().amax(1) * 2 / top).clamp(min=1e-9)
            column, pivot = block[:, i], inner[i, i]
            rounded = (torch.clamp(torch.round(column / scale) + middle, 0, top) - middle) * scale
            chosen[:, i] = rounded
            error = (column - rounded) / pivot
            block[:, i:] -= error.unsqueeze(1).matmul(inner[i, i:].unsqueeze(0))
            errors[:, i] = error
        weight[:, first:last] = chosen
        weight[:, last:] -= errors.matmul(inverse[first:last, last:])
    linear.weight.data = weight.to(linear.weight.dtype)


def wanda(linear: nn.Linear, squares: Tensor, sparsity: float = 0.5) -> None:
    scores = torch.abs(linear.weight.data) * torch.sqrt(squares.reshape(1, -1))
    order = torch.sort(scores, dim=-1, stable=True)[1]
    mask = torch.zeros_like(scores, dtype=torch.bool)
    mask.scatter_(1, order[:, : int(scores.shape[1] * sparsity)], True)
    linear.weight.data[mask] = 0


METHODS: dict[str, Callable[[nn.Linear, Tensor], None]] = {"sparsegpt": sparsegpt, "gptq": gptq, "wanda": wanda}


@torch.no_grad()
def block_seconds(
    block: nn.Module, hidden: Tensor, call: Any, method: str, wait: Callable[[], None]
) -> dict[str, float]:
    """Compress one block in place on `hidden` [windows, length, width]; seconds of each part."""
    statistics = {
        name: Hessian(module, full=method != "wanda")
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    }
    handles = [
        one.linear.register_forward_hook(lambda _m, args, _out, one=one: one.add(args[0]))
        for one in statistics.values()
    ]
    marks = [time.perf_counter()]

    def mark() -> None:
        wait()
        marks.append(time.perf_counter())

    for window in hidden:
        block(window[None], *call.args, **call.kwargs)
    for handle in handles:
        handle.remove()
    mark()
    for one in statistics.values():
        METHODS[method](one.linear, one.sums)
    mark()
    for window in hidden:
        block(window[None], *call.args, **call.kwargs)
    mark()
    parts = [after - before for before, after in pairwise(marks)]
    return dict(zip(("statistics", "method", "propagate"), parts, strict=True)) | {"seconds": sum(parts)}
