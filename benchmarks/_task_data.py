"""The paper's tasks in their official layouts, made of the English prose that ships: lengths as the originals have."""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from kick_core.english import calibration_documents
from kick_core.tasks.data.mmlu import DISCIPLINES

STORIES, SHORTEST, LONGEST = 72, 450, 3650
"""Stories and their tokens: prompts of 500 to 3,800 with what stands around them."""
QUESTIONS, WINDOWS, WINDOW = 14042, 157, 2048
_SHOTS = 5
_ANSWERS = "ABCD"


def make(folder: Path, model: Path, scale: float = 1.0) -> Path:
    """Write `mmlu/`, `cnn_dailymail/` and `wikitext-2/` into a folder.

    Args:
        folder: where they go.
        model: a folder with the tokenizer that lengths are counted with.
        scale: below 1 for a small benchmark: share of questions, stories' length and windows.
    """
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(model, trust_remote_code=False)
    draw, pieces = random.Random(17), _pieces()
    _stories(folder, tokenizer, draw, pieces, scale)
    _mmlu(folder, draw, pieces, scale)
    text = folder / "wikitext-2" / "test.txt"
    text.parent.mkdir(parents=True, exist_ok=True)
    text.write_text(_text(tokenizer, pieces, int(WINDOWS * scale + 1) * WINDOW), encoding="utf-8")
    return folder


def _pieces() -> Iterator[str]:
    """Words of the documents, again and again."""
    words = " ".join(calibration_documents()).split()
    while True:
        yield from words


def _text(tokenizer: PreTrainedTokenizerBase, pieces: Iterator[str], tokens: int) -> str:
    """A text of so many tokens, or a few more."""
    words: list[str] = []
    count = 0
    while count < tokens:
        some = [next(pieces) for _ in range(max(16, (tokens - count) // 2))]
        count += len(tokenizer(" " + " ".join(some), add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]
        words += some
    return " ".join(words)


def _stories(
    folder: Path, tokenizer: PreTrainedTokenizerBase, draw: random.Random, pieces: Iterator[str], scale: float
) -> None:
    place = folder / "cnn_dailymail" / "small"
    place.mkdir(parents=True, exist_ok=True)
    for number in range(STORIES):
        length = min(LONGEST, max(SHORTEST, round(draw.lognormvariate(7.05, 0.55)))) * scale
        text = _text(tokenizer, pieces, int(length) - 64)
        (place / f"story-{number:03d}.story").write_text(f"{text}\n\n@highlight\n\nNothing happened\n")


def _mmlu(folder: Path, draw: random.Random, pieces: Iterator[str], scale: float) -> None:
    subjects = [subject for names in DISCIPLINES.values() for subject in names.split()]
    each = -(-int(QUESTIONS * scale) // len(subjects))

    def words(least: int, most: int) -> str:
        return " ".join(next(pieces) for _ in range(draw.randint(least, most)))

    for split, count in (("dev", _SHOTS), ("test", each)):
        (folder / "mmlu" / split).mkdir(parents=True, exist_ok=True)
        for subject in subjects:
            with open(folder / "mmlu" / split / f"{subject}_{split}.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(
                    (words(15, 60), *(words(2, 12) for _ in _ANSWERS), draw.choice(_ANSWERS)) for _ in range(count)
                )
