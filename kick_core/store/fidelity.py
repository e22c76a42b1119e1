"""How closely a variant predicts what dense predicts: token by token, on the windows of running text.

    fidelity/ab/<key>/run.json                          what was read by whom (a RunCard)
    fidelity/ab/<key>/top-00000-00016-<sum>.safetensors  dense: its most likely tokens at every position
    fidelity/ab/<key>/part-00000-00016-<sum>.parquet     a variant: one row a position (below)
    fidelity/ab/<key>/text-00000-00064-<sum>.parquet     dense or a variant: one row for each text that dense wrote

Dense is kept once a model, 8 bytes a token id and log-probability (64 of them: 512 bytes a position), so that
variants can be compared with it one at a time, today or next year. A variant takes about 12 bytes a position. Both
are write-once; windows come in the task's order, and more of them are another part. The sum in a name is the file's
checksum. All of it can be computed again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kick_core.errors import KickError
from kick_core.records import RunCard
from kick_core.store import Store
from kick_core.store.files import joined, read_sealed_json, replace_file, seal_json
from kick_core.store.tables import checksum, write

_PART = re.compile(r"part-(\d+)-(\d+)-([0-9a-f]{16})\.parquet")
_TEXTS = re.compile(r"text-(\d+)-(\d+)-([0-9a-f]{16})\.parquet")
_TOP = re.compile(r"top-(\d+)-(\d+)-([0-9a-f]{16})\.safetensors")

POSITION = pa.schema(
    [
        ("window", pa.int32()),
        ("kl", pa.float32()),
        ("overlap", pa.float32()),
        ("same", pa.bool_()),
        ("logprob", pa.float32()),
    ]
)
"""Per predicted token: KL(dense || variant) in nats and the overlap of both distributions, over dense's most likely
tokens and the rest as one; whether both find the same token most likely; the variant's log-probability of the token
that came."""

TEXT = pa.schema(
    [
        ("example", pa.string()),
        ("turn", pa.int32()),
        ("tokens", pa.int32()),
        ("logprob", pa.float64()),
        ("until", pa.int32()),
    ]
)
"""Per text of dense: its tokens, their summed log-probability under the model of this key, and how many of them come
before that model's first choice is another."""

ROOM = "fidelity"

SENT = frozenset({"prompting", "shots", "fewshot_seed"})
"""Settings of runs whose prompts are not the examples' own."""

VERSION = "texts_version"
"""A setting of texts that were read after the prompts that were sent, where these are not the examples' own."""


def keep_card(store: Store, card: RunCard) -> None:
    """Say what a key stands for, before its first part."""
    path = store.folder(ROOM, card.key) / "run.json"
    if not path.exists():
        replace_file(path, seal_json(card.to_json()))


def cards(store: Store) -> list[RunCard]:
    """The cards of all that holds positions, dense's side or texts; damaged ones are left out (`kick verify` names
    them)."""
    readable = []
    for key in store.keys(ROOM):
        if parts(store, key) or tops(store, key) or texts(store, key):
            try:
                readable.append(RunCard.from_json(read_sealed_json(store.folder(ROOM, key) / "run.json")))
            except (OSError, KickError, ValueError, TypeError):
                continue
    return readable


def parts(store: Store, key: str) -> list[Path]:
    """A variant's parts that join up from window 0."""
    return joined(store.folder(ROOM, key).glob("part-*.parquet"), _PART)


def tops(store: Store, key: str) -> list[Path]:
    """Dense's parts that join up from window 0."""
    return joined(store.folder(ROOM, key).glob("top-*.safetensors"), _TOP)


def texts(store: Store, key: str) -> list[Path]:
    """The parts with readings of dense's texts that join up from example 0."""
    return joined(store.folder(ROOM, key).glob("text-*.parquet"), _TEXTS)


def windows(paths: Sequence[Path]) -> int:
    """How many windows (or examples) parts hold, from the first on."""
    return int(paths[-1].name.split("-")[2]) if paths else 0


def keep_part(store: Store, key: str, start: int, count: int, columns: dict[str, NDArray[np.generic]]) -> None:
    """Keep a variant's positions of windows `start` … `start + count - 1`."""
    _keep(store, key, f"part-{start:05d}-{start + count:05d}", "parquet", write(pa.table(columns, schema=POSITION)))


def keep_texts(store: Store, key: str, start: int, count: int, rows: list[dict[str, Any]]) -> None:
    """Keep readings of dense's texts on examples `start` … `start + count - 1`."""
    table = pa.Table.from_pylist(rows, schema=TEXT)
    _keep(store, key, f"text-{start:05d}-{start + count:05d}", "parquet", write(table))


def keep_top(store: Store, key: str, start: int, count: int, tensors: bytes) -> None:
    """Keep dense's most likely tokens of windows `start` … as a safetensors file's bytes."""
    _keep(store, key, f"top-{start:05d}-{start + count:05d}", "safetensors", tensors)


def _keep(store: Store, key: str, stem: str, suffix: str, data: bytes) -> None:
    name = f"{stem}-{checksum(data)}.{suffix}"
    replace_file(store.folder(ROOM, key) / name, data)


def positions(store: Store, key: str) -> pa.Table:
    """All positions of a variant, in order."""
    return _table(parts(store, key), key)


def readings(store: Store, key: str) -> pa.Table:
    """All readings of dense's texts under a key, in order."""
    return _table(texts(store, key), key)


def _table(paths: Sequence[Path], key: str) -> pa.Table:
    try:
        return pa.concat_tables([pq.read_table(path, page_checksum_verification=True) for path in paths])
    except (OSError, pa.ArrowException) as error:
        raise KickError(f"fidelity {key} is damaged ({error}): `kick verify --deep` sets it aside") from error
