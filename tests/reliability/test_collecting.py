"""`kick gc` while others work: what is in use, pinned or wanted stays; outputs always stay."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kick_core import jobs
from kick_core.cli import main
from kick_core.store import Store, files, results, staging, weight_artifacts
from tests.jobs.test_jobs import WORKER, Request, ended, until
from tests.reliability import scenarios
from tests.reliability.kills import forked

Kick = Callable[..., dict[str, Any]]
KEYS = [f"weights1-{number:040d}" for number in range(3)]


@pytest.fixture
def filled(store: Store, tmp_path: Path) -> Store:
    for key in KEYS:
        scenarios.weights(store.root, tmp_path / "log", key)
    scenarios.outputs(store.root, tmp_path / "log")
    return store


@pytest.fixture
def kick(store: Store, capsys: pytest.CaptureFixture[str]) -> Kick:
    def run(*words: str) -> dict[str, Any]:
        assert main([*words, "--json", "--cache", str(store.root)]) == 0
        return dict(json.loads(capsys.readouterr().out))

    return run


def test_what_a_process_wears_stays(filled: Store, kick: Kick) -> None:
    held = weight_artifacts.hold(filled, KEYS[1])
    assert held is not None
    said = kick("gc", "--max-size", "0")
    assert len(said["removed"]) == 2 and said["kept"] == ["magnitude@0.5 of m (6.0 kB) is in use"]
    assert weight_artifacts.verify(filled, KEYS[1], deep=True) == []
    os.close(held)
    assert len(kick("gc", "--max-size", "0")["removed"]) == 1


def test_the_hold_ends_with_its_process(filled: Store, kick: Kick) -> None:
    def hold_and_die() -> None:
        weight_artifacts.hold(filled, KEYS[0])
        os.kill(os.getpid(), 9)

    assert forked("", hold_and_die)[0] == -9
    assert len(kick("gc", "--max-size", "0")["removed"]) == 3


def test_a_model_holds_what_it_wears(store: Store, tiny_folder: Path, kick: Kick) -> None:
    from kick_core.artifacts.builder import ArtifactBuilder
    from kick_core.artifacts.loaded_model import open_for
    from kick_core.spec import Calibration, ModelRef, parse

    builder = ArtifactBuilder(store, open_for(ModelRef(str(tiny_folder)), store), Calibration())
    one, other = parse("magnitude@0.5"), parse("magnitude@0.3")
    for recipe in (one, other, one):
        for _ in builder.make(recipe):
            pass
    assert len(kick("gc", "--max-size", "0")["kept"]) == 1 and weight_artifacts.has(store, builder.key(one))
    builder.opened.restore_dense()
    assert kick("gc", "--max-size", "0")["kept"] == []
    for _ in builder.make(one):  # and what was removed is made again
        pass
    assert weight_artifacts.has(store, builder.key(one))


def test_what_is_pinned_stays(filled: Store, kick: Kick) -> None:
    assert kick("pin", KEYS[2]) == {"key": KEYS[2], "pinned": True}
    assert [row["pinned"] for row in kick("list")["artifacts"]] == [False, False, True]
    assert kick("gc", "--max-size", "0")["kept"] == ["magnitude@0.5 of m (6.0 kB) is pinned"]
    assert kick("verify", "--deep")["faults"] == []
    kick("pin", KEYS[2], "--off")
    assert len(kick("gc", "--max-size", "0")["removed"]) == 1
    assert main(["pin", scenarios.RUN, "--cache", str(filled.root)]) == 2


def test_what_is_being_made_stays(store: Store, tmp_path: Path, kick: Kick) -> None:
    with staging.stage(store, KEYS[0]) as stage:
        assert stage is not None
        stage.add(scenarios.BlockReport(0, 3, (), 0.1), b"block")
        assert kick("gc")["removed"] == []
    assert kick("gc")["removed"] == [f"unfinished {KEYS[0]}"]


def test_what_a_running_job_wants_stays(filled: Store, kick: Kick) -> None:
    class Asked(Request):
        def to_json(self) -> dict[str, Any]:
            return {**super().to_json(), "recipes": ["magnitude@0.5"]}

    name = jobs.start(filled, Asked(steps=100, pause=0.1), worker=WORKER).id
    try:
        until(filled, name, lambda job: job.state == "running")
        said = kick("gc", "--max-size", "0")
        assert said["removed"] == [] and len(said["kept"]) == 3 and "job" in said["kept"][0]
    finally:
        jobs.cancel(filled, name)
        until(filled, name, ended)
    assert len(kick("gc", "--max-size", "0")["removed"]) == 3


def test_outputs_are_never_removed(filled: Store, kick: Kick) -> None:
    kick("gc", "--max-size", "0")
    assert len(results.outputs(filled, scenarios.RUN)) == 12
    assert len(results.examples(filled, scenarios.EXAMPLES)) == 12


def test_what_kills_left_behind_goes_after_an_hour(filled: Store, tmp_path: Path, kick: Kick) -> None:
    """Half-written files, half-deleted folders, and databases whose outputs are all sealed."""
    results_folder = filled.folder("results", scenarios.RUN)
    fresh, old = (results_folder / f".run.json.{letter * 32}" for letter in "ab")
    folder = filled.folder("weights", KEYS[0]).parent / f".{KEYS[0]}.{'c' * 32}"
    folder.mkdir()
    for path in (fresh, old, folder / "block-0000.safetensors"):
        path.write_bytes(b"half")
    for path in (old, folder):
        os.utime(path, (time.time() - 7200,) * 2)
    live = filled.live(scenarios.RUN)
    with results.recorder(filled, scenarios.run_card()) as recorder:
        recorder.record([scenarios.output("e00")])
        shutil.copytree(live, tmp_path / "live")
    shutil.copytree(tmp_path / "live", live)
    other = filled.live("run1-" + "77" * 20)
    shutil.copytree(tmp_path / "live", other)
    kick("gc")
    assert fresh.exists() and not old.exists() and not folder.exists()
    assert not live.exists() and other.exists(), "what is not sealed yet is kept"


def _make_and_remove(root: Path, log: Path, rounds: int) -> None:
    for _ in range(rounds):
        scenarios.weights(root, log)
        main(["gc", "--max-size", "0", "--cache", str(root)])


def test_collectors_and_makers_at_once(store: Store, tmp_path: Path) -> None:
    """Three processes make and remove the same artifact: none fails, and nobody sees a part of one."""
    context = multiprocessing.get_context("spawn")
    rivals = [context.Process(target=_make_and_remove, args=(store.root, tmp_path / "log", 6)) for _ in range(3)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()
    assert [rival.exitcode for rival in rivals] == [0, 0, 0]
    assert not [path for path in store.root.rglob("*") if files.is_staged(path)]
