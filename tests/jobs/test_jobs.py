"""Detached jobs: joined, queued, cancelled, killed, failed; always on disk and always true."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

from kick_core import jobs
from kick_core.errors import BadRequest, KickError
from kick_core.jobs import lifecycle, specs
from kick_core.jobs import worker as job_worker
from kick_core.spec import Calibration
from kick_core.store import Store, open_store
from kick_core.sweeps.request import SweepJob
from tests.jobs import slow_worker

WORKER = (sys.executable, "-m", "tests.jobs.slow_worker")


@dataclass(frozen=True)
class Request:
    model: str = "one"
    steps: int = 3
    pause: float = 0.0
    fails: int | None = None
    breaks: int | None = None
    says: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "cache")


def start(store: Store, wanted: Request) -> jobs.Job:
    return jobs.start(store, wanted, worker=WORKER)


def until(store: Store, name: str, true: Callable[[jobs.Job], bool], seconds: float = 20) -> jobs.Job:
    end = time.time() + seconds
    while time.time() < end:
        found = jobs.job(store, name)
        if true(found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"still {found}\n{jobs.log(store, name)}")


def ended(found: jobs.Job) -> bool:
    return not found.active


def test_a_job_runs_to_its_end(store: Store) -> None:
    started = start(store, Request())
    assert started.state in jobs.ACTIVE or started.state == "done"
    found = until(store, started.id, ended)
    assert (found.state, found.share, found.cell, found.block) == ("done", 1.0, "one", 2)
    assert found.losses == pytest.approx((0.0, 0.1, 0.2))
    assert [one.id for one in jobs.jobs(store)] == [started.id]


def test_the_id_is_the_request(store: Store) -> None:
    assert jobs.job_id(Request(pause=0.5)) == jobs.job_id(Request(pause=0.5)) != jobs.job_id(Request(pause=0.6))


def test_eight_presses_start_one(store: Store) -> None:
    wanted = Request(steps=4, pause=0.3)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: start(store, wanted), range(8)))
    assert len({job.id for job in found}) == 1
    until(store, found[0].id, ended)
    assert (store.root / "starts.txt").read_text() == "one\n"


def test_a_second_job_waits_for_the_device(store: Store) -> None:
    first = start(store, Request("one", steps=20, pause=0.1))
    until(store, first.id, lambda job: job.state == "running")
    second = start(store, Request("two"))
    waiting = until(store, second.id, lambda job: "waiting" in job.message)
    assert waiting.state == "queued"
    assert jobs.cancel(store, first.id).cancelling
    assert until(store, first.id, ended).state == "cancelled"
    assert until(store, second.id, ended).state == "done"


def test_a_waiting_job_can_be_cancelled(store: Store) -> None:
    first = start(store, Request("one", steps=30, pause=0.1))
    until(store, first.id, lambda job: job.state == "running")
    second = start(store, Request("two"))
    until(store, second.id, lambda job: "waiting" in job.message)
    jobs.cancel(store, second.id)
    assert until(store, second.id, ended).state == "cancelled"
    jobs.cancel(store, first.id)
    until(store, first.id, ended)


def test_a_killed_worker_is_lost_and_starts_again(store: Store) -> None:
    wanted = Request(steps=40, pause=0.1)
    name = start(store, wanted).id
    running = until(store, name, lambda job: job.state == "running" and job.done > 0)
    os.kill(running.pid, signal.SIGKILL)
    assert until(store, name, ended).state == "lost"
    again = start(store, wanted)
    assert again.active
    jobs.cancel(store, name)
    until(store, name, ended)


def test_a_worker_that_does_not_listen_gets_a_signal(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "PATIENCE", 0.0)
    name = start(store, Request(steps=1, pause=30)).id
    until(store, name, lambda job: job.state == "running")
    jobs.cancel(store, name)
    time.sleep(0.05)
    jobs.cancel(store, name)
    assert until(store, name, ended, 5).state == "cancelled"


def test_failures_are_told(store: Store) -> None:
    found = until(store, start(store, Request("told", fails=1)).id, ended)
    assert (found.state, found.message) == ("failed", "no space left for it")
    bug = until(store, start(store, Request("bug", breaks=1)).id, ended)
    assert (bug.state, bug.message) == ("failed", "ZeroDivisionError: a bug")
    assert "Traceback" in jobs.log(store, bug.id)


def test_an_ended_job_can_be_forgotten(store: Store) -> None:
    name = start(store, Request()).id
    until(store, name, ended)
    jobs.forget(store, name)
    assert jobs.jobs(store) == []
    with pytest.raises(KickError, match="no job"):
        jobs.job(store, name)


@pytest.mark.parametrize("name", ["../weights", "job1-../x", ".hidden", ""])
def test_ids_are_not_paths(store: Store, name: str) -> None:
    with pytest.raises(BadRequest):
        jobs.job(store, name)


def test_worker_without_torch_in_the_asking_process(store: Store) -> None:
    assert job_worker.work.__defaults__ == (job_worker.real,), "the real work is the default, loaded inside the worker"


def test_the_worker_runs_in_its_own_niceness(store: Store) -> None:
    name = start(store, Request(steps=10, pause=0.1)).id
    running = until(store, name, lambda job: job.pid > 0)
    assert os.getpriority(os.PRIO_PROCESS, running.pid) >= 10
    assert os.getpgid(running.pid) == running.pid
    jobs.cancel(store, name)
    until(store, name, ended)


def test_a_state_written_by_hand_is_damage_not_a_crash(store: Store) -> None:
    name = start(store, Request()).id
    until(store, name, ended)
    (store.root / "jobs" / name / "state.json").write_text("{}")
    with pytest.raises(KickError, match="damaged"):
        jobs.job(store, name)
    assert jobs.jobs(store) == []


def test_steps_in_this_process(store: Store) -> None:
    """`work` itself, with the made-up sweep, without a process."""
    name = start(store, Request("seen", steps=1)).id
    until(store, name, ended)
    assert job_worker.work(store, name, slow_worker.run) == "done"


def test_again_is_the_same_job(store: Store) -> None:
    first = start(store, Request(steps=2, fails=1))
    until(store, first.id, ended)
    second = jobs.again(store, first.id, worker=WORKER)
    assert second.id == first.id
    assert until(store, first.id, ended).state == "failed"
    assert (store.root / "starts.txt").read_text() == "one\none\n"


def test_answers_of_a_prompt_are_kept_by_recipe(store: Store) -> None:
    found = until(store, start(store, Request(steps=3, says="word ")).id, ended)
    assert found.answers == {"one": "word word word "}


def test_a_worker_that_is_slow_to_end_is_waited_for(store: Store) -> None:
    """Its last word is written, its process still there: who asks again gets a new one, not the old end."""
    first = start(store, Request(fails=1))
    until(store, first.id, ended)
    held = jobs.take(store.root / "jobs" / first.id / "lock")
    assert held is not None
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(start, store, Request(fails=1))
        time.sleep(0.5)
        assert not second.done()
        os.close(held)
        second.result()
    until(store, first.id, ended)
    assert (store.root / "starts.txt").read_text() == "one\none\n"


def test_a_spec_says_what_kind_of_job_it_is() -> None:
    """Also one of before there was a tag; and the tag is no part of the id, so that old jobs are found again."""
    usual = Calibration("pocket", windows=128)
    sweep = SweepJob("pocket-4m", ("dense",), ("perplexity",), calibration=usual)
    prompt = jobs.prompt("pocket-4m", ["dense"], "Who?", temperature=0.5)
    for job, kind in ((sweep, "sweep"), (prompt, "prompt"), (specs.ClusterJob(sweep, "10.0.0.7:1"), "cluster")):
        tagged = job.to_json()
        assert tagged["kind"] == kind
        old = {name: value for name, value in tagged.items() if name != "kind"}
        for spec in (tagged, old, json.loads(json.dumps(tagged))):
            assert specs.kind(spec) == kind and specs.read(spec) == job
    assert jobs.job_id(sweep) == "job1-0c0d706d1055642f3a3ee6c66ea9b4271e95c46e"
    with pytest.raises(KickError, match="'dream'"):
        specs.read({"kind": "dream"})
