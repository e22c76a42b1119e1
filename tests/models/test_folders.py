"""Folders that hold parameters under other names, or in pieces: streamed from disk as others are."""

import json

import numpy as np
import pytest
import torch
from transformers import Gemma3Config

from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import open_for
from kick_core.models.blocks import decoder_blocks
from kick_core.models.source import Source
from kick_core.spec import Calibration, ModelRef, parse
from kick_core.store import open_store, weight_artifacts
from tests.architectures import tiny_models


def test_the_context_of_several_modalities_is_the_text_models(tmp_path):
    """Also where the folder's config leaves it to the library's default."""
    config = Gemma3Config(text_config={"max_position_embeddings": 640})
    config.save_pretrained(tmp_path)
    assert Source("model", tmp_path, (), "").context == 640
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["text_config"]["max_position_embeddings"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert Source("model", tmp_path, (), "").context == Gemma3Config().text_config.max_position_embeddings


@pytest.mark.parametrize("name", ["mixtral", "deepseek_v3", "qwen3_5"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_experts_a_tensor_each_stream_from_disk(name, dtype, tmp_path):
    """Also what lies beside the experts: biases that choose them, which are buffers; parameters kept in float32."""
    model = tiny_models.make(name)
    for buffer_name, buffer in model.named_buffers():
        if "bias" in buffer_name:
            buffer.copy_(torch.linspace(0, 1, buffer.numel()).view_as(buffer))
    folder = tiny_models.save(model.to(dtype), tmp_path / "model")
    np.save(tmp_path / "windows.npy", np.random.default_rng(0).integers(6, 500, (4, 24)))
    calibration = Calibration(str(tmp_path / "windows.npy"), 4, 24)
    files = []
    for streamed in (False, True):
        store = open_store(tmp_path / f"cache {streamed}")
        opened = open_for(ModelRef(str(folder)), store, "cpu", streamed=streamed)
        assert opened.streamed == streamed
        builder = ArtifactBuilder(store, opened, calibration)
        for recipe in map(parse, ("wanda@0.5", "gptq@4bit,group=8")):
            for _ in builder.make(recipe):
                pass
            key = builder.key(recipe)
            for block in range(len(decoder_blocks(opened.model))):
                files.append((key, weight_artifacts.block_path(store, key, block).read_bytes()))
    assert files[: len(files) // 2] == files[len(files) // 2 :]
