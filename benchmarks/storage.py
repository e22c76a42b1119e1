"""What stored masks weigh, and how long a loaded model takes to put another one on.

Makes a random Llama (about 51 million weights a layer), prunes it twice and changes between the artifacts, by
the way that sweeps take: checked, read, unpacked and applied to the dense weights in their files. The seconds
are also scaled by the number of weights to a 7B. On a GPU the dense weights stay there a second time.

    PYTHONPATH=. python benchmarks/storage.py --layers 4 [--device cuda] [--json out.json]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import torch
from memory import make_model

from kick_core.artifacts import open_for
from kick_core.models.blocks import decoder_blocks, matrices
from kick_core.spec import Calibration, ModelRef, parse
from kick_core.store import artifacts, open_store
from kick_core.workshop import Workshop

SEVEN_B = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
"""Weights in the linears of Llama-2-7B's blocks."""

BITS, SECONDS = 1.05, {"cpu": 8.0, "cuda": 1.0}
"""What is promised: bits a weight of a mask, and seconds of a change of a 7B."""


def _median(work: Callable[[], Any], device: str, repeats: int = 5) -> float:
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def measure(name: str, cache: Path, device: str, recipes: tuple[str, str]) -> dict[str, Any]:
    """Bits a weight of two artifacts of one model, and seconds of changes between them."""
    store = open_store(str(cache))
    shop = Workshop(store, open_for(ModelRef(name), store, device), Calibration())
    keys = []
    for text in recipes:
        for _ in shop.make(parse(text)):
            pass
        keys.append(shop.key(parse(text)))
    cards = [artifacts.card(store, key) for key in keys]
    opened, turn = shop.opened, iter(range(1000))
    stored = [m.read() for block in decoder_blocks(opened.model) for m in matrices(block)]
    copies = [weight.clone() for weight in stored]
    found = {
        "weights": cards[0].weights,
        "bits_per_weight": max(card.bytes * 8 / card.weights for card in cards),
        "seconds": _median(lambda: opened.wear(store, keys[next(turn) % 2]), device),
        "plain_copy": _median(lambda: [to.copy_(weight) for to, weight in zip(copies, stored, strict=True)], device),
    }
    scale = SEVEN_B / found["weights"]
    found |= {"seconds_7b": found["seconds"] * scale, "plain_copy_7b": found["plain_copy"] * scale}
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--layers", type=int, default=4)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    rows: dict[str, Any] = {"threads": torch.get_num_threads(), "bars": {"bits": BITS, "seconds_7b": SECONDS}}
    with tempfile.TemporaryDirectory() as scratch:
        make_model(Path(scratch) / "model", given.layers)
        for model in ("pocket", f"{scratch}/model"):
            row = measure(model, Path(scratch) / "cache", given.device, ("magnitude@0.5", "magnitude@2:4"))
            rows["pocket" if model == "pocket" else f"{given.layers} layers of 2048 x 5632"] = row
            print(model if model == "pocket" else "large", {k: round(v, 4) for k, v in row.items()}, flush=True)
    _machine.write(given.json, "storage", rows)


if __name__ == "__main__":
    main()
