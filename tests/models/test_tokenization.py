"""Prompts begin as `apply_chat_template` and vLLM begin them, whatever the tokenizer's style."""

import base64
import importlib.util
import json

import pytest
import sentencepiece
from tokenizers import Tokenizer, processors
from transformers import AutoTokenizer

from kick_core.cli import main
from kick_core.errors import BadRequest, KickError
from kick_core.models.loading import open_tokenizer
from kick_core.models.source import find
from kick_core.models.tokenization import begins_with, dialogue, document_ids, encode, option_ids, unused_bos
from kick_core.pocket import POCKET_MODELS
from kick_core.spec import ModelRef
from tests.tiny import save_tiny

_CHAT = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}<|assistant|>"
STYLES = {  # what the tokenizer adds before and behind, the token it calls bos, what its template writes first
    "one bos, in the template too": (["<s>"], [], "<s>", "<s>"),
    "one bos, no template's": (["<s>"], [], "<s>", ""),
    "two tokens": (["[GATE]", "<start>"], [], None, "[GATE]<start>"),
    "two tokens, no template's": (["[GATE]", "<start>"], [], None, ""),
    "named, not added": ([], [], "<s>", "<s>"),
    "named, nowhere used": ([], [], "<s>", ""),
    "none": ([], [], None, ""),
    "an end, too": (["<s>"], ["</s>"], "<s>", "<s>"),
}


@pytest.fixture
def folder(request, tmp_path):
    before, behind, bos, opening = STYLES[request.param]
    folder = save_tiny(tmp_path / "model")
    made = Tokenizer.from_file(str(POCKET_MODELS["pocket-11m"] / "tokenizer.json"))
    made.add_special_tokens(["[GATE]", "<start>"])
    special = [(token, made.token_to_id(token)) for token in (*before, *behind)]
    single = " ".join([*before, "$A", *behind])
    made.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    made.save(str(folder / "tokenizer.json"))
    for name in ("chat_template.jinja", "special_tokens_map.json"):
        (folder / name).unlink(missing_ok=True)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "pad_token": "<pad>"}
    config |= {"chat_template": opening + _CHAT} | ({"bos_token": bos} if bos else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("folder", STYLES, indirect=True)
def test_prompts_begin_as_transformers_and_vllm_begin_them(folder):
    tokenizer = open_tokenizer(find(ModelRef(str(folder))))
    theirs = AutoTokenizer.from_pretrained(folder)
    chat = [{"role": "user", "content": "Who made it?"}]
    ids = encode(tokenizer, dialogue(tokenizer, ["Who made it?"], []))
    assert ids == theirs.apply_chat_template(chat, add_generation_prompt=True, tokenize=True, return_dict=False)
    # vLLM: a chat's text is tokenised without special tokens, any other text with them
    assert ids == theirs(dialogue(tokenizer, ["Who made it?"], []), add_special_tokens=False)["input_ids"]
    raw, end = theirs("Question: who?")["input_ids"], [theirs.eos_token_id]
    assert encode(tokenizer, "Question: who?") == (raw[:-1] if raw[-1:] == end else raw)
    first = begins_with(tokenizer)
    assert encode(tokenizer, f"{first}Question: who?") == encode(tokenizer, "Question: who?")
    assert document_ids(tokenizer, "a text") == [*encode(tokenizer, "a text"), *end]
    whole, start = option_ids(tokenizer, "Question: who? Answer:", (" A", " B"))
    assert [own[:start] for own in whole] == [encode(tokenizer, "Question: who? Answer:")] * 2


@pytest.mark.parametrize("folder", ["named, not added", "named, nowhere used"], indirect=True)
def test_a_bos_that_is_named_but_not_added_is_reported_and_can_be_forced(folder, tmp_path, capsys):
    plain, forced = (open_tokenizer(find(ModelRef(str(folder))), bos) for bos in ("auto", "always"))
    assert unused_bos(plain) == "<s>" and unused_bos(forced) == ""
    for text in ("Question: who?", "<s>Question: who?", dialogue(forced, ["Who made it?"], [])):
        ids = encode(forced, text)
        assert ids[0] == forced.bos_token_id and ids.count(forced.bos_token_id) == 1
    assert encode(forced, "Question: who?")[1:] == encode(plain, "Question: who?")
    runs = []
    for words in ([], ["--bos", "always"]):
        command = ["evaluate", str(folder), "dense", "--task", "factoid_qa", "--data", "pocket", "--limit", "2"]
        assert main([*command, "--json", "--cache", str(tmp_path / "cache"), *words]) == 0
        told = capsys.readouterr()
        assert ("names <s> as the beginning of a text but does not add it" in told.err) == (not words)
        runs.append(json.loads(told.out)["results"][0]["run"])
    assert runs[0] != runs[1]


@pytest.mark.parametrize("folder", ["none"], indirect=True)
def test_a_bos_that_is_not_named_cannot_be_forced(folder):
    with pytest.raises(BadRequest, match="names no beginning-of-sequence token"):
        open_tokenizer(find(ModelRef(str(folder))), "always")


def test_a_tokenizer_without_a_fast_file_names_what_to_install_and_then_works(tmp_path, monkeypatch):
    """The file's kind is seen in the file: SentencePiece and tiktoken share the name tokenizer.model."""
    folder = save_tiny(tmp_path / "model")
    for path in (*folder.glob("*token*"), *folder.glob("*.jinja")):
        path.unlink()
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"line {n} of a short text about numbers like {n * n}" for n in range(200)))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=100, model_type="bpe", minloglevel=2
    )
    tokenizer = open_tokenizer(find(ModelRef(str(folder))))
    assert tokenizer.decode(tokenizer("a short text", add_special_tokens=False)["input_ids"]) == "a short text"
    there = importlib.util.find_spec
    missing = {"sentencepiece", "tiktoken"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in missing else there(name, *a))
    (folder / "tokenizer.model").write_bytes(b"\x0a" + (folder / "tokenizer.model").read_bytes()[:99])  # damaged
    with pytest.raises(KickError, match=r"tokenizer\.model is a SentencePiece file.*pip install sentencepiece"):
        open_tokenizer(find(ModelRef(str(folder))))
    ranks = "".join(f"{base64.b64encode(bytes([n])).decode()} {n}\n" for n in range(256))
    (folder / "tokenizer.model").write_text(ranks[: len(ranks) // 2] + "!")
    with pytest.raises(KickError, match=r"tokenizer\.model is a tiktoken file.*pip install tiktoken"):
        open_tokenizer(find(ModelRef(str(folder))))
