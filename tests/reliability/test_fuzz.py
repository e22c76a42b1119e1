"""Every parser is given what nobody would write: it answers, or refuses with a KickError; nothing else comes out.

`KICK_FUZZ=20000` (as `make soak` sets it) tries more.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import zlib
from pathlib import Path
from shutil import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kick_core import jobs, keys, methods
from kick_core.errors import KickError
from kick_core.models import source
from kick_core.pocket import POCKET_MODELS
from kick_core.records import Card, Example, Output, RunCard, Verdict
from kick_core.spec import ModelRef, Recipe, parse
from kick_core.store import Store, checks, files, open_store, results, weight_artifacts
from kick_core.store.plaindisk import LIMIT, DamagedRow, PlainDisk
from tests.reliability import scenarios

MANY = settings(
    max_examples=int(os.environ.get("KICK_FUZZ", "120")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
WORDS = st.sampled_from(
    ["dense", "wanda", "rtn", "gptq", "magnitude", "@", "0.5", "2:4", "4bit", ",", "+", "group=", "64", "sym=", "false",
     "-1", "1e9", "nan", "=", ".", "..", "/", "\0", " ", "\n", "٣", "9" * 30, "seed=", "inf", "sparsegpt", "bits"]
)  # fmt: skip


@MANY
@given(st.lists(WORDS, max_size=9).map("".join) | st.text(max_size=30))
def test_recipes(text: str) -> None:
    try:
        found = parse(text)
        methods.resolve(found)
    except KickError as error:
        assert "\n" not in str(error)
        return
    assert parse(found.text) == found and isinstance(found, Recipe)
    keys.key("weights", methods.payload(found))


@MANY
@given(
    st.text(max_size=40) | st.lists(st.sampled_from(["weights1-", "ab", "..", "/", "\0", ".", "job1-"])).map("".join)
)
def test_keys_never_leave_the_cache(text: str) -> None:
    store = Store(Path("/cache"))
    for found in (lambda: store.folder("weights", text), lambda: jobs.place(store, text)):
        try:
            path = found()
        except KickError:
            continue
        assert os.path.normpath(path).startswith("/cache/") and "\0" not in str(path)


@MANY
@given(st.binary(max_size=200) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_sealed_json(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "state.json"
    path.write_bytes(data)
    with pytest.raises(KickError):
        files.read_sealed_json(path)
    assert checks._fault(path, True)


@MANY
@given(st.dictionaries(st.text(max_size=12), ANYTHING, min_size=1, max_size=5))
def test_what_was_sealed_comes_back(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "run.json"
    try:
        path.write_bytes(files.seal_json(content))
    except ValueError:
        return  # NaN is no JSON
    assert files.read_sealed_json(path) == content


@MANY
@given(st.binary(max_size=300) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_manifests(store: Store, data: bytes) -> None:
    folder = store.folder("weights", scenarios.KEY)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_bytes(data)
    assert weight_artifacts.verify(store, scenarios.KEY, deep=True)


@MANY
@given(st.binary(max_size=300) | ANYTHING.map(lambda value: json.dumps(value).encode()))
def test_cards(store: Store, data: bytes) -> None:
    folder = store.folder("weights", scenarios.KEY)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").write_bytes(data)
    with pytest.raises(KickError):
        weight_artifacts.card(store, scenarios.KEY)
    assert weight_artifacts.cards(store) == []


@MANY
@given(st.sampled_from([Card, RunCard, Output, Verdict, Example]), st.dictionaries(st.text(max_size=12), ANYTHING))
def test_records(kind: Any, data: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError)):
        kind.from_json(data)


@MANY
@given(
    st.integers() | st.none(),
    st.none() | st.text(max_size=20),
    st.none() | st.integers() | st.binary(max_size=200) | st.text(max_size=20)
    | ANYTHING.map(lambda value: zlib.compress(json.dumps(value).encode())),
)  # fmt: skip
def test_rows(tmp_path: Path, mode: int | None, filename: str | None, value: Any) -> None:
    disk = PlainDisk(str(tmp_path))
    try:
        found = disk.fetch(mode, filename, value, False)
    except DamagedRow:
        return
    assert (mode, filename) == (1, None) and json.loads(zlib.decompress(value)) == pytest.approx(found, nan_ok=True)


def test_a_bomb_in_a_row_stops_at_the_limit(tmp_path: Path) -> None:
    bomb = zlib.compress(b'"' + b"a" * (LIMIT + 10) + b'"')
    with pytest.raises(DamagedRow, match="larger than"):
        PlainDisk(str(tmp_path)).fetch(1, None, bomb, False)
    with pytest.raises(DamagedRow):
        PlainDisk(str(tmp_path)).fetch(1, None, zlib.compress(b"[" * 200_000), False)


@MANY
@given(st.binary(max_size=4000))
def test_databases(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "cache.db").write_bytes(data)
    for leftover in ("cache.db-wal", "cache.db-shm"):
        (tmp_path / leftover).unlink(missing_ok=True)
    assert checks.database_faults(tmp_path, deep=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("fuzz") / "model"
    made.mkdir()
    copy(POCKET_MODELS["pocket-4m"] / "config.json", made / "good.json")
    copy(next(POCKET_MODELS["pocket-4m"].glob("*.safetensors")), made / "model.safetensors")
    return made


@MANY
@given(
    st.dictionaries(
        st.sampled_from(["auto_map", "hidden_size", "num_hidden_layers", "attn_implementation", "text_config",
                         "quantization_config", "model_type", "n_positions", "vocab_size"]), ANYTHING, max_size=4,
    )
)  # fmt: skip
def test_model_configs(folder: Path, changes: dict[str, Any]) -> None:
    good = json.loads((folder / "good.json").read_text())
    (folder / "config.json").write_text(json.dumps(good | changes))
    try:
        found = source.find(ModelRef(str(folder)))
    except KickError as error:
        assert "\n" not in str(error)
        return
    assert "auto_map" not in found.config and found.context >= 0


@MANY
@given(st.dictionaries(st.text(max_size=8), ANYTHING | st.text(max_size=30), max_size=4) | ANYTHING)
def test_shard_indices(tmp_path: Path, weight_map: Any) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(KickError):
        source._weight_files(tmp_path)


@MANY
@given(st.binary(max_size=400))
def test_safetensors(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.safetensors").write_bytes(data)
    with contextlib.suppress(KickError):
        assert source._tensors(tmp_path / "a.safetensors") >= 0


@MANY
@given(ANYTHING)
def test_job_states(store: Store, data: Any) -> None:
    name = jobs.job_id(scenarios.Asked())
    (store.root / "jobs" / name).mkdir(parents=True, exist_ok=True)
    (store.root / "jobs" / name / "state.json").write_text(json.dumps(data))
    with pytest.raises(KickError):
        jobs.job(store, name)
    assert jobs.jobs(store) == []


@MANY
@given(st.text(max_size=60))
def test_layouts(tmp_path: Path, text: str) -> None:
    (tmp_path / "VERSION").write_text(text)
    with pytest.raises(KickError):
        open_store(tmp_path)


def test_planted_triggers_of_a_database_do_not_run(store: Store) -> None:
    """A schema is input too: a trigger that deletes is there, and nothing is lost that a reader would not notice."""
    with contextlib.suppress(KeyboardInterrupt), results.recorder(store, scenarios.run_card()) as recorder:
        recorder.record([scenarios.output("e00")])
        raise KeyboardInterrupt
    database = sqlite3.connect(store.live(scenarios.RUN) / "cache.db")
    database.execute("CREATE TRIGGER planted AFTER INSERT ON Cache BEGIN DELETE FROM Cache WHERE key = 'e00'; END")
    database.commit()
    database.close()
    with (
        pytest.raises(KickError, match="outputs are missing"),
        results.recorder(store, scenarios.run_card()) as recorder,
    ):
        assert recorder.recorded(["e00"]) == {"e00"}
        recorder.record([scenarios.output("e01")])
        recorder.seal(["e00", "e01"])
