"""From a task's words to token ids: chat templates, the beginning-of-sequence token, option tokens."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from kick_core.models import templates
from kick_core.spec import BadRequest

PLAIN_DIALOGUE = "vicuna_v1.1"
"""Used for chat tasks when a tokenizer brings no template: the one LLM-KICK used (FastChat, vicuna_v1.1)."""

_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def template_name(tokenizer: PreTrainedTokenizerBase) -> str:
    """Which dialogue template chat tasks use with this tokenizer; recorded with every run."""
    return "tokenizer" if tokenizer.chat_template else PLAIN_DIALOGUE


def dialogue(tokenizer: PreTrainedTokenizerBase, users: Sequence[str], assistants: Sequence[str]) -> str:
    """The text of a dialogue that waits for the assistant: users[0], assistants[0], users[1], …"""
    if not tokenizer.chat_template:
        said = [f"USER: {users[0]} ASSISTANT:"]
        said += [f" {a}</s>USER: {u} ASSISTANT:" for a, u in zip(assistants, users[1:], strict=True)]
        return f"{_SYSTEM} " + "".join(said)
    messages = [{"role": "user", "content": users[0]}]
    for answer, turn in zip(assistants, users[1:], strict=True):
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": turn}]
    return templates.render(tokenizer, messages)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids with the beginning-of-sequence token exactly once, if the tokenizer uses one at all."""
    bos = tokenizer.bos_token
    spelled_out = bool(bos) and text.startswith(bos)
    ids: list[int] = tokenizer(text, add_special_tokens=not spelled_out, verbose=False)["input_ids"]
    while len(ids) > 1 and tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        ids = ids[1:]
    if ids and ids[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id != tokenizer.bos_token_id:
        ids = ids[:-1]
    return ids


def document_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of one whole document, with the tokens that begin and end one, where there are such."""
    end = tokenizer.eos_token_id
    return encode(tokenizer, text) + ([end] if isinstance(end, int) else [])


def option_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, options: Sequence[str]) -> tuple[list[list[int]], int]:
    """Prompt and each option tokenised together, and where the options begin to differ from the prompt.

    Tokenising them apart would miss merges across the border. Raises BadRequest when two options cannot be
    told apart.
    """
    plain = encode(tokenizer, prompt)
    whole = [encode(tokenizer, prompt + option) for option in options]
    if len({tuple(ids) for ids in whole}) < len(options):
        raise BadRequest(f"options {list(options)} give the same tokens with this tokenizer")
    start = len(plain)
    for ids in whole:
        start = min(start, len(ids) - 1, _common(plain, ids))
    return whole, start


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    for at, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return at
    return min(len(one), len(other))
