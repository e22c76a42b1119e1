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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import _gpu_checks
import _machine
import _reference
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from kick_core import statistics, weights
from kick_core.compression import output_energy, walk, walk_many
from kick_core.methods import _select, _solve, _sweep, resolve
from kick_core.methods._sweep import Pruner, Rounder
from kick_core.models.blocks import decoder_blocks, first_inputs, matrices, run_block
from kick_core.models.shards import Shards, open_streamed, resident
from kick_core.spec import IntGrid, Unstructured, parse

BARS = {"wanda@0.5": 0.55, "sparsegpt@0.5": 1.5, "gptq@4bit,group=128": 1.5}
"""Seconds a block of a 7B may take on one H200."""

MANY = 3.0
"""Twelve sparsities and the patterns of three methods may take this many times one SparseGPT run."""

SPARSITIES = tuple(step / 100 for step in range(5, 65, 5))


@dataclass
class Bench:
    """What all rows share."""

    device: torch.device
    hidden: int
    intermediate: int
    heads: int
    windows: int
    length: int
    layers: int
    golden: Path | None
    figures: dict[str, Any] = field(default_factory=dict)
    table: list[str] = field(default_factory=list)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any], repeats: int = 5) -> float:
        """The median of some runs after one that warms up."""
        work()
        found = []
        for _ in range(repeats):
            self.wait()
            began = time.perf_counter()
            work()
            self.wait()
            found.append(time.perf_counter() - began)
        return sorted(found)[len(found) // 2]

    def tell(self, line: str) -> None:
        self.table.append(line)
        print(line, flush=True)

    @contextmanager
    def peak(self, into: dict[str, Any]) -> Iterator[None]:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        if self.device.type == "cuda":
            into["peak_gb"] = round(torch.cuda.max_memory_allocated(self.device) / 1e9, 2)

    def model(self, layers: int | None = None, **changed: int) -> LlamaForCausalLM:
        """A random Llama with blocks of the asked shape, bfloat16."""
        size = {"hidden": self.hidden, "intermediate": self.intermediate, "heads": self.heads} | changed
        config = LlamaConfig(
            vocab_size=1024, hidden_size=size["hidden"], intermediate_size=size["intermediate"],
            num_hidden_layers=layers or self.layers, num_attention_heads=size["heads"],
            num_key_value_heads=size["heads"], max_position_embeddings=max(2048, self.length), use_cache=False,
        )  # fmt: skip
        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.bfloat16)
        try:
            with self.device:
                return LlamaForCausalLM(config).eval().requires_grad_(False)
        finally:
            torch.set_default_dtype(before)

    def ids(self, windows: int | None = None) -> Tensor:
        make = torch.Generator().manual_seed(1)
        return torch.randint(0, 1024, (windows or self.windows, self.length), generator=make).to(self.device)


# --- checks ------------------------------------------------------------------------------------------------


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


# --- parts -------------------------------------------------------------------------------------------------


def parts(bench: Bench) -> dict[str, Any]:
    """What a block's seconds are made of, and the floor: the machine's own speed for each part."""
    found: dict[str, Any] = {}
    big = torch.randn(1 << (28 if bench.device.type == "cuda" else 22), device=bench.device)
    found["copy_gb_s"] = 2 * big.nbytes / bench.seconds(partial(torch.empty_like(big).copy_, big)) / 1e9
    del big
    side = 8192 if bench.device.type == "cuda" else 512
    for dtype in (torch.bfloat16, torch.float32):
        left = torch.randn(side, side, device=bench.device).to(dtype)
        spent = bench.seconds(lambda left=left: left @ left)
        found[f"tflops_{str(dtype).removeprefix('torch.')}"] = 2 * side**3 / spent / 1e12
        del left
    _forwards(bench, found)
    _grams(bench, found)
    _factors(bench, found)
    _losses(bench, found)
    for name in ("copy_gb_s", "tflops_bfloat16", "tflops_float32"):
        bench.tell(f"machine {name} {found[name]:.0f}")
    bench.tell("forward s/block by batch " + json.dumps(found["forward"]))
    bench.tell("statistics s/block by batch " + json.dumps(found["statistics"]))
    bench.tell("gram s/block " + json.dumps(found["gram"]))
    bench.tell("factor s " + json.dumps(found["factor"]))
    bench.tell("loss s/block " + json.dumps(found["loss"]))
    return found


def _rounded(seconds: float) -> float:
    return float(f"{seconds:.4g}")


def _forwards(bench: Bench, found: dict[str, Any]) -> None:
    model, ids = bench.model(1), bench.ids()
    (block,) = decoder_blocks(model)
    found["forward"], found["statistics"] = {}, {}
    for batch in (1, 2, 4, 8):
        hidden = torch.cat([first_inputs(model, part)[0] for part in ids.split(batch)])
        (call,) = first_inputs(model, ids[:batch])[1]

        @torch.no_grad()
        def forward(batch: int = batch, hidden: Tensor = hidden, call: Any = call) -> None:
            for part in hidden.split(batch):
                run_block(block, part, call)

        found["forward"][batch] = _rounded(bench.seconds(forward, 2))
        with _batch(batch), torch.no_grad():
            inputs = statistics.first(model, ids)
            for need in ("norms", "gram"):
                spent = bench.seconds(partial(statistics.dense_pass, model, block, 0, inputs, need, keep=False), 1)
                found["statistics"][f"{need} {batch}"] = _rounded(spent)


@contextmanager
def _batch(windows: int) -> Iterator[None]:
    before = statistics.BATCH
    statistics.BATCH = windows
    try:
        yield
    finally:
        statistics.BATCH = before


def _grams(bench: Bench, found: dict[str, Any]) -> None:
    """The four Gram matrices of a block over all tokens, by the route that is taken and by others."""
    tokens = bench.windows * bench.length
    found["gram"] = {}
    for per in (2048, 16384) if bench.device.type == "cuda" else (bench.length,):
        spent: dict[str, float] = {"mm": 0.0, "addmm": 0.0, "float32": 0.0}
        for width, count in ((bench.hidden, 3), (bench.intermediate, 1)):
            rows = torch.randn(per, width, device=bench.device).bfloat16()
            total = torch.zeros(width, width, device=bench.device)
            wide = rows.float()
            routes: dict[str, Callable[[], Any]] = {"float32": lambda t=total, w=wide: t.addmm_(w.T, w)}
            if bench.device.type == "cuda":
                routes["mm"] = lambda t=total, r=rows: t.add_(torch.mm(r.T, r, out_dtype=torch.float32))
                routes["addmm"] = lambda t=total, r=rows: torch.addmm(t, r.T, r, out_dtype=torch.float32, out=t)
            for name, route in routes.items():
                try:
                    spent[name] += count * bench.seconds(route, 3) * tokens / per
                except (RuntimeError, TypeError) as error:
                    found["gram"][f"{name} cannot"] = str(error)[:200]
            del rows, total, wide
        found["gram"] |= {f"{name} {per}": _rounded(s) for name, s in spent.items() if s}


def _factors(bench: Bench, found: dict[str, Any]) -> None:
    """The factor by the route that is taken, and by one Cholesky of the reversed matrix and a triangular inverse."""
    found["factor"] = {}
    for width in (bench.hidden, bench.intermediate):
        rows = torch.randn(width * 2, width, device=bench.device)
        gram = rows.T @ rows
        del rows
        eye = torch.eye(width, device=bench.device)

        def turned(gram: Tensor = gram, eye: Tensor = eye) -> Tensor:
            work = gram.flip(0, 1)
            work.diagonal().add_(0.01 * work.diagonal().mean())
            lower = torch.linalg.cholesky_ex(work)[0].flip(0, 1)
            return torch.linalg.solve_triangular(lower, eye, upper=True)

        found["factor"][f"ours {width}"] = _rounded(
            bench.seconds(lambda gram=gram: _solve.inverse_factor(gram, 0.01), 3)
        )
        found["factor"][f"turned {width}"] = _rounded(bench.seconds(turned, 3))
        off = (turned() - _solve.inverse_factor(gram, 0.01).upper).abs().max()
        found["factor"][f"differ {width}"] = _rounded(float(off))
        del gram, eye


def _losses(bench: Bench, found: dict[str, Any]) -> None:
    spent, single = 0.0, 0.0
    for rows, cols, count in _shapes(bench):
        weight = torch.randn(rows, cols, device=bench.device)
        gram = torch.randn(cols, cols, device=bench.device)
        spent += count * bench.seconds(lambda w=weight, g=gram: output_energy(w, g), 2)
        single += count * bench.seconds(lambda w=weight, g=gram: (w @ g).mul_(w).sum(), 2)
        del weight, gram
    found["loss"] = {"ours": _rounded(spent), "float32": _rounded(single)}


def _shapes(bench: Bench) -> tuple[tuple[int, int, int], ...]:
    """Rows, columns and number of a block's matrices."""
    small, large = bench.hidden, bench.intermediate
    return (small, small, 4), (large, small, 2), (small, large, 1)


def tiles(bench: Bench) -> dict[str, Any]:
    """Seconds of the sweep's kernel by rows a program and warps, for one block of 128 columns; of a whole sweep."""
    kernels = _select.kernels(bench.device)
    found: dict[str, Any] = {}
    if kernels is None:
        return {"skipped": "no Triton kernels on this device"}
    upper = torch.eye(128, device=bench.device) + torch.randn(128, 128, device=bench.device).triu(1) * 0.01
    for rows in (bench.hidden, bench.intermediate):
        block = torch.randn(rows, 128, device=bench.device)
        keep = torch.rand(rows, 128, device=bench.device) > 0.5
        grid = (
            torch.full((rows, 1), 0.3, device=bench.device), torch.full((rows, 1), 8.0, device=bench.device),
            torch.zeros(128, dtype=torch.int32, device=bench.device), 15,
        )  # fmt: skip
        codes, errors = torch.empty_like(block), torch.empty_like(block)
        for tile, warps in ((4, 1), (8, 1), (8, 2), (16, 2), (16, 4), (32, 4), (32, 8)):
            kinds: dict[str, dict[str, Any]] = {"prune": {"keep": keep}, "round": {"codes": codes, "grid": grid}}
            if (tile, warps) == (16, 4):
                kinds["2:4"] = {"keep": keep, "pattern": (2, 4)}
            for kind, how in kinds.items():
                how |= {"rows": tile, "warps": warps}
                work = partial(kernels.sweep_tile, block, errors, upper, (0, 128), **how)
                found[f"{kind} {rows} rows, {tile}/{warps}"] = _rounded(bench.seconds(partial(_ten, work)) / 10 * 1e6)
    best = {kind: min((v, k) for k, v in found.items() if k.startswith(kind)) for kind in ("prune", "round")}
    bench.tell("kernel microseconds a block of 128 columns " + json.dumps(found))
    bench.tell("fastest " + json.dumps(best))
    found |= _sweeps(bench)
    return found


def _ten(work: Callable[[], Any]) -> None:
    for _ in range(10):
        work()


def _sweeps(bench: Bench) -> dict[str, Any]:
    """Seconds of whole sweeps over a block's seven matrices, and of choosing masks."""
    spent: dict[str, float] = {"sweep prune": 0.0, "sweep round": 0.0, "choose rows": 0.0, "choose whole": 0.0}
    spent["choose 2:4"] = 0.0
    for rows, cols, count in _shapes(bench):
        upper = torch.eye(cols, device=bench.device)
        weight = torch.randn(rows, cols, device=bench.device)

        def prune(weight: Tensor = weight, upper: Tensor = upper) -> None:
            pruner = Pruner(Unstructured(0.5), torch.ones(weight.shape, dtype=torch.bool, device=bench.device))
            _sweep.sweep(weight.clone(), upper, 128, pruner, None)

        def rounding(weight: Tensor = weight, upper: Tensor = upper, cols: int = cols) -> None:
            groups = [column // 128 for column in range(cols)]
            rounder = Rounder(IntGrid(4, group=128), 128, groups, torch.zeros_like(weight))
            _sweep.sweep(weight.clone(), upper, 128, None, rounder)

        scores = weight.abs()
        works: dict[str, Callable[[], Any]] = {
            "sweep prune": prune,
            "sweep round": rounding,
            "choose rows": lambda s=scores: _select.keep_mask(s, Unstructured(0.5), per_row=True),
            "choose whole": lambda s=scores: _select.keep_mask(s, Unstructured(0.5), per_row=False),
            "choose 2:4": lambda s=scores: _select.keep_mask(s, parse("wanda@2:4").target, per_row=True),
        }
        for name, work in works.items():
            spent[name] += count * bench.seconds(work, 2)
    found = {name: _rounded(s) for name, s in spent.items()}
    bench.tell("s/block " + json.dumps(found))
    return found


# --- the rows of the table ---------------------------------------------------------------------------------


def _ours(bench: Bench, recipe: str, batch: int, layers: int = 3, **changed: int) -> dict[str, Any]:
    """Seconds a block of a walk with compressed propagation; the first block, which compiles, is left out."""
    windows = changed.pop("windows", bench.windows)
    model, ids = bench.model(layers, **changed), bench.ids(windows)
    found: dict[str, Any] = {"batch": batch}
    with _batch(batch), bench.peak(found):
        spent = []
        bench.wait()
        began = time.perf_counter()
        for _ in walk(model, resolve(parse(recipe)), ids):
            bench.wait()
            spent.append(time.perf_counter() - began)
            began = time.perf_counter()
    found |= {"seconds": _rounded(min(spent[1:] or spent)), "all": [_rounded(s) for s in spent]}
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
    return found | {name: _rounded(s) for name, s in told.items()}


def _row(bench: Bench, recipe: str, peer: str) -> dict[str, Any]:
    found: dict[str, Any] = {"bar": BARS[recipe], "ours": {}}
    for batch in (1, 8):
        found["ours"][batch] = _ours(bench, recipe, batch)
        one = found["ours"][batch]
        bench.tell(f"{recipe}: ours {one['seconds']} s/block (batch {batch}, peak {one.get('peak_gb')} GB)")
    best = min(one["seconds"] for one in found["ours"].values())
    found["reference"] = _peer(bench, peer)
    found["times_faster"] = _rounded(found["reference"]["seconds"] / best)
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
        with _batch(batch), bench.peak(found):
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
        by_method = {name: _rounded(seconds) for name, seconds in by_method.items()}
        found[batch] = {"seconds": _rounded(spent[-1]), "times": _rounded(spent[-1] / one), "by_method": by_method}
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
                tensors[f"{matrix.name}.mask"] = weights.pack_bits(mask, 1)
                weight_count += weight.numel()
            save_file(tensors, f"{folder}/{number}.safetensors")
            size += os.path.getsize(f"{folder}/{number}.safetensors")

        def wear() -> None:
            for number, block in enumerate(resident):
                tensors = load_file(f"{folder}/{number}.safetensors")
                for matrix, weight in block:
                    weights.decode_into(matrix.read(), matrix.name, weight, tensors)

        found["seconds"] = _rounded(bench.seconds(wear, 3))
        found["zeros"] = float((resident[0][0][0].read() == 0).float().mean())
        found["bits_per_weight"] = size * 8 / weight_count
        bits = torch.empty(size, dtype=torch.uint8)
        there = torch.empty(size, dtype=torch.uint8, device=bench.device)
        found["floor_link"] = _rounded(bench.seconds(lambda: there.copy_(bits), 3))
        plain = bench.seconds(lambda: [m.write(w) for block in resident for m, w in block], 3)
        found["dense_again"] = _rounded(plain)
    bench.tell("switch masks of the whole model " + json.dumps(found))
    return found


def streamed(bench: Bench) -> dict[str, Any]:
    """A model whose blocks stay in its files: the same weights as from one in memory, and what fetching costs."""
    layers, found = 4, dict[str, Any]()
    recipe, ids = resolve(parse("wanda@0.5")), bench.ids()
    with tempfile.TemporaryDirectory() as folder:
        whole = bench.model(layers)
        whole.save_pretrained(folder)
        source: Any = SimpleNamespace(folder=Path(folder), weight_files=sorted(Path(folder).glob("*.safetensors")))
        wanted = [done.results for done in walk(whole, recipe, ids)]
        del whole
        for name, ahead in (("one by one", False), ("sent ahead", True)):
            model, shards = open_streamed(source, torch.bfloat16, bench.device), Shards(source)
            assert model is not None
            if not ahead:
                shards.send_ahead = lambda *_: None  # type: ignore[method-assign]
            hold = partial(resident, model, shards, device=bench.device)
            spent, same, began = [], True, time.perf_counter()
            for number, done in enumerate(walk(model, recipe, ids, hold=hold)):
                bench.wait()
                spent.append(_rounded(time.perf_counter() - began))
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
    found["scaling"] = _rounded(found["1 gpus"]["slowest"] / found[f"{count} gpus"]["slowest"])
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
    "parts": parts,
    "tiles": tiles,
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
        bench.figures.setdefault("row_seconds", {})[name] = _rounded(time.perf_counter() - started)
        _machine.write(given.json, "compression_gpu", bench.figures)  # what is there survives what comes
    print("\n--- in short " + "-" * 60)
    print("\n".join(bench.table))
    print("row seconds", json.dumps(bench.figures.get("row_seconds")))


if __name__ == "__main__":
    main()
