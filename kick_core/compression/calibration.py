"""Calibration tokens: full windows without padding, the same for the same seed.

A source is read as one stream of tokens and cut into disjoint windows, of which a seeded sample is taken.
Padding would enter the statistics of every method, so there is none: a source that is too short is refused
with the number of windows that it would give.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from kick_core.english import calibration_documents
from kick_core.errors import BadRequest, KickError
from kick_core.models.source import context_of, settled
from kick_core.models.tokenization import all_document_ids
from kick_core.pocket import POCKET_MODELS, data_path, split_documents, unasked_documents
from kick_core.spec import Calibration

HUB = {
    "c4": ("allenai/c4", "1588ec454efa1a09f29cd18ddd04fe05fc8653a2", "en/c4-train.00000-of-01024.json.gz"),
    "wikitext2": (
        "Salesforce/wikitext",
        "b08601e04326c79dfdd32d625aee71d232d685c3",
        "wikitext-2-raw-v1/train-00000-of-00001.parquet",
    ),
}
"""Repository, revision and file: the first C4 shard and the WikiText-2 train split, as the papers' codes use them."""

LARGEST = 1 << 29
"""Bytes of a text or JSONL file: it is read and tokenised as a whole."""

_STREAM = 8
"""Documents of a hub source are read until the stream holds this many times the tokens that are asked for."""


_TOGETHER = 64
"""Documents tokenised in one call, which the library spreads over the cores."""

FEWEST = 8
"""Windows below which a text is refused where no number was named: nobody calibrates on less unawares."""


def window_length(calibration: Calibration, context: int) -> int:
    """Tokens in one window: what was asked for, else the model's context, at most 2048 (the papers' length)."""
    if calibration.length is None:
        return min(2048, context)
    if calibration.length > context:
        raise BadRequest(
            f"calibration windows of {calibration.length} tokens do not fit the model's context of {context}: "
            f"use --length {context} or less"
        )
    return calibration.length


def windows_for(model: PreTrainedModel, calibration: Calibration) -> Tensor:
    """Calibration tokens for an open model, read with its own tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(model.config.name_or_path, trust_remote_code=False)
    place = model.config.name_or_path
    pocket = next((name for name, folder in POCKET_MODELS.items() if place == str(folder)), place)
    return token_windows(settled(calibration, pocket), tokenizer, context_of(model.config))


def token_windows(calibration: Calibration, tokenizer: PreTrainedTokenizerBase, context: int) -> Tensor:
    """Token ids [windows, length], int64.

    Raises BadRequest for an unknown or too short source, KickError for one that cannot be read.
    """
    length = window_length(calibration, context)
    if calibration.source.endswith((".safetensors", ".npy")):
        return _token_file(Path(calibration.source), calibration.most_windows, length, len(tokenizer))
    needed = calibration.most_windows * length
    stream = _stream(calibration.source, tokenizer, needed * (_STREAM if calibration.source in HUB else 1 << 20))
    available = len(stream) // length
    count = calibration.windows or min(calibration.most_windows, max(available, FEWEST))
    if available < count:
        few = f"use --windows {available} or " if available and calibration.windows else "give a longer text or "
        raise BadRequest(
            f"calibration source {calibration.source!r} gives {available} windows of {length} tokens, "
            f"{count} are needed: {few}a shorter --length"
        )
    chosen = sorted(random.Random(calibration.seed).sample(range(available), count))
    rows = [stream[i * length : (i + 1) * length] for i in chosen]
    return torch.from_numpy(np.stack(rows).astype(np.int64))


def digest(ids: Tensor) -> str:
    """SHA-256 over shape and ids: what a calibration is, for the key."""
    data = ids.to(torch.int64).contiguous().numpy()
    return hashlib.sha256(f"{tuple(data.shape)}".encode() + data.tobytes()).hexdigest()


def _stream(source: str, tokenizer: PreTrainedTokenizerBase, enough: int) -> np.ndarray:
    parts, count = [np.empty(0, dtype=np.int64)], 0
    documents = _documents(source)
    while count < enough and (texts := list(islice(documents, _TOGETHER))):
        for ids in all_document_ids(tokenizer, texts):
            if count < enough:
                parts.append(np.asarray(ids, dtype=np.int64))
                count += len(ids)
    return np.concatenate(parts)


def _documents(source: str) -> Iterator[str]:
    if source == "pocket":
        yield from split_documents(data_path("calibration.txt").read_text(encoding="utf-8"))
    elif source == "pocket-unasked":
        yield from unasked_documents()
    elif source == "english":
        yield from calibration_documents()
    elif source in HUB:
        yield from _hub(source)
    else:
        path = Path(source).expanduser()
        if not path.is_file():
            raise BadRequest(
                f"calibration source {source!r} is no file here; known: pocket, pocket-unasked, english, "
                f"{', '.join(HUB)}, a .txt or .jsonl file, or a .safetensors or .npy file of token ids"
            )
        yield from _local(path)


def _local(path: Path) -> Iterator[str]:
    if (size := path.stat().st_size) > LARGEST:
        raise BadRequest(f"calibration file {path} has {size:,} bytes, at most {LARGEST:,} are read: give a part of it")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise KickError(f"calibration file {path} cannot be read as UTF-8 text ({error})") from error
    if not text.strip():
        raise BadRequest(f"calibration file {path} is empty: give a text or JSONL file with running text")
    if path.suffix != ".jsonl":
        yield text
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _text_of(path, number, line)


def _text_of(path: Path, number: int, line: str) -> str:
    try:
        text = json.loads(line)["text"]
        if not isinstance(text, str):
            raise TypeError(f"its text is {type(text).__name__}")
        text.encode()  # JSON can spell halves of characters, which no tokenizer takes
        return text
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = str(error).splitlines()[0][:200]
        raise BadRequest(f'{path}, line {number}: a JSON object with "text" is expected ({reason})') from error


def _hub(source: str) -> Iterator[str]:
    from datasets import load_dataset

    repository, revision, file = HUB[source]
    try:
        rows = load_dataset(repository, data_files=file, revision=revision, split="train", streaming=True)
        for row in rows:
            if row["text"].strip():
                yield row["text"]
    except (OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise KickError(f"calibration source {source!r} could not be read from the hub ({reason})") from error


def _token_file(path: Path, windows: int, length: int, vocabulary: int) -> Tensor:
    if not path.is_file():
        raise BadRequest(f"calibration file {path} is not there")
    try:
        if path.suffix == ".npy":
            # mapped: a header that promises more than there is is found out before anything is allocated
            array = np.load(path, allow_pickle=False, mmap_mode="r")
        else:
            from safetensors.numpy import load_file

            (array,) = load_file(path).values()
        shape, kind = array.shape, array.dtype.kind
    except Exception as error:
        raise KickError(f"calibration file {path} holds no single array of token ids ({error})") from error
    if len(shape) != 2 or kind not in "iu" or 0 in shape:
        raise BadRequest(
            f"calibration file {path}: whole numbers [windows, length] are expected, not {array.dtype}{shape}"
        )
    ids = torch.from_numpy(array[:windows, :length].astype(np.int64))
    if int(ids.min()) < 0 or int(ids.max()) >= vocabulary:
        raise BadRequest(
            f"calibration file {path}: ids from {int(ids.min())} to {int(ids.max())}, vocabulary {vocabulary}"
        )
    return ids
