"""Perplexity on English prose that ships with the package: fluency of a real model without a network.

Presidential addresses and chapters of Moby-Dick (public domain), none of which is in the shipped calibration text. Many
models have read them, as they have read WikiText; what counts is how the number moves under compression.
"""

from __future__ import annotations

from dataclasses import replace

from kick_core.english import held_out_documents
from kick_core.records import Example
from kick_core.tasks import perplexity
from kick_core.tasks.base import PromptSpec


def _load(data: str) -> tuple[Example, ...]:
    return (Example("text", ("\n\n".join(held_out_documents()),), meta={"text": "English prose, held out"}),)


OFFICIAL = replace(
    perplexity.TASK,
    name="perplexity_english",
    title="Perplexity (English prose)",
    about="exp of the mean negative log-likelihood per token of shipped English prose (GPTQ/Wanda definition)",
    order=11,
    colour="#52606d",
    shipped=True,
    licence="public domain",
    in_paper=False,
    demo_examples=None,
    strict=PromptSpec("perplexity", _load),
)
