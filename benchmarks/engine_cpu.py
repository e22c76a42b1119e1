"""What a cell of the demo sweep costs on a CPU: user CPU seconds of one thread per task, for the dense pocket model.

Processor seconds, not wall-clock seconds, so that other work on the machine matters less; the least of the rounds
counts.

    python benchmarks/engine_cpu.py --out benchmarks/out/engine_cpu.json
"""

from __future__ import annotations

import argparse
import math
import resource
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _machine

from kick_core import evaluation, tasks
from kick_core.artifacts.loaded_model import open_for
from kick_core.pocket import POCKET_MODELS
from kick_core.spec import ModelRef
from kick_core.sweeps.request import preset


def cpu_seconds() -> float:
    """User CPU seconds of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def measured(model: str, names: list[str], rounds: int) -> dict[str, Any]:
    """CPU seconds, examples and tokens per task, for the dense model `model` with the demo's limits."""
    opened, demo = open_for(ModelRef(str(POCKET_MODELS[model])), None, "cpu"), preset("demo", model)
    session, cells = evaluation.open_session(opened.model, opened.tokenizer), {}
    for name in names:
        seconds = math.inf
        for _ in range(rounds):
            began = cpu_seconds()
            outputs = list(evaluation.evaluate(opened.model, opened.tokenizer, name, demo.limit_of(name)))
            seconds = min(seconds, cpu_seconds() - began)
        cells[name] = {
            "cpu_s": round(seconds, 2),
            "examples": len(outputs),
            "tokens": sum(output.tokens for output in outputs),
            "prompt_tokens": sum(output.prompt_tokens for output in outputs),
        }
        print(f"  {name:22s} {seconds:7.2f} s", flush=True)
    return {"model": model, "plan": session.plan.text, "notes": getattr(session.plan, "notes", []), "cells": cells}


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--model", default="pocket-11m", choices=sorted(POCKET_MODELS))
    parse.add_argument("--task", nargs="*", default=list(tasks.names()), choices=tasks.names())
    parse.add_argument("--rounds", type=int, default=2)
    parse.add_argument("--out", type=Path)
    args = parse.parse_args()
    torch.set_num_threads(1)
    figures = measured(args.model, args.task, args.rounds)
    total = sum(cell["cpu_s"] for cell in figures["cells"].values())
    _machine.write(args.out, "engine_cpu", {**figures, "total_cpu_s": round(total, 2)})
    print(f"  {'a recipe, all tasks':22s} {total:7.2f} s")


if __name__ == "__main__":
    main()
