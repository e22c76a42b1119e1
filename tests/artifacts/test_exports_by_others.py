"""Exports opened by others' code: transformers (the class that the config names), compressed-tensors, a reader of GPTQ
files written from their description, the names that vLLM's loader looks for.

Three tiny folders: one of several modalities with a tower and a projector beside the language model, one with linears
around its blocks and a tied head, one whose experts lie in the files a tensor each.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from kick_core.cli import main
from kick_core.models.loading import open_model
from kick_core.models.source import find
from kick_core.spec import ModelRef
from tests.architectures.tiny_models import fill, save

_TEXT = dict(
    vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip
_TOWER = dict(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
)
CONFIGS = {
    "tower": lambda: transformers.LlavaConfig(
        vision_config=_TOWER | dict(model_type="clip_vision_model"),
        text_config=_TEXT | dict(model_type="llama"),
        image_token_index=500,
    ),
    "around": lambda: transformers.OPTConfig(
        **_TEXT | dict(word_embed_proj_dim=32, ffn_dim=96, do_layer_norm_before=False), tie_word_embeddings=True
    ),
    "experts": lambda: transformers.MixtralConfig(**_TEXT, num_local_experts=4, tie_word_embeddings=False),
}
CLASSES = {
    "tower": transformers.LlavaForConditionalGeneration,
    "around": transformers.OPTForCausalLM,
    "experts": transformers.MixtralForCausalLM,
}
BLOCKS = {"tower": "language_model.model.layers.", "around": "model.decoder.layers.", "experts": "model.layers."}
"""Where the blocks lie in the files of each folder."""
PARTS = {
    "compressed-tensors": ("weight_packed", "weight_scale", "weight_shape"),
    "gptq": ("qweight", "qzeros", "scales", "g_idx"),
}
IDS = torch.randint(6, 490, (2, 24), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("models")
    return {name: save(fill(CLASSES[name](config())), root / name) for name, config in CONFIGS.items()}


@pytest.fixture(scope="module")
def exported(folders, tmp_path_factory):
    """`kick export` as a function of folder, recipe and format; done once each."""
    root, done = tmp_path_factory.mktemp("exports"), {}
    np.save(root / "windows.npy", IDS.repeat(2, 1).numpy())

    def _exported(name, recipe, form):
        if (name, form) not in done:
            done[name, form] = root / f"{name}-{form}"
            words = ["export", str(folders[name]), recipe, str(done[name, form]), "--format", form]
            words += ["--calibration", str(root / "windows.npy"), "--windows", "4", "--length", "24"]
            assert main([*words, "--cache", str(root / "cache")]) == 0
        return done[name, form]

    return _exported


def tensors(folder):
    return load_file(folder / "model.safetensors")


def theirs(name, folder):
    """The model as the class that its config names opens it."""
    assert json.loads((folder / "config.json").read_text())["architectures"] == [CLASSES[name].__name__]
    model, facts = CLASSES[name].from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not any(facts.values())
    return model.eval()


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("name", CLASSES)
def test_a_dense_export_is_the_folder_with_nothing_but_its_blocks_changed(name, folders, exported):
    before, after = tensors(folders[name]), tensors(exported(name, "wanda@0.5", "dense"))
    assert {n: (t.shape, t.dtype) for n, t in before.items()} == {n: (t.shape, t.dtype) for n, t in after.items()}
    for tensor_name, old in before.items():
        inside = tensor_name.startswith(BLOCKS[name]) and old.dim() == 2 and ".gate." not in tensor_name
        if inside:
            assert int((after[tensor_name] == 0).sum()) == old.numel() // 2, tensor_name
        else:
            assert torch.equal(after[tensor_name], old), tensor_name
    dense, compressed = (logits(theirs(name, folder)) for folder in (folders[name], exported(name, "", "dense")))
    mine = open_model(find(ModelRef(str(exported(name, "", "dense")))), "float32", "cpu")
    assert torch.equal(logits(mine), compressed) and not torch.allclose(compressed, dense, atol=0.1)


@pytest.mark.parametrize("name", ["tower", "around"])
def test_packed_by_transformers_with_compressed_tensors(name, exported):
    folder = exported(name, "rtn@4bit,group=32", "compressed-tensors")
    mine = open_model(find(ModelRef(str(folder))), "float32", "cpu")
    model = theirs(name, folder)
    assert torch.allclose(logits(model), logits(mine), atol=1e-5)
    ignored = set(json.loads((folder / "config.json").read_text())["quantization_config"]["ignore"])
    packed = {n.removesuffix(".weight_packed") for n in tensors(folder) if n.endswith(".weight_packed")}
    linears = {n for n, m in CLASSES[name](CONFIGS[name]()).named_modules() if isinstance(m, nn.Linear)}
    assert len(linears - ignored) == len(packed) and ignored


def gptq_weight(stored, name, bits=4):
    """A weight [out, in] of a GPTQ v1 file, from the format's description: codes packed along the inputs, the lowest
    bits first, zero points stored less one."""
    words = {part: stored[f"{name}.{part}"].numpy() for part in PARTS["gptq"]}
    shifts = np.arange(0, 32, bits)
    codes = (words["qweight"][:, None, :] >> shifts[None, :, None]) & (2**bits - 1)
    codes = codes.reshape(-1, words["qweight"].shape[1])
    zeros = (words["qzeros"][:, :, None] >> shifts[None, None, :]) & (2**bits - 1)
    zeros = zeros.reshape(len(zeros), -1) + 1
    groups = words["g_idx"]
    return torch.from_numpy(((codes - zeros[groups]) * words["scales"].astype(np.float32)[groups]).T.copy())


@pytest.mark.parametrize("name", ["tower", "around"])
def test_gptq_by_a_reader_of_its_description(name, folders, exported):
    folder = exported(name, "gptq@4bit,group=32", "gptq")
    stored = tensors(folder)
    packed = [n.removesuffix(".qweight") for n in stored if n.endswith(".qweight")]
    plain = {n: t for n, t in stored.items() if n.rpartition(".")[2] not in PARTS["gptq"]}
    read = plain | {f"{n}.weight": gptq_weight(stored, n) for n in packed}
    before = tensors(folders[name])
    assert read.keys() == before.keys() and len(packed) == {"tower": 14, "around": 12}[name]
    assert all(torch.equal(tensor, before[n]) for n, tensor in plain.items())
    mine = open_model(find(ModelRef(str(folder))), "float32", "cpu")
    copy = folder.parent / f"{name}-decoded"
    copy.mkdir()
    config = json.loads((folder / "config.json").read_text())
    del config["quantization_config"]
    (copy / "config.json").write_text(json.dumps(config))
    save_file(read, copy / "model.safetensors", metadata={"format": "pt"})
    assert torch.allclose(logits(theirs(name, copy)), logits(mine), atol=1e-3)


FUSED = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("w1", "w3"))
"""Linears that vLLM's classes stack into one: read by their own names, and all of one kind."""


@pytest.mark.parametrize(
    ("name", "form"), [(n, f) for n in CLASSES for f in ("dense", *PARTS) if n != "experts" or f == "dense"]
)
def test_names_are_those_that_vllm_looks_for(name, form, folders, exported):
    """It loads tensors by the names of the hub's folder, a packed linear's under these with other endings; what it
    stacks must be packed or plain together, and what is plain must be named in `ignore`."""
    recipe = {"dense": "wanda@0.5", "compressed-tensors": "rtn@4bit,group=32", "gptq": "gptq@4bit,group=32"}[form]
    folder = exported(name, recipe, form)
    before, after = tensors(folders[name]), tensors(folder)
    packed = {n.rpartition(".")[0] for n in after if n.endswith(PARTS.get(form, ("none",))[0])}
    expected = {f"{n}.{part}" for n in packed for part in PARTS.get(form, ())}
    assert after.keys() == {n for n in before if n.removesuffix(".weight") not in packed} | expected
    for group in FUSED:
        whole = {n for n in packed if n.endswith(group)}
        stems = {n.rpartition(".")[0] for n in whole}
        assert whole == {f"{stem}.{part}" for stem in stems for part in group if f"{stem}.{part}.weight" in before}
