"""How long whole commands take, run as a user runs them: stages beside floors, an older commit and a peer beside ours.

A model folder of the wanted shape is made on the spot. Each command runs in a process of its own; its seconds a block
are the differences between the times of its block files, which needs nothing from the program measured.

    PYTHONPATH=. python benchmarks/whole_command.py --layers 8 --hidden 4096 --json out.json
    PYTHONPATH=. python benchmarks/whole_command.py --small
    PYTHONPATH=. python benchmarks/whole_command.py --layers 2 --tree ../old --only compress   # another commit
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import _machine
import torch
from _commands import HERE, MachineRates, kick, machine_rates, table
from _evaluation import EVALUATE
from _model_folder import Shape, make

ONE_PASS = ("wanda@0.3", "wanda@0.5", "wanda@2:4", "sparsegpt@0.3", "sparsegpt@0.5", "sparsegpt@2:4")
BARS = {"wanda@0.5": 0.6, "sparsegpt@0.5": 1.0, "gptq@4bit": 1.0, "one pass": 1.0}
"""Seconds a block of a 7B may take through the command on one H200."""


@dataclass
class Bench:
    """What all rows share.

    Attributes:
        folder: Where models, caches and texts lie.
        tree: The checkout whose `kick` is measured.
        shape: The model's.
        windows: Of calibration.
        length: Tokens of a window.
        device: As for `kick --device`.
        rates: Of this machine, for floors.
        peer: The Python that has llm-compressor.
        figures: What goes into the JSON file.
    """

    folder: Path
    tree: Path
    shape: Shape
    windows: int
    length: int
    device: str
    rates: MachineRates
    peer: str = sys.executable
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def cache(self) -> Path:
        """A new, empty cache."""
        return Path(tempfile.mkdtemp(prefix="cache-", dir=self.folder))

    def tell(self, lines: list[str]) -> None:
        print("\n".join(lines), flush=True)


# --- kick compress -----------------------------------------------------------------------------------------------


def _compress_command(bench: Bench, recipes: tuple[str, ...], cache: Path, propagate: str) -> list[str]:
    return [
        "compress", str(bench.model), *recipes, "--cache", str(cache), "--json", "--device", bench.device,
        "--calibration", str(bench.model / "text.txt"), "--propagate", propagate,
        "--windows", str(bench.windows), "--length", str(bench.length),
    ]  # fmt: skip


def _block_seconds(cache: Path, key: str) -> list[float]:
    """From one finished block file to the next: whatever a block costs, writing it included. The first compiles."""
    files = sorted((cache / "weights").glob(f"*/{key}/block-*.safetensors"))
    times = [path.stat().st_mtime_ns / 1e9 for path in files]
    return [after - before for before, after in pairwise(times)]


def _sums(cache: Path, key: str) -> str:
    """One sum over an artifact's blocks as they were made: equal for two commits that make the same."""
    (manifest,) = (cache / "weights").glob(f"*/{key}/manifest.json")
    files = json.loads(manifest.read_text())["files"]
    return hashlib.sha256(json.dumps({n: files[n] for n in sorted(files) if n != "card.json"}).encode()).hexdigest()


def _floors(bench: Bench, passes: int, written: int) -> dict[str, float]:
    """The least that stages can take at this machine's rates."""
    tokens = bench.windows * bench.length
    forward = 2 * bench.shape.layers * bench.shape.block_weights * tokens / bench.rates.operations
    size = sum(path.stat().st_size for path in bench.model.glob("*.safetensors"))
    return {
        "statistics": forward * passes, "propagate": forward * passes, "open": size / bench.rates.read,
        "fingerprint": size / bench.rates.read, "write": written / bench.rates.write,
    }  # fmt: skip


def compress(bench: Bench, recipes: tuple[str, ...], propagate: str = "compressed") -> dict[str, Any]:
    """One `kick compress` of some recipes into an empty cache."""
    cache = bench.cache()
    ran = kick(_compress_command(bench, recipes, cache, propagate), bench.tree)
    facts = ran.facts() | {"recipes": {}}
    written = 0
    for card in (ran.result or {}).get("artifacts", []):
        blocks = _block_seconds(cache, card["key"])
        written += card["bytes"]
        facts["recipes"][card["recipe"]] = {
            "seconds_a_block": median(blocks) if blocks else None, "blocks": blocks, "bytes": card["bytes"],
            "sums": _sums(cache, card["key"]),
        }  # fmt: skip
    floors = _floors(bench, 1 if propagate == "dense" else len(recipes), written)
    facts["floors"] = floors
    lines = table(ran, floors)
    for recipe, row in facts["recipes"].items():
        bar = BARS["one pass"] if propagate == "dense" else BARS.get(recipe)
        if row["seconds_a_block"] is not None:
            name = f"all {len(facts['recipes'])} recipes" if propagate == "dense" else recipe
            lines.append(f"  {name:24} {row['seconds_a_block']:8.3f} s a block (bar for a 7B on an H200: {bar})")
        if propagate == "dense":  # a block of any of them comes once a block of all
            break
    bench.tell([*lines, *([ran.said[-1500:]] if ran.status else [])])
    shutil.rmtree(cache)
    return facts


def peer(bench: Bench, method: str) -> dict[str, Any]:
    """llm-compressor's whole program on the same folder and tokens, where it is installed."""
    out = bench.cache()
    words = [str(HERE / "_peer_compress.py"), str(bench.model), method, str(bench.windows), str(bench.length), str(out)]
    began = time.perf_counter()
    done = subprocess.run([bench.peer, *words], capture_output=True, text=True)
    seconds = time.perf_counter() - began
    shutil.rmtree(out)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        bench.tell([f"llm-compressor {method}: not run ({reason})"])
        return {"skipped": reason}
    stages = json.loads(done.stdout.strip().splitlines()[-1])
    block = stages["oneshot"] / bench.shape.layers
    bench.tell([f"llm-compressor {method}: {seconds:.1f} s, {block:.3f} s a block of oneshot"])
    return {"seconds": seconds, "stages": stages, "seconds_a_block": block}


COMPRESS: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "wanda": lambda bench: compress(bench, ("wanda@0.5",)),
    "solvers": lambda bench: compress(bench, ("sparsegpt@0.5", "gptq@4bit")),
    "one pass": lambda bench: compress(bench, ONE_PASS, "dense"),
    "three": lambda bench: compress(bench, ("wanda@0.5", "sparsegpt@0.5", "gptq@4bit")),
    "peer wanda": lambda bench: peer(bench, "wanda"),
    "peer sparsegpt": lambda bench: peer(bench, "sparsegpt"),
    "peer gptq": lambda bench: peer(bench, "gptq"),
}


# --- all of it ---------------------------------------------------------------------------------------------------

ROWS: dict[str, Callable[[Bench], dict[str, Any]]] = {**COMPRESS, **EVALUATE}
USUAL = ("wanda", "solvers", "one pass", "peer wanda")
SMALL = {"layers": 2, "hidden": 256}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--folder", type=Path, help="where models and caches are made (default: a temporary folder)")
    parser.add_argument("--tree", type=Path, default=HERE.parent, help="the checkout whose kick is measured")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(USUAL))
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--layers", type=int)
    parser.add_argument("--hidden", type=int)
    parser.add_argument("--windows", type=int)
    parser.add_argument("--length", type=int)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--peer-python", default=sys.executable, help="an environment that has llm-compressor")
    parser.add_argument("--commit", default="", help="of the tree, where there is no git")
    return parser.parse_args()


def run(args: argparse.Namespace, folder: Path) -> None:
    device = torch.device("cuda" if args.device == "auto" and torch.cuda.is_available() else "cpu")
    if args.device not in ("auto", "cpu"):
        device = torch.device(args.device)
    small = args.small or device.type == "cpu"
    layers, hidden = args.layers or (2 if small else 8), args.hidden or (256 if small else 4096)
    shape = Shape(layers, hidden)
    model = folder / "model"
    if not model.exists():
        make(model, shape, device)
    rates = machine_rates(device, folder, torch.float32 if device.type == "cpu" else torch.bfloat16)
    windows, length = args.windows or (8 if small else 128), args.length or (128 if small else 2048)
    bench = Bench(folder, args.tree.resolve(), shape, windows, length, args.device, rates, args.peer_python)
    bench.figures = {"shape": asdict(shape), "windows": windows, "length": length, "rates": asdict(rates)}
    bench.figures |= {"commit": args.commit} if args.commit else {}
    for name in args.only:
        bench.figures[name] = ROWS[name](bench)
        _machine.write(args.json, "whole_command", bench.figures)  # what is there survives what comes
    print(json.dumps({"rates": asdict(rates)}))


def main() -> None:
    args = arguments()
    if args.folder:
        args.folder.mkdir(parents=True, exist_ok=True)
        run(args, args.folder.resolve())
        return
    with tempfile.TemporaryDirectory() as folder:
        run(args, Path(folder))


if __name__ == "__main__":
    main()
