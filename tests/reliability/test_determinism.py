"""The same sweep, however it came about, gives the same sealed bytes: in one go, stopped and resumed, shared out."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kick_core.spec import Calibration
from kick_core.store import Store, open_store, weight_artifacts
from kick_core.sweeps.driver import run
from kick_core.sweeps.request import SweepJob

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ("dense", "magnitude@0.3", "magnitude@0.4", "magnitude@0.5", "wanda@0.5", "sparsegpt@0.5", "rtn@4bit")
TASKS = ("factoid_qa", "multiple_choice", "perplexity", "instructions")


def sums(store: Store) -> dict[str, object]:
    """Every sealed part and verdict file (its name holds its sum), every block's checksum as it was made, and its file
    as it is kept, which nested masks share."""
    found: dict[str, object] = {
        f"{path.parent.name}/{path.name}": "" for path in store.root.glob("results/??/*/*.parquet")
    }
    for key in store.keys("weights"):
        blocks = json.loads((store.folder("weights", key) / "manifest.json").read_text())["files"]
        found |= {f"{key}/{name}": facts for name, facts in blocks.items() if name != "card.json"}
        assert weight_artifacts.verify(store, key, deep=True) == []
        found |= {f"kept {key}/{path.name}": path.read_bytes() for path in store.folder("weights", key).glob("block-*")}
    return found


def test_stopped_every_few_steps_and_resumed(tmp_path: Path, tiny_folder: Path) -> None:
    request = SweepJob(
        str(tiny_folder),
        ("dense", "wanda@0.5", "sparsegpt@0.5"),
        ("factoid_qa", "multiple_choice", "perplexity"),
        limit=8,
        calibration=Calibration(windows=4, length=32),
    )
    whole, pieces = open_store(tmp_path / "whole"), open_store(tmp_path / "pieces")
    steps = len(list(run(request, whole, 1)))
    stops = 0
    while True:
        sweep = run(request, pieces, 1)
        taken = [step for step, _ in zip(sweep, range(9), strict=False)]
        if len(taken) < 9:
            break
        sweep.close()
        stops += 1
        assert stops < 4 * steps, "it does not get on"
    assert stops >= 2 and sums(pieces) == sums(whole)


def _command(folder: Path, cache: Path, workers: int) -> list[str]:
    words = [sys.executable, "-m", "kick_core", "sweep", str(folder), "--cache", str(cache), "--json"]
    for recipe in RECIPES:
        words += ["--recipe", recipe]
    for task in TASKS:
        words += ["--task", task]
    return [*words, "--limit", "24", "--windows", "8", "--length", "64", "--workers", str(workers)]


@pytest.mark.soak
def test_one_worker_four_workers_killed_and_resumed(tmp_path: Path, tiny_folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name, workers in (("one", 1), ("four", 4)):
        began = time.monotonic()
        done = subprocess.run(
            _command(tiny_folder, tmp_path / name, workers), env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    took, chance, kills = time.monotonic() - began, random.Random(0), 0
    while True:
        process = subprocess.Popen(
            _command(tiny_folder, tmp_path / "killed", 4), env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert process.wait(timeout=took * (0.5 + 0.3 * chance.random() + 0.3 * kills)) == 0
            break
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
            time.sleep(0.5)
    one, four, killed = (sums(open_store(tmp_path / name)) for name in ("one", "four", "killed"))
    assert kills >= 1 and one == four == killed and len(one) > 30
