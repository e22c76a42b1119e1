"""How long compressing takes, ours and the published procedure's, in one run on the same inputs.

Checks that the results are right come first; a row that fails says so and the others go on. Sizes are those of a
7B's blocks unless said otherwise; `--small` takes sizes for a CPU.

    PYTHONPATH=. python benchmarks/compression_gpu.py --json out.json --golden ../shared/golden
    python benchmarks/compression_gpu.py --small
    python benchmarks/compression_gpu.py --only grow
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _gpu_checks
import _gpu_parts
import _machine
import _reference
import torch
from _bench import Bench, batched, rounded
from transformers import LlamaForCausalLM

from kick_core.compression import codec
from kick_core.compression.walk import walk, walk_many
from kick_core.methods import resolve
from kick_core.models.blocks import decoder_blocks, first_inputs, matrices
from kick_core.models.shards import Shards, open_streamed, resident
from kick_core.spec import parse

BARS = {"wanda@0.5": 0.55, "sparsegpt@0.5": 1.5, "gptq@4bit,group=128": 1.5}
"""Seconds a block of a 7B may take on one H200."""

MANY = 3.0
"""Twelve sparsities and the patterns of three methods may take this many times one SparseGPT run."""

SPARSITIES = tuple(step / 100 for step in range(5, 65, 5))


def checks(bench: Bench) -> dict[str, Any]:
    wanted: dict[str, Callable[[], dict[str, Any]]] = {
        "selection": lambda: _gpu_checks.selection(bench.device),
        "kernel equals eager": lambda: _gpu_checks.kernel_equals_eager(bench.device),
        "closed forms": lambda: _gpu_checks.closed_forms(bench.device),
        "gram accuracy": lambda: _gpu_checks.gram_accuracy(bench.device, min(4096, bench.hidden)),
        "loss accuracy": lambda: _gpu_checks.loss_accuracy(bench.device),
        "deterministic": lambda: _gpu_checks.deterministic(bench.device),
    }
    if bench.golden:
        folder = bench.golden
        wanted["golden"] = lambda: _gpu_checks.golden(bench.device, folder)
    found: dict[str, Any] = {}
    for name, check in wanted.items():
        try:
            found[name] = check()
            short = json.dumps({k: v for k, v in found[name].items() if k != "cases" or isinstance(v, int)})
            bench.tell(f"check {name}: ok {short[:400]}")
        except Exception as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()[-2000:]}
            bench.tell(f"check {name}: FAILED {type(error).__name__}: {str(error)[:500]}")
    return found


def _ours(bench: Bench, recipe: str, batch: int, layers: int = 3, **changed: int) -> dict[str, Any]:
    """Seconds a block of a walk with compressed propagation; the first block, which compiles, is left out."""
    windows = changed.pop("windows", bench.windows)
    model, ids = bench.model(layers, **changed), bench.ids(windows)
    found: dict[str, Any] = {"batch": batch}
    with batched(batch), bench.peak(found):
        spent = []
        bench.wait()
        began = time.perf_counter()
        for _ in walk(model, resolve(parse(recipe)), ids):
            bench.wait()
            spent.append(time.perf_counter() - began)
            began = time.perf_counter()
    found |= {"seconds": rounded(min(spent[1:] or spent)), "all": [rounded(s) for s in spent]}
    return found


def _peer(bench: Bench, method: str) -> dict[str, Any]:
    model, ids = bench.model(1), bench.ids()
    (block,) = decoder_blocks(model)
    hidden = torch.cat([first_inputs(model, part)[0] for part in ids.split(1)])
    (call,) = first_inputs(model, ids[:1])[1]
    found: dict[str, Any] = {}
    with bench.peak(found):
        _reference.block_seconds(block, hidden[:1], call, method, bench.wait)  # handles and plans are made
        block.load_state_dict(decoder_blocks(bench.model(1))[0].state_dict())
        told = _reference.block_seconds(block, hidden, call, method, bench.wait)
    return found | {name: rounded(s) for name, s in told.items()}


def _row(bench: Bench, recipe: str, peer: str) -> dict[str, Any]:
    found: dict[str, Any] = {"bar": BARS[recipe], "ours": {}}
    for batch in (1, 8):
        found["ours"][batch] = _ours(bench, recipe, batch)
        one = found["ours"][batch]
        bench.tell(f"{recipe}: ours {one['seconds']} s/block (batch {batch}, peak {one.get('peak_gb')} GB)")
    best = min(one["seconds"] for one in found["ours"].values())
    found["reference"] = _peer(bench, peer)
    found["times_faster"] = rounded(found["reference"]["seconds"] / best)
    bench.tell(
        f"{recipe}: best {best}, bar {BARS[recipe]}, published procedure {found['reference']['seconds']} "
        f"({found['times_faster']}x) {json.dumps(found['reference'])}"
    )
    return found


def many(bench: Bench) -> dict[str, Any]:
    """Twelve sparsities and two patterns of three methods in one dense pass, against one SparseGPT run."""
    goals = [*(f"{s:g}" for s in SPARSITIES), "2:4", "4:8"]
    recipes = [resolve(parse(f"{method}@{goal}")) for method in ("magnitude", "wanda", "sparsegpt") for goal in goals]
    found: dict[str, Any] = {"recipes": len(recipes), "bar": MANY}
    one = _ours(bench, "sparsegpt@0.5", 8)["seconds"]
    model, ids = bench.model(2), bench.ids()
    for batch in (1, 8):
        with batched(batch), bench.peak(found):
            spent = []
            bench.wait()
            began = time.perf_counter()
            by_method: dict[str, float] = {}
            for recipe, one_of in walk_many(model, recipes, ids):
                if one_of.report.block:  # the first block compiles
                    by_method[recipe.method] = by_method.get(recipe.method, 0) + one_of.report.seconds
                del one_of
                if recipe == recipes[-1]:
                    bench.wait()
                    spent.append(time.perf_counter() - began)
                    began = time.perf_counter()
        by_method = {name: rounded(seconds) for name, seconds in by_method.items()}
        found[batch] = {"seconds": rounded(spent[-1]), "times": rounded(spent[-1] / one), "by_method": by_method}
        bench.tell(f"many ({len(recipes)} recipes, batch {batch}): {json.dumps(found[batch])} of one SparseGPT, bar 3x")
    found["sparsegpt"] = one
    return found


def switch(bench: Bench) -> dict[str, Any]:
    """A loaded model puts other cached masks on: files in the page cache, dense weights on the device."""
    from safetensors.torch import load_file, save_file

    layers = 32 if bench.device.type == "cuda" else bench.layers
    model = bench.model(layers)
    resident = [[(m, m.read().clone()) for m in matrices(block)] for block in decoder_blocks(model)]
    found: dict[str, Any] = {"layers": layers, "bar": 1.0}
    with tempfile.TemporaryDirectory() as folder:
        size = weight_count = 0
        for number, block in enumerate(resident):
            tensors = {}
            for matrix, weight in block:
                mask = torch.rand(weight.shape, device=bench.device) > 0.5
                tensors[f"{matrix.name}.mask"] = codec.pack_bits(mask, 1)
                weight_count += weight.numel()
            save_file(tensors, f"{folder}/{number}.safetensors")
            size += os.path.getsize(f"{folder}/{number}.safetensors")

        def apply_weights() -> None:
            for number, block in enumerate(resident):
                tensors = load_file(f"{folder}/{number}.safetensors")
                for matrix, weight in block:
                    codec.decode_into(matrix.read(), matrix.name, weight, tensors)

        found["seconds"] = rounded(bench.seconds(apply_weights, 3))
        found["zeros"] = float((resident[0][0][0].read() == 0).float().mean())
        found["bits_per_weight"] = size * 8 / weight_count
        bits = torch.empty(size, dtype=torch.uint8)
        there = torch.empty(size, dtype=torch.uint8, device=bench.device)
        found["floor_link"] = rounded(bench.seconds(lambda: there.copy_(bits), 3))
        plain = bench.seconds(lambda: [m.write(w) for block in resident for m, w in block], 3)
        found["dense_again"] = rounded(plain)
    bench.tell("switch masks of the whole model " + json.dumps(found))
    return found


def streamed(bench: Bench) -> dict[str, Any]:
    """A model whose blocks stay in its files: the same weights as from one in memory, and what fetching costs."""
    layers, found = 4, dict[str, Any]()
    recipe, ids = resolve(parse("wanda@0.5")), bench.ids()
    with tempfile.TemporaryDirectory() as folder:
        bench.model(layers).save_pretrained(folder)
        # opened from its files too: rotary tables that are made on the device itself have other last bits
        whole = LlamaForCausalLM.from_pretrained(
            folder, dtype=torch.bfloat16, use_safetensors=True, trust_remote_code=False
        )
        whole = whole.eval().to(bench.device)
        source: Any = SimpleNamespace(folder=Path(folder), weight_files=sorted(Path(folder).glob("*.safetensors")))
        wanted = [done.results for done in walk(whole, recipe, ids)]
        del whole
        for name, ahead in (("one by one", False), ("sent ahead", True)):
            model = open_streamed(source, torch.bfloat16, bench.device)
            assert model is not None
            shards = Shards(source, model)
            if not ahead:
                shards.send_ahead = lambda *_: None  # type: ignore[method-assign]
            hold = partial(resident, model, shards, device=bench.device)
            spent, same, began = [], True, time.perf_counter()
            for number, done in enumerate(walk(model, recipe, ids, hold=hold)):
                bench.wait()
                spent.append(rounded(time.perf_counter() - began))
                same &= all(torch.equal(r.weight, wanted[number][n].weight) for n, r in done.results.items())
                began = time.perf_counter()
            found[name] = {"seconds": spent, "same_bits": same}
            bench.tell(f"streamed {name}: {json.dumps(found[name])}")
            del model
    if not all(one["same_bits"] for one in found.values()):
        raise AssertionError("a streamed model gives other weights")
    return found


def grow(bench: Bench) -> dict[str, Any]:
    """How SparseGPT's seconds grow: with layers, windows and width."""
    found: dict[str, Any] = {}
    for layers in (1, 2, 4, 8):
        found[f"{layers} layers"] = _ours(bench, "sparsegpt@0.5", 8, layers)["all"]
    for windows in (bench.windows, 2 * bench.windows, 4 * bench.windows):
        found[f"{windows} windows"] = _ours(bench, "sparsegpt@0.5", 8, 2, windows=windows)
    for name, hidden, intermediate, heads in (("7B", 4096, 11008, 32), ("13B", 5120, 13824, 40)):
        if bench.device.type == "cuda":
            size = {"hidden": hidden, "intermediate": intermediate, "heads": heads}
            found[name] = _ours(bench, "sparsegpt@0.5", 8, 2, **size)
    for name, value in found.items():
        bench.tell(f"grow {name}: {json.dumps(value)}")
    return found


def devices(bench: Bench) -> dict[str, Any]:
    """Recipes dealt out over all GPUs, a process each, against the same recipes on one."""
    count = torch.cuda.device_count() if bench.device.type == "cuda" else 0
    if count < 2:
        return {"skipped": f"{count} GPUs"}
    found: dict[str, Any] = {"gpus": count}
    import subprocess

    for active in (1, count):
        # each process does 4 / active walks; compiled kernels are cached on disk by the first round
        jobs = [
            subprocess.Popen(
                [sys.executable, __file__, "--only", "work", "--repeat", str(4 // active)],
                env={**os.environ, "CUDA_VISIBLE_DEVICES": str(number)}, stdout=subprocess.PIPE, text=True,
            )
            for number in range(active)
        ]  # fmt: skip
        spans = [float(job.communicate()[0].split("WORK ")[1].split()[0]) for job in jobs]
        found[f"{active} gpus"] = {"slowest": max(spans), "all": spans}
    found["scaling"] = rounded(found["1 gpus"]["slowest"] / found[f"{count} gpus"]["slowest"])
    bench.tell("devices " + json.dumps(found))
    return found


def work(bench: Bench, repeat: int) -> None:
    """One process's share of `devices`: some SparseGPT walks over two blocks, timed after a warm one."""
    _ours(bench, "sparsegpt@0.5", 8, 1)
    bench.wait()
    began = time.perf_counter()
    for _ in range(repeat):
        _ours(bench, "sparsegpt@0.5", 8, 2)
    bench.wait()
    print(f"WORK {time.perf_counter() - began}")


ROWS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "checks": checks,
    "sparsegpt": lambda bench: _row(bench, "sparsegpt@0.5", "sparsegpt"),
    "gptq": lambda bench: _row(bench, "gptq@4bit,group=128", "gptq"),
    "wanda": lambda bench: _row(bench, "wanda@0.5", "wanda"),
    "many": many,
    "switch": switch,
    "parts": _gpu_parts.parts,
    "tiles": _gpu_parts.tiles,
    "streamed": streamed,
}
EXTRA: dict[str, Callable[[Bench], dict[str, Any]]] = {"grow": grow, "devices": devices}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--json", type=Path, help="where the figures go")
    arguments.add_argument("--golden", type=Path, help="the folder with the published results")
    arguments.add_argument("--only", nargs="+", choices=[*ROWS, *EXTRA, "work"], default=list(ROWS))
    arguments.add_argument("--small", action="store_true", help="sizes for a CPU")
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--windows", type=int)
    arguments.add_argument("--commit", default="", help="where there is no git")
    arguments.add_argument("--budget", type=float, default=230, help="seconds after which no further row begins")
    arguments.add_argument("--repeat", type=int, default=1, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    device = torch.device(given.device)
    small = given.small or device.type == "cpu"
    hidden, intermediate, heads, windows, length = (256, 688, 4, 8, 64) if small else (4096, 11008, 32, 128, 2048)
    bench = Bench(device, hidden, intermediate, heads, given.windows or windows, length, 2, given.golden)
    if given.only == ["work"]:
        work(bench, given.repeat)
        return
    bench.figures["shape"] = {
        "hidden": hidden, "intermediate": intermediate, "windows": bench.windows, "length": length,
    }  # fmt: skip
    if given.commit:
        bench.figures["commit"] = given.commit
    began = time.perf_counter()
    for name in given.only:
        if time.perf_counter() - began > given.budget:
            bench.tell(f"{name}: left out, {given.budget:.0f} s are over")
            continue
        started = time.perf_counter()
        try:
            bench.figures[name] = {**ROWS, **EXTRA}[name](bench)
        except Exception as error:
            bench.figures[name] = {"failed": str(error), "trace": traceback.format_exc()[-3000:]}
            bench.tell(f"{name}: FAILED {type(error).__name__}: {str(error)[:600]}")
            traceback.print_exc()
        if device.type == "cuda":
            torch.cuda.empty_cache()
        bench.figures.setdefault("row_seconds", {})[name] = rounded(time.perf_counter() - started)
        _machine.write(given.json, "compression_gpu", bench.figures)  # what is there survives what comes
    print("\n--- in short " + "-" * 60)
    print("\n".join(bench.table))
    print("row seconds", json.dumps(bench.figures.get("row_seconds")))


if __name__ == "__main__":
    main()
