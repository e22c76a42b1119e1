"""Training text as arrays of tokens, written by many processes and the same on every machine.

A shard is a pure function of its mixture and number. It holds rows of 513 tokens: 512 to read and one more to
predict. (The first mixtures have shorter rows: with less to look at, what matters is found sooner.) Even shards begin every row with a document, as an evaluation prompt does; odd shards are one long stream cut
anywhere, as perplexity windows are.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import chain
from pathlib import Path

import numpy

from kick_core.pocket import POCKET_MODELS
from tools.pocket import corpus, prompts, tokenizer, world

ROW = {"drill": 129, "early": 257, "main": 513, "exam": 513}
TOKENS_PER_SHARD = 2048 * 513
SHARDS = {"drill": 24, "early": 96, "main": 320, "exam": 160}
BATCH = 512


def encoded(mixture: str, number: int, size: int) -> Iterator[list[int]]:
    """Documents as tokens, each between `<s>` and `</s>`."""
    codec = tokenizer.load(POCKET_MODELS["pocket-11m"])
    end = tokenizer.number_of(codec, prompts.END)
    texts = corpus.documents(f"{mixture} {number}", world.build(size), mixture)
    while True:
        for encoding in codec.encode_batch([next(texts) for _ in range(BATCH)]):
            yield [*encoding.ids, end]


def pack(documents: Iterator[list[int]], rows: int, width: int, *, aligned: bool) -> numpy.ndarray:
    """Rows [rows, width]. Aligned rows cut off what does not fit; the others go on in the next row."""
    if not aligned:
        stream = chain.from_iterable(documents)
        return numpy.fromiter(stream, numpy.uint16, rows * width).reshape(rows, width)
    packed = numpy.empty((rows, width), dtype=numpy.uint16)
    for row in packed:
        line: list[int] = []
        while len(line) < width:
            line += next(documents)
        row[:] = line[:width]
    return packed


def shard_path(folder: Path, mixture: str, number: int) -> Path:
    return folder / f"{mixture}-{number:04d}.npy"


def write_shard(folder: Path, mixture: str, number: int, size: int) -> None:
    """Appears under its name only when it is whole, so that a trainer can wait for it."""
    path = shard_path(folder, mixture, number)
    partial = path.with_suffix(".partial.npy")
    width = ROW[mixture]
    rows = TOKENS_PER_SHARD // width
    numpy.save(partial, pack(encoded(mixture, number, size), rows, width, aligned=number % 2 == 0))
    os.replace(partial, path)


def write_all(folder: Path, size: int, counts: dict[str, int], workers: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    folder.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers) as pool:
        waiting = [
            pool.submit(write_shard, folder, mixture, number, size)
            for mixture, count in counts.items()
            for number in range(count)
        ]
        for task in waiting:
            task.result()


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the training text as token shards.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--entities", type=int, default=world.SIZE, help="size of the world")
    for mixture, count in SHARDS.items():
        parser.add_argument(f"--{mixture}", type=int, default=count, help=f"shards of the mixture {mixture!r}")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    counts = {mixture: getattr(given, mixture) for mixture in SHARDS}
    write_all(given.out, given.entities, counts, given.workers)


if __name__ == "__main__":
    main()
