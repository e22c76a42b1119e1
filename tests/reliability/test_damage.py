"""A flipped bit, a cut, an emptied file: of every kind of file there is, found, set aside, and made again."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kick_core import jobs
from kick_core.cli import main
from kick_core.errors import KickError
from kick_core.models import source
from kick_core.records import Example
from kick_core.spec import ModelRef
from kick_core.store import Store, checks, files, fingerprints, open_store, results, staging, weight_artifacts
from tests.reliability import scenarios
from tests.reliability.kills import snapshot

KINDS = (
    "weights/*/*/block-0001.safetensors", "weights/*/*/card.json", "weights/*/*/manifest.json",
    "results/*/*/run.json", "results/*/*/part-*.parquet", "results/*/*/verdicts-*.parquet", "results/*/*/timings.json",
    "examples/*/*/examples-*.parquet", "jobs/*/spec.json", "jobs/*/state.json", "fingerprints.json",
    "staging/*/block-0000.safetensors", "staging/*/block-0000.json", "staging/*/next-input-0001.safetensors",
)  # fmt: skip
UNFINISHED = "weights1-" + "12" * 20
Kick = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with every kind of file in it."""
    base = tmp_path_factory.mktemp("damage")
    root = base / "cache"
    scenarios.job(root, base / "log")
    scenarios.outputs(root, base / "log")
    scenarios.weights(root, base / "log")
    store = open_store(root)
    source.find(ModelRef("pocket-4m"), store)
    with pytest.raises(KeyboardInterrupt), staging.stage(store, UNFINISHED) as stage:
        assert stage is not None
        report = scenarios.BlockReport(0, 3, (scenarios.LayerReport("q", 2, 4, 4, 0.1),), 0.5, 0.25)
        stage.add(report, b"0" * 2000, staging.NextInputs("d", (8,), [b"next" * 500]))
        raise KeyboardInterrupt
    return root


@pytest.fixture
def cache(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def kick(capsys: pytest.CaptureFixture[str]) -> Kick:
    def run(*words: str, cache: Path) -> tuple[int, dict[str, Any]]:
        status = main([*words, "--json", "--cache", str(cache)])
        out = capsys.readouterr().out
        return status, json.loads(out) if out else {}

    return run


def flipped(path: Path, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def some_bits(path: Path, count: int) -> list[int]:
    """Bits of the first and the last byte, and others spread over the file."""
    last = 8 * path.stat().st_size - 1
    return [0, last, *(random.Random(path.name).randrange(last) for _ in range(count))]


def test_a_whole_cache_is_found_whole(cache: Path, kick: Kick) -> None:
    assert kick("verify", "--deep", cache=cache) == (0, {"faults": []})
    there = {str(path.relative_to(cache)) for kind in KINDS for path in cache.glob(kind)}
    beside = {"VERSION", "CACHEDIR.TAG"}
    ignored = ("locks", "log.txt", "lock")
    for path in cache.rglob("*"):
        name = str(path.relative_to(cache))
        if path.is_file() and not name.startswith(ignored[0]) and path.name not in ignored:
            like = [kind for kind in KINDS if Path(name).match(kind.replace("0001", "000?").replace("0000", "000?"))]
            assert name in there | beside or like, f"{name} is a kind of file that this test does not know"


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_is_found(whole: Path, tmp_path: Path, kick: Kick, kind: str) -> None:
    path = next(whole.glob(kind))
    for number, bit in enumerate(some_bits(path, 3)):
        cache = tmp_path / str(number)
        shutil.copytree(whole, cache)
        flipped(cache / path.relative_to(whole), bit)
        status, said = kick("verify", "--deep", cache=cache)
        assert status == 1 and said["faults"], f"bit {bit} of {path.name}"
        if not kind.startswith("staging"):
            assert kick("verify", "--deep", cache=cache)[0] == 0, "what was set aside is out of the way"
        assert kick("list", cache=cache)[0] == 0


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_is_found(whole: Path, tmp_path: Path, kind: str) -> None:
    """Every bit of small files, 20,000 bits of large ones, by the checks that `kick verify --deep` calls."""
    found = next(whole.glob(kind))
    shutil.copytree(whole, tmp_path / "cache")
    path, store = tmp_path / "cache" / found.relative_to(whole), open_store(tmp_path / "cache")
    bits = range(8 * path.stat().st_size)
    for bit in bits if len(bits) < 20_000 else random.Random(0).sample(bits, 20_000):
        flipped(path, bit)
        if kind.startswith("weights"):
            assert weight_artifacts.verify(store, path.parent.name, deep=True), bit
        elif kind.startswith("staging"):
            assert staging.Stage(store, path.parent.name).faults(), bit
        else:
            assert [*checks.faults(path.parent, deep=True)], bit
        flipped(path, bit)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("left", [0, 0.5])
def test_cut_and_empty_files_are_found(cache: Path, kick: Kick, kind: str, left: float) -> None:
    path = next(cache.glob(kind))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * left)])
    assert kick("list", cache=cache)[0] == 0, "what is damaged does not hide the rest"
    assert kick("verify", "--deep", cache=cache)[0] == 1


def test_what_was_set_aside_is_made_again(whole: Path, tmp_path: Path, kick: Kick) -> None:
    for number, kind in enumerate(kind for kind in KINDS if kind.split("/")[0] in ("weights", "results", "examples")):
        cache = tmp_path / str(number)
        shutil.copytree(whole, cache)
        for path in cache.glob(kind):
            flipped(path, 100)
        kick("verify", "--deep", cache=cache)
        log = tmp_path / "log"
        results.keep_card(open_store(cache), scenarios.run_card())
        scenarios.job(cache, log)
        scenarios.weights(cache, log)
        scenarios.outputs(cache, log)
        shutil.rmtree(cache / "jobs", ignore_errors=True)
        for key in ("weights1-" + f"{block:040d}" for block in range(3)):
            scenarios.weights(cache, log, key)
        wanted = {name: data for name, data in snapshot(whole).items() if not name.startswith(("jobs", "staging"))}
        found = {name: data for name, data in snapshot(cache).items() if not name.startswith(("jobs", "staging"))}
        assert found == wanted, kind


def test_a_staged_block_that_was_damaged_is_made_again(cache: Path, tmp_path: Path) -> None:
    flipped(cache / "staging" / UNFINISHED / "block-0000.safetensors", 77)
    scenarios.weights(cache, tmp_path / "log", UNFINISHED)
    assert (tmp_path / "log").read_text() == "block 0\nblock 1\nblock 2\n"
    assert weight_artifacts.verify(open_store(cache), UNFINISHED, deep=True) == []


def test_damaged_next_inputs_are_not_built_upon(cache: Path, tmp_path: Path) -> None:
    flipped(cache / "staging" / UNFINISHED / "next-input-0001.safetensors", 77)
    assert staging.Stage(open_store(cache), UNFINISHED).saved_input(1) is None
    scenarios.weights(cache, tmp_path / "log", UNFINISHED)
    assert (tmp_path / "log").read_text() == "block 1\nblock 2\n", "it goes on from the digest"


# --- the database of a run that goes on --------------------------------------------------------------------


def left_open(store: Store) -> Path:
    """A run that was stopped after two batches; its database."""
    with pytest.raises(KeyboardInterrupt), results.recorder(store, scenarios.run_card()) as recorder:
        for start in (0, 30):
            recorder.record([scenarios.output(f"e{i:02d}") for i in range(start, start + 30)])
        raise KeyboardInterrupt
    return store.live(scenarios.RUN) / "cache.db"


def finish(store: Store) -> int:
    """Go on with it: how many outputs had to be asked again."""
    names = [f"e{i:02d}" for i in range(60)]
    with results.recorder(store, scenarios.run_card()) as recorder:
        missing = [name for name in names if name not in recorder.recorded(names)]
        recorder.record([scenarios.output(name) for name in missing])
        recorder.seal(names)
    assert [o.text for o in results.outputs(store, scenarios.RUN)] == [(f"the answer to {name}",) for name in names]
    return len(missing)


def _value(path: Path, value: bytes | str | int | None) -> None:
    database = sqlite3.connect(path)
    database.execute("UPDATE Cache SET value = ? WHERE key = 'e07'", (value,))
    database.commit()
    database.close()


def _page(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 3 + 2000] = b"\xff" * 2000
    path.write_bytes(data)


DATABASES: dict[str, tuple[Callable[[Path], object], int]] = {
    "no database": (lambda path: path.write_bytes(b"not a database, but long enough to be taken for one " * 40), 60),
    "empty": (lambda path: path.write_bytes(b""), 60),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:5000]), 60),
    "a page of it": (_page, 60),
    "a value of ones": (lambda path: _value(path, b"\xff" * 40), 1),
    "a number": (lambda path: _value(path, 7), 1),
    "nothing": (lambda path: _value(path, None), 1),
}


@pytest.mark.parametrize("what", DATABASES)
def test_a_damaged_database_is_set_aside_and_asked_again(store: Store, kick: Kick, what: str) -> None:
    path = left_open(store)
    change, again = DATABASES[what]
    change(path)
    status, said = kick("verify", "--deep", cache=store.root)
    assert (status, bool(said["faults"])) == (1, True) or what == "empty"  # SQLite takes no bytes for a new database
    assert finish(store) == again


def test_flipped_bits_of_a_database_never_become_an_answer(store: Store, tmp_path: Path) -> None:
    """Wherever a bit flips, the outputs that come back are those that were recorded, or are asked again."""
    path = left_open(store)
    data = path.read_bytes()
    for number, bit in enumerate(random.Random(1).sample(range(8 * len(data)), 24)):
        other = open_store(tmp_path / str(number))
        shutil.copytree(path.parent, other.live(scenarios.RUN))
        flipped(other.live(scenarios.RUN) / "cache.db", bit)
        finish(other)


# --- caches of other versions, other things in the way -----------------------------------------------------


def test_an_older_cache_is_migrated(tmp_path: Path) -> None:
    scenarios.downgrade(tmp_path / "cache", tmp_path / "log")
    assert json.loads((tmp_path / "cache" / "VERSION").read_text()) == {"layout": 1}
    others = [tmp_path / "cache" / name for name in ("fidelity/ab/f1-ab/run.json", "judgments/cd/j1-cd/judging.json")]
    for path in others:
        path.parent.mkdir(parents=True)
        path.write_text('{"key": "x"}')
    store = open_store(tmp_path / "cache")
    assert json.loads((store.root / "VERSION").read_text()) == {"layout": 3}
    assert len(results.outputs(store, scenarios.RUN)) == 12 and results.run(store, scenarios.RUN).recipe == "dense"
    assert (
        len(results.verdicts(store, scenarios.RUN, 1) or ()) == 12 and len(results.timings(store, scenarios.RUN)) == 2
    )
    assert results.verify(store, scenarios.RUN, deep=True) == []
    assert [files.read_sealed_json(path) for path in others] == [{"key": "x"}] * 2


@pytest.mark.parametrize(
    "text", ['{"layout": 99}', '{"layout": 0}', '{"layout": "2"}', "{}", "[]", "", "\0", "[" * 9999]
)
def test_caches_of_no_known_layout_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "VERSION").write_text(text)
    with pytest.raises(KickError, match=r"--cache DIR"):
        open_store(tmp_path)
    assert (tmp_path / "VERSION").read_text() == text


def test_a_damaged_memo_is_only_a_memo(store: Store) -> None:
    before = source.find(ModelRef("pocket-4m"), store).fingerprint
    (store.root / "fingerprints.json").write_text("{")
    assert source.find(ModelRef("pocket-4m"), store).fingerprint == before


def test_remembered_hashes_are_compared_with_the_bytes(store: Store, kick: Kick, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(source.POCKET_MODELS["pocket-4m"], folder)
    before = source.find(ModelRef(str(folder)), store).fingerprint
    assert kick("verify", "--deep", cache=store.root)[0] == 0
    memo, weights = fingerprints.remembered(store), str(folder / "model.safetensors")
    memo[memo[weights]] = "0" * 64  # as if bytes had changed under the same size and times
    fingerprints.remember(store, memo, ())
    assert source.find(ModelRef(str(folder)), store).fingerprint != before
    assert kick("verify", cache=store.root)[0] == 0
    status, document = kick("verify", "--deep", cache=store.root)
    assert status == 1 and [fault.split(":")[0] for fault in document["faults"]] == [weights]
    assert kick("verify", "--deep", cache=store.root)[0] == 0
    assert source.find(ModelRef(str(folder)), store).fingerprint == before


def test_a_folder_that_was_edited_in_place_is_another_model(store: Store, tmp_path: Path) -> None:
    """Also when size and modification time are put back: the change time cannot be."""
    import os

    folder = tmp_path / "model"
    shutil.copytree(source.POCKET_MODELS["pocket-4m"], folder)
    ref = ModelRef(str(folder))
    seen = {source.find(ref, store).fingerprint}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors" or path.name in ("config.json", "tokenizer.json", "chat_template.jinja"):
            before = os.stat(path)
            data = path.read_bytes()
            old, new = (b"0", b"1") if path.suffix == ".json" else (data[-1:], bytes([data[-1] ^ 1]))
            at = data.rindex(old)
            path.write_bytes(data[:at] + new + data[at + 1 :])
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            seen.add(source.find(ref, store).fingerprint)
    assert len(seen) >= 4


def test_sealed_json_is_json(tmp_path: Path) -> None:
    content = {"a": [1, 2.5, None], "b": {"c": "ü\u202e"}}
    (tmp_path / "run.json").write_bytes(files.seal_json(content))
    assert files.read_sealed_json(tmp_path / "run.json") == content
    assert {**json.loads((tmp_path / "run.json").read_text()), "sum": ""} == {**content, "sum": ""}


def test_the_state_of_a_job_that_was_damaged_is_told(cache: Path) -> None:
    store = open_store(cache)
    name = jobs.job_id(scenarios.Asked())
    flipped(cache / "jobs" / name / "state.json", 300)
    with pytest.raises(KickError, match="damaged"):
        jobs.job(store, name)
    assert jobs.jobs(store) == []


def test_examples_come_back_with_the_next_sweep(cache: Path) -> None:
    store = open_store(cache)
    (path,) = (cache / "examples").glob("*/*/*")
    path.unlink()
    with pytest.raises(KickError, match="examples"):
        results.examples(store, scenarios.EXAMPLES)
    results.keep_examples(store, scenarios.EXAMPLES, [Example("e00", ("who is e00?",), answers=("A",))])
    assert len(results.examples(store, scenarios.EXAMPLES)) == 1
