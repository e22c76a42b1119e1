"""How much memory compressing takes, against how large the model is.

Makes random Llamas of growing depth, compresses each in a process of its own and reads the peak of anonymous
memory (mapped files are the operating system's to drop). With `--limit GIB` the address space is limited too.

    python benchmarks/memory.py --layers 5 10 20 --recipe wanda@0.5
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import _machine

_WORKER = "--worker"


def make_model(folder: Path, layers: int) -> int:
    """A random Llama with the pocket tokenizer, about 0.1 GB a layer, in shards; returns its bytes."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, LlamaConfig

    from kick_core.pocket import POCKET_MODELS

    folder.mkdir(parents=True)
    for path in POCKET_MODELS["pocket-11m"].iterdir():
        if "token" in path.name or path.suffix == ".jinja":
            shutil.copy(path, folder)
    config = LlamaConfig(
        vocab_size=4096, hidden_size=2048, intermediate_size=5632, num_hidden_layers=layers, num_attention_heads=16,
        num_key_value_heads=16, max_position_embeddings=2048, tie_word_embeddings=True, dtype="bfloat16",
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in AutoModelForCausalLM.from_config(config).named_parameters()}
    places, total = {}, 0
    for number in range(layers + 1):
        mark = f"model.layers.{number}." if number < layers else None
        mine = {n: s for n, s in shapes.items() if (n.startswith(mark) if mark else not n.startswith("model.layers."))}
        tensors = {
            n: (torch.ones(s) if "norm" in n else torch.randn(s) * 0.02).to(torch.bfloat16) for n, s in mine.items()
        }
        file = f"model-{number + 1:05d}-of-{layers + 1:05d}.safetensors"
        save_file(tensors, folder / file, metadata={"format": "pt"})
        places |= dict.fromkeys(mine, file)
        total += sum(t.nbytes for t in tensors.values())
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": total}, "weight_map": places})
    )
    return total


def _anonymous() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) * 1024
    return 0


def worker(folder: str, cache: str, recipe: str, limit: float) -> None:
    """Compress in this process, watching its anonymous memory; prints one JSON line."""
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (int(limit * 2**30),) * 2)
    peak, stop = [0], threading.Event()

    def watch() -> None:
        while not stop.is_set():
            peak[0] = max(peak[0], _anonymous())
            time.sleep(0.02)

    thread = threading.Thread(target=watch, daemon=True)
    from kick_core.spec import Calibration
    from kick_core.store import open_store
    from kick_core.sweeps import driver
    from kick_core.sweeps.request import SweepJob

    before = _anonymous()
    thread.start()
    began = time.perf_counter()
    request = SweepJob(folder, (recipe,), calibration=Calibration("pocket", 8, 128), device="cpu")
    for _ in driver.run(request, open_store(cache), 1):
        pass
    stop.set()
    seconds = time.perf_counter() - began
    print(json.dumps({"before": before, "peak": peak[0], "seconds": seconds}))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--layers", type=int, nargs="+", default=[5, 10, 20])
    arguments.add_argument("--recipe", default="wanda@0.5")
    arguments.add_argument("--limit", type=float, default=0, metavar="GIB", help="limit the address space")
    arguments.add_argument("--out", type=Path)
    given = arguments.parse_args()
    rows = []
    for layers in given.layers:
        with tempfile.TemporaryDirectory() as scratch:
            size = make_model(Path(scratch) / "model", layers)
            command = [sys.executable, __file__, _WORKER, f"{scratch}/model", f"{scratch}/cache", given.recipe]
            done = subprocess.run([*command, str(given.limit)], capture_output=True, text=True, env=os.environ)
            if done.returncode:
                raise SystemExit(done.stderr)
            row = {"layers": layers, "model_bytes": size, **json.loads(done.stdout.splitlines()[-1])}
            row["grown"] = row["peak"] - row["before"]
            rows.append(row)
            print(row)
    _machine.write(given.out, "memory", {"recipe": given.recipe, "limit_gib": given.limit, "rows": rows})


if __name__ == "__main__":
    if sys.argv[1:2] == [_WORKER]:
        worker(sys.argv[2], sys.argv[3], sys.argv[4], float(sys.argv[5]))
    else:
        main()
