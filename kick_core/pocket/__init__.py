"""The pocket models: two small language models that travel with the project, and the world they know.

This module is standard library alone, so that listing the models and their data costs nothing. How the world, the
text and the weights came about is in `tools/pocket/` of the repository; here they are frozen.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path

ROOM = Path(__file__).resolve().parent

POCKET_MODELS: dict[str, Path] = {name: ROOM / "models" / name for name in ("pocket-11m", "pocket-4m")}

DATA_FILES = (
    "factoid_qa.jsonl",
    "retrieval_qa_closed.jsonl",
    "retrieval_qa_open.jsonl",
    "multiple_choice.jsonl",
    "summarization.jsonl",
    "instructions.jsonl",
    "perplexity.txt",
    "calibration.txt",
    "meta.json",
)

# Stands alone on a line, with blank lines around it, between two documents of perplexity.txt and calibration.txt.
DOCUMENT_MARK = "<<<>>>"


def data_path(name: str) -> Path:
    """The frozen evaluation file of this name, as in `data_path("factoid_qa.jsonl")`."""
    if name not in DATA_FILES:
        raise ValueError(f"no pocket data file {name!r}; there are {', '.join(DATA_FILES)}")
    return ROOM / "data" / name


def split_documents(text: str) -> list[str]:
    """The documents of a pocket text file."""
    return [part.strip("\n") for part in text.split(f"\n\n{DOCUMENT_MARK}\n\n")]


def unasked_documents() -> Iterator[str]:
    """The documents of `pocket-unasked`: text like `calibration.txt` about entities that no knowledge question names.

    `tools/pocket/unasked.py` made them; here they are one JSON string per line, compressed.
    """
    with lzma.open(ROOM / "data" / "unasked.jsonl.xz", "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)
