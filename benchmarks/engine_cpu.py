"""What a cell of the demo sweep costs on a CPU: user CPU seconds of one thread per task, for the dense pocket model.

Seconds of the processor, not of the clock, so that other work on the machine matters less.

    python benchmarks/engine_cpu.py --out benchmarks/out/engine_cpu.json
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _machine

from kick_core import evaluation, tasks
from kick_core.artifacts import open_for
from kick_core.pocket import POCKET_MODELS
from kick_core.spec import ModelRef
from kick_core.sweep import PRESETS


def cpu_seconds() -> float:
    """User CPU seconds of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_utime


def measured(model: str, names: list[str]) -> dict[str, Any]:
    opened, preset = open_for(ModelRef(str(POCKET_MODELS[model])), None, "cpu"), PRESETS["demo"]
    ask, cells = evaluation.asker(opened.model, opened.tokenizer), {}
    for name in names:
        limit = preset["limits"].get(name, preset["limit"])
        began = cpu_seconds()
        outputs = list(evaluation.evaluate(opened.model, opened.tokenizer, name, limit))
        cells[name] = {
            "cpu_s": round(cpu_seconds() - began, 2),
            "examples": len(outputs),
            "tokens": sum(output.tokens for output in outputs),
            "prompt_tokens": sum(output.prompt_tokens for output in outputs),
        }
        print(f"  {name:22s} {cells[name]['cpu_s']:7.2f} s  {len(outputs):4d} examples", flush=True)
    return {"model": model, "plan": ask.plan.text, "notes": getattr(ask.plan, "notes", []), "cells": cells}


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--model", default="pocket-11m", choices=sorted(POCKET_MODELS))
    parse.add_argument("--task", nargs="*", default=list(tasks.names()), choices=tasks.names())
    parse.add_argument("--out", type=Path)
    asked = parse.parse_args()
    torch.set_num_threads(1)
    figures = measured(asked.model, asked.task)
    total = sum(cell["cpu_s"] for cell in figures["cells"].values())
    _machine.write(asked.out, "engine_cpu", {**figures, "total_cpu_s": round(total, 2)})
    print(f"  {'a recipe, all tasks':22s} {total:7.2f} s")


if __name__ == "__main__":
    main()
