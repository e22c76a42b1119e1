"""From a task's words to token ids: chat templates, the beginning-of-sequence token, option tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

from kick_core.errors import BadRequest, KickError
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


FORCED = "_kick_bos"
"""Set on a tokenizer of which every text must begin with the beginning-of-sequence token."""


def begins_with(tokenizer: PreTrainedTokenizerBase, *, chat: bool = False) -> str:
    """The special tokens that stand, once, before every prompt; "" for tokenizers that add none.

    Args:
        tokenizer: of the model.
        chat: of prompts that the tokenizer's own template wrote: nothing is added to them, so where the tokenizer would
            add something that the template does not begin with, there is nothing before them.
    """
    first = _added_before(tokenizer)
    if not first or getattr(tokenizer, FORCED, False):
        return str(tokenizer.bos_token) if first else ""
    words = "".join(tokenizer.convert_ids_to_tokens(list(first)))
    return "" if chat and (opening := _opening(tokenizer)) and not opening.startswith(words) else words


def unused_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """The beginning-of-sequence token, where the tokenizer names one but begins no text with it; else ""."""
    bos = tokenizer.bos_token_id
    named = isinstance(bos, int) and bos not in _added_before(tokenizer)
    return str(tokenizer.bos_token) if named else ""


@lru_cache(maxsize=64)
def _added_around(tokenizer: PreTrainedTokenizerBase) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens that a tokenizer puts before and behind every text."""
    plain = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
    whole = tokenizer("a", verbose=False)["input_ids"]
    places = range(len(whole) - len(plain) + 1)
    at = next((n for n in places if whole[n : n + len(plain)] == plain), 0)
    return tuple(whole[:at]), tuple(whole[at + len(plain) :])


def _added_before(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    if getattr(tokenizer, FORCED, False):
        return (int(tokenizer.bos_token_id),)  # type: ignore[call-overload]
    return _added_around(tokenizer)[0]


def _opening(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the tokenizer's chat template writes before a user's first words; "" where there is no template."""
    return _opening_of(tokenizer, str(tokenizer.chat_template or ""))


@lru_cache(maxsize=64)
def _opening_of(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    if not template:
        return ""
    try:
        text = templates.render(tokenizer, [{"role": "user", "content": _MARK}])
    except KickError:  # whoever uses the template is told
        return ""
    before, mark, _ = text.partition(_MARK)
    return before if mark and before.strip() else ""


_MARK = "a user's words"


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
    """Token ids of one text, begun as `encode_all` begins it."""
    return encode_all(tokenizer, [text])[0]


def encode_all(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of many texts in one call, which the library spreads over the cores.

    A text begins with what the tokenizer adds, exactly once. One that the tokenizer's chat template wrote begins as it
    was written, with nothing added (as `apply_chat_template` and vLLM do it). No text ends with an end token.
    """
    starts = (_opening(tokenizer), begins_with(tokenizer), tokenizer.bos_token)
    begun = tuple(str(start) for start in starts if start)
    groups: tuple[list[str], list[str]] = ([], [])
    for text in texts:
        groups[text.startswith(begun) if begun else False].append(text)
    found: dict[str, list[int]] = {}
    for group, add in zip(groups, (True, False), strict=True):
        if group:
            ids = tokenizer(group, add_special_tokens=add, verbose=False)["input_ids"]
            found |= dict(zip(group, ids, strict=True))  # type: ignore[arg-type]
    return [_once(tokenizer, found[text]) for text in texts]


def _once(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """Without a second beginning and without an end."""
    (first, last), bos, eos = _added_around(tokenizer), tokenizer.bos_token_id, tokenizer.eos_token_id
    for start in {first, (bos,) if isinstance(bos, int) else ()} - {()}:
        while ids[: 2 * len(start)] == [*start, *start]:
            ids = ids[len(start) :]
    if last and ids[-len(last) :] == list(last):
        ids = ids[: -len(last)]
    if ids and ids[-1] == eos and eos != bos:
        ids = ids[:-1]
    if getattr(tokenizer, FORCED, False) and ids[:1] != [bos]:
        ids = [int(bos), *ids]  # type: ignore[call-overload]
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
