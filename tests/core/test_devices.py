"""Recipes dealt out over GPUs: who gets which device, and what is said where there is none."""

import pytest
import torch

from kick_core import workers
from kick_core.models.loading import device_of
from kick_core.spec import BadRequest
from kick_core.sweep import Request


def test_all_gpus_are_taken_in_turn(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    request = Request("pocket", ("wanda@0.5",), device="all")
    assert [one["device"] for one in workers.requests_for(request, 3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert all(Request.from_json(one).recipes == request.recipes for one in workers.requests_for(request, 2))


def test_one_device_is_shared():
    assert [one["device"] for one in workers.requests_for(Request("pocket", (), device="cpu"), 2)] == ["cpu", "cpu"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_all_needs_a_gpu():
    with pytest.raises(BadRequest, match=r"'all' was asked for.*--device cpu"):
        device_of("all")
