"""Running out of memory: statistics are begun anew, batches halved, and it is said."""

import pytest
import torch

import kick_core
from kick_core import cli
from kick_core.compression import activations
from kick_core.compression.activations import dense_pass, first
from kick_core.compression.walk import walk, walk_many
from kick_core.errors import KickError
from kick_core.models.block_calls import PROBED
from kick_core.models.blocks import decoder_blocks, first_inputs, run_block
from kick_core.models.replay import Replay
from kick_core.spec import parse
from tests.tiny import tiny_llama, token_ids


def full_when(monkeypatch, too_much):
    """Let a block's forward run out of memory when `too_much(windows)` says so."""
    real = Replay.run

    def forward(self, block, rows, index, hidden, *, keep):
        output = real(self, block, rows, index, hidden, keep=keep)
        if self.ids.shape[1] != PROBED[1] and too_much(len(hidden)):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return output

    monkeypatch.setattr(Replay, "run", forward)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.mark.parametrize("propagate", ["compressed", "dense"])
def test_batches_are_halved_and_it_is_said(monkeypatch, propagate):
    plain, full, ids = tiny_llama(), tiny_llama(), token_ids(9)
    wanted = [walked.report for walked in walk(plain, parse("sparsegpt@2:4"), ids, propagate=propagate)]
    full_when(monkeypatch, lambda windows: windows > 3)
    found = [walked.report for walked in walk(full, parse("sparsegpt@2:4"), ids, propagate=propagate)]
    assert all(report.note == "" for report in wanted)
    assert "4 windows" in found[0].note and "2 windows" in found[0].note and found[1].note == ""
    assert [[x.zeros for x in r.layers] for r in found] == [[x.zeros for x in r.layers] for r in wanted]
    for name, weight in plain.named_parameters():
        assert torch.allclose(full.get_parameter(name), weight, atol=1e-4), name


def test_no_token_is_counted_twice(monkeypatch):
    model, ids = tiny_llama(), token_ids(20)
    failed = []

    def once_in_the_second_batch(windows):
        failed.append(windows)
        return len(failed) == 2

    full_when(monkeypatch, once_in_the_second_batch)
    inputs = first(model, ids)
    dense = dense_pass(model, decoder_blocks(model)[0], 0, inputs, "gram", keep=True)
    monkeypatch.undo()
    wanted = dense_pass(model, decoder_blocks(model)[0], 0, first(model, ids), "gram", keep=True)
    assert {inputs.tokens for inputs in (*dense.stats.values(), *wanted.stats.values())} == {ids.numel()}
    for name, inputs in wanted.stats.items():
        assert torch.allclose(dense.stats[name].gram, inputs.gram, rtol=1e-5, atol=1e-4), name
    assert torch.allclose(dense.outputs, wanted.outputs, atol=1e-5)


def test_many_recipes_go_on_too(monkeypatch):
    full_when(monkeypatch, lambda windows: windows > 4)
    walked = list(walk_many(tiny_llama(), [parse("wanda@0.5"), parse("gptq@4bit,group=32")], token_ids(9)))
    assert len(walked) == 4 and "4 windows" in walked[0][1].report.note


def test_one_window_too_many_is_a_plain_refusal(monkeypatch):
    full_when(monkeypatch, lambda windows: True)
    with pytest.raises(KickError, match=r"one window of 32 tokens .*--length"):
        list(kick_core.compress(tiny_llama(), "wanda@0.5", token_ids()))


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")]
)
def test_the_command_line_says_so_in_one_line(monkeypatch, capsys, tmp_path, error):
    def fails(_given):
        raise error

    monkeypatch.setattr("kick_core.cli.compress.run", fails)
    assert cli.main(["compress", "pocket", "wanda@0.5", "--cache", str(tmp_path)]) == 1
    assert "out of memory" in capsys.readouterr().err


@pytest.mark.parametrize("propagate", ["dense", "compressed"])
def test_blocks_are_compared_on_a_few_windows(monkeypatch, propagate):
    monkeypatch.setattr(activations, "COMPARED", 50)
    model, ids = tiny_llama(layers=1), token_ids(10)
    hidden, (call,) = first_inputs(model, ids[:2])  # two windows of 32 hold as many tokens
    (block,) = decoder_blocks(model)
    with torch.no_grad():
        before = run_block(block, hidden, call)
        (walked,) = walk(model, parse("wanda@0.5"), ids, propagate=propagate)
        after = run_block(block, hidden, call)
    wanted = (after - before).square().sum() / before.square().sum()
    assert walked.report.loss == pytest.approx(float(wanted), rel=1e-4)
