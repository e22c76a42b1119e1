"""What a cell of the demo sweep costs on a CPU: user CPU seconds of one thread per task, for the dense pocket model.

Seconds of the processor, not of the clock, so that other work on the machine matters less. Each task is asked by the
lean forward and by the library's, in turn, and the least of the rounds counts; both give the same outputs, which is
checked.

    python benchmarks/engine_cpu.py --out benchmarks/out/engine_cpu.json
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _machine

from kick_core import evaluation, tasks
from kick_core.artifacts.loaded_model import open_for
from kick_core.engine import generation, scoring, windows
from kick_core.engine.lean import lean
from kick_core.pocket import POCKET_MODELS
from kick_core.spec import ModelRef
from kick_core.sweeps.request import preset


def cpu_seconds() -> float:
    """User CPU seconds of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


@contextmanager
def forward(name: str) -> Iterator[None]:
    """Ask by the `lean` forward, or by the `library`'s alone."""
    rooms = (generation, scoring, windows)
    try:
        for room in rooms if name == "library" else ():
            room.lean = lambda _: None
        yield
    finally:
        for room in rooms:
            room.lean = lean


def measured(model: str, names: list[str], rounds: int) -> dict[str, Any]:
    opened, demo = open_for(ModelRef(str(POCKET_MODELS[model])), None, "cpu"), preset("demo", model)
    ask, cells = evaluation.open_session(opened.model, opened.tokenizer), {}
    for name in names:
        limit = demo.limit_of(name)
        seconds, found = {"lean": math.inf, "library": math.inf}, {}
        for which in ("lean", "library") * rounds:
            with forward(which):
                began = cpu_seconds()
                outputs = list(evaluation.evaluate(opened.model, opened.tokenizer, name, limit))
                seconds[which] = min(seconds[which], cpu_seconds() - began)
                found[which] = {output.example: output for output in outputs}
        assert found["lean"] == found["library"], f"{name}: other outputs than the library's"
        cells[name] = {
            "cpu_s": round(seconds["lean"], 2),
            "library_cpu_s": round(seconds["library"], 2),
            "examples": len(outputs),
            "tokens": sum(output.tokens for output in outputs),
            "prompt_tokens": sum(output.prompt_tokens for output in outputs),
        }
        print(f"  {name:22s} {seconds['lean']:7.2f} s, library {seconds['library']:7.2f} s", flush=True)
    return {"model": model, "plan": ask.plan.text, "notes": getattr(ask.plan, "notes", []), "cells": cells}


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--model", default="pocket-11m", choices=sorted(POCKET_MODELS))
    parse.add_argument("--task", nargs="*", default=list(tasks.names()), choices=tasks.names())
    parse.add_argument("--rounds", type=int, default=2)
    parse.add_argument("--out", type=Path)
    asked = parse.parse_args()
    torch.set_num_threads(1)
    figures = measured(asked.model, asked.task, asked.rounds)
    total, library = (sum(cell[name] for cell in figures["cells"].values()) for name in ("cpu_s", "library_cpu_s"))
    sums = {"total_cpu_s": round(total, 2), "library_total_cpu_s": round(library, 2)}
    _machine.write(asked.out, "engine_cpu", {**figures, **sums})
    print(f"  {'a recipe, all tasks':22s} {total:7.2f} s, library {library:7.2f} s")


if __name__ == "__main__":
    main()
