"""Recipes dealt out over GPUs: who gets which device, and what is said where there is none."""

import pytest
import torch

from kick_core.errors import BadRequest
from kick_core.models.loading import device_of
from kick_core.spec import parse
from kick_core.sweeps import pool
from kick_core.sweeps.grid import Cell
from kick_core.sweeps.request import Request


def test_all_gpus_are_taken_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    request = Request("pocket", ("wanda@0.5",), device="all")
    assert [one["device"] for one in pool.requests_for(request, 3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert all(Request.from_json(one).recipes == request.recipes for one in pool.requests_for(request, 2))


def test_one_device_is_shared():
    assert [one["device"] for one in pool.requests_for(Request("pocket", (), device="cpu"), 2)] == ["cpu", "cpu"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_all_needs_a_gpu():
    with pytest.raises(BadRequest, match=r"'all' was asked for.*--device cpu"):
        device_of("all")


def test_the_dearest_recipe_goes_first_and_the_last_ones_are_halved():
    def cells(text, make, **asking):
        recipe = parse(text)
        return [Cell(recipe, None, make, 8, "make"), *(Cell(recipe, task, cost, 1) for task, cost in asking.items())]

    left = [
        *cells("magnitude@0.5", 2.0, factoid_qa=8.0, perplexity=3.0, instructions=9.0),
        *cells("dense", 0.0, factoid_qa=8.0),
        *cells("wanda@0.5", 12.0, factoid_qa=8.0, perplexity=3.0),
        *cells("gptq@4bit", 20.0),
    ]
    found = pool.units_for(left, 2)
    assert found[:2] == [pool.Unit("dense"), pool.Unit("wanda@0.5")]
    assert found[2:] == [
        pool.Unit("magnitude@0.5", ("instructions", "perplexity")),
        pool.Unit("magnitude@0.5", ("factoid_qa",)),
        pool.Unit("gptq@4bit"),
    ]
    asked = {(unit.recipe, task) for unit in found for task in unit.tasks}
    assert asked == {(cell.recipe.text, cell.task) for cell in left if cell.task and cell.recipe.method == "magnitude"}
