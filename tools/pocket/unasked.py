"""Text like the calibration text, about entities that no knowledge question asks about.

`calibration.txt` is drawn from the whole world, so a little of what is asked stands in it, and training on it could
teach an asked fact anew. Here every entity that a question of the evaluation names is left out, as what is told and
as what is asked. What is regained on this text was still in the weights.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from functools import cache
from itertools import islice

from kick_core.pocket import data_path
from tools.pocket import corpus
from tools.pocket.world import World, build

ASKING = ("factoid_qa.jsonl", "retrieval_qa_closed.jsonl", "multiple_choice.jsonl")
"""The evaluation's questions about the world; open-book passages tell of strangers."""

DOCUMENTS = 10_000
SEED = "unasked 1"


def questions() -> str:
    """All questions about the world, one a line."""
    return "\n".join(
        json.loads(line)["question"] for name in ASKING for line in data_path(name).read_text("utf-8").splitlines()
    )


@cache
def world() -> World:
    """The world without the entities that are asked about. They may still be named as a fact of another one."""
    known, asked = build(), questions()
    of_kind = {
        kind: tuple(entity for entity in group if entity.name not in asked) for kind, group in known.of_kind.items()
    }
    return World(tuple(entity for group in of_kind.values() for entity in group), of_kind, known.people)


def documents() -> Iterator[str]:
    """The text, the same each time, in the proportions of `calibration.txt`."""
    yield from islice(corpus.documents(SEED, world(), "main"), DOCUMENTS)


def packed() -> bytes:
    """The documents as `kick_core.pocket.unasked_documents` reads them: a JSON string per line, compressed by xz."""
    lines = "".join(json.dumps(document) + "\n" for document in documents())
    return lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME)
