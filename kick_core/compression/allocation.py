"""How one sparsity is shared out over the decoder blocks: evenly (the paper), or by outliers (OWL).

OWL (Yin et al. 2023, arXiv 2310.05175, section 3.2): a block where many weights score far above the mean
keeps more. With D_b the share of a block's scores |W_ij| * ‖X_j‖₂ above 5 times their mean, the shares kept
spread linearly in D over a band of ± 0.08 around the mean that is asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kick_core.compression import activations
from kick_core.models.block_calls import Hold, all_in_place
from kick_core.models.blocks import Matrix, decoder_blocks, matrices
from kick_core.spec import Target, Unstructured

FAR = 5.0
"""A score this many times the mean is an outlier (the authors' M)."""

BAND = 0.08
"""How far a block's sparsity may lie from the mean (the authors' lambda)."""


def per_block(
    model: PreTrainedModel, target: Target, alloc: str, ids: Tensor | None, hold: Hold = all_in_place
) -> list[Target]:
    """Each block's target. `ids` [windows, length] are calibration tokens, needed for `alloc` "owl"."""
    count = len(decoder_blocks(model))
    if alloc == "uniform" or not isinstance(target, Unstructured):
        return [target] * count
    assert ids is not None
    return [Unstructured(ratio) for ratio in owl_ratios(outlier_shares(model, ids, hold), target.ratio)]


@torch.no_grad()
def outlier_shares(model: PreTrainedModel, ids: Tensor, hold: Hold = all_in_place) -> list[float]:
    """D_b of every block, from one pass of the dense model."""
    inputs, shares = activations.first(model, ids, hold=hold), []
    for index, block in enumerate(decoder_blocks(model)):
        with hold(index):
            dense = activations.dense_pass(model, block, index, inputs, "norms", keep=True)
            scores = [_scores(matrix, dense) for matrix in matrices(block)]
        count = sum(score.numel() for score in scores)
        mean = sum(float(score.sum()) for score in scores) / count
        shares.append(sum(int((score > FAR * mean).sum()) for score in scores) / count)
        assert dense.outputs is not None
        inputs.hidden = dense.outputs
    return shares


def _scores(matrix: Matrix, dense: activations.Dense) -> Tensor:
    weight = matrix.read()
    stats = dense.stats.get(matrix.name) or activations.unseen(weight.shape[1], weight.device)
    assert stats.sq_norms is not None
    return weight.float().abs() * stats.sq_norms.sqrt()


def owl_ratios(shares: list[float], ratio: float) -> list[float]:
    """Each block's share to drop, `ratio` in the mean: the more outliers, the less goes."""
    low, high = min(shares), max(shares)
    if high == low:
        return [ratio] * len(shares)
    lift = [(share - low) / (high - low) * 2 * BAND for share in shares]
    mean = sum(lift) / len(lift)
    return [round(min(0.999, max(0.0, ratio - (one - mean))), 6) for one in lift]
