"""A GGUF file is a model: decoded once, named on every card, refused in one line where it is damaged."""

import json

import pytest
import torch

from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import open_for
from kick_core.errors import BadRequest, KickError
from kick_core.models import gguf, source
from kick_core.models.source import find
from kick_core.spec import Calibration, ModelRef, parse
from kick_core.store import open_store

pytest.importorskip("gguf", reason="pip install gguf")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A Llama of two blocks, written as llama.cpp's converter names things; matrices as Q8_0, the rest as F32."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import quantize

    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("gguf") / "tiny.Q8_0.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(64)
    writer.add_block_count(2)
    writer.add_feed_forward_length(96)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(259)
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    writer.add_tokenizer_model("llama")
    writer.add_token_list(words)
    writer.add_token_scores([0.0] * len(words))
    writer.add_token_types([2, 3, 3, *([6] * 256)])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    shapes = {"token_embd.weight": (259, 64), "output.weight": (259, 64)}
    for block in range(2):
        name = f"blk.{block}."
        shapes |= {f"{name}attn_q.weight": (64, 64), f"{name}attn_k.weight": (32, 64), f"{name}attn_v.weight": (32, 64)}
        shapes |= {f"{name}attn_output.weight": (64, 64), f"{name}ffn_gate.weight": (96, 64)}
        shapes |= {f"{name}ffn_up.weight": (96, 64), f"{name}ffn_down.weight": (64, 96)}
    for name, shape in shapes.items():
        weight = (rng.standard_normal(shape) / 8).astype(np.float32)
        writer.add_tensor(name, quantize(weight, GGMLQuantizationType.Q8_0), raw_dtype=GGMLQuantizationType.Q8_0)
    for name in ("output_norm.weight", *(f"blk.{b}.{n}_norm.weight" for b in range(2) for n in ("attn", "ffn"))):
        writer.add_tensor(name, np.ones(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_is_decoded_once_and_named_on_the_card(file, tmp_path):
    store = open_store(tmp_path / "cache")
    opened = open_for(ModelRef(str(file)), store, "cpu")
    assert opened.decoder == "transformers (decoded from GGUF Q8_0)"
    before = (opened.source.folder / "model.safetensors").stat().st_mtime_ns
    assert find(ModelRef(str(file)), store).folder == opened.source.folder
    assert (opened.source.folder / "model.safetensors").stat().st_mtime_ns == before
    builder = ArtifactBuilder(store, opened, Calibration("english", windows=1, length=32))
    for _ in builder.make(parse("rtn@8bit,group=32")):
        pass
    card = json.loads((store.folder("weights", builder.key(parse("rtn@8bit,group=32"))) / "card.json").read_text())
    assert card["decoder"] == opened.decoder
    assert any("decoded from GGUF Q8_0" in warning and "8-bit grid" in warning for warning in card["warnings"])


def test_the_decoded_weights_are_what_the_codes_stand_for(file, tmp_path):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    opened = open_for(ModelRef(str(file)), open_store(tmp_path / "cache"), "cpu")
    tensor = next(t for t in GGUFReader(file).tensors if t.name == "blk.1.ffn_down.weight")
    expected = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type)).to(torch.bfloat16)
    assert torch.equal(opened.model.model.layers[1].mlp.down_proj.weight, expected)


def test_a_file_of_other_content_is_another_model(file, tmp_path):
    copy = tmp_path / "copy.gguf"
    data = bytearray(file.read_bytes())
    copy.write_bytes(data)
    same = gguf.decoded_folder(copy, tmp_path)
    assert same == gguf.decoded_folder(file, tmp_path)
    data[-1] ^= 1
    copy.write_bytes(data)
    assert gguf.decoded_folder(copy, tmp_path) != same


@pytest.mark.parametrize("damage", [lambda data: data[:100], lambda data: b"GGUF" + bytes(200), lambda data: b"no"])
def test_a_damaged_file_is_one_line_and_leaves_nothing(file, tmp_path, damage):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(damage(file.read_bytes()))
    store = open_store(tmp_path / "cache")
    with pytest.raises(KickError) as error:
        find(ModelRef(str(broken)), store)
    assert str(broken) in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in (store.root / gguf.FOLDER).iterdir()] == ["sums.json"]


def test_without_the_package_the_message_says_what_to_install(file, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gguf", None)
    with pytest.raises(BadRequest, match="pip install gguf"):
        find(ModelRef(str(file)), open_store(tmp_path / "cache"))


def test_pages_know_where_a_decoded_file_is(file, tmp_path, monkeypatch):
    monkeypatch.setenv("KICK_CACHE", str(tmp_path / "cache"))
    assert source.local(str(file)) is None
    folder = find(ModelRef(str(file)), open_store()).folder
    assert source.local(str(file)) == folder
