"""Folders: ours opened by others' code, others' opened by ours, weights and logits compared."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from kick_core.cli import main
from kick_core.models.loading import open_model
from kick_core.models.source import find
from kick_core.spec import ModelRef
from tests.oracles.peers import GPTQMODEL, LLMCOMPRESSOR
from tests.tiny import save_tiny, tiny_llama, token_ids

IDS = token_ids(2, 16)
CALIBRATION = token_ids(8, 64)
LINEARS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj",
           "mlp.up_proj", "mlp.down_proj")  # fmt: skip


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # GPTQModel writes logs where it stands


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A random two-block Llama as wide as the largest group; one matrix holds positive weights only, so that an
    asymmetric grid of it has zero points of 0."""
    folder = save_tiny(tmp_path_factory.mktemp("dense") / "model")
    model = tiny_llama(hidden=128)
    model.model.layers[0].mlp.up_proj.weight.data.abs_()
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def exported(dense, tmp_path_factory):
    """`kick export` as a function of recipe and format."""
    root = tmp_path_factory.mktemp("exports")

    def _exported(recipe: str, form: str):
        folder = root / f"{len(list(root.iterdir()))}"
        words = ["export", str(dense), recipe, str(folder), "--format", form, "--cache", str(root / "cache")]
        assert main([*words, "--windows", "8", "--length", "64"]) == 0
        return folder

    return _exported


def ours(folder):
    return open_model(find(ModelRef(str(folder))), "float32", "cpu")


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits.float()


def assert_same(theirs, mine):
    """Every weight to their dtype's rounding, the logits to what their kernels compute in (16 bit)."""
    for block, wanted in zip(theirs.model.layers, mine.model.layers, strict=True):
        for name in LINEARS:
            found, weight = block.get_submodule(name).dequantize_weight().T, wanted.get_submodule(name).weight
            rounding = 2 * torch.finfo(found.dtype).eps
            assert torch.allclose(found.float(), weight, rtol=rounding, atol=1e-6), name
    found, wanted = logits(theirs), logits(mine)
    assert float((found - wanted).abs().max() / wanted.std()) < 0.1


GPTQ_RECIPES = (
    "gptq@4bit,group=32",
    "gptq@4bit,group=-1",
    "gptq@8bit,group=128",
    "gptq@4bit,group=64,act_order=true",
    "gptq@4bit,group=32,sym=false",
    "sparsegpt@2:4+gptq@4bit,group=32",
)


@pytest.mark.parametrize("recipe", GPTQ_RECIPES)
def test_gptq_by_transformers(recipe, exported, need):
    """transformers' own path (GPTQConfig: optimum with gptqmodel)."""
    need(GPTQMODEL)
    folder = exported(recipe, "gptq")
    model, facts = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, device_map="cpu", output_loading_info=True
    )
    assert not facts["missing_keys"] and not facts["unexpected_keys"] and not facts["mismatched_keys"]
    assert_same(model, ours(folder))


@pytest.mark.parametrize("recipe", GPTQ_RECIPES)
def test_gptq_by_gptqmodel(recipe, exported, need):
    need(GPTQMODEL)
    from gptqmodel import BACKEND, GPTQModel

    folder = exported(recipe, "gptq")
    model = GPTQModel.load(str(folder), device="cpu", dtype=torch.float16, backend=BACKEND.TORCH)
    assert_same(model.model, ours(folder))


@pytest.mark.parametrize(
    "recipe",
    ["gptq@8bit,group=128", "gptq@4bit,group=32", "gptq@3bit,group=32", "gptq@2bit,group=32", "rtn@3bit,group=-1",
     "sparsegpt@2:4+gptq@4bit,group=32"],
)  # fmt: skip
def test_packed_by_compressed_tensors(recipe, exported, need):
    need(LLMCOMPRESSOR)
    folder = exported(recipe, "compressed-tensors")
    model, facts = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not facts["missing_keys"] and not facts["unexpected_keys"] and not facts["mismatched_keys"]
    assert torch.equal(logits(model), logits(ours(folder)))


@pytest.mark.parametrize(
    "settings",
    [
        {"bits": 4, "group_size": 32},
        {"bits": 8, "group_size": 128},
        {"bits": 3, "group_size": 32, "sym": False},
        {"bits": 4, "group_size": 32, "sym": False},
        {"bits": 2, "group_size": 32, "desc_act": True},
        {"bits": 4, "group_size": 32, "format": "gptq_v2"},
    ],
    ids=str,
)
def test_a_folder_that_gptqmodel_wrote(settings, dense, tmp_path, need):
    need(GPTQMODEL)
    from gptqmodel import BACKEND, GPTQModel, QuantizeConfig

    plain = {"sym": True, "desc_act": False, "act_group_aware": False, "offload_to_disk": False, "device": "cpu"}
    config = QuantizeConfig(**plain | settings)
    config.fallback = None
    model = GPTQModel.load(str(dense), config, dtype=torch.float32)
    model.quantize([{"input_ids": row.tolist(), "attention_mask": [1] * len(row)} for row in CALIBRATION], batch_size=1)
    model.save(str(tmp_path / "out"))
    written = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert written["checkpoint_format"] == settings.get("format", "gptq")
    again = GPTQModel.load(str(tmp_path / "out"), device="cpu", dtype=torch.float16, backend=BACKEND.TORCH)
    assert_same(again.model, ours(tmp_path / "out"))


@pytest.mark.parametrize(
    ("settings", "order"),
    [
        ({"num_bits": 8, "strategy": "group", "group_size": 128}, None),
        ({"num_bits": 4, "strategy": "group", "group_size": 32}, "static"),
        ({"num_bits": 3, "strategy": "channel"}, None),
        ({"num_bits": 2, "strategy": "group", "group_size": 32, "symmetric": False}, None),
    ],
    ids=str,
)
def test_a_folder_that_llmcompressor_wrote(settings, order, dense, tmp_path, need):
    need(LLMCOMPRESSOR)
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from datasets import Dataset
    from llmcompressor import oneshot
    from llmcompressor.modifiers.gptq import GPTQModifier

    model = AutoModelForCausalLM.from_pretrained(dense, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(dense)
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(type="int", **settings))
    oneshot(
        model=model,
        processor=tokenizer,
        dataset=Dataset.from_dict(
            {"input_ids": CALIBRATION.tolist(), "attention_mask": torch.ones_like(CALIBRATION).tolist()}
        ),
        recipe=GPTQModifier(config_groups={"all": scheme}, ignore=["lm_head"], actorder=order),
        num_calibration_samples=len(CALIBRATION),
        max_seq_length=CALIBRATION.shape[1],
        shuffle_calibration_samples=False,
    )
    wanted = logits(model)
    model.save_pretrained(tmp_path / "out", save_compressed=True)
    tokenizer.save_pretrained(tmp_path / "out")
    assert torch.equal(logits(ours(tmp_path / "out")), wanted)
