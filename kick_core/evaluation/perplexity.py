"""Perplexity on running text: per token in windows without overlap (GPTQ, SparseGPT, Wanda), per word (lm-eval)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from kick_core.errors import BadRequest
from kick_core.evaluation.session import EvalSession, PromptTarget, prompt_hash
from kick_core.keys import sha256_text
from kick_core.models.tokenization import document_ids, encode
from kick_core.records import Example, Output
from kick_core.tasks import PromptSpec


def windows(ask: EvalSession | PromptTarget, name: str, text: Example) -> tuple[Example, ...]:
    """Cut a text into windows, in random order; what is left at its end is dropped.

    In the text's order the first windows would be its first articles, which are no sample of it. One text is tokenised
    as a whole; several are each begun and ended with the model's own tokens.
    """
    documents = text.prompt
    if len(documents) == 1:
        ids = encode(ask.tokenizer, documents[0])
    else:
        ids = [token for document in documents for token in document_ids(ask.tokenizer, document)]
    count = len(ids) // ask.window
    if not count:
        raise BadRequest(f"the text of {name} has {len(ids)} tokens, fewer than one window of {ask.window}")
    facts = {"text": text.meta.get("text", "pocket"), "sha256": sha256_text("\n\n".join(documents))}
    cut = [ids[i * ask.window : (i + 1) * ask.window] for i in range(count)]
    made = [
        Example(f"window-{number:04d}", (str(ask.tokenizer.decode(part)),), meta={"ids": part, **facts})
        for number, part in enumerate(cut)
    ]
    random.Random("kick windows 1").shuffle(made)
    return tuple(made)


def place(window: Example) -> int:
    """The place of a window in its text, from 0."""
    return int(window.id.removeprefix("window-"))


def pages(text: Example) -> tuple[Example, ...]:
    """One example a page, in random order; `meta` counts the words and bytes of the page as it was."""
    facts = {"text": text.meta["text"], "sha256": sha256_text("\n\n".join(text.prompt))}
    made = [
        Example(f"page-{number:04d}", (page,), meta={**counts, **facts})
        for number, (page, counts) in enumerate(zip(text.prompt, text.meta["pages"], strict=True))
    ]
    random.Random("kick pages 1").shuffle(made)
    return tuple(made)


def facts(examples: Sequence[Example]) -> dict[str, Any]:
    """What a perplexity must be quoted with: which text, how many windows and tokens (pages and words) of it."""
    meta = examples[0].meta
    found = {"text": meta["text"], "text_sha256": meta["sha256"]}
    if "ids" in meta:
        return found | {"windows": len(examples), "tokens": sum(len(example.meta["ids"]) for example in examples)}
    return found | {"pages": len(examples), "words": sum(example.meta["words"] for example in examples)}


def tokens(ask: EvalSession, way: PromptSpec, wanted: Sequence[Example]) -> Iterator[list[Output]]:
    """The summed log-probability of every window's tokens but the first."""
    ids = torch.tensor([example.meta["ids"] for example in wanted])
    rows = max(1, ask.plan.tokens // 4 // ask.window)
    for start, sums in ask.engine.window_logprobs(ids, rows=rows, plan=ask.plan_for(way)):
        yield [
            _output(example, value, example.meta["ids"], len(example.meta["ids"]) - 1)
            for example, value in zip(wanted[start:], sums, strict=False)
        ]


def words(ask: EvalSession, way: PromptSpec, wanted: Sequence[Example]) -> Iterator[list[Output]]:
    """The summed log-probability of every page's tokens; `tokens` of its output are its words."""
    for example in wanted:
        ids = ask.tokenizer(example.prompt[0], add_special_tokens=False, verbose=False)["input_ids"]
        starts, parts = zip(*rolling(ids, _begin(ask), ask.context), strict=True)
        found = ask.engine.text_logprobs(starts, parts, plan=ask.plan_for(way), filler=ask.filler)
        total = sum(score.total for batch in found for score in batch.values())
        yield [_output(example, total, ids, example.meta["words"])]


def _begin(ask: EvalSession) -> int:
    """What stands before a page: the beginning-of-sequence token, else the end's, as in lm-eval."""
    begin = ask.tokenizer.bos_token_id
    return begin if isinstance(begin, int) else min(ask.ends, default=0)


def rolling(ids: Sequence[int], begin: int, context: int) -> list[tuple[list[int], list[int]]]:
    """Windows in which every token is predicted once: (tokens before, tokens predicted), `context` read at most.

    After the first window one token is repeated; the last window is moved back until it is full.
    """
    found = [([begin], list(ids[:context]))]
    for start in range(context, len(ids), context):
        stop = min(start + context, len(ids))
        found.append((list(ids[stop - context - 1 : start]), list(ids[start:stop])))
    return found


def _output(example: Example, value: float, ids: Sequence[int], count: int) -> Output:
    """`count` is what the mean is over."""
    finite = math.isfinite(value)
    return Output(
        example.id,
        prompt_hash(ids),
        logprobs=(value,) if finite else (),
        stop="scored" if finite else "not finite",
        tokens=count,
        prompt_tokens=len(ids),
    )
