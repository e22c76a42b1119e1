"""A plan's numbers, that it never opens weights, and that one of what is known needs no torch."""

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers.utils.logging import disable_progress_bar

from kick_core import engine
from kick_core.errors import BadRequest
from kick_core.models.blocks import decoder_blocks, matrices
from kick_core.spec import DENSE, Calibration, parse
from kick_core.store import open_store, weight_artifacts
from kick_core.sweeps import cost as forecasting
from kick_core.sweeps import driver, sweep_keys
from kick_core.sweeps.cells import Cell, Step
from kick_core.sweeps.cost import forecast
from kick_core.sweeps.grid import open_sweep
from kick_core.sweeps.request import SweepJob
from kick_core.sweeps.tracker import Tracker
from tests.models.test_families import FAMILIES, make

ROOT = Path(__file__).resolve().parents[2]
disable_progress_bar()


def request(folder, **more):
    asked = {
        "recipes": ("dense", "wanda@0.5", "rtn@4bit"),
        "tasks": ("perplexity", "multiple_choice"),
        "limit": 4,
        "calibration": Calibration(windows=2, length=16),
        "device": "cpu",
    }
    return SweepJob(model=str(folder), **(asked | more))


def run(job, store):
    for _ in driver.run(job, store, 1):
        pass


def lines(plan, work):
    return {(line.cost.cell.recipe, line.cost.cell.task): line for line in plan.lines if line.cost.cell.work == work}


def cells(plan):
    return [line.cost.cell for line in plan.lines]


def test_before_during_and_after(tiny_folder, store):
    job = request(tiny_folder, fidelity=True, noise_floor=True)
    before = forecast(job, store)
    assert before.opened and before.unmeasured == len(before.lines)
    assert {line.basis for line in before.lines} == {"specification"} and before.left["seconds"] > 0
    assert {cell.total for cell in cells(before) if cell.work != "make"} == {4}
    assert lines(before, "again").keys() == {("dense", "perplexity"), ("dense", "multiple_choice")}
    assert lines(before, "texts") == {}
    assert lines(before, "fidelity").keys() == {("wanda@0.5", "perplexity"), ("rtn@4bit", "perplexity")}
    assert not forecast(job, store).opened, "a plan that was made once is remembered"

    run(replace(job, limit=2), store)
    during = forecast(job, store)
    assert all(cell.left == (0 if cell.work == "make" else 2) for cell in cells(during))
    assert during.unmeasured == 0 and during.left["seconds"] > 0
    run(job, store)
    after = forecast(job, store)
    assert all(cell.cached for cell in cells(after))
    assert set(after.left.values()) == {0} and after.demanded == 0


def test_half_precision_that_is_slow_here_is_told_once(tiny_folder, store, monkeypatch):
    def warnings(**more):
        job = request(tiny_folder, recipes=("dense",), tasks=("perplexity",), **more)
        return [one.warning for one in driver.run(job, store, 1) if one.warning]

    monkeypatch.setattr(engine, "half_slowdown", lambda model: 2.34)
    assert warnings(dtype="float32") == [], "what was chosen needs no advice"
    (told,) = warnings()
    assert "2.3 times as long" in told and "--dtype float32" in told
    assert warnings(limit=5) == []
    monkeypatch.undo()
    assert engine.half_slowdown(make("Llama")) == 1.0


def test_texts_are_planned_for_tasks_that_write(tiny_folder, store):
    job = request(tiny_folder, recipes=("dense", "rtn@4bit"), tasks=("factoid_qa",), limit=3, fidelity=True)
    assert lines(forecast(job, store), "texts")["rtn@4bit", "factoid_qa"].cost.cell.left == 3
    run(replace(job, recipes=("rtn@4bit",)), store)
    assert all(cell.cached for cell in cells(forecast(job, store))), "what dense said was asked too, for it to read"


def test_the_keys_of_a_plan_are_the_keys_of_the_sweep(tiny_folder, store):
    job = request(tiny_folder, fidelity=True)
    planned = sweep_keys.remember(store, open_sweep(job, store, plan_only=True))
    sweep = open_sweep(job, store)
    assert planned == sweep.keys == sweep_keys.recall(store, job)
    assert planned.artifacts == {recipe.text: sweep.builder.key(recipe) for recipe in sweep.recipes}
    for task in job.tasks:
        assert planned.runs[task] == {r.text: sweep.card(r, task).key for r in sweep.recipes}
        assert planned.again[task] == sweep.card(DENSE, task, again=True).key != planned.runs[task]["dense"]


def test_keys_of_two_sweeps_are_noted_together(tiny_folder, store):
    one, other = request(tiny_folder, recipes=("dense",)), request(tiny_folder, recipes=("rtn@4bit",))
    for job in (one, other):
        sweep_keys.remember(store, open_sweep(job, store, plan_only=True))
    both = sweep_keys.recall(store, request(tiny_folder, recipes=("dense", "rtn@4bit")))
    assert both is not None and both.runs["perplexity"].keys() == {"dense", "rtn@4bit"}


def test_whatever_decides_a_key_makes_the_note_unfound(tiny_folder, store, tmp_path):
    text = tmp_path / "calibration.txt"
    text.write_text("one two three " * 400)
    asked = request(tiny_folder, calibration=Calibration(str(text), windows=2, length=16))
    forecast(asked, store)
    assert sweep_keys.recall(store, asked)
    assert sweep_keys.recall(store, replace(asked, recipes=("dense", "wanda@0.6"))) is None
    assert sweep_keys.recall(store, replace(asked, calibration=replace(asked.calibration, seed=1))) is None
    assert sweep_keys.recall(store, replace(asked, limit=None)), "a limit is in no key"
    text.write_text("three two one " * 400)
    assert sweep_keys.recall(store, asked) is None


def test_tokens_and_operations_by_hand(tiny_folder, store):
    found = lines(forecast(request(tiny_folder, tasks=("perplexity",), limit=None), store), "ask")
    cost = found["dense", "perplexity"].cost
    block = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128  # q and o, k and v, gate and up and down
    weights = 2 * block + 64 * 4096
    assert cost.tokens == cost.cell.left * 512
    assert cost.flops == cost.cell.left * (2 * weights * 512 + 2 * 2 * 64 * 512**2)


@pytest.mark.parametrize(
    "text",
    [
        "magnitude@0.5",
        "wanda@2:4",
        "sparsegpt@0.5",
        "rtn@4bit,group=32",
        "gptq@3bit,group=16",
        "depth@0.5",
        "sparsegpt@2:4+gptq@4bit",
    ],
)
def test_bytes_are_about_those_of_the_artifact(tiny_folder, store, text):
    asked = request(tiny_folder, recipes=(text,), tasks=())
    (line,) = forecast(asked, store).lines
    run(asked, store)
    (card,) = weight_artifacts.cards(store)
    assert line.cost.bytes == pytest.approx(card.bytes, rel=0.1, abs=6000), "safetensors headers are the rest"


def test_methods_that_look_at_more_cost_more(tiny_folder, store):
    model = open_sweep(request(tiny_folder), store, plan_only=True).keys.model
    work = [forecasting.making(parse(text), model)[1] for text in ("rtn@4bit", "wanda@0.5", "sparsegpt@0.5")]
    assert work[0] == 0 < work[1] < work[2]
    searched = [f"wanda@0.5,alloc=search,objective={name}" for name in ("error", "perplexity", "factoid_qa")]
    (_, least), (some, more), (most, _) = (forecasting.making(parse(text), model) for text in searched)
    assert least == work[1] < more
    assert some - model.calibration == 66 * 16 * model.window
    assert most - model.calibration == 66 * 200 * 64


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_of_every_family(family):
    model = make(family)
    found = sweep_keys.sizes(model)
    prunable = sum(matrix.read().numel() for block in decoder_blocks(model) for matrix in matrices(block))
    assert found.prunable == prunable < found.parameters
    assert found.head == 128 * 64 and found.attention == 64 and found.bits == 32


def test_what_a_stage_took_forecasts_it_again(tiny_folder, tmp_path, store):
    job = request(tiny_folder, recipes=("dense",), tasks=("multiple_choice",), limit=2)
    keys = open_sweep(job, store, plan_only=True).keys
    cost = forecasting.cost(Cell("dense", "ask", "multiple_choice", 400, 400), keys)
    rates = forecasting.Rates(store, keys.model)
    spec = rates.expected(cost)
    assert rates.seconds(cost) == spec > 0 and rates.basis(cost) == "specification"
    for _ in range(40):
        rates.note(cost, 1.0, 3 * spec)
    assert rates.seconds(cost) == pytest.approx(3 * spec, rel=0.02) and rates.basis(cost) == "measured"
    other = forecasting.cost(Cell("dense", "ask", "multiple_choice", 400, 100), keys)
    assert rates.seconds(other) == pytest.approx(3 * rates.expected(other), rel=0.02), "by tokens, not by questions"
    rates.save()
    again = forecasting.Rates(store, keys.model)
    assert again.seconds(cost) == pytest.approx(rates.seconds(cost))
    fast = forecasting.device_of(keys.model, 1).flops * 8
    new_model = replace(keys.model, fingerprint="another")
    assert forecasting.Rates(open_store(tmp_path), new_model, products=fast).seconds(cost) == pytest.approx(spec / 4)
    assert forecasting.Rates(store, keys.model, products=fast).seconds(cost) == pytest.approx(3 * spec, rel=0.05)
    other_machine = forecasting.Rates(store, replace(keys.model, device="cuda", device_name="NVIDIA H100"))
    assert other_machine.seconds(cost) == other_machine.expected(cost), "a CPU's rates say nothing of a GPU"


def test_similar_work_stands_in_until_a_stage_is_measured(tiny_folder, store):
    job = request(tiny_folder, recipes=("dense",), tasks=("factoid_qa", "retrieval_qa_closed"), limit=2)
    keys = open_sweep(job, store, plan_only=True).keys
    known, like, make = (
        forecasting.cost(cell, keys)
        for cell in (
            Cell("dense", "ask", "factoid_qa", 9, 9),
            Cell("dense", "ask", "retrieval_qa_closed", 9, 9),
            Cell("wanda@0.5", "make", None, 2, 2),
        )
    )
    rates = forecasting.Rates(store, keys.model)
    for _ in range(40):
        rates.note(known, 1.0, 5 * rates.expected(known))
    for cost in (like, make):
        assert rates.seconds(cost) == pytest.approx(5 * rates.expected(cost), rel=0.05)
        assert rates.basis(cost) == "similar work"


def test_the_remaining_time_is_honest_and_smooth(tiny_folder, store):
    """Cells that take twice what is expected, by a clock of the test's own: once 5 % is done, within a quarter."""
    job = request(tiny_folder, recipes=tuple(f"magnitude@0.{n}" for n in range(1, 10)), tasks=("multiple_choice",))
    keys, now = open_sweep(job, store, plan_only=True).keys, [0.0]
    left = [cell for recipe in job.recipes for cell in (Cell(recipe, "make", None, 2, 2),
                                                       Cell(recipe, "ask", "multiple_choice", 400, 400))]  # fmt: skip
    rates = forecasting.Rates(store, keys.model)
    truth = {cell.id: 2 * rates.expected(forecasting.cost(cell, keys)) for cell in left}
    tracker = Tracker(left, keys, rates, 1, clock=lambda: now[0])
    shares, total, before = [0.0], sum(truth.values()), math.inf
    for cell in left:
        for part in range(10):
            now[0] += truth[cell.id] / 10
            progress = tracker.take(Step(cell.id, (part + 1) / 10, truth[cell.id] / 10))
            assert progress.done >= shares[-1]
            shares.append(progress.done)
            if progress.done > 0.05 and progress.done < 0.95:
                assert progress.remaining == pytest.approx(total - now[0], rel=0.25)
                assert progress.remaining < 1.05 * before
                before = progress.remaining
    assert shares[-1] == 1.0 and tracker.finish().remaining == 0.0


def test_an_artifact_that_is_not_needed_is_not_planned(tiny_folder, store):
    asked = request(tiny_folder, recipes=("magnitude@0.5",), tasks=("multiple_choice",), limit=2)
    run(asked, store)
    weight_artifacts.remove(store, weight_artifacts.cards(store)[0].key)
    assert [cell.left for cell in cells(forecast(asked, store))] == [0, 0]
    assert [cell.left for cell in cells(forecast(replace(asked, limit=3), store))] == [2, 1]


def test_bad_requests_are_refused_before_anything_is_opened(tiny_folder, store):
    with pytest.raises(BadRequest, match="limit 0"):
        forecast(request(tiny_folder, limit=0), store)
    with pytest.raises(BadRequest, match="Did you mean 'multiple_choice'"):
        forecast(request(tiny_folder, tasks=("multiple_choise",)), store)


def test_a_sweep_that_is_done_is_planned_without_torch(tiny_folder, tmp_path):
    words = [
        *("sweep", str(tiny_folder), "--recipe", "wanda@0.5", "--task", "multiple_choice", "--limit", "2"),
        *("--windows", "2", "--length", "16", "--fidelity", "--device", "cpu", "--cache", str(tmp_path), "--json"),
    ]
    python = [sys.executable, "-X", "importtime", "-m", "kick_core"]
    done = subprocess.run([sys.executable, "-m", "kick_core", *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    planned = subprocess.run([*python, *words, "--plan"], capture_output=True, text=True, cwd=ROOT)
    said = json.loads(planned.stdout)
    assert said["cached"] == said["cells"] == 4 and said["opened"] is False
    imported = {line.rpartition("|")[2].strip() for line in planned.stderr.splitlines()}
    assert not imported & {"torch", "transformers", "pandas", "streamlit", "datasets"}


def test_the_device_is_told_without_torch_only_where_that_is_sure(monkeypatch):
    assert sweep_keys.device("cuda:1") == "cuda" and sweep_keys.device("cpu") == "cpu"
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/nvidia0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert sweep_keys.device("auto") == "cuda"
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert sweep_keys.device("auto") == "cpu"
