"""What is decided about a cluster without one: what is asked, what is refused, which recipes go together, who lives."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kick_core import jobs, provenance
from kick_core.cli import main
from kick_core.errors import BadRequest, KickError
from kick_core.jobs import lifecycle, worker
from kick_core.jobs.ray_cluster import driver as ray_cluster
from kick_core.jobs.ray_cluster import joining
from kick_core.jobs.specs import ClusterJob
from kick_core.records import Progress
from kick_core.spec import Calibration
from kick_core.store import Store, live
from kick_core.sweeps import cells, driver, sweep_keys
from kick_core.sweeps.grid import open_sweep
from kick_core.sweeps.request import SweepJob

REQUEST = SweepJob("pocket-4m", ("dense", "magnitude@0.5", "wanda@0.5", "gptq@4bit"))


def test_a_spread_is_the_request_and_where_it_runs() -> None:
    spread = ClusterJob(REQUEST, "10.0.0.7:6379", workers=3, gpus=2)
    assert ClusterJob.from_json(spread.to_json()) == spread
    assert SweepJob.from_json({n: v for n, v in spread.to_json().items() if n != "cluster"}) == REQUEST
    assert jobs.job_id(spread) != jobs.job_id(REQUEST) != jobs.job_id(replace(spread, gpus=1))


@pytest.mark.parametrize("named", ["ray://10.0.0.7:10001", "10.0.0.7", "host:", ":6379", "host:99999", "host/x:1"])
def test_what_is_no_address_is_refused(named: str) -> None:
    with pytest.raises(BadRequest, match="HOST:PORT"):
        ray_cluster.cluster_job(REQUEST, named)


def test_auto_is_the_environment_or_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ray_cluster.cluster_job(REQUEST, "auto").address == ray_cluster.LOCAL
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.7:6379")
    assert ray_cluster.cluster_job(REQUEST, "auto").address == "10.0.0.7:6379"
    assert ray_cluster.cluster_job(REQUEST, "local").address == ray_cluster.LOCAL


@pytest.mark.parametrize(
    ("more", "message"),
    [({"workers": 0}, "--workers 0"), ({"gpus": 0}, "--gpus-per-task 0")],
)
def test_counts_are_at_least_one(more: dict[str, int], message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        ClusterJob(REQUEST, **more)


def test_a_single_gpu_cannot_be_named() -> None:
    with pytest.raises(BadRequest, match="Ray deals out"):
        ClusterJob(replace(REQUEST, device="cuda:1"))


def test_with_dense_propagation_what_looks_at_data_is_one_task() -> None:
    listed = [(cells.Cell(text, "make", None, 8, 8), 2.0) for text in REQUEST.recipes[1:]]
    listed += [(cells.Cell(text, "ask", "perplexity", 4, 4), 1.0) for text in REQUEST.recipes]

    def handed_out(job: SweepJob) -> list[list[set[tuple[str, str]]]]:
        return [
            [{(cell.recipe, cell.work) for cell in group} for group in phase]
            for phase in cells.phases(job, listed, (), halves=0)
        ]

    each = [{("dense", "ask")}, *({(text, "make"), (text, "ask")} for text in REQUEST.recipes[1:])]
    assert handed_out(REQUEST) == [each]
    first, second = handed_out(replace(REQUEST, calibration=Calibration(propagate="dense")))
    assert first == [{("dense", "ask")}, {("wanda@0.5", "make"), ("gptq@4bit", "make")}, each[1]]
    assert second == [{("wanda@0.5", "ask")}, {("gptq@4bit", "ask")}]


def test_a_missing_or_old_ray_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(name: str) -> str:
        raise joining.PackageNotFoundError(name)

    monkeypatch.setattr(joining, "version", missing)
    assert main(["sweep", "pocket-4m", "--recipe", "wanda@0.5", "--task", "perplexity", "--ray", "auto"]) == 1
    assert "pip install -e .[ray]" in capsys.readouterr().err
    monkeypatch.setattr(joining, "version", lambda name: "2.58.1")
    with pytest.raises(KickError, match=r"2\.58\.1 is too old, 2\.59"):
        joining.available()


def test_what_the_command_line_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "available", lambda: None)
    cache = ["--cache", str(tmp_path / "cache")]
    for words, message in (
        (["sweep"], "needs a MODEL"),
        (["sweep", "pocket-4m", "--gpus-per-task", "2"], "--ray auto"),
        (["sweep", "pocket-4m", "--preset", "table2", "--ray", "ray://x:1"], "HOST:PORT"),
        (["sweep", "pocket-4m", "--preset", "k-shot", "--ray", "auto"], "several sweeps"),
        (["sweep", "pocket-4m", "--recipe", "wnada@0.5", "--task", "perplexity", "--ray", "10.0.0.7:1"], "'wnada'"),
        (["sweep", "pocket-4m", "--recipe", "wanda@0.5", "--task", "perplexty", "--ray", "10.0.0.7:1"], "'perplexty'"),
        (["sweep", "--attach", "job1-00"], "is no job"),
        (["sweep", "--stop", "../weights"], "is no job"),
    ):
        assert main([*words, *cache]) == 2, words
        assert message in capsys.readouterr().err, words


def test_no_token_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with pytest.raises(KickError, match="RAY_AUTH_TOKEN"):
        joining._options_of("127.0.0.1:1")


def test_nothing_at_an_address_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "x" * 64)
    with pytest.raises(KickError, match=r"nothing answers at 127\.0\.0\.1:1"):
        joining._options_of("127.0.0.1:1")


def test_a_folder_of_ours_is_ours_alone(tmp_path: Path) -> None:
    made = joining.own_folder(tmp_path / "made")
    assert made.stat().st_mode & 0o777 == 0o700
    assert joining.own_folder(made) == made
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(made)
    for other in ("open", "link"):
        with pytest.raises(KickError, match="not a folder of yours alone"):
            joining.own_folder(tmp_path / other)


def _of(gpus: list[int], address: str = "10.0.0.7:6379") -> joining.Cluster:
    nodes = [{"Alive": True, "Resources": {"GPU": count} if count else {}} for count in gpus]
    return joining.Cluster(SimpleNamespace(nodes=lambda: nodes), address)


def test_the_device_follows_from_the_nodes() -> None:
    assert _of([0, 0]).device("auto", 1) == "cpu"
    assert _of([0, 8]).device("auto", 2) == "cuda"
    assert _of([8]).device("cpu", 1) == "cpu"
    assert _of([0]).device("cuda", 1) == "cuda", "nodes with GPUs may come when they are asked for"
    with pytest.raises(KickError, match="needs 4 GPUs"):
        _of([2, 2]).device("auto", 4)
    with pytest.raises(KickError, match="needs 1 GPUs"):
        _of([0], "this machine").device("cuda", 1)


def test_cores_are_a_tasks_share(monkeypatch: pytest.MonkeyPatch) -> None:
    def of(*nodes: dict[str, float]) -> joining.Cluster:
        there = [{"Alive": True, "Resources": resources} for resources in nodes]
        return joining.Cluster(SimpleNamespace(nodes=lambda: there), "10.0.0.7:6379")

    host = {"CPU": 64.0, "GPU": 8.0}
    assert of(host).cores("cuda", 1, None) == 8
    assert of(host, {"CPU": 4.0}).cores("cuda", 4, None) == 32
    assert of({"CPU": 4.0}).cores("cuda", 1, None) == 1, "nodes with GPUs are still to come"
    assert of({"CPU": 16.0}).cores("cpu", 1, None) == 1
    assert of({"CPU": 16.0}, {"CPU": 16.0}).cores("cpu", 1, 4) == 8
    assert of({"CPU": 16.0}, {"CPU": 16.0}).cores("cpu", 1, 1) == 16, "a task stays on one node"
    assert of({"CPU": 2.0}).cores("cpu", 1, 5) == 1


def recalled(job: SweepJob, store: Store) -> sweep_keys.SweepKeys:
    keys = sweep_keys.recall(store, job)
    assert keys is not None
    return keys


def test_a_done_sweep_starts_no_ray(
    store: Store, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    request = SweepJob(
        str(tiny_folder), ("dense", "magnitude@0.5"), ("perplexity",), limit=2,
        calibration=Calibration(windows=2, length=16),
    )  # fmt: skip
    spread = ray_cluster.cluster_job(request, "auto")
    assert ray_cluster.done_already(spread, store) is None, "nothing is known of it yet"
    sweep_keys.remember(store, open_sweep(request, store, plan_only=True))
    assert ray_cluster.done_already(spread, store) is None, "it is known, and not done"
    assert ray_cluster.unfinished(request, recalled(request, store), store) == ["dense", "magnitude@0.5"]
    for _ in driver.run(request, store, 1):
        pass
    known = ray_cluster.done_already(spread, store)
    assert known is not None
    assert ray_cluster.done_already(replace(spread, address="10.0.0.7:6379"), store) is None, (
        "its devices are not known here"
    )

    run = known.runs["perplexity"]["dense"]
    (verdicts,) = store.folder("results", run).glob("verdicts-*")
    whole = verdicts.read_bytes()
    verdicts.unlink()  # as a kill between sealing and scoring leaves it
    assert ray_cluster.done_already(spread, store) is not None and verdicts.read_bytes() == whole
    verdicts.unlink()
    (store.folder("results", run) / "run.json").unlink()
    assert ray_cluster.unfinished(request, known, store) == ["dense"], "its card needs the open model"
    for _ in driver.run(request, store, 1):
        pass
    assert ray_cluster.done_already(spread, store) is not None and verdicts.read_bytes() == whole

    def never(*given: Any) -> Any:
        raise AssertionError("a cluster was started for nothing")

    monkeypatch.setattr(joining, "joined", never)
    (store.root / "jobs" / jobs.job_id(spread)).mkdir(parents=True)
    (only,) = ray_cluster.run(spread, store)
    assert only.done == only.total and "no cluster" in only.message
    assert ray_cluster.keys_of(store, jobs.job_id(spread)) == known

    monkeypatch.setattr(jobs, "start", never)
    words = ["--recipe", "magnitude@0.5", "--task", "perplexity", "--limit", "2", "--windows", "2", "--length", "16"]
    monkeypatch.setattr(joining, "available", lambda: None)
    assert main(["sweep", str(tiny_folder), *words, "--ray", "auto", "--cache", str(store.root), "--json"]) == 0
    said = capsys.readouterr()
    assert "no cluster was needed" in said.err and '"perplexity"' in said.out


def test_a_job_of_another_machine_lives_while_it_speaks(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "job1-" + "ab" * 20
    folder = jobs.place(store, name)
    folder.mkdir(parents=True)
    state = jobs.Job(name, {}, "running", updated=time.time(), pid=os.getpid(), host="elsewhere")
    jobs.write(folder, state)
    assert jobs.job(store, name).state == "running"
    jobs.write(folder, replace(state, host=provenance.host()))
    assert jobs.job(store, name).state == "lost", "here its lock says that nobody holds it"
    jobs.write(folder, replace(state, updated=time.time() - 2 * jobs.SILENCE))
    assert jobs.job(store, name).state == "lost"

    jobs.write(folder, state)  # never signal a process of this machine for one of another
    monkeypatch.setattr(lifecycle, "PATIENCE", -1.0)
    monkeypatch.setattr(os, "killpg", lambda *given: pytest.fail("a signal was sent"))
    jobs.cancel(store, name)
    assert jobs.cancel(store, name).cancelling


def test_where_it_runs_is_kept(store: Store) -> None:
    steps = iter([Progress("a", 0, 1, where="Ray, this machine"), Progress("a", 1, 1)])
    name = "job1-" + "cd" * 20
    jobs.place(store, name).mkdir(parents=True)
    seen = list(worker._steps(jobs.place(store, name), jobs.Job(name, {}), steps))
    assert seen[-1].where == "Ray, this machine"


@pytest.mark.parametrize("kind", ["nfs4", "lustre", "fuse.sshfs"])
def test_no_database_on_a_network_disk(
    store: Store, monkeypatch: pytest.MonkeyPatch, kind: str, tmp_path: Path
) -> None:
    there = SimpleNamespace(mountpoint=str(store.root.parent), fstype=kind)
    root = SimpleNamespace(mountpoint="/", fstype="ext4")
    monkeypatch.setattr(live.psutil, "disk_partitions", lambda all: [root, there])
    with pytest.raises(KickError, match=rf"network disk \({kind}\).*KICK_LOCAL_CACHE"):
        live.open_live(store, "run1-" + "ab" * 20)
    monkeypatch.setattr(live.psutil, "disk_partitions", lambda all: [root])
    live.open_live(store, "run1-" + "ab" * 20).close()
