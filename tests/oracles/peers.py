"""The peers' own routines for one matrix: same W, same X as ours, no model, no pipeline.

    llm-compressor 0.14   Wanda, SparseGPT (any N:M), magnitude (ratio only), GPTQ with scales that are fixed
                          beforehand from the original weights
    GPTQModel 7.6         GPTQ with scales found on the way, as in the published code, or fixed beforehand

Each takes weight [out, in], inputs [samples, tokens, in] and a resolved recipe, and returns what the peer makes
of them. A recipe that the peer has no equal for is a ValueError: nothing is bent to fit. Both want to be
imported late: they are slow, talkative, and not there in the project's own environment.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kick_core.spec import IntGrid, KeepNofM, Recipe, Unstructured

# on two cores GPTQModel gives its loader more workers than it has, and stops; it must be set before the import
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")

LLMCOMPRESSOR, GPTQMODEL = "llm-compressor", "GPTQModel"
MODULES = {LLMCOMPRESSOR: "llmcompressor", GPTQMODEL: "gptqmodel"}


@dataclass(frozen=True, slots=True)
class Found:
    """A peer's result: the weight [out, in] and, where it is quantized, the codes [out, in] from 0 on."""

    weight: Tensor
    codes: Tensor | None = None


def compress(peer: str, weight: Tensor, inputs: Tensor, recipe: Recipe) -> Found:
    """What `peer` makes of one matrix under a resolved recipe."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return _ROUTINES[peer, recipe.method](weight.clone(), inputs, recipe)


def _linear(weight: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    made.weight.data = weight.clone()
    return made


def _sparsity(recipe: Recipe) -> tuple[float, int, int]:
    """Share to drop, and how many of how many (0 of 0: unstructured), as llm-compressor counts them."""
    match recipe.target:
        case Unstructured():
            return float(recipe.target.ratio), 0, 0
        case KeepNofM():
            return 0.5, recipe.target.out_of - recipe.target.keep, recipe.target.out_of
    raise ValueError(f"{recipe.text} is not a sparsity")


def _llmcompressor_magnitude(weight: Tensor, inputs: Tensor, recipe: Recipe) -> Found:
    from llmcompressor.modifiers.pruning.utils.pytorch import PruningMaskCreatorArgs, PruningMaskFactory

    if not isinstance(recipe.target, Unstructured):
        raise ValueError("llm-compressor has no N:M mask for magnitude")
    make = PruningMaskFactory.create_mask_creator("unstructured")
    mask = make(PruningMaskCreatorArgs(weight, float(recipe.target.ratio), weight.abs()))
    return Found(weight * mask)


def _llmcompressor_wanda(weight: Tensor, inputs: Tensor, recipe: Recipe) -> Found:
    from llmcompressor.modifiers.pruning.wanda import wanda_sparsify as wanda

    linear = _linear(weight)
    scalars, seen = wanda.make_empty_row_scalars(linear), 0
    for sample in inputs:
        scalars, seen = wanda.accumulate_row_scalars(sample[None], linear, scalars, seen)
    return Found(wanda.sparsify_weight(linear, {linear: scalars}, *_sparsity(recipe)))


def _llmcompressor_sparsegpt(weight: Tensor, inputs: Tensor, recipe: Recipe) -> Found:
    from llmcompressor.modifiers.pruning.sparsegpt import sgpt_sparsify as sparsegpt

    linear, options = _linear(weight), dict(recipe.options)
    hessian, seen = sparsegpt.make_empty_hessian(linear), 0
    for sample in inputs:
        hessian, seen = sparsegpt.accumulate_hessian(sample[None], linear, hessian, seen)
    _, pruned = sparsegpt.sparsify_weight(
        linear,
        {linear: hessian},
        *_sparsity(recipe),
        block_size=options["block"],
        dampening_frac=options["damp"],
        preserve_sparsity_mask=False,
    )
    return Found(pruned)


def _grid(recipe: Recipe, cols: int) -> tuple[IntGrid, int, dict[str, Any]]:
    assert isinstance(recipe.target, IntGrid) and recipe.target.group is not None
    grid = recipe.target
    return grid, cols if grid.group == -1 else int(grid.group or cols), dict(recipe.options)


def _llmcompressor_gptq(weight: Tensor, inputs: Tensor, recipe: Recipe) -> Found:
    from compressed_tensors.quantization import QuantizationArgs
    from llmcompressor.modifiers.gptq import gptq_quantize, helpers
    from llmcompressor.observers import Observer

    grid, size, options = _grid(recipe, weight.shape[1])
    if options["mse"] or not (options["static_groups"] or grid.group == -1):
        raise ValueError("llm-compressor fixes the scales of a group beforehand, at the whole range")
    args = QuantizationArgs(
        num_bits=grid.bits,
        type="int",
        symmetric=grid.symmetric,
        strategy="channel" if grid.group == -1 else "group",
        group_size=None if grid.group == -1 else grid.group,
        actorder="static" if options["act_order"] else None,
    )
    linear = _linear(weight)
    hessian, seen = helpers.make_empty_hessian(linear), torch.zeros(())
    for sample in inputs:
        hessian, seen = helpers.accumulate_hessian(sample[None], linear, hessian, seen)
    observer = Observer.load_from_registry("memoryless_minmax", base_name="weight", args=args)
    range_of = observer(linear.weight.data).get_qparams()
    scale, zero = range_of["scale"], range_of["zero_point"]
    quantized, _, _ = gptq_quantize.quantize_weight(
        weights=weight.clone()[None],
        hessians=(hessian / seen)[None],
        scale=scale[None],
        zero_point=zero[None],
        global_scale=None,
        quant_args=args,
        blocksize=options["block"],
        percdamp=options["damp"],
    )
    # its codes are signed: ours begin at 0
    spread = [part.float().repeat_interleave(size, 1)[:, : weight.shape[1]] for part in (scale, zero)]
    codes = torch.round(quantized[0] / spread[0] + spread[1]) + 2 ** (grid.bits - 1)
    return Found(quantized[0], codes)


def _gptqmodel_gptq(weight: Tensor, inputs: Tensor, recipe: Recipe) -> Found:
    from gptqmodel.quantization import GPTQ, QuantizeConfig

    grid, _, options = _grid(recipe, weight.shape[1])
    config = QuantizeConfig(
        bits=grid.bits,
        group_size=grid.group,
        sym=grid.symmetric,
        desc_act=options["act_order"],
        static_groups=options["static_groups"],
        act_group_aware=False,
        damp_percent=options["damp"],
        mse=2.4 if options["mse"] else 0.0,
        offload_to_disk=False,
    )
    config.fallback = None
    solver = GPTQ(_linear(weight), config)
    solver.quantizer.configure(perchannel=True)
    for sample in inputs:
        solver.add_batch(sample[None], None)
    quantized, scale, zero, groups, *_ = solver.quantize(blocksize=options["block"])
    spread = [part.float()[:, groups.long()] for part in (scale, zero)]
    return Found(quantized, torch.round(quantized / spread[0]) + spread[1])


_ROUTINES: dict[tuple[str, str], Callable[[Tensor, Tensor, Recipe], Found]] = {
    (LLMCOMPRESSOR, "magnitude"): _llmcompressor_magnitude,
    (LLMCOMPRESSOR, "wanda"): _llmcompressor_wanda,
    (LLMCOMPRESSOR, "sparsegpt"): _llmcompressor_sparsegpt,
    (LLMCOMPRESSOR, "gptq"): _llmcompressor_gptq,
    (GPTQMODEL, "gptq"): _gptqmodel_gptq,
}
