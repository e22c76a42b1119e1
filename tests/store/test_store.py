"""The store: whole or absent, resumable, one maker at a time, and no pickle anywhere."""

import errno
import json
import multiprocessing
import os
import pickle
import signal
import sqlite3
import time

import pytest

from kick_core.errors import BadRequest, KickError
from kick_core.provenance import now
from kick_core.records import BlockReport, Card, Example, LayerReport, Output, RunCard, Verdict
from kick_core.store import files, locks, open_store, results, staging, weight_artifacts
from kick_core.store.plaindisk import DamagedRow, open_cache

KEY = "weights1-" + "ab" * 20
RUN = "run1-" + "cd" * 20


def card(key=KEY, **changes):
    facts = dict(
        key=key, model="m", fingerprint="f", recipe="magnitude@0.5", resolved={}, calibration=None, dtype="float32",
        device="cpu", blocks=3, weights=8, zeros=4, bytes=2, dense_bytes=32, seconds=1.0, created=now(),
        versions={}, layers=(LayerReport("0.q", 2, 4, 4),),
    )  # fmt: skip
    return Card(**(facts | changes))


def run_card(**changes):
    facts = dict(
        key=RUN, model="m", fingerprint="f", recipe="dense", weights="dense1-00", task="factoid_qa", task_version=1,
        protocol="strict", data="pocket", examples="examples1-00", total=5, settings={}, plan="p", dtype="float32",
        device="cpu", created=now(), versions={},
    )  # fmt: skip
    return RunCard(**(facts | changes))


def report(block):
    return BlockReport(block, 3, (LayerReport("q", 2, 4, 4, 0.1),), 0.5, 0.25)


def following(saved=b"next"):
    return staging.NextInputs("d", (8,), [saved])


def make(store, blocks=3, key=KEY):
    with staging.stage(store, key) as stage:
        if stage is None:
            return
        for block in range(len(stage.reports()), blocks):
            stage.add(report(block), b"block %d" % block, following() if block + 1 < blocks else None)
        stage.seal(card(key))


def test_an_artifact_is_absent_until_it_is_whole(store):
    with staging.stage(store, KEY) as stage:
        stage.add(report(0), b"block 0", following())
        assert not weight_artifacts.has(store, KEY)
    make(store)
    assert weight_artifacts.has(store, KEY) and weight_artifacts.card(store, KEY).layers[0].name == "0.q"
    assert weight_artifacts.verify(store, KEY, deep=True) == []
    names = sorted(path.name for path in store.folder("weights", KEY).iterdir())
    assert names == [*(f"block-000{b}.safetensors" for b in range(3)), "card.json", "manifest.json"]


def test_a_stopped_make_goes_on_at_its_block(store):
    with pytest.raises(KeyboardInterrupt), staging.stage(store, KEY) as stage:
        for block in range(2):
            stage.add(report(block), b"block %d" % block, following(b"next %d" % (block + 1)))
        raise KeyboardInterrupt
    with staging.stage(store, KEY) as stage:
        found = stage.reports()
        assert [r.block for r in found] == [0, 1] and all(r.resumed for r in found) and found[0].loss == 0.25
        assert stage.saved_input(2)[0] == 2 and stage.saved_input(2)[1].read_bytes() == b"next 2"
        assert stage.saved_input(1) is None, "only the last is kept"
        assert stage.next_inputs(1) == staging.NextInputs("d", (8,))


def _make_and_die(root, block):
    original = staging.Stage.add
    staging.Stage.add = lambda self, r, *rest: (
        os.kill(os.getpid(), signal.SIGKILL) if r.block == block else original(self, r, *rest)
    )
    make(open_store(root))


@pytest.mark.parametrize("block", range(3))
def test_killed_at_any_block_then_resumed(store, block):
    child = multiprocessing.get_context("spawn").Process(target=_make_and_die, args=(store.root, block))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL and not weight_artifacts.has(store, KEY)
    make(store)
    found = [weight_artifacts.block_path(store, KEY, b).read_bytes() for b in range(3)]
    assert found == [b"block 0", b"block 1", b"block 2"]


def _make_slowly(root, log):
    store = open_store(root)
    with staging.stage(store, KEY) as stage:
        if stage is not None:
            with open(log, "a") as file:
                file.write("made\n")
            time.sleep(0.3)
            for block in range(3):
                stage.add(report(block), b"x")
            stage.seal(card())


def test_rival_processes_make_it_once(store, tmp_path):
    log = tmp_path / "log"
    context = multiprocessing.get_context("spawn")
    rivals = [context.Process(target=_make_slowly, args=(store.root, log)) for _ in range(3)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()
    assert log.read_text() == "made\n" and weight_artifacts.has(store, KEY)


def test_damage_is_found_and_set_aside(store):
    make(store)
    path = weight_artifacts.block_path(store, KEY, 1)
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)
    assert weight_artifacts.verify(store, KEY, deep=False) == []
    assert "checksum" in weight_artifacts.verify(store, KEY, deep=True)[0]
    path.write_bytes(b"")
    assert "0 bytes" in weight_artifacts.verify(store, KEY, deep=False)[0]
    weight_artifacts.quarantine(store, KEY)
    assert not weight_artifacts.has(store, KEY)
    make(store)
    assert weight_artifacts.verify(store, KEY, deep=True) == []


def test_no_space_left_says_how_much_and_loses_nothing(store, monkeypatch):
    with staging.stage(store, KEY) as stage:
        stage.add(report(0), b"block 0")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", full)
        with pytest.raises(KickError, match=r"\d+ bytes are needed and [\d,]+ are free"):
            make(store)
    assert not list(stage.folder.glob(".*"))  # no half file is left over
    make(store)
    assert weight_artifacts.verify(store, KEY, deep=True) == []
    with pytest.raises(KickError, match="no space left"):
        files.require_space(store.root, 1 << 60)


def test_caches_of_another_layout_are_refused(tmp_path):
    (tmp_path / "VERSION").write_text(json.dumps({"layout": 99}))
    with pytest.raises(KickError, match="layout 99"):
        open_store(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(KickError, match="cannot be opened"):
        open_store(tmp_path / "file")


def test_keys_are_no_paths(store):
    for key in ("../../etc/passwd", "weights1-../x", "/etc", "..", ""):
        with pytest.raises(BadRequest):
            store.folder("weights", key)


def outputs(*numbers):
    return [Output(f"e{n}", "h", (f"answer {n}",), stop="eos", tokens=2) for n in numbers]


def test_outputs_are_kept_in_the_tasks_order_and_can_be_extended(store):
    with results.recorder(store, run_card()) as recorder:
        recorder.record(outputs(1, 0))
        recorder.seal(["e0", "e1"])
    assert results.outputs(store, RUN) == outputs(0, 1) and results.measured(store, RUN) == 2
    with results.recorder(store, run_card()) as recorder:
        assert recorder.sealed == 2
        recorder.record(outputs(2))
        recorder.seal(["e2"])
    assert results.outputs(store, RUN) == outputs(0, 1, 2)
    assert results.verify(store, RUN, deep=True) == []
    assert not store.live(RUN).exists()


def test_a_killed_run_keeps_its_batches(store):
    with pytest.raises(KeyboardInterrupt), results.recorder(store, run_card()) as recorder:
        recorder.record(outputs(0, 1))
        raise KeyboardInterrupt
    assert results.measured(store, RUN) == 0
    with results.recorder(store, run_card()) as recorder:
        assert recorder.recorded(["e0", "e1", "e2"]) == {"e0", "e1"}
        with pytest.raises(KickError, match="e2"):
            recorder.seal(["e0", "e1", "e2"])
        recorder.record(outputs(2))
        recorder.seal(["e0", "e1", "e2"])
    assert results.measured(store, RUN) == 3


def test_sealed_parts_are_the_same_bytes_however_they_came_about(store, tmp_path):
    other = open_store(tmp_path / "other")
    for where, batches in ((store, [(0, 1, 2)]), (other, [(2,), (1,), (0,)])):
        with results.recorder(where, run_card()) as recorder:
            for batch in batches:
                recorder.record(outputs(*batch))
            recorder.seal(["e0", "e1", "e2"])
    assert results.parts(store, RUN)[0].name == results.parts(other, RUN)[0].name


def test_a_flipped_bit_in_outputs_is_found(store):
    with results.recorder(store, run_card()) as recorder:
        recorder.record(outputs(0))
        recorder.seal(["e0"])
    (part,) = results.parts(store, RUN)
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 4
    part.write_bytes(data)
    assert "checksum" in results.verify(store, RUN, deep=True)[0]
    assert results.set_damage_aside(store, RUN) and results.measured(store, RUN) == 0


def test_examples_and_verdicts_come_back(store):
    found = [Example("a", ("p", "q"), ("x", "y"), ("A",), {"facts": [["one"]], "n": 1})]
    results.keep_examples(store, "examples1-00", found)
    assert results.examples(store, "examples1-00")[0].meta == {"facts": [["one"]], "n": 1}
    with results.recorder(store, run_card()) as recorder:
        recorder.record(outputs(0))
        recorder.seal(["e0"])
    verdicts = [Verdict("e0", "s", 1.0, "x", "right"), Verdict("e0", "t", None)]
    results.keep_verdicts(store, RUN, 1, verdicts)
    assert results.verdicts(store, RUN, 1) == verdicts and results.verdicts(store, RUN, 2) is None


def test_planted_pickles_never_run(tmp_path):
    """CVE-2025-69872: diskcache unpickles what it reads. Ours refuses rows that it did not write."""
    proof = tmp_path / "proof"

    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(proof),))

    cache = open_cache(tmp_path / "live")
    cache.set("key", {"a": 1})
    cache.close()
    database = sqlite3.connect(tmp_path / "live" / "cache.db")
    database.execute("UPDATE Cache SET mode = 4, value = ?", (pickle.dumps(Payload()),))
    database.execute(
        "INSERT INTO Cache (key, raw, store_time, access_time, access_count, size, mode, value) "
        "VALUES (?, 0, 0, 0, 0, 0, 4, ?)",
        (pickle.dumps(Payload()), pickle.dumps(Payload())),
    )
    database.execute("UPDATE Cache SET filename = '../../outside' WHERE raw = 0")
    database.commit()
    database.close()
    cache = open_cache(tmp_path / "live")
    with pytest.raises(DamagedRow):
        cache["key"]
    with pytest.raises(DamagedRow):
        list(cache)
    cache.close()
    assert not proof.exists()


def test_a_live_file_that_is_no_database_is_started_anew(store):
    live = store.live(RUN)
    live.mkdir(parents=True)
    (live / "cache.db").write_bytes(b"not a database, but long enough to be taken for one " * 40)
    with results.recorder(store, run_card()) as recorder:
        assert recorder.recorded(["e0"]) == set()
        recorder.record(outputs(0))
        recorder.seal(["e0"])
    assert results.measured(store, RUN) == 1


def test_locks_of_the_kernel(tmp_path):
    path = tmp_path / "locks" / "one.lock"
    first, second = locks.acquire(path, shared=True), locks.acquire(path, shared=True)
    assert first is not None and second is not None
    assert locks.acquire(path) is None
    os.close(first)
    assert locks.acquire(path) is None, "one still holds it"
    os.close(second)
    alone = locks.acquire(path)
    assert alone is not None and locks.acquire(path, shared=True) is None
    os.close(alone)
