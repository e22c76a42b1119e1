"""A byte-level BPE of 4096 tokens, trained once on the project's own text, and its Hugging Face files.

The text for it comes from a smaller world of its own size, so that the tokenizer stays the same when the world of
the models grows. The post-processor puts `<s>` in front; the chat template does not, so that it stands there once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tools.pocket import corpus, names, prompts, values, world

VOCABULARY = 4096
WORLD_SIZE = 12_000
DOCUMENTS_OF_EACH_MIXTURE = {"drill": 5_000, "early": 15_000, "main": 60_000}
LONGEST = 512
FAVOUR = 800


def favoured_words() -> Iterator[str]:
    """Every word that can be an answer, often enough to become one token: options must differ in their first one."""
    pools = (*values.WORDS, "years", *(name for name in names.pools() if name != "stems"))
    for pool in pools:
        for word in values.pool(pool):
            yield f" {word}" * FAVOUR


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(prompts.SPECIAL_TOKENS), show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    known = world.build(WORLD_SIZE)
    texts = [
        text
        for mixture, count in DOCUMENTS_OF_EACH_MIXTURE.items()
        for text in islice(corpus.documents(f"tokenizer {mixture}", known, mixture), count)
    ]
    tokenizer.train_from_iterator(chain(texts, favoured_words()), trainer)
    begin = tokenizer.token_to_id(prompts.BEGIN)
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{prompts.BEGIN} $A", pair=f"{prompts.BEGIN} $A $B", special_tokens=[(prompts.BEGIN, begin)]
            ),
        ]
    )
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """`tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and `chat_template.jinja`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    roles = {"bos_token": prompts.BEGIN, "eos_token": prompts.END, "pad_token": prompts.PADDING}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **roles,
        "additional_special_tokens": [prompts.USER, prompts.ASSISTANT, prompts.END_OF_TURN],
        "clean_up_tokenization_spaces": False,
        "model_max_length": LONGEST,
        "padding_side": "left",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", roles)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(prompts.CHAT_TEMPLATE, encoding="utf-8")


def number_of(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token."""
    number = tokenizer.token_to_id(token)
    if number is None:
        raise ValueError(f"the tokenizer has no token {token!r}")
    return int(number)


def load(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))
