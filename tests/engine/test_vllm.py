"""vLLM as engine: what a real one answered (recorded, and live where there is one) beside our own engine's answers."""

import json
import math
import os
import random
import subprocess
import sys
import time
import venv
from collections import Counter
from types import SimpleNamespace

import pytest
import torch

from kick_core import cli, views
from kick_core.engine import BatchPolicy, Generated, TextScore, server, vllm
from kick_core.errors import BadRequest, KickError
from kick_core.evaluation import perplexity
from kick_core.spec import parse
from kick_core.store import open_store, results
from kick_core.sweeps.grid import open_sweep
from kick_core.sweeps.request import SweepJob
from tests.engine import vllm_recorded
from tests.engine.vllm_recorded import command, stand_in

ENGINE = ("--engine", "vllm,enforce_eager=true")
REAL = os.environ.get(server.VARIABLE)


class InOrder(random.Random):
    """Leaves windows of a text in the text's order, as they stood when the real vLLM was asked."""

    def __init__(self, seed=None):
        super().__init__(seed)
        self.windows = seed == "kick windows 1"

    def shuffle(self, x):
        if not self.windows:
            super().shuffle(x)


@pytest.fixture(scope="module", autouse=True)
def windows_as_recorded():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(perplexity, "random", SimpleNamespace(Random=InOrder))
        yield


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    return stand_in(tmp_path_factory.mktemp("vllm") / "environment")


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A cache with our own engine's answers."""
    cache = tmp_path_factory.mktemp("ours")
    assert cli.main(command(cache)) == 0
    return cache


def asked_of(python, cache, monkeypatch, *more):
    monkeypatch.setenv(server.VARIABLE, str(python))
    return cli.main(command(cache, *ENGINE, *more))


def runs(cache):
    return {(card.recipe, card.task): card for card in results.runs(open_store(cache))}


def outputs(cache, card):
    return {output.example: output for output in results.outputs(open_store(cache), card.key)}


def test_the_same_answers_as_our_own_engine(python, ours, tmp_path, monkeypatch):
    """Log-probabilities to a hundred-thousandth a token, and the same texts, tokens, choices and reasons to stop."""
    assert asked_of(python, tmp_path, monkeypatch) == 0
    mine, theirs = runs(ours), runs(tmp_path)
    assert mine.keys() == theirs.keys() and len(mine) == 2 * len(vllm_recorded.TASKS)
    kinds = Counter()
    for what, card in mine.items():
        other = theirs[what]
        assert other.key != card.key and other.weights == card.weights and other.examples == card.examples
        found, wanted = outputs(tmp_path, other), outputs(ours, card)
        assert found.keys() == wanted.keys() and len(found) == vllm_recorded.LIMIT
        for example, one in wanted.items():
            two = found[example]
            same = ("prompt_hash", "text", "ids", "stop", "tokens", "prompt_tokens", "argmax", "shots_used")
            assert [getattr(one, name) for name in same] == [getattr(two, name) for name in same], what
            assert one.logprobs == pytest.approx(two.logprobs, rel=1e-5, abs=1e-4)
            assert (one.top is None) == (two.top is None) and two.entropy is None
            assert one.top is None or one.top == pytest.approx(two.top, abs=1e-4)
            kinds[two.stop] += 1
    assert kinds["scored"] and kinds["eos"] and kinds["stop"]
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_run_tells_its_engine_and_is_compared_within_it(python, ours, tmp_path, monkeypatch):
    assert asked_of(python, tmp_path, monkeypatch) == 0
    card = runs(tmp_path)["dense", "perplexity"]
    told = {"name": "vllm", "version": "0.32.0+cpu", "torch": "2.13.0+cpu", "dtype": "float32", "max_model_len": 513}
    assert told.items() <= card.settings["engine"].items()
    assert card.settings["engine"]["prefix_caching"] is False and card.settings["engine"]["enforce_eager"] is True
    assert card.plan == "vLLM's own batches, 64 requests at once" and card.device == "cpu"
    assert cli.main(command(tmp_path)) == 0  # our own engine too, in the same cache
    frame = views.scores(open_store(tmp_path))
    pruned = frame[frame["recipe"] != "dense"]
    by_run = {row["run"]: row["engine"] for row in frame.to_dict("records")}
    assert set(by_run.values()) == {"kick", "vllm 0.32.0+cpu"} and len(by_run) == 20
    assert all(by_run[row["dense_run"]] == row["engine"] for row in pruned.to_dict("records"))
    shown = views.current(frame, "pocket-4m", "strict")
    assert len(set(shown["engine"])) == 1


def test_what_is_answered_starts_no_server(python, tmp_path, monkeypatch):
    assert asked_of(python, tmp_path, monkeypatch) == 0
    monkeypatch.setattr(server, "serve", lambda *_: pytest.fail("there is nothing to ask"))
    assert asked_of(python, tmp_path, monkeypatch) == 0


def test_other_settings_are_another_run(python, store, monkeypatch):
    monkeypatch.setenv(server.VARIABLE, str(python))

    def key(engine):
        sweep = open_sweep(SweepJob("pocket-4m", ("dense",), ("factoid_qa",), 1, engine=engine), store)
        return sweep.card(parse("dense"), "factoid_qa").key

    assert len({key("kick"), key("vllm"), key("vllm,enforce_eager=true"), key("vllm,tensor_parallel_size=2")}) == 4
    assert key("vllm,gpu_memory_utilization=0.5") == key("vllm")


def test_a_request_that_vllm_refuses_is_told(python, tmp_path, monkeypatch, capsys):
    assert asked_of(python, tmp_path, monkeypatch, "--limit", "3") == 1
    assert "vLLM refused a request (400)" in capsys.readouterr().err
    assert list((tmp_path / "checkpoints").iterdir() if (tmp_path / "checkpoints").exists() else []) == []


def served(python, folder):
    return server.serve(server._look(str(python)), folder, "float32", 512, {})


def test_numbers_that_are_not_finite_are_no_answers(tmp_path, monkeypatch):
    """A real server cannot write NaN, and says so (recorded of vLLM 0.32.0, a weight being NaN)."""
    about = {"message": "Out of range float values are not JSON compliant", "type": "BadRequestError", "code": 400}
    monkeypatch.setattr(server.Server, "ask", lambda *_: (400, json.dumps({"error": about}).encode()))
    asks = vllm.engine(server.Server(None, tmp_path).complete, "cpu", {})
    plan = BatchPolicy(0, 2)
    (scored,) = asks.score_options([[5]], [[[6], [7, 8]]], plan=plan, filler=0)
    assert not scored[0].finite and len(scored[0].logprobs) == 2
    ((_, sums),) = asks.window_logprobs(torch.tensor([[1, 2, 3]]), rows=1)
    (text,) = asks.text_logprobs([[1]], [[2, 3]], plan=plan, filler=0)
    assert math.isnan(sums[0]) and math.isnan(text[0].total)
    given = {"new_tokens": 4, "ends": frozenset({2}), "stops": lambda ids: False, "plan": plan, "filler": 0}
    assert list(asks.generate([[5]], **given)) == [{0: Generated((), "not finite")}]


def test_a_page_without_a_token_has_log_probability_0():
    asks = vllm.engine(lambda body: pytest.fail("nothing to ask"), "cpu", {})
    assert list(asks.text_logprobs([[1]], [[]], plan=BatchPolicy(0, 2), filler=0)) == [{0: TextScore(0.0, (), 0)}]


def test_a_server_that_does_not_start_says_why(tmp_path):
    python = stand_in(tmp_path / "broken", 'raise ValueError("no kernel for this device")')
    with pytest.raises(KickError, match=r"ended while it started \(status 1\).*no kernel"), served(python, tmp_path):
        pass


def test_a_server_ends_with_whoever_started_it(tmp_path):
    """Also when that one is killed: its children read a pipe that then ends."""
    python = stand_in(tmp_path / "sleeper", "import os, time\nprint(os.getpid(), flush=True)\ntime.sleep(600)")
    starter = f"""
import subprocess, sys, time
from kick_core.engine import server as serving
server = subprocess.Popen([{str(python)!r}, "-c", serving._SERVE], stdin=subprocess.PIPE, start_new_session=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert gone(child)


def gone(process):
    for _ in range(200):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        with open(f"/proc/{process}/stat") as file:
            if file.read().rpartition(")")[2].split()[0] == "Z":  # nobody waits for it here
                return True
        time.sleep(0.05)
    return False


def test_no_vllm_is_a_plain_refusal(store, monkeypatch, tmp_path):
    monkeypatch.delenv(server.VARIABLE, raising=False)
    with pytest.raises(BadRequest, match=r"an environment of its own.*KICK_VLLM"):
        server.installed()
    for named, said in ((str(tmp_path / "python"), "is no Python"), (str(empty(tmp_path)), "has no vLLM")):
        monkeypatch.setenv(server.VARIABLE, named)
        with pytest.raises(BadRequest, match=said):
            server.installed()


def empty(place):
    venv.create(place / "empty", symlinks=True)
    return place / "empty" / "bin" / "python"


@pytest.mark.parametrize("text", ["trust_remote_code=true", "enforce_eager=yes", "max_num_seqs=many", "max_num_seqs"])
def test_settings_that_are_not_passed_on(text):
    with pytest.raises(BadRequest, match="vLLM setting"):
        server.options(text)


def test_recorded_answers_are_what_the_interface_sends():
    said = json.loads(vllm_recorded.RECORDED.read_text())
    assert len(said) == 2  # dense and pruned weights
    for choice in (choice for choices in said.values() for choice in choices.values()):
        assert {"text", "logprobs", "finish_reason", "token_ids", "prompt_logprobs"} <= choice.keys()


@pytest.mark.slow
@pytest.mark.skipif(not REAL, reason=f"{server.VARIABLE} names no environment with vLLM")
def test_a_real_one(ours, tmp_path, monkeypatch):
    test_the_same_answers_as_our_own_engine(REAL, ours, tmp_path, monkeypatch)
