"""Killed at every place between two steps of writing, then done again; the same with a disk that is full there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def every_place(kind: str, *scenarios: str) -> dict[str, Any]:
    """Every scenario in a process of its own, as many at once as there are cores."""

    def places(scenario: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.reliability.kills", kind, scenario]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {name: told for found in pool.map(places, scenarios) for name, told in found.items()}


@pytest.mark.parametrize("kind", ["kill", "full"])
def test_every_place(kind: str) -> None:
    """Weights, sealing, outputs, a run sealed beside the next one, an older cache, masks into shared files and out:
    same bytes, one block or batch repeated (of a training the two steps since its last state)."""
    scenarios = ("weights", "training", "outputs", "beside", "older", "shared", "alone")
    for name, told in every_place(kind, *scenarios).items():
        assert told["wrong"] == {}, name
        assert told["most_repeated"] <= (2 if name == "training" else 1) and told["places"] >= 9, name


def aimed(what: str, kills: int) -> None:
    """Three rivals; the one that computes is killed. A kill repeats one piece, and nothing is ever damaged."""
    command = [sys.executable, "-m", "tests.reliability.rivals", what, str(kills)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["kills"] >= kills and (told["damaged"], told["failed"]) == (0, 0), told
    assert told["repeated"] <= told["kills"], told


@pytest.mark.parametrize("what", ["weights", "outputs"])
def test_aimed_kills(what: str) -> None:
    aimed(what, 16)


@pytest.mark.soak
@pytest.mark.parametrize("what", ["weights", "outputs"])
def test_a_thousand_aimed_kills(what: str) -> None:
    aimed(what, 1000)


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["kill", "full"])
def test_every_place_of_jobs_and_of_care(kind: str) -> None:
    found = every_place(kind, "job", "care")
    assert {name: told["wrong"] for name, told in found.items()} == {"job": {}, "care": {}}
    assert found["job"]["most_repeated"] <= 1
    assert found["care"]["most_repeated"] <= 4, (
        "an artifact is made once more where it was removed already, and a block"
    )


def test_a_kill_that_loses_something_is_noticed(tmp_path: Path) -> None:
    """The harness can fail: this work counts in place, so a second run counts twice."""
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from tests.reliability import kills, scenarios\n"
        "def careless(root, log):\n"
        "    root.mkdir(exist_ok=True)\n"
        "    with open(root / 'count', 'a') as file:\n"
        "        file.write('x')\n"
        "    scenarios.files.replace_file(root / 'done', b'done')\n"
        "kills.SCENARIOS['careless'] = careless\n"
        "print(len(kills.every_place('kill', 'careless', Path(sys.argv[1]))['wrong']))\n"
    )
    said = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert said.stdout.strip() == "3", said.stderr
