"""What stored masks weigh, and how long a loaded model takes to put another one on.

Makes a random Llama (about 51 million weights a layer), prunes it by magnitude to twelve ratios and changes between
the artifacts, by the way that sweeps take: checked, read, unpacked and applied to the dense weights in their files;
first with a mask of its own for each, then with the twelve nested masks in the files that they share. The seconds
are also scaled by the number of weights to a 7B. On a GPU the dense weights stay there a second time.

    PYTHONPATH=. python benchmarks/storage.py --layers 4 [--device cuda] [--json out.json]
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _machine
import torch
from memory import make_model

from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import open_for
from kick_core.models.blocks import decoder_blocks, matrices
from kick_core.spec import Calibration, ModelRef, parse
from kick_core.store import open_store, weight_artifacts
from kick_core.store.nested_masks import sharing

SEVEN_B = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
"""Weights in the linears of Llama-2-7B's blocks."""

RECIPES = tuple(f"magnitude@{percent / 100:.12g}" for percent in range(5, 65, 5))

BITS, SHARED, SECONDS = 1.05, 4.05, {"cpu": 8.0, "cuda": 1.0}
"""What is promised: bits a weight of a mask, of twelve nested masks together, and seconds of a change of a 7B."""


def _median(work: Callable[[], Any], device: str, repeats: int = 5) -> float:
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        if device != "cpu":
            torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def measure(name: str, cache: Path, device: str) -> dict[str, Any]:
    """Bits a weight of artifacts of one model, and seconds of changes between them; with shared files and without."""
    store = open_store(str(cache))
    builder = ArtifactBuilder(store, open_for(ModelRef(name), store, device), Calibration())
    for text in RECIPES:
        for _ in builder.make(parse(text)):
            pass
    keys = [builder.key(parse(text)) for text in RECIPES]
    cards = [weight_artifacts.card(store, key) for key in keys]
    opened, turn = builder.opened, itertools.count()
    stored = [m.read() for block in decoder_blocks(opened.model) for m in matrices(block)]
    copies = [weight.clone() for weight in stored]

    def change() -> None:
        opened.apply_weights(store, keys[5 + next(turn) % 2])

    found = {
        "weights": cards[0].weights,
        "bits_per_weight": max(card.bytes * 8 / card.weights for card in cards),
        "seconds": _median(change, device),
        "plain_copy": _median(lambda: [to.copy_(weight) for to, weight in zip(copies, stored, strict=True)], device),
        "sharing": _median(lambda: [*sharing.share(store)], "cpu", 1),
        "shared_bits": sum(weight_artifacts.sizes(store)[key] for key in keys) * 8 / cards[0].weights,
        "shared_seconds": _median(change, device),
    }
    scale = SEVEN_B / found["weights"]
    times = ("seconds", "plain_copy", "shared_seconds", "sharing")
    return found | {f"{name}_7b": found[name] * scale for name in times}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--layers", type=int, default=4)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--json", type=Path)
    given = arguments.parse_args()
    bars = {"bits": BITS, "shared_bits": SHARED, "seconds_7b": SECONDS}
    rows: dict[str, Any] = {"threads": torch.get_num_threads(), "bars": bars}
    with tempfile.TemporaryDirectory() as scratch:
        make_model(Path(scratch) / "model", given.layers)
        for model in ("pocket", f"{scratch}/model"):
            row = measure(model, Path(scratch) / "cache", given.device)
            rows["pocket" if model == "pocket" else f"{given.layers} layers of 2048 x 5632"] = row
            print(model if model == "pocket" else "large", {k: round(v, 4) for k, v in row.items()}, flush=True)
    _machine.write(given.json, "storage", rows)


if __name__ == "__main__":
    main()
