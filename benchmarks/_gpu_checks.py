"""What must hold on the device before a figure counts. Each check returns what it measured and raises on failure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kick_core import compress_matrix
from kick_core.compression.activations import StatsAccumulator
from kick_core.compression.block import output_energy
from kick_core.methods import select, sweep
from kick_core.methods.sweep import Pruner, Rounder
from kick_core.spec import IntGrid, KeepNofM, Unstructured


def problem(rows: int, cols: int, tokens: int = 240, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A matrix and correlated inputs [samples, tokens, cols] with a few loud features, on the CPU."""
    make = torch.Generator().manual_seed(seed)
    mixing = torch.randn(cols, cols, generator=make) / cols**0.5
    inputs = torch.randn(4, tokens // 4, cols, generator=make) @ mixing
    inputs[..., ::9] *= 8
    return torch.randn(rows, cols, generator=make), inputs


def output_error(weight: Tensor, found: Tensor, inputs: Tensor) -> float:
    rows = inputs.reshape(-1, inputs.shape[-1])
    return float(((rows @ (found - weight).T) ** 2).sum() / ((rows @ weight.T) ** 2).sum())


def selection(device: torch.device) -> dict[str, Any]:
    """The chosen positions are those that the CPU chooses, ties included."""
    make, wrong, cases = torch.Generator().manual_seed(1), 0, 0
    for rows, n in ((3, 7), (5, 100), (64, 4096), (7, 11008), (3, 16384), (2, 20000), (1, 524288), (1, 1_000_003)):
        plain = torch.rand(rows, n, generator=make)
        for scores in (plain, (plain * 5).floor(), torch.where(plain < 0.3, -1.0, (plain * 50).floor()), plain * 0):
            for count in {1, n // 3, n // 2, n - 1, n}:
                there = select.drop_lowest(scores.to(device), count).cpu()
                wrong += int((there != select.drop_lowest(scores, count)).sum())
                cases += 1
    if wrong:
        raise AssertionError(f"{wrong} positions differ in {cases} cases")
    return {"cases": cases, "different": wrong}


def _parts(kind: str, weight: Tensor, device: torch.device) -> tuple[Pruner | None, Rounder | None]:
    weight = weight.to(device)
    pruner, rounder = None, None
    if kind != "round":
        goals = {"half": Unstructured(0.5), "2:4": KeepNofM(2, 4), "4:8": KeepNofM(4, 8), "joint": KeepNofM(2, 4)}
        pruner = Pruner(goals[kind], torch.ones(weight.shape, dtype=torch.bool, device=device))
    if kind in ("round", "joint"):
        groups = [column // 32 for column in range(weight.shape[1])]
        rounder = Rounder(IntGrid(4, group=32), 32, groups, torch.zeros_like(weight))
    return pruner, rounder


SHAPES = ((64, 128), (4096, 128), (80, 96))


def kernel_equals_eager(device: torch.device, shapes: tuple[tuple[int, int], ...] = SHAPES) -> dict[str, Any]:
    """One block by the kernel on the device and by the eager loop on the CPU: the same bits."""
    kernels = select.kernels(device)
    if kernels is None:
        return {"skipped": "no Triton kernels on this device"}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would cut rows where the CPU's `addr_` then rounds twice
    found: dict[str, Any] = {}
    for rows, cols in shapes:
        weight, inputs = problem(rows, cols)
        flat = inputs.reshape(-1, cols)
        gram = flat.T @ flat + torch.eye(cols)
        upper = torch.linalg.cholesky(torch.linalg.inv(gram.double()), upper=True).float().contiguous()
        for kind in ("half", "2:4", "4:8", "round", "joint"):
            pruner, rounder = _parts(kind, weight, torch.device("cpu"))
            eager = sweep._block(weight.clone(), upper, 0, pruner, rounder)
            there_pruner, there_rounder = _parts(kind, weight, device)
            places = None
            if there_rounder:
                places = torch.tensor(there_rounder.groups, dtype=torch.int32, device=device)
            fused = sweep._fused_block(weight.to(device), upper.to(device), 0, there_pruner, there_rounder, places)
            different = sum(int((a != b.cpu()).sum()) for a, b in zip(eager, fused, strict=True))
            if pruner and there_pruner:
                different += int((pruner.keep != there_pruner.keep.cpu()).sum())
            if rounder and there_rounder:
                different += int((rounder.codes != there_rounder.codes.cpu()).sum())
            largest = max(float((a - b.cpu()).abs().max()) for a, b in zip(eager, fused, strict=True))
            found[f"{kind} {rows}x{cols}"] = {"different": different, "largest": largest}
    torch.set_num_threads(threads)
    worst = max(one["different"] for one in found.values())
    if max(one["largest"] for one in found.values()) > 1e-3:
        raise AssertionError(json.dumps(found))
    return {"different_at_most": worst, "cases": found}


def golden(device: torch.device, folder: Path) -> dict[str, Any]:
    """The published results, within the tolerance that the tests ask for on the CPU."""
    from safetensors.torch import load_file

    data = load_file(folder / "layers.safetensors")
    cases = json.loads((folder / "layers.json").read_text())["cases"]
    masks, errors, codes = 1.0, 0.0, 1.0
    for case in cases:
        key = case["key"]
        weight, inputs = data[f"{key}.W"], data[f"{key}.X"]
        on = weight.to(device), inputs.to(device)
        for goal in (*map(str, case["ratios"]), "1:2", "2:4", "4:8"):
            wanda = compress_matrix(*on, f"wanda@{goal}").weight.cpu()
            if int((wanda != data[f"{key}.wanda.{goal}"]).sum()) > 2:
                raise AssertionError(f"{key} wanda {goal} differs")
            size = compress_matrix(*on, f"magnitude@{goal}").weight.cpu()
            if int((size != data[f"{key}.magnitude.{goal}"]).sum()) > (0 if ":" in goal else 1):
                raise AssertionError(f"{key} magnitude {goal} differs")
            wanted, found = data[f"{key}.sparsegpt.{goal}"], compress_matrix(*on, f"sparsegpt@{goal}").weight.cpu()
            masks = min(masks, float(((found == 0) == (wanted == 0)).float().mean()))
            ratio = output_error(weight, found, inputs) / output_error(weight, wanted, inputs)
            errors = max(errors, abs(ratio - 1))
    for name, wanted in data.items():
        key, _, rest = name.partition(".")
        if not rest.startswith("gptq"):
            continue
        bits, group, act, sym = (part.lstrip("bgactsym") for part in rest.split(".")[1:])
        how = f"group={group},act_order={str(act == '1').lower()},sym={str(sym == '1').lower()}"
        weight, inputs = data[f"{key}.W"], data[f"{key}.X"]
        made = compress_matrix(weight.to(device), inputs.to(device), f"gptq@{bits}bit,{how}")
        assert made.scales is not None and made.groups is not None
        step = made.scales.index_select(1, made.groups.long()).cpu()
        found = made.weight.cpu()
        codes = min(codes, float(((found - wanted).abs() < step / 2).float().mean()))
        errors = max(errors, abs(output_error(weight, found, inputs) / output_error(weight, wanted, inputs) - 1))
    figures = {"mask_agreement": masks, "code_agreement": codes, "error_ratio_off_by": errors}
    if masks < 0.999 or codes < 0.995 or errors > 0.01:
        raise AssertionError(json.dumps(figures))
    return figures


def closed_forms(device: torch.device) -> dict[str, Any]:
    """One removed weight leaves the least-squares solution; flat statistics reduce to the simpler method."""
    weight, inputs = problem(1, 12, tokens=20)
    found = compress_matrix(weight.to(device), inputs.to(device), "sparsegpt@0.09").weight.cpu()
    (gone,) = (found[0] == 0).nonzero().flatten().tolist()
    rows = inputs.reshape(-1, 12).double()
    gram = rows.T @ rows
    gram += 0.01 * gram.diagonal().mean() * torch.eye(12, dtype=torch.float64)
    free = torch.arange(gone + 1, 12)
    best = torch.linalg.solve(gram[free][:, free], gram[free, gone] * weight[0, gone].double())
    off = float((found[0, free].double() - weight[0, free].double() - best).abs().max())
    weight, _ = problem(64, 256)
    flat, weight = torch.eye(256, device=device)[None], weight.to(device)
    masks = [compress_matrix(weight, flat, f"{name}@0.5").mask for name in ("magnitude", "sparsegpt")]
    assert masks[0] is not None and masks[1] is not None
    # magnitude compares over the matrix, SparseGPT over blocks of 128 columns: only patterns are the same choice
    pattern = [compress_matrix(weight, flat, f"{name}@2:4").mask for name in ("magnitude", "sparsegpt")]
    rounded = [compress_matrix(weight, flat, f"{name}@4bit,group=32").weight for name in ("rtn", "gptq")]
    figures = {
        "least_squares_off_by": off,
        "pattern_masks_equal": bool(torch.equal(pattern[0], pattern[1])),  # type: ignore[arg-type]
        "counts_equal": int(masks[0].sum()) == int(masks[1].sum()),
        "rtn_gptq_off_by": float((rounded[0] - rounded[1]).abs().max()),
    }
    good = off < 1e-4 and figures["pattern_masks_equal"] and figures["counts_equal"]
    if not good or figures["rtn_gptq_off_by"] > 1e-5:
        raise AssertionError(json.dumps(figures))
    return figures


def gram_accuracy(device: torch.device, width: int = 4096, tokens: int = 16384) -> dict[str, Any]:
    """‖G - G64‖ / ‖G64‖ and the worst diagonal, of the 16-bit route and of float32, against float64."""
    make = torch.Generator(device=device).manual_seed(3)
    base = torch.randn(tokens, width, generator=make, device=device)
    base = base + 0.5 * torch.randn(tokens, 1, generator=make, device=device)  # correlated features
    base[:, ::97] *= 30
    figures: dict[str, Any] = {}
    for dtype in (torch.bfloat16, torch.float16):
        rows = base.to(dtype)
        exact = rows.double().T @ rows.double()
        tally = StatsAccumulator(width, "gram", device)
        for _ in range(4):  # what many batches add up to
            tally.add(rows)
        single = torch.zeros(width, width, device=device)
        for _ in range(4):
            single.addmm_(rows.float().T, rows.float())
        for name, gram in (("ours", tally.gram), ("float32", single)):
            assert gram is not None
            off = gram.double() / 4 - exact
            figures[f"{name} {str(dtype).removeprefix('torch.')}"] = {
                "relative": float(off.norm() / exact.norm()),
                "diagonal": float((off.diagonal() / exact.diagonal()).abs().max()),
            }
        sq_norms = (tally.sq_norms.double() / 4 / exact.diagonal() - 1).abs().max()
        figures[f"norms {str(dtype).removeprefix('torch.')}"] = float(sq_norms)
    if max(one["relative"] for one in figures.values() if isinstance(one, dict)) > 1e-4:
        raise AssertionError(json.dumps(figures))
    return figures


def loss_accuracy(device: torch.device) -> dict[str, Any]:
    """The reported loss of SparseGPT's change, where errors cancel most, against float64."""
    weight, inputs = problem(256, 512, tokens=2048)
    found = compress_matrix(weight.to(device), inputs.to(device), "sparsegpt@0.5").weight
    rows = inputs.reshape(-1, 512).double()
    change = found.double().cpu() - weight.double()
    exact = float((rows @ change.T).square().sum())
    told = float(output_energy(change.float().to(device), (rows.T @ rows).float().to(device)))
    if abs(told / exact - 1) > 1e-3:
        raise AssertionError(f"{told} instead of {exact}")
    return {"relative": abs(told / exact - 1)}


def deterministic(device: torch.device) -> dict[str, Any]:
    """Twice the same bits, for matrices of a model's shape."""
    make = torch.Generator(device=device).manual_seed(5)
    weight = torch.randn(2048, 2048, generator=make, device=device).bfloat16()
    inputs = torch.randn(8, 512, 2048, generator=make, device=device).bfloat16()
    recipes = ("wanda@0.5", "magnitude@0.5", "sparsegpt@0.5", "sparsegpt@2:4", "gptq@4bit", "sparsegpt@0.5+gptq@4bit")
    for recipe in recipes:
        first, second = (compress_matrix(weight, inputs, recipe).weight for _ in range(2))
        if not torch.equal(first.view(torch.int16), second.view(torch.int16)):
            raise AssertionError(f"{recipe}: other bits the second time")
    return {"recipes": len(recipes)}
