"""One sweep on a local Ray cluster of two workers: the same sealed bytes as without it, whoever is killed."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from kick_core import jobs
from kick_core.jobs.ray_cluster import driver as ray_cluster
from kick_core.spec import Calibration
from kick_core.store import Store, open_store, results, weight_artifacts
from kick_core.sweeps.driver import run
from kick_core.sweeps.request import SweepJob
from tests.reliability.test_determinism import ROOT, sums

pytest.importorskip("ray", reason="the extra ray is not installed")

IMPOSSIBLE = "magnitude@3:7"
"""Fails in every matrix whose width 7 does not divide, each time anew."""
PATIENCE = 600.0


@pytest.fixture(scope="module")
def request_(tiny_folder: Path) -> SweepJob:
    return SweepJob(
        str(tiny_folder), ("dense", "magnitude@2:4", "sparsegpt@0.5"), ("factoid_qa", "perplexity"), limit=8,
        calibration=Calibration(windows=4, length=32), device="cpu",
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(request_: SweepJob, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the sweep seals in one process of this machine."""
    store = open_store(tmp_path_factory.mktemp("alone"))
    for _ in run(request_, store, 1):
        pass
    return sums(store)


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE", "KICK_LOCAL_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # also a given cluster stays on 127.0.0.1


def until(store: Store, name: str, true: Callable[[jobs.Job], bool]) -> jobs.Job:
    end = time.time() + PATIENCE
    while time.time() < end:
        found = jobs.job(store, name)
        if true(found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"still {found}\n{jobs.log(store, name)}")


def ended(found: jobs.Job) -> bool:
    return not found.active


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started, as far as they live."""
    try:
        first = psutil.Process(pid)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def still_at_work(processes: list[psutil.Process]) -> list[str]:
    """Who lives on for 20 seconds; Ray's agents, which only watch, take longer to notice that the rest is gone."""
    _, alive = psutil.wait_procs(processes, timeout=20)
    names = [process.name() for process in alive if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
    return [name for name in names if not name.endswith("Agent")]


def heard(processes: list[psutil.Process]) -> set[str]:
    """The addresses on which processes listen."""
    found = set()
    for process in processes:
        try:
            found |= {at.laddr.ip for at in process.net_connections("tcp") if at.status == psutil.CONN_LISTEN}
        except psutil.Error:
            continue
    return found


def test_a_cluster_of_this_machine(store: Store, request_: SweepJob, alone: dict[str, object]) -> None:
    """Two workers; one recipe cannot be: it is named once, the rest is done, sealed as without a cluster."""
    spread = ray_cluster.cluster_job(replace(request_, recipes=(*request_.recipes, IMPOSSIBLE)), "auto", workers=2)
    name = jobs.start(store, spread).id
    heard_at = set[str]()

    def over(found: jobs.Job) -> bool:
        heard_at.update(heard(family(found.pid)))
        return not found.active

    found = until(store, name, over)
    assert found.state == "failed", jobs.log(store, name)
    assert found.message.startswith(f"1 of 4 recipes failed ({IMPOSSIBLE}: block 0, ")
    assert found.message.count(IMPOSSIBLE) == 1 and "everything else is done" in found.message
    assert jobs.log(store, name, 200).count(f"{IMPOSSIBLE} on ") == 1, "tried once"
    assert found.where.startswith("Ray, this machine")
    assert sums(store) == alone
    assert heard_at and heard_at <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert not Path(f"/tmp/kick-ray-{os.getuid()}-{name[-12:]}").exists()
    made = [weight_artifacts.card(store, key) for key in store.keys("weights") if weight_artifacts.has(store, key)]
    asked = [sitting for key in store.keys("results") for sitting in results.timings(store, key)]
    assert {card.host for card in made} | {sitting.host for sitting in asked} == {os.uname().nodename}
    assert ray_cluster.keys_of(store, name) is not None
    assert ray_cluster.done_already(ray_cluster.cluster_job(request_, "auto"), store) is not None, (
        "the rest starts no Ray any more"
    )


@contextmanager
def head(folder: Path, **more: str) -> Iterator[tuple[str, str]]:
    """A cluster of its own life, with two CPUs, on 127.0.0.1: its address and its token."""
    token = secrets.token_hex(32)
    environment = {
        **os.environ, **more, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token,
    }  # fmt: skip
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--port=0", "--num-cpus=2"]
    command += ["--include-dashboard=false", "--disable-usage-stats", f"--temp-dir={folder}"]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        file, end = folder / "ray_current_cluster", time.time() + 60
        while not file.exists() or not file.read_text():
            assert process.poll() is None and time.time() < end, (folder / "log").read_text()
            time.sleep(0.2)
        yield file.read_text(), token
    finally:
        whole = family(process.pid)
        process.terminate()
        process.wait(30)
        psutil.wait_procs(whole, timeout=20)


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a short name: Unix sockets lie in it."""
    folder = Path("/tmp") / f"kick-test-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)


@pytest.mark.soak
def test_every_worker_is_killed_again_and_again(
    store: Store, request_: SweepJob, alone: dict[str, object], short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process of the cluster dies at its 50th place between two writes, in a block or a batch; a wrong token does
    not even get in."""
    local = short / "live"
    with head(short, KICK_FAULT_INJECTION="on", KICK_FAULT="kill:50", KICK_LOCAL_CACHE=str(local)) as (address, token):
        monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        refused = jobs.start(store, ray_cluster.cluster_job(request_, address, workers=2))
        found = until(store, refused.id, ended)
        assert found.state == "failed" and "does not let us in" in found.message
        assert sums(store) == {}

        monkeypatch.setenv("RAY_AUTH_TOKEN", token)
        name = jobs.start(store, ray_cluster.cluster_job(request_, address, workers=2)).id
        assert name == refused.id
        found = until(store, name, ended)
    said = jobs.log(store, name, 500)
    assert found.state == "done", said
    assert said.count("started again") >= 2, said
    assert sums(store) == alone
    assert address in found.where
    assert not (store.root / "live").exists() and local.is_dir(), "outputs that go on stay on their node"
    for word in (token, os.environ["RAY_AUTH_TOKEN"]):
        assert not [path for path in store.root.rglob("*") if path.is_file() and word.encode() in path.read_bytes()]


@pytest.mark.soak
def test_the_driver_is_killed_and_attached_to(store: Store, request_: SweepJob, alone: dict[str, object]) -> None:
    """Its tasks stop at once; `--attach` starts it again, and it goes on where it was."""
    name = jobs.start(store, ray_cluster.cluster_job(request_, "auto", workers=2)).id
    running = until(store, name, lambda job: job.done > 0)
    whole = family(running.pid)
    os.kill(running.pid, signal.SIGKILL)
    assert not still_at_work(whole)
    assert jobs.job(store, name).state == "lost"
    before = {path: path.stat().st_mtime_ns for path in store.root.glob("weights/??/*/block-*")}
    done = subprocess.run(
        [sys.executable, "-m", "kick_core", "sweep", "--attach", name[:12], "--cache", str(store.root), "--json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "its process is gone; started again" in done.stderr
    told = json.loads(done.stdout)["results"]
    assert {(one["recipe"], one["task"]) for one in told} == {(r, t) for r in request_.recipes for t in request_.tasks}
    assert sums(store) == alone
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what was made is not made again"


@pytest.mark.soak
def test_left_with_control_c_it_goes_on_and_can_be_stopped(store: Store, request_: SweepJob) -> None:
    words = ["--recipe", "sparsegpt@0.5", "--task", "perplexity", "--device", "cpu", "--cache", str(store.root)]
    command = [sys.executable, "-m", "kick_core", "sweep", request_.model, *words, "--ray", "auto", "--workers", "2"]
    shown = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    end = time.time() + PATIENCE
    while not (there := jobs.jobs(store)) or not there[0].pid:
        assert shown.poll() is None and time.time() < end
        time.sleep(0.1)
    shown.send_signal(signal.SIGINT)
    _, said = shown.communicate(timeout=60)
    assert shown.returncode == 130 and f"kick sweep --attach {there[0].id}" in said
    assert jobs.job(store, there[0].id).active
    whole = family(there[0].pid)
    stopped = subprocess.run(
        [sys.executable, "-m", "kick_core", "sweep", "--stop", there[0].id, "--cache", str(store.root), "--json"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert json.loads(stopped.stdout)["state"] == "cancelled", stopped.stderr
    assert not still_at_work(whole)
