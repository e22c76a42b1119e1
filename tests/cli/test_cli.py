"""The command line as users and scripts meet it: results, exit statuses, one-line refusals, Ctrl-C."""

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from kick_core.cli import main

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--windows", "4", "--length", "32"]


@pytest.fixture
def kick(tmp_path, capsys):
    def run(*words, cache=tmp_path / "cache"):
        status = main([*map(str, words), "--cache", str(cache)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_compress_evaluate_list_show_verify(kick, tiny_folder):
    status, out, _ = kick("compress", tiny_folder, "wanda@0.5", "rtn@4bit,group=32", *SMALL, "--json")
    made = json.loads(out)["artifacts"]
    assert status == 0 and [card["recipe"] for card in made] == ["wanda@0.5", "rtn@4bit,group=32"]
    assert made[0]["sparsity"] == 0.5 and made[0]["bits_per_weight"] < 1.2

    words = ["evaluate", tiny_folder, "wanda@0.5", "--task", "factoid_qa", "--task", "perplexity", "--limit", 6, *SMALL]
    status, out, _ = kick(*words, "--json")
    (perplexity, factoid) = json.loads(out)["results"]
    assert status == 0 and (perplexity["task"], factoid["task"]) == ("perplexity", "factoid_qa")
    assert factoid["n"] == 6 and factoid["artifact"] == made[0]["key"] and factoid["seconds"] > 0
    against = factoid["scorers"]["contains"]["against_dense"]
    assert {"difference", "interval", "broke", "fixed", "p"} <= set(against)
    low, high = perplexity["scorers"]["perplexity"]["interval"]
    assert low < perplexity["scorers"]["perplexity"]["mean"] < high

    began = time.perf_counter()
    assert kick(*words, "--json")[1] == out  # a second run does no work and says the same
    assert time.perf_counter() - began < 30

    status, out, _ = kick("list", "--json")
    listed = json.loads(out)
    assert len(listed["artifacts"]) == 2 and len(listed["runs"]) == 4
    assert kick("list")[0] == 0
    status, out, _ = kick("show", made[0]["key"][:16])
    assert status == 0 and json.loads(out)["recipe"] == "wanda@0.5"
    assert kick("verify", "--deep")[:1] == (0,)
    status, out, _ = kick("score", "--json")
    assert status == 0 and len(json.loads(out)["verdicts"]) == 4


def test_damage_is_told_and_made_again(kick, tiny_folder, tmp_path):
    kick("compress", tiny_folder, "magnitude@0.5")
    (block,) = sorted((tmp_path / "cache" / "weights").glob("*/*/block-0001.safetensors"))
    data = bytearray(block.read_bytes())
    data[-1] ^= 1
    block.write_bytes(data)
    assert kick("verify")[0] == 0
    status, out, _ = kick("verify", "--deep")
    assert status == 1 and "checksum" in out and "quarantine" in out
    assert kick("compress", tiny_folder, "magnitude@0.5")[0] == 0
    assert kick("verify", "--deep")[0] == 0


def test_gc_makes_room_and_keeps_every_output(kick, tiny_folder):
    kick("evaluate", tiny_folder, "magnitude@0.5", "--task", "factoid_qa", "--limit", 2)
    status, out, _ = kick("gc", "--max-size", 0, "--json")
    assert status == 0 and len(json.loads(out)["removed"]) == 1
    listed = json.loads(kick("list", "--json")[1])
    assert listed["artifacts"] == [] and len(listed["runs"]) == 2


def test_what_was_removed_is_made_again_without_asking_again(kick, tiny_folder):
    words = ["evaluate", tiny_folder, "magnitude@0.5", "--task", "factoid_qa", "--limit", 2, "--json"]
    before = kick(*words)[1]
    kick("gc", "--max-size", 0)
    assert kick(*words)[1] == before


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["evaluate", "pocet", "dense", "--task", "factoid_qa"], "Did you mean 'pocket'"),
        (["evaluate", "pocket", "wandaa@0.5", "--task", "factoid_qa"], "Did you mean 'wanda'"),
        (["evaluate", "pocket", "dense", "--task", "factoid"], "Did you mean 'factoid_qa'"),
        (["compress", "pocket", "wanda@1.2"], "1.2"),
        (["compress", "pocket", "wanda@4:2"], "4:2"),
        (["compress", "pocket", "rtn@16bit"], "2..8"),
        (["compress", "TINY", "magnitude@3:7"], "7 divides"),
        (["compress", "TINY", "wanda@0.5", "--calibration", "EMPTY"], "is empty"),
        (["compress", "TINY", "wanda@0.5", "--calibration", "nowhere.txt"], "nowhere.txt"),
        (["compress", "TINY", "wanda@0.5", "--windows", "0"], "at least 1"),
        (["compress", "TINY", "magnitude@0.5", "--device", "tpu"], "tpu"),
        (["compress", "TINY", "magnitude@0.5", "--dtype", "int3"], "int3"),
        (["evaluate", "TINY", "dense", "--task", "factoid_qa", "--limit", "0"], "limit 0"),
        (["sweep", "TINY", "--preset", "demo", "--limit", "0"], "limit 0"),
        (["evaluate", "TINY", "magnitude@0.5,dense", "--task", "factoid_qa"], "put spaces between recipes"),
        (["evaluate", "TINY", "dense", "--task", "factoid_qa", "--limit-of", "factoid_qa"], "as in world_facts=1000"),
        (["evaluate", "TINY", "dense", "--task", "factoid_qa", "--limit-of", "nq_open=3"], "'nq_open' is not asked"),
        (["evaluate", "TINY", "dense", "--task", "factoid_qa", "--data", "elsewhere"], "elsewhere"),
        (["sweep", "TINY", "--preset", "dmo"], "Did you mean 'demo'"),
        (["sweep", "TINY"], "--preset"),
        (["compress", "BARE", "magnitude@0.5"], "holds no safetensors"),
        (["compress", "PICKLE", "magnitude@0.5"], "pytorch_model.bin"),
        (["compress", "FILE", "magnitude@0.5"], "is a file"),
        (["show", "nothing"], "no key begins"),
    ],
)
def test_refusals_are_one_line_and_exit_2(kick, tiny_folder, tmp_path, words, named):
    bare, pickled = tmp_path / "bare", tmp_path / "pickled"
    for folder in (bare, pickled):
        folder.mkdir()
        shutil.copy(tiny_folder / "config.json", folder)
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (tmp_path / "empty.txt").write_text("")
    places = {
        "TINY": tiny_folder, "BARE": bare, "PICKLE": pickled, "EMPTY": tmp_path / "empty.txt",
        "FILE": tiny_folder / "config.json",
    }  # fmt: skip
    status, out, err = kick(*(places.get(word, word) for word in words))
    (line,) = [line for line in err.replace("\r", "\n").splitlines() if line.startswith("kick: ")]
    assert status == 2 and named in line and out == ""


def damaged(folder, source, change):
    shutil.copytree(source, folder)
    change(folder)
    return folder


def _truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _lying_header(folder):
    (folder / "model.safetensors").write_bytes(b"\xff" * 8 + b"{}")


def _missing_tensor(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("model.layers.0.mlp.up_proj.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _index_outside(folder):
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"weight_map": {"x": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _own_code(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Model"}}))


def _broken_config(folder):
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (_truncate, "no whole safetensors file"),
        (_lying_header, "no whole safetensors file"),
        (_missing_tensor, "up_proj"),
        (_index_outside, "../outside.safetensors"),
        (_own_code, "auto_map"),
        (_broken_config, "damaged"),
    ],
)
def test_damaged_or_hostile_folders_are_refused_by_name(kick, tiny_folder, tmp_path, change, named):
    status, _, err = kick("compress", damaged(tmp_path / "model", tiny_folder, change), "magnitude@0.5")
    assert status == 1 and named in err and "Traceback" not in err


def test_no_space_left_in_mid_sweep_keeps_what_is_done(kick, tiny_folder, monkeypatch):
    import errno

    from kick_core.store import staging, weight_artifacts

    plain = staging.Stage.add

    def full(self, report, *rest):
        if report.block == 1:
            raise weight_artifacts.KickError("no space left: pretended") from OSError(errno.ENOSPC, "full")
        plain(self, report, *rest)

    with monkeypatch.context() as patched:
        patched.setattr(staging.Stage, "add", full)
        status, _, err = kick("compress", tiny_folder, "magnitude@0.5")
        assert status == 1 and "no space left" in err
    status, out, _ = kick("compress", tiny_folder, "magnitude@0.5", "--json")
    assert status == 0 and json.loads(out)["artifacts"][0]["sparsity"] == 0.5


def test_ctrl_c_in_mid_sweep_then_the_same_command_goes_on(kick, tiny_folder, tmp_path):
    words = [sys.executable, "-m", "kick_core", "sweep", str(tiny_folder), "--cache", str(tmp_path / "cache"), "--json"]
    words += ["--recipe", "magnitude@0.5", "--task", "factoid_qa", "--task", "instructions", "--limit", "12"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # a shell that runs the tests in the background lets its children ignore Ctrl-C
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 180
    while not list((tmp_path / "cache").glob("results/*/*/part-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "goes on from here" in err and "Traceback" not in err
    kept = len(list((tmp_path / "cache").glob("results/*/*/part-*")))
    assert kept >= 1
    status, out, err = kick(*words[3:])  # in this process: torch is loaded here already
    assert status == 0, err
    assert len(json.loads(out)["results"]) == 4


def test_listing_never_waits_for_torch(tmp_path):
    code = "import sys; from kick_core.cli import main; main(['list', '--cache', sys.argv[1]]); "
    code += "print('torch' in sys.modules, 'kick_core.cli.list' in sys.modules)"  # the second: the test can fail
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip().endswith("False True"), said.stdout
