"""Which weights go: exact counts, never a threshold.

The published code drops everything `<= threshold`, which takes one weight too many, and all of them where
scores tie (zeros that are already there do). Here exactly the asked number goes: lowest score first, existing
zeros before anything else, ties by position.
"""

from __future__ import annotations

import warnings
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from kick_core.errors import BadRequest
from kick_core.methods import CompressedMatrix
from kick_core.spec import IntGrid, KeepNofM, Target, Unstructured


def kernels(device: torch.device) -> ModuleType | None:
    """The Triton kernels, where they run; None where the eager path is taken.

    Args:
        device: They run on a CUDA device with Triton and a C compiler.
    """
    return _kernels() if device.type == "cuda" else None


@cache
def _kernels() -> ModuleType | None:
    try:
        from kick_core.methods import kernels as _triton

        _triton.drop_lowest(torch.zeros(1, 32, device="cuda"), 1)
    except Exception as error:  # Triton raises what its compiler, the system's and the driver raise
        warnings.warn(f"Triton kernels do not run here, the slower eager path is taken ({error})", stacklevel=2)
        return None
    return _triton


SHORT = 16
"""Rows up to this length are ranked by comparing all pairs: the groups of N:M patterns are that short."""


def drop_lowest(scores: Tensor, count: int) -> Tensor:
    """Select exactly `count` of the lowest scores along the last dimension, ties by position.

    Args:
        scores: [..., n].
        count: At most n.

    Returns:
        bool [..., n], True at what goes.
    """
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    n = scores.shape[-1]
    if n <= SHORT:
        return _ranks(scores) < count
    if (triton_kernels := kernels(scores.device)) is not None:
        return triton_kernels.drop_lowest(scores.reshape(-1, n), count).reshape(scores.shape)
    bound = scores.kthvalue(count, dim=-1, keepdim=True).values
    below, level = scores < bound, scores == bound
    room = count - below.sum(-1, keepdim=True)
    return below | (level & (level.cumsum(-1) <= room))


def _ranks(scores: Tensor) -> Tensor:
    """Each score's place along the last dimension, uint8, ties by position."""
    place = torch.arange(scores.shape[-1], device=scores.device)
    ranks = torch.zeros(scores.shape, dtype=torch.uint8, device=scores.device)
    for other in range(scores.shape[-1]):
        rival = scores[..., other : other + 1]
        ranks += torch.where(place > other, rival <= scores, rival < scores)
    return ranks


def zeros_first(weight: Tensor, scores: Tensor) -> Tensor:
    """Scores under which weights that are zero already are the first to go.

    Args:
        weight: [out, in].
        scores: [out, in], none negative.
    """
    return torch.where(weight == 0, -1.0, scores)


def keep_mask(scores: Tensor, target: Target, *, per_row: bool) -> Tensor:
    """The mask of kept weights.

    Args:
        scores: [out, in]; higher is more important.
        target: A ratio drops floor(n * ratio); N:M drops M - N of every M consecutive inputs of a row.
        per_row: A ratio is reached in every row, rather than over the whole matrix.

    Returns:
        bool [out, in].

    Raises:
        BadRequest: M does not divide the width, or the target is a grid.
    """
    rows, cols = scores.shape
    match target:
        case Unstructured() if per_row:
            return ~drop_lowest(scores, target.count(cols))
        case Unstructured():
            return ~drop_lowest(scores.reshape(-1), target.count(rows * cols)).reshape(rows, cols)
        case KeepNofM():
            require_divisible(cols, target)
            grouped = scores.reshape(rows, cols // target.out_of, target.out_of)
            return ~drop_lowest(grouped, target.out_of - target.keep).reshape(rows, cols)
        case IntGrid():
            raise BadRequest(f"{target.text} is not a sparsity: masks take a ratio or a pattern")


def require_divisible(cols: int, target: KeepNofM) -> None:
    """Refuse a pattern that does not fit a width.

    Args:
        cols: Inputs of the matrix.
        target: N:M.

    Raises:
        BadRequest: M does not divide `cols`.
    """
    if cols % target.out_of:
        raise BadRequest(
            f"pattern {target.text} needs a width that {target.out_of} divides, this matrix has {cols} inputs: "
            f"choose another M or an unstructured ratio"
        )


def masked(weight: Tensor, mask: Tensor) -> CompressedMatrix:
    """The weight with everything outside the mask set to +0.0; kept weights keep their bits.

    Args:
        weight: [out, in].
        mask: bool [out, in], True where a weight is kept.
    """
    return CompressedMatrix(torch.where(mask, weight, 0.0), mask=mask)
