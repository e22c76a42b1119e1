"""Recipes dealt out over GPUs: who gets which device, and what is said where there is none."""

import multiprocessing
import os
import signal
from contextlib import suppress

import pytest
import torch

from kick_core.errors import BadRequest, KickError
from kick_core.models.loading import device_of
from kick_core.spec import Calibration
from kick_core.store import results
from kick_core.sweeps import driver, sweep_keys
from kick_core.sweeps.cells import Cell, phases
from kick_core.sweeps.request import SweepJob


def test_all_gpus_are_taken_in_turn(monkeypatch):
    monkeypatch.setattr(sweep_keys, "gpus", lambda: 2)
    job = SweepJob("pocket", ("wanda@0.5",), device="all")
    assert driver.devices(job, 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert driver.processes(job, None) == 2
    assert driver.everywhere(SweepJob("pocket", ())).device == "all", "a page's button takes them all"
    assert driver.everywhere(SweepJob("pocket", (), device="cpu")).device == "cpu"


def test_one_device_is_shared(store, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    job = SweepJob("pocket", (), device="cpu")
    assert driver.devices(job, 2) == ["cpu", "cpu"] and driver.processes(job, store) == 4


def test_an_interrupted_worker_is_a_failure_and_nobody_waits_for_it(store, tiny_folder):
    """A worker that gets SIGINT neither looks done nor is polled for ever; the sweep goes on when it is run again."""
    job = SweepJob(
        str(tiny_folder), ("dense", "wanda@0.5", "rtn@4bit"), ("factoid_qa", "perplexity"), limit=8, device="cpu",
        calibration=Calibration(windows=2, length=32),
    )  # fmt: skip
    news = driver.run(job, store, 2)
    with pytest.raises(KickError, match="run the command again"):
        for progress in news:
            for worker in multiprocessing.active_children()[:1] if progress.cell else ():  # at work
                with suppress(ProcessLookupError):  # what it said before it ended is still heard
                    os.kill(worker.pid, signal.SIGINT)
    assert multiprocessing.active_children() == []
    last = list(driver.run(job, store, 1))[-1]
    assert last.done == last.total and len(results.runs(store)) == 6


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_all_needs_a_gpu():
    with pytest.raises(BadRequest, match=r"'all' was asked for.*--device cpu"):
        device_of("all")


def test_the_dearest_recipe_goes_first_and_the_last_ones_are_halved():
    def group(text, make, **asking):
        making = [(Cell(text, "make", None, 8, 8), make)] if make else []
        return [*making, *((Cell(text, "ask", task, 1, 1), cost) for task, cost in asking.items())]

    job = SweepJob("pocket", ())
    listed = [
        *group("magnitude@0.5", 2.0, factoid_qa=8.0, perplexity=3.0, instructions=9.0),
        *group("dense", 0.0, factoid_qa=8.0),
        *group("wanda@0.5", 12.0, factoid_qa=8.0, perplexity=3.0),
        *group("gptq@4bit", 20.0),
        (Cell("rtn@4bit", "ask", "factoid_qa", 1, 0), 0.0),
    ]
    (phase,) = phases(job, listed, (), halves=2)
    assert [[(cell.recipe, cell.task) for cell in one] for one in phase] == [
        [("dense", "factoid_qa")],
        [("wanda@0.5", None), ("wanda@0.5", "factoid_qa"), ("wanda@0.5", "perplexity")],
        [("magnitude@0.5", None), ("magnitude@0.5", "instructions"), ("magnitude@0.5", "perplexity")],
        [("gptq@4bit", None)],
        [("magnitude@0.5", "factoid_qa")],
    ]
    assert phases(job, listed[-1:], (), halves=2) == []
    (repaired,) = phases(job, listed[-1:], ("rtn@4bit",), halves=0)
    assert [cell.recipe for cell in repaired[0]] == ["rtn@4bit"], "an open model writes its card again"
