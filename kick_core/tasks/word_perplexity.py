"""Perplexity per *word*, as lm-eval reports it for `wikitext`: another number than `perplexity`, and larger.

Each page is asked alone: detokenised, in rolling windows of the model's context in which every token is predicted
once, the first after the beginning-of-sequence token, those of a later window after one token of the window before
(the last one is moved back to be full). exp(-Σ log p / Σ words), the words counted in the page *before* it was
detokenised; bytes likewise (`kick evaluate --json`, details). Source: EleutherAI/lm-evaluation-harness, tasks/wikitext
and utils.get_rolling_token_windows. It is no task of LLM-KICK and stands in no preset.
"""

from __future__ import annotations

import re
from dataclasses import replace

from kick_core.pocket import data_path, split_documents
from kick_core.records import Example
from kick_core.tasks import perplexity
from kick_core.tasks.base import PromptSpec, Task
from kick_core.tasks.data.pocket import require_pocket

_REPLACED = (
    ("s '", "s'"),
    (" @-@ ", "-"), (" @,@ ", ","), (" @.@ ", "."),
    (" : ", ": "), (" ; ", "; "), (" . ", ". "), (" ! ", "! "), (" ? ", "? "), (" , ", ", "),
)  # fmt: skip
_PAIRED = (
    r"\(\s*([^\)]*?)\s*\)",
    r"\[\s*([^\]]*?)\s*\]",
    r"{\s*([^}]*?)\s*}",
    r"\"\s*([^\"]*?)\s*\"",
    r"'\s*([^']*?)\s*'",
)
_REPLACED_AFTER = (
    ("= = = =", "===="), ("= = =", "==="), ("= =", "=="), (" \u00b0 ", "\u00b0"),
    (" \n", "\n"), ("\n ", "\n"), (" N ", " 1 "), (" 's", "'s"),
)  # fmt: skip


def detokenised(page: str) -> str:
    """WikiText's page as running text, by lm-eval's rules in their order."""
    for old, new in _REPLACED:
        page = page.replace(old, new)
    for pattern in _PAIRED:
        page = re.sub(pattern, lambda found: found[0][0] + found[1] + found[0][-1], page)
    for old, new in _REPLACED_AFTER:
        page = page.replace(old, new)
    return page


def pages_of(text: str) -> list[str]:
    """The pages of the file: one begins at every heading of the first level."""
    pages: list[list[str]] = [[]]
    for line in text.split("\n"):
        heading = line.replace("= = =", "===").replace("= =", "==").strip()
        if heading.startswith("= ") and heading.endswith(" ="):
            pages.append([])
        pages[-1].append(line)
    return [page for page in map("\n".join, pages) if page.strip()]


def _load(data: str) -> tuple[Example, ...]:
    require_pocket(data)
    documents = split_documents(data_path("perplexity.txt").read_text(encoding="utf-8"))
    return (_pages(documents, documents, "pocket"),)


def _official(data: str) -> tuple[Example, ...]:
    found, kind = perplexity.official_rows(data)
    # the hub's rows are the file's lines with blank ones emptied
    pages = pages_of("".join(row or " \n" for row in found))
    return (_pages([detokenised(page) for page in pages], pages, kind),)


def _pages(shown: list[str], original: list[str], kind: str) -> Example:
    counts = [{"words": len(re.split(r"\s+", page)), "bytes": len(page.encode())} for page in original]
    return Example("pages", tuple(shown), meta={"text": kind, "pages": counts})


_ABOUT = "exp of the mean negative log-likelihood per word, page by page (lm-eval's wikitext)"

TASK = Task(
    name="word_perplexity",
    title="Perplexity per word",
    about=_ABOUT,
    version=1,
    licence="Apache-2.0",
    measures="fluency",
    order=80,
    colour="#95a5a6",
    noun="perplexity per word",
    listed=False,
    strict=PromptSpec("perplexity", _load, unit="word"),
    scorers={"word_perplexity": perplexity.negative_log_likelihood},
    headline="word_perplexity",
    aggregate="exp",
    higher_is_better=False,
)

OFFICIAL = replace(
    TASK,
    strict=PromptSpec("perplexity", _official, unit="word"),
)
