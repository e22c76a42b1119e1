"""Outputs of evaluations: recorded durably batch by batch, then sealed into Parquet that the pages read.

    live/<run>/                        diskcache while the run goes on (this host only)
    results/ab/<run>/run.json          what was asked of whom
    results/ab/<run>/part-00000-00200-<sum>.parquet   outputs of examples 0 … 199, write-once
    results/ab/<run>/verdicts-v1-00200-<sum>.parquet  derived: scorers of version 1 over 200 outputs
    results/ab/<run>/prompts.json      of a dense run: its first prompts as they are sent
    results/ab/<run>/timings.json      how long each sitting took; apart, so that parts stay reproducible
    examples/ab/<key>/examples-<sum>.parquet          the questions themselves

Examples come in one fixed random order, so any prefix is an unbiased sample and a run can be extended: 64
outputs today and 200 tomorrow are one run with two parts. The sum in a file's name is its checksum; JSON ends with its
own.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kick_core import keys
from kick_core.errors import KickError
from kick_core.records import Example, Output, RunCard, SentPrompts, Verdict
from kick_core.store import Store, checks, fault_injection
from kick_core.store.files import Damaged, joined, read_sealed_json, replace_file, seal_json
from kick_core.store.live import not_written, open_live
from kick_core.store.locks import locked
from kick_core.store.plaindisk import DamagedRow
from kick_core.store.tables import checksum, columns_of, parquet, read_columns, read_table, write

_PART = re.compile(r"part-(\d+)-(\d+)-([0-9a-f]{16})\.parquet")

_OUTPUT = pa.schema(
    [
        ("example", pa.string()),
        ("prompt_hash", pa.string()),
        ("text", pa.list_(pa.string())),
        ("logprobs", pa.list_(pa.float64())),
        ("stop", pa.string()),
        ("tokens", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("ids", pa.list_(pa.list_(pa.int32()))),
        ("argmax", pa.string()),
        ("top", pa.float64()),
        ("entropy", pa.float64()),
        ("shots_used", pa.int32()),
    ]
)
_IMPORTED = _OUTPUT.append(pa.field("metrics", pa.list_(pa.float64())))
"""Outputs of another program, with its scores."""
_EXAMPLE = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.list_(pa.string())),
        ("choices", pa.list_(pa.string())),
        ("answers", pa.list_(pa.string())),
        ("meta", pa.string()),
    ]
)
_VERDICT = pa.schema(
    [
        ("example", pa.string()),
        ("scorer", pa.string()),
        ("score", pa.float64()),
        ("extracted", pa.string()),
        ("why", pa.string()),
    ]
)


# --- reading -----------------------------------------------------------------------------------------------


def runs(store: Store) -> list[RunCard]:
    """The cards of all runs with at least one sealed part; `kick verify` names those that cannot be read."""
    cards = []
    for key in store.keys("results"):
        with suppress(KickError):
            if parts(store, key):
                cards.append(run(store, key))
    return cards


def run(store: Store, key: str) -> RunCard:
    """The card of a run. Raises KickError when there is none."""
    path = store.folder("results", key) / "run.json"
    try:
        return RunCard.from_json(read_sealed_json(path))
    except FileNotFoundError:
        raise KickError(f"no run {key!r} in {store.root}: `kick list` shows what is there") from None
    except (ValueError, TypeError) as error:
        raise Damaged(f"the run card {path} is damaged ({error}): `kick verify` sets it aside") from error


def parts(store: Store, key: str) -> list[Path]:
    """The sealed parts that join up from example 0, in order."""
    return joined(store.folder("results", key).glob("part-*.parquet"), _PART)


def measured(store: Store, key: str) -> int:
    """How many examples, from the first on, have sealed outputs."""
    chain = parts(store, key)
    return int(_PART.fullmatch(chain[-1].name)[2]) if chain else 0  # type: ignore[index]


def outputs(store: Store, key: str, *, ids: bool = True) -> list[Output]:
    """All sealed outputs of a run, in the task's order; without their token ids where nobody looks at them."""
    columns = None if ids else [name for name in _OUTPUT.names if name != "ids"]
    return [one for path in parts(store, key) for one in Output.from_columns(read_columns(path, columns))]


def examples_files(store: Store, key: str) -> list[Path]:
    """Where a task's questions are; where a pack left them out, what stands for them until they come."""
    folder = store.folder("examples", key)
    return sorted(folder.glob("examples-*.parquet")) or sorted(folder.glob("outline-*.parquet"))


def examples(store: Store, key: str, ids: Iterable[str] | None = None, *, first: int | None = None) -> list[Example]:
    """The questions of a task's data, all, those of some ids or the `first` ones, in the task's order."""
    table = example_columns(store, key).slice(0, first)
    if ids is not None:
        table = table.filter(pc.is_in(table["id"], pa.array(ids, pa.string())))
    columns = columns_of(table)
    return Example.from_columns({**columns, "meta": [json.loads(meta) for meta in columns["meta"]]})


def examples_key(task: str, examples: Iterable[Example]) -> str:
    """The key that a run's card names its questions by: their content's hash."""
    digest, fields = hashlib.sha256(), list(Example.__dataclass_fields__)
    for example in examples:
        digest.update(keys.canonical({name: getattr(example, name) for name in fields}).encode())
    return keys.key("examples", {"task": task, "content": digest.hexdigest()})


def example_columns(store: Store, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """The columns of a task's questions, all or some, as they are stored (`meta` in JSON), in the task's order."""
    paths = examples_files(store, key)
    if not paths:
        raise KickError(f"the examples {key!r} are not in {store.root}")
    return read_table(paths[0], columns)


def verdict_file(store: Store, key: str, version: int) -> Path | None:
    """The verdicts over everything measured so far, if they were derived with this scorer version."""
    files = sorted(store.folder("results", key).glob(f"verdicts-v{version}-{measured(store, key):05d}-*.parquet"))
    return files[0] if files else None


def verdicts(store: Store, key: str, version: int) -> list[Verdict] | None:
    """The stored verdicts, or None when they must be derived (again)."""
    path = verdict_file(store, key, version)
    return Verdict.from_columns(read_columns(path)) if path else None


def prompts(store: Store, key: str) -> SentPrompts | None:
    """The first prompts of a dense run as they were sent; None for other runs and those of earlier versions."""
    try:
        return SentPrompts.from_json(read_sealed_json(store.folder("results", key) / "prompts.json"))
    except (OSError, Damaged, KeyError, TypeError, ValueError):
        return None  # they can be made again from the examples


@dataclass(frozen=True, slots=True)
class Timing:
    """One sitting of a run: examples asked, tokens read and written, seconds, and the machine that it was on."""

    examples: int
    tokens: int
    seconds: float
    host: str = ""


def timings(store: Store, key: str) -> list[Timing]:
    """The sittings of a run, oldest first."""
    path = store.folder("results", key) / "timings.json"
    try:
        return [Timing(**row) for row in read_sealed_json(path)["sittings"]]
    except (OSError, Damaged, KeyError, TypeError):
        return []  # timings are a comfort: without them a run is as good


# --- writing -----------------------------------------------------------------------------------------------


def keep_examples(store: Store, key: str, examples: Sequence[Example], *, outline: bool = False) -> None:
    """Keep a task's questions beside the outputs, so that pages and scorers never need the data set again.

    Args:
        store: The cache.
        key: The examples' key.
        examples: All of them, in the task's order.
        outline: They only stand for questions that a pack left out, and give way to them.
    """
    folder, stem = store.folder("examples", key), "outline" if outline else "examples"
    if list(folder.glob("examples-*.parquet")) or list(folder.glob(f"{stem}-*.parquet")):
        return
    columns = {name: [getattr(example, name) for example in examples] for name in _EXAMPLE.names}
    columns["meta"] = [json.dumps(meta, sort_keys=True) for meta in columns["meta"]]
    data = write(pa.table(columns, schema=_EXAMPLE))
    replace_file(folder / f"{stem}-{checksum(data)}.parquet", data)


def keep_verdicts(store: Store, key: str, version: int, verdicts: Sequence[Verdict]) -> None:
    """Keep derived verdicts; older derivations of the same run are dropped."""
    folder = store.folder("results", key)
    data = parquet([verdict.to_json() for verdict in verdicts], _VERDICT)
    name = f"verdicts-v{version}-{measured(store, key):05d}-{checksum(data)}.parquet"
    replace_file(folder / name, data)
    for path in folder.glob("verdicts-*.parquet"):
        if path.name != name:
            path.unlink(missing_ok=True)


def keep_prompts(store: Store, key: str, sent: SentPrompts) -> None:
    """Keep the first prompts of a run."""
    replace_file(store.folder("results", key) / "prompts.json", seal_json(sent.to_json()))


def add_timing(store: Store, key: str, sitting: Timing) -> None:
    """Note how long a sitting took."""
    rows = [asdict(timing) for timing in (*timings(store, key), sitting)]
    replace_file(store.folder("results", key) / "timings.json", seal_json({"sittings": rows}))


def keep_foreign(
    store: Store,
    card: RunCard,
    outputs: Mapping[str, Any],
    verdicts: Mapping[str, Mapping[str, Any]],
    version: int,
    sittings: Sequence[Timing],
) -> bool:
    """Keep a run that was measured elsewhere, where this cache has no outputs of it.

    Args:
        store: The cache.
        card: The run's card.
        outputs: Columns of its outputs, from the task's first example on.
        verdicts: Scorer -> columns of its verdicts on the same examples.
        version: Of the scorers.
        sittings: How long it took.

    Returns:
        Whether it was kept; False where there are outputs already, which stay.
    """
    ids = outputs["example"]
    with locked(store.lock_path(card.key)):
        if parts(store, card.key):
            return False
        keep_card(store, card)
        folder = store.folder("results", card.key)
        replace_file(folder / "timings.json", seal_json({"sittings": [asdict(one) for one in sittings]}))
        tables = [
            pa.table({"example": ids, "scorer": [name] * len(ids), **columns}, schema=_VERDICT)
            for name, columns in verdicts.items()
        ]
        if tables:
            data = write(pa.concat_tables(tables))
            replace_file(folder / f"verdicts-v{version}-{len(ids):05d}-{checksum(data)}.parquet", data)
        data = write(pa.table(dict(outputs), schema=_OUTPUT))  # last: a run without a part is none
        replace_file(folder / f"part-00000-{len(ids):05d}-{checksum(data)}.parquet", data)
    return True


@dataclass(frozen=True, slots=True)
class Recorder:
    """A run that goes on: outputs already there, and a place for new ones."""

    store: Store
    key: str
    cache: Any
    sealed: int

    def recorded(self, examples: Sequence[str]) -> set[str]:
        """Which of the wanted examples have an output recorded in this unfinished run."""
        return {example for example in examples if self._get(example) is not None}

    def _get(self, example: str) -> Output | None:
        try:
            row = self.cache.get(example)
            return None if row is None else Output.from_json(row)
        except (DamagedRow, ValueError, TypeError, AttributeError, sqlite3.DatabaseError):
            return None

    def record(self, outputs: Sequence[Output]) -> None:
        """Keep a batch durably, all of it or none."""
        try:
            with self.cache.transact():
                for output in outputs:
                    self.cache.set(output.example, output.to_json())
                    fault_injection.point("output set", writes=True)
        except (sqlite3.DatabaseError, OSError) as error:
            size = sum(len(json.dumps(output.to_json())) for output in outputs)
            raise not_written(Path(self.cache.directory), size, error) from error
        fault_injection.point("batch kept")

    def seal(self, order: Sequence[str]) -> None:
        """Write the outputs of examples `order` (those after the sealed ones) as one part."""
        rows = [self._get(example) for example in order]
        if missing := [example for example, row in zip(order, rows, strict=True) if row is None]:
            raise KickError(f"run {self.key}: {len(missing)} outputs are missing, first {missing[0]!r}")
        imported = any(row.metrics for row in rows if row)
        data = parquet([row.to_json() for row in rows if row], _IMPORTED if imported else _OUTPUT)
        name = f"part-{self.sealed:05d}-{self.sealed + len(order):05d}-{checksum(data)}.parquet"
        replace_file(self.store.folder("results", self.key) / name, data)


@contextmanager
def recorder(store: Store, card: RunCard) -> Iterator[Recorder]:
    """Take the right to add to a run. On a clean leave the live database goes; after a kill it stays."""
    with locked(store.lock_path(card.key)):
        keep_card(store, card)
        cache = open_live(store, card.key)
        try:
            yield Recorder(store, card.key, cache, measured(store, card.key))
        finally:
            cache.close()
        fault_injection.point("run left")
        shutil.rmtree(store.live(card.key), ignore_errors=True)


def keep_card(store: Store, card: RunCard) -> None:
    """Write a run's card where there is none, or a damaged one: it says nothing that its caller does not know."""
    try:
        run(store, card.key)
    except KickError:
        path = store.folder("results", card.key) / "run.json"
        replace_file(path, seal_json(card.to_json()))


def drop_live(store: Store, key: str) -> bool:
    """Remove an output database that a kill left behind after all that it holds was sealed. The run must be locked."""
    live = store.live(key)
    recorded = checks.database_keys(live)
    if recorded is None or not recorded <= {output.example for output in outputs(store, key)}:
        return False
    shutil.rmtree(live)
    return True


def verify(store: Store, key: str, *, deep: bool) -> list[str]:
    """What is wrong with a run's files, in words. `deep` reads every byte."""
    return [f"{key}: {fault}" for _, fault in checks.faults(store.folder("results", key), deep=deep)]


def set_damage_aside(store: Store, key: str) -> list[str]:
    """Move damaged files to quarantine; what they held is derived or asked again on demand. Says what was moved."""
    damaged = [path for path, _ in checks.faults(store.folder("results", key), deep=True)]
    moved = [f"{key}: {path.name} was set aside in {checks.set_aside(store, path)}" for path in damaged]
    if any(path.name.startswith("part-") for path in damaged):
        for path in store.folder("results", key).glob("verdicts-*.parquet"):
            path.unlink(missing_ok=True)
    return moved
