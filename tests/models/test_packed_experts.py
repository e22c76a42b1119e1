"""Experts in packed folders: decoded to the very weights that other code makes of them."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

import kick_core
from kick_core.models import file_formats
from kick_core.models.quantized import decoder
from kick_core.models.source import find
from kick_core.spec import ModelRef
from tests.architectures import tiny_models


def rewrite(folder, tensors, settings):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": settings}))


def test_mxfp4_is_what_transformers_decodes(tmp_path):
    folder = tiny_models.save(tiny_models.make("gpt_oss"), tmp_path / "model")
    tensors, make = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(0)
    expected = {}
    for name in [name for name in tensors if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, cols, rows = tensors.pop(name).shape
        blocks = torch.randint(0, 256, (experts, rows, cols // 32, 16), generator=make, dtype=torch.uint8)
        scales = torch.randint(118, 128, (experts, rows, cols // 32), generator=make, dtype=torch.uint8)
        tensors |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
        expected[name] = convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    rewrite(folder, tensors, {"quant_method": "mxfp4"})
    model, _ = kick_core.load(str(folder))
    assert len(expected) == 8
    for name, weight in expected.items():
        assert torch.equal(model.get_parameter(name), weight)
    assert decoder(find(ModelRef(str(folder)))) == "kick's own (MXFP4, 4 bit, groups of 32)"


@pytest.mark.parametrize("form", ["gptq", "compressed-tensors"])
def test_experts_packed_one_by_one(form, tmp_path):
    """The files hold experts one by one, the model holds them together: gate above up."""
    model = tiny_models.make("qwen3_moe")
    folder = tiny_models.save(model, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    expected = {}
    for name in [name for name in tensors if ".experts." in name]:
        weight = tensors.pop(name)
        scale = weight.unflatten(1, (-1, 16)).abs().amax(-1) / 7
        scale = scale.half().float()
        codes = (weight / scale.repeat_interleave(16, 1)).round().clamp(-8, 7) + 8
        expected[name] = (codes - 8) * scale.repeat_interleave(16, 1)
        groups = torch.arange(weight.shape[1]) // 16
        grid = file_formats.Grid(codes.to(torch.uint8), scale, torch.full(scale.shape, 8), groups, 4)
        pack = file_formats.gptq_tensors if form == "gptq" else file_formats.packed_tensors
        tensors |= pack(name.removesuffix(".weight"), grid, True)
    settings = (
        file_formats.gptq_config(4, 16, True, False) if form == "gptq" else file_formats.packed_config(4, 16, True)
    )
    rewrite(folder, tensors, settings)
    opened, _ = kick_core.load(str(folder))
    for layer, block in enumerate(opened.model.layers):
        experts, prefix = block.mlp.experts, f"model.layers.{layer}.mlp.experts"
        for number in range(len(experts.down_proj)):
            gate, up, down = (expected[f"{prefix}.{number}.{part}_proj.weight"] for part in ("gate", "up", "down"))
            assert torch.allclose(experts.gate_up_proj[number], torch.cat([gate, up]), atol=1e-6)
            assert torch.allclose(experts.down_proj[number], down, atol=1e-6)
