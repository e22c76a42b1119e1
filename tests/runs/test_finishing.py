"""Runs that are sealed beside the next one's questions: what fails is not lost, and nothing else is either."""

import threading

import pytest

from kick_core.errors import KickError
from kick_core.runs.finishing import Finisher
from kick_core.store import Store, open_store, results
from kick_core.sweeps import driver
from kick_core.sweeps.request import SweepJob


def full_disk() -> None:
    raise KickError("no space left")


@pytest.mark.parametrize("call", ["add", "wait"])
def test_what_fails_is_raised_by_the_next_call_and_the_rest_is_done(call: str) -> None:
    finisher, done = Finisher(), threading.Event()
    finisher.add(full_disk)
    finisher._thread.submit(int).result()  # nothing raised it yet
    with pytest.raises(KickError, match="no space left"):
        for _ in range(5):
            getattr(finisher, call)(*([done.set] if call == "add" else []))
    finisher.drain()
    assert done.is_set() == (call == "add")


def test_a_sweep_s_runs_are_sealed_and_scored_when_it_ends(tiny_folder, store: Store, tmp_path, monkeypatch) -> None:
    """In a thread, while the next recipe's questions are asked, with its artifact read: the outputs are those of a
    recipe at a time."""
    recipes, tasks = ("dense", "magnitude@0.5", "rtn@4bit"), ("factoid_qa", "perplexity")
    threads = set()
    monkeypatch.setattr("kick_core.runs.measure.score", lambda *args: threads.add(threading.current_thread().name))
    keys = _run(SweepJob(str(tiny_folder), recipes, tasks, 2, device="cpu"), store)
    assert threads == {"writer_0"}
    monkeypatch.undo()
    alone = open_store(tmp_path / "alone")
    for recipe in recipes:
        _run(SweepJob(str(tiny_folder), (recipe,), tasks, 2, device="cpu"), alone)
    for task in tasks:
        for recipe in recipes:
            key = keys.runs[task][recipe]
            assert results.measured(store, key) == 2
            assert results.outputs(store, key) == results.outputs(alone, key)


def _run(job: SweepJob, store: Store):
    steps = driver.run(job, store, 1)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
