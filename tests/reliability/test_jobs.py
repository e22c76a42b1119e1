"""Jobs under kills, odd clocks, a crowd of watchers and a long queue: none lost, none run twice at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from kick_core import jobs
from kick_core.jobs import worker as job_worker
from kick_core.store import Store
from tests.jobs.test_jobs import WORKER, Request, ended, start, until

ROOT = Path(__file__).resolve().parents[2]


def starts(store: Store) -> list[str]:
    path = store.root / "starts.txt"
    return path.read_text().splitlines() if path.exists() else []


def test_the_asking_process_is_killed(store: Store) -> None:
    """The server dies right after the button was pressed: the job goes on, and a new server finds it."""
    code = (
        "import os, sys\n"
        "from kick_core.store import open_store\n"
        "from tests.jobs.test_jobs import Request, start\n"
        "start(open_store(sys.argv[1]), Request('one', steps=12, pause=0.1))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(store.root)], cwd=ROOT)
    assert done.returncode == -9
    (found,) = jobs.jobs(store)
    assert found.active
    assert start(store, Request("one", steps=12, pause=0.1)).id == found.id, "pressed again, it is joined"
    assert until(store, found.id, ended).state == "done" and starts(store) == ["one"]


def test_a_kill_of_the_whole_group_of_the_server(store: Store) -> None:
    """Ctrl-C in the server's terminal goes to its process group; jobs are in groups of their own."""
    name = start(store, Request("one", steps=8, pause=0.1)).id
    running = until(store, name, lambda job: job.pid > 0)
    assert os.getpgid(running.pid) != os.getpgid(0) and os.getsid(running.pid) != os.getsid(0)
    assert until(store, name, ended).state == "done"


@pytest.mark.parametrize("shift", [-7200.0, 7200.0])
def test_the_clock_jumps(store: Store, monkeypatch: pytest.MonkeyPatch, shift: float) -> None:
    """A machine that slept or whose clock was set: the job is what its lock says it is, and can be cancelled."""
    name = start(store, Request("one", steps=600, pause=0.1)).id
    until(store, name, lambda job: job.state == "running" and job.done >= 2)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + shift)
    found = jobs.job(store, name)
    assert found.state == "running" and (found.remaining() is None or found.remaining() >= 0)
    jobs.cancel(store, name)
    monkeypatch.undo()
    assert until(store, name, ended).state == "cancelled"


def test_a_stopped_machine_goes_on(store: Store) -> None:
    """SIGSTOP and SIGCONT are what a suspended machine looks like from inside."""
    name = start(store, Request("one", steps=15, pause=0.1)).id
    running = until(store, name, lambda job: job.done >= 2)
    os.kill(running.pid, signal.SIGSTOP)
    time.sleep(0.5)
    assert jobs.job(store, name).state == "running", "a sleeping worker still holds its lock"
    os.kill(running.pid, signal.SIGCONT)
    assert until(store, name, ended).state == "done" and starts(store) == ["one"]


def test_cancelling_frees_the_device_in_mid_step(store: Store) -> None:
    """One step takes a minute: the worker ends itself, the next job gets the device, and the first can be resumed."""
    first = start(store, Request("one", steps=2, pause=60.0)).id
    until(store, first, lambda job: job.state == "running")
    second = start(store, Request("two")).id
    jobs.cancel(store, first)
    assert until(store, first, ended, seconds=60).state == "cancelled"
    assert until(store, second, ended, seconds=60).state == "done"
    assert job_worker.GRACE * 2 < 5
    again = start(store, Request("one", steps=2, pause=60.0))
    assert again.active and not again.cancelling
    jobs.cancel(store, first)
    until(store, first, ended, seconds=60)


DEAF = """
import signal, sys, time
from kick_core import jobs
from kick_core.jobs import worker as job_worker
from kick_core.records import Progress
def run(spec, store):
    yield Progress("one", 1, 2, "deaf now", 0, 2)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    for _ in range(600):
        time.sleep(0.1)
    yield Progress("one", 2, 2, "never", 1, 2)
sys.exit(job_worker.main(sys.argv[1:], run))
"""


def test_a_worker_that_hears_nothing_is_ended(store: Store) -> None:
    """A kernel that runs for minutes does not see signals; the worker's watch ends it and says so."""
    name = jobs.start(store, Request("deaf"), worker=(sys.executable, "-c", DEAF)).id
    until(store, name, lambda job: job.message == "deaf now")
    jobs.cancel(store, name)
    found = until(store, name, ended, seconds=60)
    assert (found.state, found.message) == ("cancelled", "cancelled; what was finished is kept")


def test_a_job_whose_process_vanished_has_its_log(store: Store) -> None:
    worker = (sys.executable, "-c", "import os, sys; print('about to go', flush=True); os.kill(os.getpid(), 9)")
    found = until(store, jobs.start(store, Request(), worker=worker).id, ended)
    assert found.state == "lost" and "start it again" in found.message and jobs.log(store, found.id) == "about to go"


def test_ten_watchers(store: Store) -> None:
    """Ten pages look at one job all the time: it is never seen damaged, going back, or lost."""
    name = start(store, Request("one", steps=30, pause=0.05)).id

    def watch(_: int) -> list[float]:
        seen = []
        while (found := jobs.job(store, name)).active:
            seen.append(found.done)
            assert [one.id for one in jobs.jobs(store)] == [name]
            time.sleep(0.02)
        return [*seen, found.done]

    with ThreadPoolExecutor(10) as pool:
        for seen in pool.map(watch, range(10)):
            assert seen == sorted(seen)
    assert until(store, name, ended).state == "done" and starts(store) == ["one"]


def _queue(store: Store, count: int) -> None:
    """`count` jobs wait behind one; then all are worked off, each once."""
    first = start(store, Request("first", steps=3000, pause=0.1)).id
    until(store, first, lambda job: job.state == "running")
    waiting = [start(store, Request(f"job {number}", steps=1)).id for number in range(count)]
    assert len(jobs.jobs(store)) == count + 1 and len(set(waiting)) == count
    for name in waiting[:: max(3, count // 5)]:
        jobs.cancel(store, name)
        assert until(store, name, ended, seconds=120).state == "cancelled"
    jobs.cancel(store, first)
    for name in waiting:
        until(store, name, ended, seconds=600)
    states = [jobs.job(store, name).state for name in waiting]
    assert set(states) == {"done", "cancelled"}
    assert sorted(starts(store)) == sorted({*starts(store)}), "each at most once"
    assert len(starts(store)) == 1 + states.count("done")


def test_a_queue_of_six(store: Store) -> None:
    _queue(store, 6)


@pytest.mark.soak
def test_a_queue_of_a_hundred(store: Store) -> None:
    _queue(store, 100)


def test_states_of_many_jobs_are_listed(store: Store) -> None:
    """A hundred that have ended, without a process each."""
    shape = jobs.Job("", Request().to_json(), state="done", done=1, total=1)
    for number in range(100):
        wanted = Request(f"job {number}")
        folder = store.root / "jobs" / jobs.job_id(wanted)
        folder.mkdir(parents=True)
        jobs.write(folder, replace(shape, id=folder.name, created=float(number)))
    found = jobs.jobs(store)
    assert [job.created for job in found] == [float(number) for number in reversed(range(100))]
    assert WORKER
