"""Perplexity on running text, in windows without overlap (GPTQ, SparseGPT, Wanda)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from kick_core import engine
from kick_core.evaluation.asker import Asker, prompt_hash
from kick_core.keys import sha256_text
from kick_core.prompts import document_ids, encode
from kick_core.records import Example, Output
from kick_core.spec import BadRequest
from kick_core.tasks import Asking


def windows(ask: Asker, name: str, text: Example) -> tuple[Example, ...]:
    """Cut a text into windows; what is left at its end is dropped.

    One text is tokenised as a whole; several are each begun and ended with the model's own tokens.
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
    return tuple(
        Example(f"window-{number:04d}", (str(ask.tokenizer.decode(part)),), meta={"ids": part, **facts})
        for number, part in enumerate(cut)
    )


def facts(examples: Sequence[Example]) -> dict[str, Any]:
    """What a perplexity must be quoted with: which text, how many windows and tokens of it."""
    meta = examples[0].meta
    tokens = sum(len(example.meta["ids"]) for example in examples)
    return {"text": meta["text"], "text_sha256": meta["sha256"], "windows": len(examples), "tokens": tokens}


def perplexity(ask: Asker, way: Asking, wanted: Sequence[Example]) -> Iterator[list[Output]]:
    """The summed log-probability of every window's tokens but the first."""
    ids = torch.tensor([example.meta["ids"] for example in wanted])
    rows = max(1, ask.plan.tokens // 4 // ask.window)
    for start, sums in engine.window_logprobs(ask.model, ids, rows=rows):
        yield [_output(example, value) for example, value in zip(wanted[start:], sums, strict=False)]


def _output(example: Example, value: float) -> Output:
    ids = example.meta["ids"]
    finite = math.isfinite(value)
    return Output(
        example.id,
        prompt_hash(ids),
        logprobs=(value,) if finite else (),
        stop="scored" if finite else "not finite",
        tokens=len(ids) - 1,
        prompt_tokens=len(ids),
    )
