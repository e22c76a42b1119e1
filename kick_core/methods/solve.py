"""The inverse that SparseGPT and GPTQ share: the upper Cholesky factor of the damped inverse Gram matrix.

With H = X^T X, the columns of a row are removed (or rounded) from left to right; after column i, the best
change of the columns to its right is -(w_i - q_i) / U_ii * U_i,>i, where U is upper triangular with
U^T U = H^-1 (Frantar & Alistarh, SparseGPT, arXiv 2301.00774, section 3.3; GPTQ, arXiv 2210.17323, eq. 4).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from kick_core.errors import KickError
from kick_core.methods import InputStats


@dataclass(frozen=True, slots=True)
class Factor:
    """The upper Cholesky factor of the inverse of a Gram matrix.

    Attributes:
        upper: [in, in] float32.
        dead: bool [in], True at inputs that were never active.
        note: The damping that it took, where the plain procedure failed.
    """

    upper: Tensor
    dead: Tensor
    note: str


def factor_of(stats: InputStats, damp: float, order: Tensor | None = None) -> Factor:
    """The factor of the inputs' Gram matrix, computed once for all matrices and recipes that read these inputs.

    Args:
        stats: Statistics with a Gram matrix; the factor is kept in its `factors`.
        damp: Damping, as a share of the mean diagonal.
        order: The sweep's order of the inputs [in], always that of falling activity, so that whether there is one
            identifies the factor; None is their own order.

    Raises:
        KickError: No damping makes the matrix positive definite.
    """
    assert stats.gram is not None
    name = damp, order is not None
    if name not in stats.factors:
        gram = stats.gram if order is None else stats.gram[order][:, order]
        stats.factors[name] = inverse_factor(gram, damp)
    factor: Factor = stats.factors[name]
    return factor


def inverse_factor(gram: Tensor, damp: float) -> Factor:
    """The upper Cholesky factor U of the damped inverse, U^T U = (H + damp * mean(diag H) * I)^-1.

    Where H is not positive definite, damping grows tenfold up to 1, then the work is done in float64; each step is
    noted. A failed inverse never becomes the identity.

    Args:
        gram: H = X^T X [in, in] float32. Its zero diagonal entries, of inputs that were never active, become 1.
        damp: Damping, as a share of the mean diagonal.

    Raises:
        KickError: Nothing helps.
    """
    dead = gram.diagonal() == 0
    diagonal = gram.diagonal().masked_fill(dead, 1)
    mean = diagonal.mean()
    attempts: list[str] = []
    least = damp or 0.001  # tenfold nothing is nothing
    steps = [damp, *(min(1.0, least * 10**power) for power in range(1, 8) if least * 10 ** (power - 1) < 1)]
    make = _turned_factor if gram.is_cuda else _factor
    for dtype in (torch.float32, torch.float64):
        for amount in steps:
            upper = make(gram, diagonal, float(amount * mean), dtype)
            if upper is not None:
                plain = dtype == torch.float32 and amount == damp
                note = "" if plain else f"Cholesky needed damping {amount:g}{' in float64' * (dtype == torch.float64)}"
                return Factor(upper.float(), dead, note)
            attempts.append(f"{amount:g}")
    raise KickError(
        f"the Gram matrix of the inputs is singular: no Cholesky factor with damping {', '.join(attempts)} of its "
        f"mean diagonal; more calibration tokens may help"
    )


def _factor(gram: Tensor, diagonal: Tensor, damping: float, dtype: torch.dtype) -> Tensor | None:
    """The factor of the Gram matrix with another diagonal, all in one copy of it; None where there is none."""
    # columns lie contiguously, as LAPACK and cuSOLVER want them: they then work in place
    work = gram.T.to(dtype, copy=True, memory_format=torch.contiguous_format).T
    work.diagonal().copy_(diagonal).add_(damping)
    failed = torch.empty((), dtype=torch.int32, device=gram.device)
    with one_thread():
        torch.linalg.cholesky_ex(work, out=(work, failed))
        if failed:
            return None
        torch.cholesky_inverse(work, out=work)
        torch.linalg.cholesky_ex(work, upper=True, out=(work, failed))
    return None if failed or not torch.isfinite(work).all() else work


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread.

    The factors of LAPACK, and on some processors products, have other last bits on other numbers of threads, and an
    artifact must not depend on how many cores built it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _turned_factor(gram: Tensor, diagonal: Tensor, damping: float, dtype: torch.dtype) -> Tensor | None:
    """The same factor by one Cholesky less, which on a GPU takes less than half the time: with the inputs in reverse
    order H' = L L^T, and L^-1 turned back is the factor. Rows lie contiguously."""
    work = gram.flip(0, 1).to(dtype).T
    work.diagonal().copy_(diagonal.flip(0)).add_(damping)
    failed = torch.empty((), dtype=torch.int32, device=gram.device)
    torch.linalg.cholesky_ex(work, out=(work, failed))
    if failed:
        return None
    upper = torch.linalg.solve_triangular(work, torch.eye(len(work), dtype=dtype, device=work.device), upper=False)
    del work
    upper = upper.flip(0, 1).contiguous()
    return upper if torch.isfinite(upper).all() else None
