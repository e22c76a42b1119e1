"""Exports: reloaded by us (and by others where they are installed), the same model to the promised closeness."""

import importlib.util
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from kick_core.cli import main
from kick_core.errors import KickError
from kick_core.methods.grid import group_of
from kick_core.models import file_formats
from kick_core.models.loading import open_model
from kick_core.models.source import find
from kick_core.spec import IntGrid, ModelRef
from tests.tiny import token_ids

SMALL = ["--windows", "4", "--length", "32"]


@given(st.integers(1, 5), st.integers(1, 70), st.integers(2, 8), st.integers(0, 5))
def test_words_of_any_shape(rows, count, bits, seed):
    codes = torch.randint(0, 2**bits, (rows, count), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    words = file_formats.pack_words(codes, bits)
    assert words.dtype == torch.int32 and words.shape == (rows, -(-count * bits // 32))
    assert torch.equal(file_formats.unpack_words(words, bits, count), codes)


def grid(bits, symmetric=True, rows=32, cols=64, size=32):
    make = torch.Generator().manual_seed(bits)
    groups = group_of(cols, IntGrid(bits, group=size))
    zeros = torch.full((rows, cols // size), 2 ** (bits - 1))
    if not symmetric:
        zeros = torch.randint(0, 2**bits, zeros.shape, generator=make)
    codes = torch.randint(0, 2**bits, (rows, cols), generator=make).to(torch.uint8)
    return file_formats.Grid(
        codes, torch.rand(rows, cols // size, generator=make) + 0.5, zeros.to(torch.uint8), groups, bits
    )


def test_symmetric_zeros_of_gptq_v1_are_the_known_words():
    for bits, word in ((4, 0x77777777), (8, 0x7F7F7F7F), (2, 0x55555555)):
        stored = file_formats.gptq_tensors("q", grid(bits), True)["q.qzeros"]
        assert {value & 0xFFFFFFFF for value in stored.flatten().tolist()} == {word}


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_formats_come_back(bits, symmetric):
    made = grid(bits, symmetric)
    config = file_formats.gptq_config(bits, 32, symmetric, False)
    assert config["checkpoint_format"] == ("gptq" if symmetric else "gptq_v2")
    again = file_formats.read_gptq("q", file_formats.gptq_tensors("q", made, symmetric), config)
    assert torch.equal(again.codes, made.codes) and torch.equal(again.zeros.int(), made.zeros.int())
    assert torch.allclose(again.weight(torch.float32), made.weight(torch.float32), rtol=1e-3, atol=1e-3)
    again = file_formats.read_packed(
        "q", file_formats.packed_tensors("q", made, symmetric), file_formats.packed_config(bits, 32, symmetric)
    )
    assert torch.equal(again.weight(torch.float32), made.weight(torch.float32))


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_zero_points_of_0_in_gptq_v1_borrow_from_their_neighbours(bits):
    """As GPTQModel writes them: 1 is taken from whole words, at 3 bit from every point by itself."""
    made = grid(bits, symmetric=False)
    made.zeros[::3] = 0
    v2 = file_formats.gptq_tensors("q", made, False)
    if 32 % bits:
        taken = file_formats.pack_words(((made.zeros.int() - 1) % 2**bits).to(torch.uint8).T.contiguous(), bits)
    else:
        taken = v2["q.qzeros"] - sum(1 << place for place in range(0, 32, bits))
    config = {"bits": bits, "checkpoint_format": "gptq"}
    again = file_formats.read_gptq("q", v2 | {"q.qzeros": taken}, config)
    assert torch.equal(again.zeros.int(), made.zeros.int()) and torch.equal(again.codes, made.codes)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"checkpoint_format": "marlin"}, "marlin"),
        ({"checkpoint_format": None, "format": "bitblas"}, "bitblas"),
        ({"bits": 5}, "5 bit"),
        ({"pack_dtype": "int16"}, "int16"),
        ({"dynamic": {"+:.*down_proj": {"bits": 8}}}, "down_proj"),
    ],
)
def test_gptq_layouts_that_are_not_read_are_refused(changed, named):
    """Each of them would decode to plausible nonsense."""
    made = file_formats.gptq_tensors("q", grid(4), True)
    with pytest.raises(KickError, match=named):
        file_formats.read_gptq("q", made, file_formats.gptq_config(4, 32, True, False) | changed)


@pytest.mark.parametrize(
    ("changed", "own", "named"),
    [
        ({"transform_config": {"config_groups": {"R1": {}}}}, {}, "transforms"),
        ({}, {"input_activations": {"num_bits": 8}}, "activations"),
        ({}, {"weights": {"num_bits": 4, "type": "int", "strategy": "block"}}, "block"),
        ({"format": "marlin-24"}, {}, "marlin-24"),
    ],
)
def test_packed_layouts_that_are_not_read_are_refused(changed, own, named):
    config = file_formats.packed_config(4, 32, True) | changed
    config["config_groups"]["group_0"] |= own
    with pytest.raises(KickError, match=named):
        file_formats.read_packed("q", file_formats.packed_tensors("q", grid(4), True), config)


@pytest.mark.parametrize(
    ("recipe", "form", "words"),
    [
        ("rtn@4bit,group=32", "gptq", "GPTQ v1, 4 bit, groups of 32"),
        ("rtn@8bit,group=-1,sym=false", "gptq", "GPTQ v2, 8 bit, one group a row"),
        ("rtn@3bit,group=-1", "compressed-tensors", "pack-quantized, 3 bit, one group a row"),
    ],
)
def test_the_user_is_told_which_decoder_opened_a_quantized_folder(tmp_path, tiny_folder, capsys, recipe, form, words):
    folder, cache = str(tmp_path / "out"), ["--cache", str(tmp_path / "cache")]
    assert main(["export", str(tiny_folder), recipe, folder, "--format", form, *cache]) == 0
    assert "decoder" not in capsys.readouterr().err
    assert main(["compress", folder, "magnitude@0.5", "--json", *cache]) == 0
    told = capsys.readouterr()
    assert f"{folder} holds codes, not plain weights; decoder: kick's own ({words})" in told.err
    (card,) = json.loads(told.out)["artifacts"]
    assert card["decoder"] == f"kick's own ({words})"
    assert main(["show", card["key"], *cache]) == 0
    assert words in capsys.readouterr().out
    assert main(["evaluate", folder, "dense", "--task", "perplexity", "--limit", "1", "--json", *cache]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["decoder"] == card["decoder"]
    assert main(["show", told["results"][0]["run"], *cache]) == 0
    assert json.loads(capsys.readouterr().out)["decoder"] == card["decoder"]


CASES = [
    ("wanda@2:4", "dense"),
    ("sparsegpt@0.5", "dense"),
    ("awq@4bit,group=32", "dense"),
    ("gptq@4bit,group=32", "gptq"),
    ("gptq@8bit,group=-1,act_order=true", "gptq"),
    ("rtn@4bit,group=64", "gptq"),
    ("gptq@4bit,group=32", "compressed-tensors"),
    ("gptq@3bit,group=32", "compressed-tensors"),
    ("rtn@2bit,group=32", "compressed-tensors"),
    ("rtn@8bit,group=-1", "compressed-tensors"),
    ("gptq@4bit,group=32,sym=false", "gptq"),
    ("sparsegpt@2:4+gptq@4bit,group=32", "compressed-tensors"),
]


@pytest.mark.parametrize(("recipe", "form"), CASES)
def test_export_then_open(tmp_path, tiny_folder, capsys, recipe, form):
    folder, cache = tmp_path / "out", str(tmp_path / "cache")
    words = ["export", str(tiny_folder), recipe, str(folder), "--format", form, "--cache", cache, "--json", *SMALL]
    assert main(words) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["logits_difference"] <= (0.0 if form == "dense" else 0.05)
    config = json.loads((folder / "config.json").read_text())
    assert "sparsity_config" not in config and ("quantization_config" in config) == (form != "dense")
    assert json.loads((folder / "kick_compression.json").read_text())["recipe"] == recipe
    with torch.no_grad():
        ours = open_model(find(ModelRef(str(folder))), "float32", "cpu")(token_ids(2, 16)).logits
    if form == "dense" or (form == "compressed-tensors" and importlib.util.find_spec("compressed_tensors")):
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        with torch.no_grad():
            assert torch.allclose(theirs(token_ids(2, 16)).logits, ours, atol=2e-3)


@pytest.mark.parametrize(
    ("recipe", "form", "named"),
    [
        ("wanda@0.5", "gptq", "no integer grid"),
        ("gptq@3bit,group=32", "gptq", "4 and 8 bit"),
        ("awq@4bit,group=32", "gptq", "cannot hold"),
        ("rtn@4bit,group=48", "gptq", "do not divide"),
        ("rtn@4bit,group=32,sym=false", "compressed-tensors", "sym=false"),
        ("rtn@4bit,group=32", "gguf", "unknown format"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(tmp_path, tiny_folder, capsys, recipe, form, named):
    words = ["export", str(tiny_folder), recipe, str(tmp_path / "out"), "--format", form, *SMALL]
    assert main([*words, "--cache", str(tmp_path / "cache")]) == 2
    assert named in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".out*"))


def test_a_full_folder_is_never_written_into(tmp_path, tiny_folder, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("keep me")
    words = ["export", str(tiny_folder), "magnitude@0.5", str(tmp_path / "out"), "--format", "dense"]
    assert main([*words, "--cache", str(tmp_path / "cache")]) == 2
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("lost", ["scales", "qzeros", "qweight"])
def test_a_quantized_folder_that_lacks_a_tensor_is_refused(tmp_path, tiny_folder, lost):
    folder = tmp_path / "out"
    words = ["export", str(tiny_folder), "rtn@4bit,group=32", str(folder), "--format", "gptq"]
    assert main([*words, "--cache", str(tmp_path / "cache")]) == 0
    tensors = load_file(folder / "model.safetensors")
    del tensors[f"model.layers.1.mlp.up_proj.{lost}"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(KickError, match=r"layers\.1\.mlp\.up_proj"):
        open_model(find(ModelRef(str(folder))), "auto", "cpu")


def test_a_quantized_folder_of_another_width_is_refused(tmp_path, tiny_folder):
    folder = tmp_path / "out"
    words = ["export", str(tiny_folder), "rtn@4bit,group=32", str(folder), "--format", "gptq"]
    assert main([*words, "--cache", str(tmp_path / "cache")]) == 0
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["bits"] = 8
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(KickError, match="do not fit"):
        open_model(find(ModelRef(str(folder))), "auto", "cpu")


def test_unknown_quantization_is_refused_by_name(tmp_path, tiny_folder):
    import shutil

    shutil.copytree(tiny_folder, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "bnb"}})
    )
    with pytest.raises(KickError, match="bnb"):
        open_model(find(ModelRef(str(tmp_path / "model"))), "auto", "cpu")
