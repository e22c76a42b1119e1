"""An artifact that was read ahead is applied bit for bit, and from memory."""

import pytest
import torch

from kick_core.artifacts import read_ahead
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import open_for
from kick_core.spec import DENSE, Calibration, ModelRef, parse
from kick_core.store import weight_artifacts

RTN = parse("rtn@4bit")


@pytest.fixture
def builder(store, tiny_folder) -> ArtifactBuilder:
    builder = ArtifactBuilder(store, open_for(ModelRef(str(tiny_folder)), store, "cpu"), Calibration())
    for _ in builder.make(RTN):
        pass
    return builder


def test_applied_from_memory(builder, monkeypatch):
    weights = {name: tensor.clone() for name, tensor in builder.opened.model.state_dict().items()}
    builder.apply_recipe(DENSE)
    builder.read_ahead(RTN)
    builder.opened.ahead._blocks.result()
    monkeypatch.setattr(weight_artifacts, "tensors", None)  # no file is read any more
    builder.apply_recipe(RTN)
    for name, tensor in builder.opened.model.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize("reason", ["too large", "removed"])
def test_what_was_not_read_is_read_when_it_is_applied(builder, monkeypatch, reason):
    key = builder.key(RTN)
    if reason == "removed":
        builder.apply_recipe(DENSE)
        assert weight_artifacts.remove(builder.store, key)
    else:
        monkeypatch.setattr(read_ahead, "SHARE", 1 << 60)
    builder.read_ahead(RTN)
    assert builder.opened.ahead.take(key) == []
