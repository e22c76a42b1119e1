"""Low-rank updates of a compressed model's matrices, trained by peft on running text.

A pruned matrix computes with W + M ∘ (s B A): its mask M is applied to the update in every forward, so that the trained
model *is* the merged one. (PERP's MaskLoRA: Zimmer et al. 2023, arXiv 2312.15230.) A quantized matrix
computes with W + s B A. The loss is the mean negative log-probability of the next token. AdamW without decay, its rate
falling linearly from `rate` to 0; eight windows a step, every window once, in an order that follows from the seed.

Training is not done by blocks: a state is handed out every few steps, and one that goes on from it gives the same bytes
on a CPU.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from kick_core.compression.recovery import memory_errors_named
from kick_core.errors import BadRequest, KickError
from kick_core.methods.recovery_options import Recovery
from kick_core.models.blocks import Matrix, decoder_blocks, matrices

WINDOWS = 8
"""Windows of a step."""

_TOKENS = 2048
"""Tokens of one forward at most, unless a window is longer: a step's windows follow each other in parts."""

EVERY = 16
"""Steps between two states."""


@dataclass(frozen=True, slots=True)
class Trained:
    """Where a training is: `loss` of this step in nats a token; `state` when it is time to keep one, else None."""

    step: int
    steps: int
    loss: float
    state: bytes | None


@dataclass(frozen=True, slots=True)
class Update:
    """A matrix's trained update `left` [out, rank] times `right` [rank, in], scaling included, in the model's dtype."""

    left: Tensor
    right: Tensor


@dataclass(slots=True)
class Outcome:
    """What a training came to: the updates under "block.name", the loss of every step in nats a token."""

    updates: dict[str, Update] = field(default_factory=dict)
    losses: list[float] = field(default_factory=list)


def require(kind: str) -> None:
    """Raises KickError when what this kind of training needs is not installed."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # peft loads it where it is; it tells of kernels missed
    try:
        import peft  # noqa: F401

        if kind == "qlora":
            import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise KickError(f"recover={kind} needs {error.name}: pip install -e .[recovery]") from error


def train(
    model: PreTrainedModel,
    masks: Mapping[str, Tensor],
    ids: Tensor,
    how: Recovery,
    outcome: Outcome,
    state: bytes | None = None,
) -> Iterator[Trained]:
    """Train updates for a model that wears compressed weights; the model is left as it was.

    `masks` [out, in] (True: kept) of the pruned matrices, under "block.name". `ids` [windows, length] are read once.
    `state` is one that an earlier training handed out. What comes of it all is in `outcome` at the end. Raises
    KickError for matrices that are no plain linears and for a loss that is no number.
    """
    require(how.kind)
    ids = ids[torch.randperm(len(ids), generator=torch.Generator().manual_seed(how.seed))]
    parts = ids.split(WINDOWS)
    with _adapted(model, masks, how) as layers, torch.enable_grad():
        tensors = [tensor for layer in layers.values() for tensor in _factors(layer)]
        adam = torch.optim.AdamW(tensors, lr=how.rate, weight_decay=0.0)
        losses = outcome.losses = _restored(adam, tensors, state) if state else []
        done = len(losses)
        for step, part in enumerate(parts[done:], done + 1):
            adam.param_groups[0]["lr"] = how.rate * (1 - (step - 1) / len(parts))
            with memory_errors_named(f"training step {step}"):
                losses.append(_step(model, adam, part))
            if not math.isfinite(losses[-1]):
                raise KickError(f"recover_rate={how.rate} is too high: the loss of step {step} is no number; lower it")
            keep = step % EVERY == 0 or step == len(parts)
            yield Trained(step, len(parts), losses[-1], _state(adam, tensors, losses) if keep else None)
        dtype = model.dtype
        for name, layer in layers.items():
            right, left = (tensor.detach() for tensor in _factors(layer))
            outcome.updates[name] = Update((left * _scaling(layer)).to(dtype), right.to(dtype))


def _step(model: PreTrainedModel, adam: torch.optim.Optimizer, part: Tensor) -> float:
    """One step on windows [batch, length]; its mean loss in nats a token."""
    adam.zero_grad(set_to_none=True)
    total, count = 0.0, part.shape[0] * (part.shape[1] - 1)
    for some in part.split(max(1, _TOKENS // part.shape[1])):
        ids = some.to(model.device)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        loss = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="sum") / count
        loss.backward()
        total += float(loss.detach())
    adam.step()
    return total


def _state(adam: torch.optim.Optimizer, tensors: list[Tensor], losses: list[float]) -> bytes:
    tensors_by_name = {"losses": torch.tensor(losses, dtype=torch.float64)}
    for at, tensor in enumerate(tensors):
        moments = adam.state[tensor]
        tensors_by_name |= {f"{at}": tensor.detach(), f"{at}.m": moments["exp_avg"], f"{at}.v": moments["exp_avg_sq"]}
    return bytes(save({name: value.cpu().contiguous() for name, value in tensors_by_name.items()}))


def _restored(adam: torch.optim.Optimizer, tensors: list[Tensor], state: bytes) -> list[float]:
    """Put a state in place; returns the losses of the steps that are done."""
    saved = load(state)
    losses = [float(loss) for loss in saved["losses"]]
    for at, tensor in enumerate(tensors):
        with torch.no_grad():
            tensor.copy_(saved[f"{at}"])
        adam.state[tensor] = {
            "step": torch.tensor(float(len(losses))),
            "exp_avg": saved[f"{at}.m"].to(tensor.device),
            "exp_avg_sq": saved[f"{at}.v"].to(tensor.device),
        }
    return losses


# --- peft ----------------------------------------------------------------------------------------------------


def _linears(model: PreTrainedModel) -> dict[str, Matrix]:
    """Every matrix of the blocks under "block.name". Raises BadRequest where one is no linear of its own."""
    linears = {}
    for number, block in enumerate(decoder_blocks(model)):
        for matrix in matrices(block):
            if not isinstance(matrix.module, nn.Linear | Conv1D):
                raise BadRequest(
                    f"block {number}: {matrix.name} is one expert of a stacked tensor, which peft cannot adapt by "
                    f"itself: use recover=blocks"
                )
            linears[f"{number}.{matrix.name}"] = matrix
    return linears


@contextmanager
def _adapted(model: PreTrainedModel, masks: Mapping[str, Tensor], how: Recovery) -> Iterator[dict[str, Any]]:
    """Have a low-rank layer around every matrix, under "block.name"; afterwards the model is as it was before."""
    from peft import LoraConfig, inject_adapter_in_model

    linears = _linears(model)
    places = {id(module): name for name, module in model.named_modules()}
    paths = {name: places[id(matrix.module)] for name, matrix in linears.items()}
    wanted = [parameter.requires_grad for parameter in model.parameters()]
    plain = {path: model.get_submodule(path) for path in paths.values()}
    config = LoraConfig(
        r=how.rank, lora_alpha=2 * how.rank, target_modules=sorted(plain), bias="none",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in plain.values()),
    )  # fmt: skip
    try:
        if how.kind == "qlora":
            _in_four_bits(model, plain)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(how.seed)
            inject_adapter_in_model(config, model, _ADAPTER)
        layers = {name: model.get_submodule(path) for name, path in paths.items()}
        for name, layer in layers.items():
            if (mask := masks.get(name)) is not None:
                layer.lora_variant[_ADAPTER] = _masked(mask.to(model.device))
        yield layers
    finally:
        for path, module in plain.items():
            model.set_submodule(path, module)
        for leftover in ("peft_config", "is_loaded_in_4bit"):
            model.__dict__.pop(leftover, None)
        for parameter, before in zip(model.parameters(), wanted, strict=True):
            parameter.requires_grad_(before)


_ADAPTER = "default"


def _masked(mask: Tensor) -> object:
    """peft's hook for layers of another arithmetic: adds x (M ∘ (s B A))^T to what the frozen weight gives."""
    from peft.tuners.lora.layer import LoraVariant

    class Masked(LoraVariant):  # type: ignore[misc]
        @staticmethod
        def forward(module: Any, active_adapter: str, x: Tensor, result: Tensor, **_more: Any) -> Tensor:
            right, left = _factors(module)
            update = (left @ right) * (_scaling(module) * mask)
            return result + functional.linear(x, update.to(x.dtype))

    return Masked()


def _factors(layer: Any) -> tuple[Tensor, Tensor]:
    """A [rank, in] and B [out, rank]."""
    return layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight


def _scaling(layer: Any) -> float:
    return float(layer.scaling[_ADAPTER])


def _in_four_bits(model: PreTrainedModel, plain: Mapping[str, nn.Module]) -> None:
    """Put 4-bit copies in the place of linears. NF4 has a code for 0, so what is pruned stays so."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for path, module in plain.items():
        if not isinstance(module, nn.Linear):
            raise BadRequest(f"{path} is a {type(module).__name__}, which bitsandbytes does not hold in 4 bits: "
                             f"use recover=lora")  # fmt: skip
        small = Linear4bit(
            module.in_features, module.out_features, bias=module.bias is not None, compute_dtype=model.dtype,
            quant_type="nf4", device="meta",
        )  # fmt: skip
        small.weight = Params4bit(module.weight.detach().cpu().clone(), requires_grad=False, quant_type="nf4")
        small.bias = module.bias
        model.set_submodule(path, small.to(model.device))
    model.is_loaded_in_4bit = True
