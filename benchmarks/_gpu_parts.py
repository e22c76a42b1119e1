"""What a block's seconds are made of: the machine's own speed, and each part by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from _bench import Bench, batched, rounded
from torch import Tensor

from kick_core.compression import activations
from kick_core.compression.block import output_energy
from kick_core.methods import select, solve
from kick_core.methods import sweep as _sweep
from kick_core.methods.sweep import Pruner, Rounder
from kick_core.models.blocks import decoder_blocks, first_inputs, run_block
from kick_core.spec import IntGrid, Unstructured, parse


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

        found["forward"][batch] = rounded(bench.seconds(forward, 2))
        with batched(batch), torch.no_grad():
            inputs = activations.first(model, ids)
            for need in ("norms", "gram"):
                spent = bench.seconds(partial(activations.dense_pass, model, block, 0, inputs, need, keep=False), 1)
                found["statistics"][f"{need} {batch}"] = rounded(spent)


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
        found["gram"] |= {f"{name} {per}": rounded(s) for name, s in spent.items() if s}


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

        found["factor"][f"ours {width}"] = rounded(bench.seconds(lambda gram=gram: solve.inverse_factor(gram, 0.01), 3))
        found["factor"][f"turned {width}"] = rounded(bench.seconds(turned, 3))
        off = (turned() - solve.inverse_factor(gram, 0.01).upper).abs().max()
        found["factor"][f"differ {width}"] = rounded(float(off))
        del gram, eye


def _losses(bench: Bench, found: dict[str, Any]) -> None:
    spent, single = 0.0, 0.0
    for rows, cols, count in _shapes(bench):
        weight = torch.randn(rows, cols, device=bench.device)
        gram = torch.randn(cols, cols, device=bench.device)
        spent += count * bench.seconds(lambda w=weight, g=gram: output_energy(w, g), 2)
        single += count * bench.seconds(lambda w=weight, g=gram: (w @ g).mul_(w).sum(), 2)
        del weight, gram
    found["loss"] = {"ours": rounded(spent), "float32": rounded(single)}


def _shapes(bench: Bench) -> tuple[tuple[int, int, int], ...]:
    """Rows, columns and number of a block's matrices."""
    small, large = bench.hidden, bench.intermediate
    return (small, small, 4), (large, small, 2), (small, large, 1)


def tiles(bench: Bench) -> dict[str, Any]:
    """Seconds of the sweep's kernel by rows a program and warps, for one block of 128 columns; of a whole sweep."""
    kernels = select.kernels(bench.device)
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
                how["tile"] = tile, warps
                work = partial(kernels.sweep_tile, block, errors, upper, (0, 128), **how)
                found[f"{kind} {rows} rows, {tile}/{warps}"] = rounded(bench.seconds(partial(_ten, work)) / 10 * 1e6)
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
            "choose rows": lambda s=scores: select.keep_mask(s, Unstructured(0.5), per_row=True),
            "choose whole": lambda s=scores: select.keep_mask(s, Unstructured(0.5), per_row=False),
            "choose 2:4": lambda s=scores: select.keep_mask(s, parse("wanda@2:4").target, per_row=True),
        }
        for name, work in works.items():
            spent[name] += count * bench.seconds(work, 2)
    found = {name: rounded(s) for name, s in spent.items()}
    bench.tell("s/block " + json.dumps(found))
    return found
