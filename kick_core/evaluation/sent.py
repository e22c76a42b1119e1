"""Prompts exactly as they are sent, for people: every special token visible, every option's tokens apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from kick_core.evaluation import multiple_choice, prompting
from kick_core.evaluation.session import EvalSession
from kick_core.models.tokenization import dialogue, encode
from kick_core.records import Example, SentPrompt, SentPrompts
from kick_core.tasks import PromptSpec

COUNT = 3
"""Prompts of a run that are kept in words."""

_WINDOW = 128
"""Tokens kept of a window of running text: all of it would say no more."""


def sent_prompts(session: EvalSession, spec: PromptSpec, reason: str, examples: Sequence[Example]) -> SentPrompts:
    """The prompts of a task's first examples as the engine gets them.

    Args:
        session: the model that is evaluated.
        spec: how the task is put to it, in its settled form.
        reason: why it has this form.
        examples: of the task, in its order.
    """
    first = tuple(examples[:COUNT])
    decode = session.tokenizer.decode
    prompts = []
    for example, (ids, endings) in zip(first, _encoded(session, spec, first), strict=True):
        cut = spec.kind == "perplexity" and len(ids) > _WINDOW
        pieces = _pieces(session.tokenizer, ids[:_WINDOW] if cut else ids)
        options = tuple(tuple(str(decode([token])) for token in ending) for ending in endings)
        prompts.append(SentPrompt(example.id, (*pieces, ("…", False)) if cut else pieces, len(ids), options))
    return SentPrompts(spec.prompting, reason, session.context, tuple(prompts))


def _encoded(
    session: EvalSession, spec: PromptSpec, examples: Sequence[Example]
) -> list[tuple[list[int], list[list[int]]]]:
    """Each prompt's token ids and those of its options."""
    tokenizer = session.tokenizer
    match spec.kind:
        case "choose":
            return [(one.prompt, one.endings) for one in multiple_choice.shown(session, spec, examples)]
        case "dialogue":
            texts = [dialogue(tokenizer, example.prompt[:1], [], spec.template) for example in examples]
            return [(encode(tokenizer, text), []) for text in texts]
        case "perplexity":
            return [(list(example.meta.get("ids") or encode(tokenizer, example.prompt[0])), []) for example in examples]
        case _:
            room = session.context - spec.new_tokens
            return [(ids, []) for ids, _ in prompting.prompts(tokenizer, spec, examples, room)]


def _pieces(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> tuple[tuple[str, bool], ...]:
    """A prompt's text, special tokens apart from what is between them."""
    special = set(tokenizer.all_special_ids)
    runs = ((mark, list(part)) for mark, part in groupby(ids, lambda token: token in special))
    return tuple((str(tokenizer.decode(part, skip_special_tokens=False)), mark) for mark, part in runs)
