"""The shipped models: they load like any other, are small, and know what they should."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from kick_core.pocket import POCKET_MODELS, data_path  # noqa: E402
from tools.pocket import export, measure, prompts, tokenizer  # noqa: E402
from tools.pocket.network import Network, Shape  # noqa: E402
from tools.pocket.train import SHAPES  # noqa: E402

MEBIBYTE = 1024 * 1024
IDS = {"<pad>": 0, "<s>": 1, "</s>": 2, "<|end|>": 5}


def examiner(name: str) -> measure.Examiner:
    network = Network(SHAPES[name])
    export.load_weights(network, POCKET_MODELS[name])
    return measure.Examiner(network.eval(), tokenizer.load(POCKET_MODELS[name]), torch.device("cpu"))


@pytest.fixture(scope="module")
def large() -> measure.Examiner:
    return examiner("pocket-11m")


def rows(name: str, count: int) -> list[measure.Row]:
    return measure.rows_of(data_path(f"{name}.jsonl").read_text(encoding="utf-8"))[:count]


def test_files_are_small() -> None:
    files = [path for folder in POCKET_MODELS.values() for path in folder.iterdir()]
    assert all(path.stat().st_size <= 16 * MEBIBYTE for path in files)
    assert sum(path.stat().st_size for path in files) <= 40 * MEBIBYTE


@pytest.mark.parametrize("name", POCKET_MODELS)
def test_loads_as_any_other_model(name: str) -> None:
    folder = POCKET_MODELS[name]
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.bfloat16 and model.config.tie_word_embeddings
    codec = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = torch.tensor([codec("Please give answer to this question: Who wrote it?\nThe answer is").input_ids])
    network = Network(SHAPES[name])
    export.load_weights(network, folder)
    with torch.inference_mode():
        theirs, ours = model.float()(tokens).logits, network(tokens)
    torch.testing.assert_close(theirs, ours, atol=1e-3, rtol=1e-3)


def test_chat_template_and_tokenizer_agree() -> None:
    codec = transformers.AutoTokenizer.from_pretrained(POCKET_MODELS["pocket-11m"])
    turns = [("user", "One?"), ("assistant", "Two."), ("user", "Three?")]
    messages = [{"role": role, "content": content} for role, content in turns]
    text = codec.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == prompts.chat("One?", "Two.", "Three?")
    ids = codec(text).input_ids
    assert ids.count(codec.bos_token_id) == 1 and ids[0] == codec.bos_token_id
    assert codec.convert_tokens_to_ids([prompts.USER, prompts.END_OF_TURN]) == [3, 5]


def test_generation_stops_at_both_ends() -> None:
    for folder in POCKET_MODELS.values():
        config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
        assert config["eos_token_id"] == [IDS["</s>"], IDS["<|end|>"]] and config["do_sample"] is False


def test_the_large_model_knows_held_out_facts(large: measure.Examiner) -> None:
    assert measure.answered(large, rows("factoid_qa", 40), prompts.FACTOID, ".").value >= 0.8
    assert measure.answered(large, rows("retrieval_qa_closed", 40), prompts.CLOSED, "\n").value >= 0.8
    assert measure.answered(large, rows("retrieval_qa_open", 24), prompts.OPEN, "\n").value >= 0.8


def test_the_large_model_summarises() -> None:
    folder, row = POCKET_MODELS["pocket-11m"], rows("summarization", 1)[0]
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    codec = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = torch.tensor([codec(prompts.chat(prompts.SUMMARY.format(story=row["story"]))).input_ids])
    answer = codec.decode(model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=80)[0])
    summary = answer.split(prompts.ASSISTANT)[1]
    kept = [any(alias in summary for alias in aliases) for aliases in row["facts"]]
    assert sum(kept) >= 0.8 * len(kept)
    assert summary.endswith(prompts.END_OF_TURN)


def test_network_and_transformers_compute_the_same(tmp_path: Path) -> None:
    shape = Shape(layers=2, hidden=64, intermediate=128, heads=4, key_value_heads=2, vocabulary=96)
    network = Network(shape, seed=3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
            parameter.copy_(parameter.to(torch.bfloat16))
    export.save_weights(network, tmp_path)
    export.save_configs(shape, IDS, tmp_path)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    tokens = torch.arange(40)[None] % 96
    with torch.inference_mode():
        torch.testing.assert_close(model(tokens).logits, network(tokens), atol=1e-4, rtol=1e-4)


def test_a_shape_that_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="heads"):
        Shape(layers=1, hidden=64, intermediate=128, heads=5, key_value_heads=5)
