"""The same sweep on one device, on all of this machine, and on a Ray cluster of this machine: seconds, and whether the
sealed artifacts are the same bytes.

A random Llama is made on the spot and compressed by some recipes (nothing is asked). Every case is a process of its own
with a cache of its own, and its seconds hold everything: imports, opening the model, starting Ray, syncing files.

    PYTHONPATH=. python benchmarks/cluster.py --json out.json                 # GPUs: one, all, all through Ray
    PYTHONPATH=. python benchmarks/cluster.py --small --device cpu
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from kick_core import jobs
from kick_core.jobs.specs import ClusterJob
from kick_core.pocket import POCKET_MODELS
from kick_core.spec import Calibration
from kick_core.store import Store, open_store
from kick_core.sweeps import driver
from kick_core.sweeps.request import SweepJob

RECIPES = tuple(f"sparsegpt@{target}" for target in ("0.3", "0.4", "0.5", "0.6", "0.7", "0.8", "2:4", "4:8"))
VOCABULARY = 4096


def make_model(folder: Path, hidden: int, layers: int, device: str) -> None:
    """A random bfloat16 Llama of a 7B's proportions in hub layout, with the pocket models' tokenizer."""
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=(hidden * 43 // 16), num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 128), num_key_value_heads=max(1, hidden // 128),
        max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cpu" if device == "cpu" else "cuda"):
        model = LlamaForCausalLM(config)
    torch.set_default_dtype(before)
    model.cpu().save_pretrained(folder)
    for path in POCKET_MODELS["pocket-11m"].iterdir():
        if path.suffix == ".jinja" or (path.suffix == ".json" and "token" in path.name):
            shutil.copy(path, folder)


def request(folder: Path, recipes: tuple[str, ...], windows: int, length: int, device: str) -> SweepJob:
    """Compress only, calibrated on random tokens."""
    tokens = folder / f"tokens-{windows}-{length}.npy"
    if not tokens.exists():
        np.save(tokens, np.random.default_rng(1).integers(6, VOCABULARY, (windows, length), dtype=np.int64))
    return SweepJob(str(folder), recipes, calibration=Calibration(str(tokens), windows, length), device=device)


# --- one case, in a process of its own -----------------------------------------------------------------------------


def local(asked: SweepJob, store: Store, processes: int | None) -> dict[str, Any]:
    """By processes of this machine, as `kick sweep` does."""
    for _ in driver.run(asked, store, processes):
        pass
    return {}


def ray(asked: SweepJob, store: Store, tasks: int) -> dict[str, Any]:
    """By a detached driver and Ray, as `kick sweep --ray auto` does."""
    began, at_work = time.perf_counter(), None
    name = jobs.start(store, ClusterJob(asked, workers=tasks)).id
    while (found := jobs.job(store, name)).active:
        if at_work is None and found.cell:
            at_work = time.perf_counter() - began
        time.sleep(0.05)
    if found.state != "done":
        raise SystemExit(f"{found.state}: {found.message}\n{jobs.log(store, name, 60)}")
    return {"where": found.where, "seconds_until_first_block": at_work}


def child(given: argparse.Namespace) -> None:
    asked = SweepJob.from_json(json.loads(given.child))
    store = open_store(given.cache)
    case: Callable[..., dict[str, Any]] = ray if given.case == "ray" else local
    print(json.dumps(case(asked, store, given.tasks)))


# --- all cases -------------------------------------------------------------------------------------------------------


def sums(store: Store) -> dict[str, Any]:
    """Size and checksum of every sealed block."""
    found = {}
    for key in store.keys("weights"):
        files = json.loads((store.folder("weights", key) / "manifest.json").read_text())["files"]
        found |= {f"{key}/{name}": facts for name, facts in files.items() if name != "card.json"}
    return found


def timed(asked: SweepJob, cache: Path, case: str, tasks: int) -> dict[str, Any]:
    """One case from an empty cache: its seconds, and what it sealed."""
    shutil.rmtree(cache, ignore_errors=True)
    command = [sys.executable, __file__, "--child", json.dumps(asked.to_json()), "--case", case]
    command += ["--cache", str(cache), "--tasks", str(tasks)]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{case} failed with status {done.returncode}")
    told = json.loads(done.stdout.strip().splitlines()[-1])
    sealed = sums(open_store(cache))
    size = sum(facts["bytes"] for facts in sealed.values())
    shutil.rmtree(cache)
    return {"seconds": round(seconds, 2), "blocks": len(sealed), "bytes": size, **told, "sealed": sealed}


def compare(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run the cases one after the other; the first is what the others are compared with."""
    many = torch.cuda.device_count() if given.device == "cuda" else given.tasks or 2
    one, every = ("cuda:0", "all") if given.device == "cuda" else ("cpu", "cpu")
    make_model(folder / "model", given.hidden, given.layers, given.device)
    make_model(folder / "warm", given.hidden, 1, given.device)

    def of(device: str, recipes: tuple[str, ...], model: str = "model") -> SweepJob:
        return request(folder / model, recipes, given.windows, given.length, device)

    recipes = RECIPES[: given.recipes]
    timed(of(one, recipes[:1], "warm"), folder / "cache", "local", 1)  # kernels are compiled, files read once
    cases = {
        "one device": timed(of(one, recipes), folder / "cache", "local", 1),
        f"{many} devices, --devices all": timed(of(every, recipes), folder / "cache", "local", many),
        f"{many} devices, --ray auto": timed(
            of("auto" if given.device == "cuda" else "cpu", recipes), folder / "cache", "ray", many
        ),
    }
    first = next(iter(cases.values()))
    sealed = {name: case.pop("sealed") for name, case in cases.items()}
    for name, case in cases.items():
        case["times_faster"] = round(first["seconds"] / case["seconds"], 2)
        case["same_bytes"] = sealed[name] == sealed["one device"]
    return {
        "model": {"hidden": given.hidden, "layers": given.layers, "dtype": "bfloat16"},
        "recipes": recipes,
        "calibration": {"windows": given.windows, "length": given.length},
        "cases": cases,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=6, help="blocks; 6 of hidden 4096 are 1.2 G parameters")
    parser.add_argument("--recipes", type=int, default=len(RECIPES), help="how many of the eight")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--tasks", type=int, help="at once, on a CPU (default 2)")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--folder", type=Path, help="where model and caches lie (default: a temporary folder)")
    parser.add_argument("--json", type=Path, dest="out")
    for hidden in ("--child", "--case", "--cache"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given)
        return
    if given.small:
        given.hidden, given.layers, given.recipes, given.windows, given.length = 256, 3, 4, 8, 128
    with tempfile.TemporaryDirectory(dir=given.folder, prefix="kick-cluster-") as place:
        found = compare(given, Path(place))
    print(json.dumps(found, indent=1))
    _machine.write(given.out, "cluster", found)
    if not all(case["same_bytes"] for case in found["cases"].values()):
        raise SystemExit("the sealed artifacts differ")


if __name__ == "__main__":
    os.environ.pop("RAY_ADDRESS", None)
    main()
