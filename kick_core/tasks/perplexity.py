"""Perplexity on running text, in the definition of GPTQ, SparseGPT and Wanda.

The whole text is tokenised once (one beginning-of-sequence token at its very start; the pocket text is many
documents, each begun and ended as in training) and cut into windows of min(2048, context) tokens without
overlap, the remainder dropped; exp of the mean negative log-likelihood over the predicted tokens, in float32.
This is *not* the word perplexity of lm-eval. Official data: WikiText-2's test rows joined by two line breaks; from a
file, its lines are the rows, as on the hub. Which of the two WikiTexts it is (raw, or the one with <unk>) stands
beside the number, with the text's SHA-256.
"""

from __future__ import annotations

import io
from dataclasses import replace

from kick_core.errors import BadRequest
from kick_core.pocket import data_path, split_documents
from kick_core.records import Example, Output
from kick_core.tasks.base import PromptSpec, Score, Task
from kick_core.tasks.data.hub import Hub, find, folder, hub_rows, text_of
from kick_core.tasks.data.pocket import require_pocket


def _load(data: str) -> tuple[Example, ...]:
    require_pocket(data)
    return (Example("text", tuple(split_documents(data_path("perplexity.txt").read_text(encoding="utf-8")))),)


HUB = Hub("Salesforce/wikitext", "b08601e04326c79dfdd32d625aee71d232d685c3", "wikitext-2-raw-v1")
_FILES = ("wikitext-2-raw/wiki.test.raw", "wikitext-2/wiki.test.tokens", "wikitext-2/test.txt", "wiki.test.raw")


def rows_of(text: str) -> list[str]:
    """The rows that the hub's set makes of the file: one a line, its line break kept, blank ones empty."""
    return [line if line.strip() else "" for line in io.StringIO(text)]


def official_rows(data: str) -> tuple[list[str], str]:
    """The rows of WikiText-2's test split, and which of the two WikiTexts it is."""
    if (root := folder(data)) is None:
        rows = [str(row["text"]) for row in hub_rows(HUB, "test", "text")]
    else:
        rows = rows_of(text_of(find(root, "WikiText-2 test split", *_FILES)))
    if not any(map(str.strip, rows)):
        raise BadRequest("the test split of WikiText-2 holds no text")
    return rows, "wikitext-2 with <unk>" if any("<unk>" in row for row in rows) else "wikitext-2-raw"


def _official(data: str) -> tuple[Example, ...]:
    rows, kind = official_rows(data)
    return (Example("text", ("\n\n".join(rows),), meta={"text": kind}),)


def negative_log_likelihood(example: Example, output: Output) -> Score:
    """Mean negative log-likelihood in nats, per predicted token of one window or per word of one page."""
    if not output.logprobs or not output.tokens:
        return Score(None, "", "no answer")
    return Score(-output.logprobs[0] / output.tokens)


TASK = Task(
    name="perplexity",
    title="Perplexity",
    about="exp of the mean negative log-likelihood per token of held-out running text (GPTQ/Wanda definition)",
    version=2,
    licence="Apache-2.0",
    measures="fluency",
    order=10,
    colour="#7f8c8d",
    noun="perplexity",
    in_paper=True,
    demo_examples=16,
    strict=PromptSpec("perplexity", _load),
    scorers={"perplexity": negative_log_likelihood},
    headline="perplexity",
    aggregate="exp",
    higher_is_better=False,
)

OFFICIAL = replace(
    TASK,
    about="exp of the mean negative log-likelihood per token of WikiText-2's test split (GPTQ/Wanda definition)",
    licence="CC-BY-SA-3.0",
    strict=PromptSpec("perplexity", _official),
)
