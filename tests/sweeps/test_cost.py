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

from kick_core.errors import BadRequest
from kick_core.models.blocks import decoder_blocks, matrices
from kick_core.spec import DENSE, Calibration, parse
from kick_core.store import results, weight_artifacts
from kick_core.sweeps import cost as forecasting
from kick_core.sweeps import grid, known_keys
from kick_core.sweeps.cost import Line, forecast
from kick_core.sweeps.grid import Sweep
from kick_core.sweeps.request import Request
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
    return Request(model=str(folder), **(asked | more))


def lines(found, work):
    return {(line.recipe, line.task): line for line in found.lines if line.work == work}


def test_before_during_and_after(tiny_folder, store):
    asked = request(tiny_folder, fidelity=True, noise_floor=True)
    before = forecast(asked, store)
    assert before.opened and before.unmeasured == len(before.lines) and not any(line.cached for line in before.lines)
    assert {line.total for line in before.lines if line.work != "make"} == {4}
    assert lines(before, "again").keys() == {("dense", "perplexity"), ("dense", "multiple_choice")}
    assert lines(before, "texts") == {}
    assert lines(before, "fidelity").keys() == {("wanda@0.5", "perplexity"), ("rtn@4bit", "perplexity")}
    assert not forecast(asked, store).opened, "a plan that was made once is remembered"

    for _ in grid.run(replace(asked, limit=2), store):
        pass
    during = forecast(asked, store)
    assert all(line.left == (0 if line.work == "make" else 2) for line in during.lines)
    assert during.unmeasured == 0 and during.sum("seconds") > 0
    for _ in grid.run(asked, store):
        pass
    after = forecast(asked, store)
    assert all(line.cached for line in after.lines)
    assert after.sum("tokens") == after.sum("seconds") == after.sum("bytes") == 0


def test_texts_are_planned_for_tasks_that_write(tiny_folder, store):
    asked = request(tiny_folder, recipes=("dense", "rtn@4bit"), tasks=("factoid_qa",), limit=3, fidelity=True)
    assert lines(forecast(asked, store), "texts")["rtn@4bit", "factoid_qa"].left == 3
    for _ in grid.run(replace(asked, recipes=("rtn@4bit",)), store):
        pass
    found = forecast(asked, store)
    assert all(line.cached for line in found.lines), "what dense said was asked too, for the variant to read"


def test_the_keys_of_a_plan_are_the_keys_of_the_sweep(tiny_folder, store):
    asked = request(tiny_folder, fidelity=True)
    planned = known_keys.remember(store, Sweep(asked, store, plan_only=True))
    opened = Sweep(asked, store)
    assert planned["artifacts"] == {recipe.text: opened.builder.key(recipe) for recipe in opened.recipes}
    for task in asked.tasks:
        assert planned["runs"][task] == {r.text: opened.card(r, task).key for r in opened.recipes}
        assert planned["again"][task] == opened.card(DENSE, task, again=True).key != planned["runs"][task]["dense"]


def test_whatever_decides_a_key_makes_the_note_unfound(tiny_folder, store, tmp_path):
    text = tmp_path / "calibration.txt"
    text.write_text("one two three " * 400)
    asked = request(tiny_folder, calibration=Calibration(str(text), windows=2, length=16))
    forecast(asked, store)
    assert known_keys.recall(store, asked)
    assert known_keys.recall(store, replace(asked, recipes=("dense", "wanda@0.6"))) is None
    assert known_keys.recall(store, replace(asked, calibration=replace(asked.calibration, seed=1))) is None
    assert known_keys.recall(store, replace(asked, limit=None)), "a limit is in no key"
    text.write_text("three two one " * 400)
    assert known_keys.recall(store, asked) is None


def test_tokens_and_operations_by_hand(tiny_folder, store):
    found = lines(forecast(request(tiny_folder, tasks=("perplexity",), limit=None), store), "ask")
    line = found["dense", "perplexity"]
    block = 2 * 64 * 64 + 2 * 32 * 64 + 3 * 64 * 128  # q and o, k and v, gate and up and down
    weights = 2 * block + 64 * 4096
    assert line.tokens == line.left * 512
    assert line.flops == line.left * (2 * weights * 512 + 2 * 2 * 64 * 512**2)


@pytest.mark.parametrize(
    "text", ["magnitude@0.5", "wanda@2:4", "sparsegpt@0.5", "rtn@4bit,group=32", "gptq@3bit,group=16", "depth@0.5"]
)
def test_bytes_are_about_those_of_the_artifact(tiny_folder, store, text):
    asked = request(tiny_folder, recipes=(text,), tasks=())
    (line,) = forecast(asked, store).lines
    for _ in grid.run(asked, store):
        pass
    (card,) = weight_artifacts.cards(store)
    assert line.bytes == pytest.approx(card.bytes, rel=0.1, abs=6000), "safetensors headers are the rest"


def test_methods_that_look_at_more_cost_more(tiny_folder, store):
    model = known_keys.remember(store, Sweep(request(tiny_folder), store, plan_only=True))["model"]
    work = [forecasting.making(parse(text), model)[1] for text in ("rtn@4bit", "wanda@0.5", "sparsegpt@0.5")]
    assert work[0] == 0 < work[1] < work[2]
    searched = [f"wanda@0.5,alloc=search,objective={name}" for name in ("error", "perplexity", "factoid_qa")]
    (_, least), (some, more), (most, _) = (forecasting.making(parse(text), model) for text in searched)
    assert least == work[1] < more
    assert some - model["calibration"] == 66 * 16 * model["window"]
    assert most - model["calibration"] == 66 * 200 * 64


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_of_every_family(family):
    model = make(family)
    found = known_keys.sizes(model)
    prunable = sum(matrix.read().numel() for block in decoder_blocks(model) for matrix in matrices(block))
    assert found["blocks"] * sum(rows * cols for rows, cols in found["matrices"]) == prunable < found["parameters"]
    assert found["head"] == 128 * 64 and found["attention"] == 64 and found["bits"] == 32


def test_a_rate_is_not_made_up(tiny_folder, store):
    asked = request(tiny_folder, recipes=("dense",), tasks=("multiple_choice",), limit=2)
    for _ in grid.run(asked, store):
        pass
    (run,) = results.runs(store)
    (sitting,) = results.timings(store, run.key)
    found = forecast(replace(asked, limit=6, tasks=("multiple_choice", "factoid_qa")), store)
    choice, facts = found.lines
    assert choice.seconds == pytest.approx(4 * sitting.seconds / sitting.examples)
    assert math.isnan(facts.seconds) and found.unmeasured == 1
    assert found.sum("seconds") == choice.seconds


def test_an_artifact_that_is_not_needed_is_not_planned(tiny_folder, store):
    asked = request(tiny_folder, recipes=("magnitude@0.5",), tasks=("multiple_choice",), limit=2)
    for _ in grid.run(asked, store):
        pass
    weight_artifacts.remove(store, weight_artifacts.cards(store)[0].key)
    assert [line.left for line in forecast(asked, store).lines] == [0, 0]
    assert [line.left for line in forecast(replace(asked, limit=3), store).lines] == [2, 1]


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
    assert known_keys.device("cuda:1") == "cuda" and known_keys.device("cpu") == "cpu"
    monkeypatch.setattr(os.path, "exists", lambda path: path == "/dev/nvidia0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert known_keys.device("auto") == "cuda"
    monkeypatch.setattr(os.path, "exists", lambda path: False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert known_keys.device("auto") == "cpu"


def test_a_line_is_cached_when_nothing_is_left():
    assert Line("dense", "ask", "perplexity", 4, 0).cached and not Line("dense", "ask", "perplexity", 4, 1).cached
