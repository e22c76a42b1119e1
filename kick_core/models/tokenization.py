"""From a task's words to token ids: chat templates, the beginning-of-sequence token, option tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from kick_core.errors import BadRequest
from kick_core.models import chat_template as templates
from kick_core.stats import common_prefix

PLAIN_DIALOGUE = "vicuna_v1.1"
"""Used for chat tasks when a tokenizer brings no template: the one LLM-KICK used (FastChat, vicuna_v1.1)."""

_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def template_name(tokenizer: PreTrainedTokenizerBase, wanted: str = "chat") -> str:
    """Which template a way of asking uses with this tokenizer; recorded with every run.

    "raw" is the prompt as it is; "chat" the tokenizer's own template, or Vicuna's where it has none.
    """
    if wanted != "chat":
        return wanted
    return "tokenizer" if tokenizer.chat_template else PLAIN_DIALOGUE


def begins_with(tokenizer: PreTrainedTokenizerBase) -> str:
    """The beginning-of-sequence token that stands, once, before every prompt; "" for tokenizers without one."""
    ids = encode(tokenizer, "a")
    return str(tokenizer.bos_token) if ids and ids[0] == tokenizer.bos_token_id else ""


def dialogue(
    tokenizer: PreTrainedTokenizerBase, users: Sequence[str], assistants: Sequence[str], template: str = "chat"
) -> str:
    """The text of a dialogue that waits for the assistant: users[0], assistants[0], users[1], …"""
    if template_name(tokenizer, template) == PLAIN_DIALOGUE:
        said = [f"USER: {users[0]} ASSISTANT:"]
        said += [f" {a}</s>USER: {u} ASSISTANT:" for a, u in zip(assistants, users[1:], strict=True)]
        return f"{_SYSTEM} " + "".join(said)
    messages = [{"role": "user", "content": users[0]}]
    for answer, turn in zip(assistants, users[1:], strict=True):
        messages += [{"role": "assistant", "content": answer}, {"role": "user", "content": turn}]
    return templates.render(tokenizer, messages)


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids with the beginning-of-sequence token exactly once, if the tokenizer uses one at all."""
    return encode_all(tokenizer, [text])[0]


def encode_all(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """`encode` for many texts in one call, which the library spreads over the cores."""
    bos = tokenizer.bos_token
    plain = [text for text in texts if not (bos and text.startswith(bos))]
    spelled_out = [text for text in texts if bos and text.startswith(bos)]
    found: dict[str, list[int]] = {}
    for group, add in ((plain, True), (spelled_out, False)):
        if group:
            ids = tokenizer(group, add_special_tokens=add, verbose=False)["input_ids"]
            found |= dict(zip(group, ids, strict=True))  # type: ignore[arg-type]
    return [_once(tokenizer, found[text]) for text in texts]


def _once(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Without a second beginning and without an end."""
    while len(ids) > 1 and tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        ids = ids[1:]
    if ids and ids[-1] == tokenizer.eos_token_id and tokenizer.eos_token_id != tokenizer.bos_token_id:
        ids = ids[:-1]
    return ids


def document_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of one whole document, with the tokens that begin and end one, where there are such."""
    return all_document_ids(tokenizer, [text])[0]


def all_document_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """`document_ids` for many documents in one call, which the library spreads over the cores."""
    end = [tokenizer.eos_token_id] if isinstance(tokenizer.eos_token_id, int) else []
    return [ids + end for ids in encode_all(tokenizer, texts)]


def option_ids(tokenizer: PreTrainedTokenizerBase, prompt: str, options: Sequence[str]) -> tuple[list[list[int]], int]:
    """Prompt and each option tokenised together, and where the options begin to differ from the prompt.

    Tokenising them apart would miss merges across the border. Raises BadRequest when two options cannot be
    told apart.
    """
    return _option_ids(tokenizer, prompt, tuple(options))


@lru_cache(maxsize=1024)  # a sweep asks the same questions under every recipe
def _option_ids(
    tokenizer: PreTrainedTokenizerBase, prompt: str, options: tuple[str, ...]
) -> tuple[list[list[int]], int]:
    plain, *whole = encode_all(tokenizer, [prompt, *(prompt + option for option in options)])
    if len({tuple(ids) for ids in whole}) < len(options):
        raise BadRequest(f"options {list(options)} give the same tokens with this tokenizer")
    start = len(plain)
    for ids in whole:
        start = min(start, len(ids) - 1, common_prefix(plain, ids))
    return whole, start


Options = tuple[list[int], list[list[int]]]


def all_option_ids(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], options: Sequence[Sequence[str]]
) -> list[Options]:
    """`option_ids` for many prompts, as (the prompt's tokens, each option's own tokens).

    How an option is split is seen on the prompt's last line, which few-shot prompts share; each prompt is then
    tokenised once, with its first option. Where the border does not look as on the last line, `option_ids` decides.
    """
    wholes = encode_all(tokenizer, [prompt + own[0] for prompt, own in zip(prompts, options, strict=True)])
    seen: dict[tuple[str, ...], tuple[list[list[int]], int]] = {}
    found = []
    for prompt, own, whole in zip(prompts, options, wholes, strict=True):
        line = prompt.rpartition("\n")[2]
        if (line, *own) not in seen:
            seen[line, *own] = option_ids(tokenizer, line, own)
        short, start = seen[line, *own]
        border = short[0][max(0, start - 1) :]  # the last token of the line, and the first option
        if start and whole[-len(border) :] == border:
            found.append((whole[: 1 - len(border)], [ids[start:] for ids in short]))
        else:
            exact, start = option_ids(tokenizer, prompt, own)
            found.append((exact[0][:start], [ids[start:] for ids in exact]))
    return found
