"""A disk that is really full (a small file system, where one can be mounted) and databases that may not grow."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from kick_core import jobs
from kick_core.errors import KickError
from kick_core.store import Store, live, open_store, results, weight_artifacts
from tests.reliability import scenarios

SAYS = r"no space left for .*: [\d,]+ bytes are needed and [\d,]+ are free\. Make room"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """One megabyte of file system."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", place], check=True)


def _fill(place: Path, leave: int) -> Path:
    filler = place / "filler"
    with open(filler, "wb", buffering=0) as file, suppress(OSError):
        while file.write(b"\0" * 4096):
            pass
    os.truncate(filler, max(0, filler.stat().st_size - leave) // 4096 * 4096)
    return filler


def test_a_full_file_system(small_disk: Path, tmp_path: Path) -> None:
    root, log = small_disk / "cache", tmp_path / "log"
    scenarios.weights(root, log)
    store = open_store(root)
    filler = _fill(small_disk, 8192)
    with pytest.raises(KickError, match=SAYS):
        for number in range(100):
            scenarios.weights(root, log, f"weights1-{number:040d}")
    with pytest.raises(KickError, match=r"no space left|cannot be opened"):
        scenarios.outputs(root, log)
    assert weight_artifacts.verify(store, scenarios.KEY, deep=True) == [] and open_store(root) == store, (
        "reading goes on"
    )
    assert not [path for path in root.rglob("*") if path.name.startswith(".") and path.is_file()], (
        "nothing half written"
    )
    filler.unlink()
    scenarios.outputs(root, log)
    assert len(results.outputs(store, scenarios.RUN)) == 12


def test_a_database_that_cannot_grow(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite says itself that the disk is full: the batch is not half there, and what was kept is read."""
    plain = live.open_cache

    def narrow(folder: Path) -> object:
        cache = plain(folder)
        cache._sql("PRAGMA max_page_count = 60")
        return cache

    kept = 0
    with monkeypatch.context() as patched:
        patched.setattr(live, "open_cache", narrow)
        with pytest.raises(KickError, match=SAYS), results.recorder(store, scenarios.run_card()) as recorder:
            for start in range(0, 100_000, 50):
                recorder.record([scenarios.output(f"e{i:06d}") for i in range(start, start + 50)])
                kept = start + 50
    names = [f"e{i:06d}" for i in range(kept + 50)]
    with results.recorder(store, scenarios.run_card()) as recorder:
        assert recorder.recorded(names) == set(names[:kept]), "whole batches only"
        recorder.record([scenarios.output(name) for name in names[kept:]])
        recorder.seal(names)
    assert len(results.outputs(store, scenarios.RUN)) == kept + 50


def test_a_job_is_refused_before_it_begins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from kick_core.store import files

    monkeypatch.setattr(files, "free_bytes", lambda path: 100)
    with pytest.raises(KickError, match="1,048,576 bytes are needed and 100 are free"):
        jobs.start(store, scenarios.Asked(), worker=("true",))
    assert jobs.jobs(store) == []


@pytest.mark.parametrize("text", ["magnitude@0.5", "wanda@2:4", "sparsegpt@0.5", "rtn@4bit,group=64", "gptq@8bit"])
def test_the_space_that_is_asked_for_is_the_space_that_is_taken(store: Store, tiny_folder: Path, text: str) -> None:
    from kick_core.artifacts.builder import ArtifactBuilder
    from kick_core.artifacts.loaded_model import open_for
    from kick_core.methods import storage
    from kick_core.spec import Calibration, ModelRef, parse

    builder = ArtifactBuilder(store, open_for(ModelRef(str(tiny_folder)), store), Calibration(windows=4, length=32))
    recipe = parse(text)
    for _ in builder.make(recipe):
        pass
    card = weight_artifacts.card(store, builder.key(recipe))
    stored = storage.card_size(card).stored  # what lies there, but for headers: tests/methods/test_storage.py
    assert builder.expected_bytes(recipe) == pytest.approx(1.1 * stored, rel=0.005)


@pytest.mark.parametrize(("flag", "status"), [({}, 0), ({"KICK_FAULT_INJECTION": "on"}, -signal.SIGKILL)])
def test_a_stray_plan_of_faults_kills_nothing(flag: dict[str, str], status: int) -> None:
    """Faults are injected into a user's program only with the flag that tests set."""
    code = "from kick_core.store import fault_injection; fault_injection.point('here')"
    environment = {**os.environ, "KICK_FAULT": "kill:1", **flag}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == status
