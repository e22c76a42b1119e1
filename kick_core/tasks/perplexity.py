"""Perplexity on running text, in the definition of GPTQ, SparseGPT and Wanda.

The whole text is tokenised once (one beginning-of-sequence token at its very start; the pocket text is many
documents, each begun and ended as in training) and cut into windows of min(2048, context) tokens without
overlap, the remainder dropped; exp of the mean negative log-likelihood over the predicted tokens, in float32.
This is *not* the word perplexity of lm-eval.
"""

from __future__ import annotations

from kick_core.pocket import data_path, split_documents
from kick_core.records import Example, Output
from kick_core.tasks import Judged, Task
from kick_core.tasks._pocket import require_pocket


def _load(data: str) -> tuple[Example, ...]:
    require_pocket(data)
    return (Example("text", tuple(split_documents(data_path("perplexity.txt").read_text(encoding="utf-8")))),)


def negative_log_likelihood(example: Example, output: Output) -> Judged:
    """Mean negative log-likelihood per predicted token of one window, in nats."""
    if not output.logprobs or not output.tokens:
        return Judged(None, "", "no answer")
    return Judged(-output.logprobs[0] / output.tokens)


TASK = Task(
    name="perplexity",
    title="Perplexity",
    about="exp of the mean negative log-likelihood per token of held-out running text (GPTQ/Wanda definition)",
    version=1,
    kind="perplexity",
    load=_load,
    scorers={"perplexity": negative_log_likelihood},
    headline="perplexity",
    aggregate="exp",
    higher_is_better=False,
)
