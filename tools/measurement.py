"""The measurement behind docs/findings.md: what compression takes from a real model, stage by stage.

    python -m tools.measurement MODEL --data DIR [--devices all] [--seconds N] [--stages first grid …]

Every stage is a `kick sweep` whose cells are done once and kept: a run that is stopped (by --seconds, Ctrl-C or a power
cut) goes on where it was when the same command is given again. DIR holds nq_open/, xquad/, mmlu/, cnn_dailymail/,
mt_bench/ and wikitext-2/ as they are published; the world facts ship with the package. What matters most comes first.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

PRUNERS = ("magnitude", "wanda", "sparsegpt", "ria")
ROUNDERS = ("rtn", "gptq", "awq")
GROUP = "group=64"
"""Divides the inputs of both models' matrices (576, 640, 1536 and 2048), as 128 does not."""

CORE = (
    *(f"{method}@{target}" for target in ("0.5", "0.3", "2:4") for method in PRUNERS),
    *(f"{method}@{bits}bit,{GROUP}" for bits in (4, 3) for method in ROUNDERS),
)
FIRST = (
    *("wanda@0.5", "sparsegpt@0.5", "wanda@0.3", "sparsegpt@0.3", "wanda@2:4", "sparsegpt@2:4"),
    *(f"{method}@{bits}bit,{GROUP}" for bits in (4, 3) for method in ("gptq", "rtn")),
)
"""A row or two of every target."""
GRID = (
    *(f"{method}@{target}" for target in ("0.4", "0.2", "0.6", "0.1", "0.7") for method in PRUNERS[:3]),
    *(f"{method}@{bits}bit,{GROUP}" for bits in (8, 2) for method in ROUNDERS[:2]),
)
REST = (
    *(f"ria@{target}" for target in ("0.1", "0.2", "0.4", "0.6", "0.7")),
    *(f"{method}@{target}" for target in ("4:8", "1:2") for method in PRUNERS),
    *(f"awq@{bits}bit,{GROUP}" for bits in (8, 2)),
)
RECOVERED = ("wanda@0.5", "sparsegpt@2:4", f"gptq@3bit,{GROUP}")
REPAIRED = (
    f"sparsegpt@2:4+gptq@4bit,{GROUP}",
    *(f"{recipe},recover={kind}" for kind in ("blocks", "lora") for recipe in RECOVERED),
)
SEARCHED = tuple(
    f"wanda@{ratio},alloc=search,objective={objective}"
    for ratio in ("0.3", "0.5")
    for objective in ("perplexity", "world_facts,search_data=official")
)
SEEDED = ("wanda@0.5", "sparsegpt@0.5")

SHORT = ("perplexity", "world_facts", "world_facts_choice", "world_facts_open")
"""What tells knowledge, its retrieval and fluency apart in the fewest tokens."""
KNOWLEDGE = ("perplexity", "world_facts", "world_facts_choice", "nq_open", "xquad_closed")
READING = ("world_facts_open", "world_facts_counterfactual", "xquad_open", "summarization")
ALL = (*KNOWLEDGE, "multiple_choice", *READING)
SAMPLED = {"world_facts_open": 2000, "world_facts_counterfactual": 1000, "multiple_choice": 1000}
"""Long prompts cost most: of the tasks that have them so many examples, a random sample that `full` extends."""
SHOWN = ("wanda@0.3", "wanda@0.5", "sparsegpt@0.5", "wanda@2:4", f"gptq@4bit,{GROUP}", f"gptq@3bit,{GROUP}")
"""What two-turn dialogues are written under: nothing scores them without a judge, but they repeat themselves or not.
The paper's protocol is run on them too."""


_PATIENCE = 20.0
"""Seconds that a stopped sweep gets to end by itself."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One sweep: recipes on tasks, with further words of the command, and the limits of some tasks."""

    recipes: tuple[str, ...]
    tasks: tuple[str, ...]
    more: tuple[str, ...] = ()
    limits: Mapping[str, int] = field(default_factory=lambda: SAMPLED)


STAGES = {
    "first": Stage(FIRST, ALL),
    "repaired": Stage(REPAIRED, SHORT),
    "core": Stage(CORE, ALL),
    "fidelity": Stage(CORE, ("perplexity",), ("--fidelity", "--limit", "32")),
    "seed1": Stage(SEEDED, SHORT, ("--seed", "1")),
    "seed2": Stage(SEEDED, SHORT, ("--seed", "2")),
    "paper": Stage(SHOWN, ("multiple_choice", "summarization"), ("--protocol", "paper")),
    "grid": Stage(GRID, SHORT),
    "rest": Stage(REST, SHORT),
    "searched": Stage(SEARCHED, SHORT),
    "dialogues": Stage(SHOWN, ("instructions",)),
    "full": Stage((*CORE, *GRID, *REST, *REPAIRED), ALL, limits={}),
}
"""In order of weight: a recipe is measured on all tasks before the next, so that whatever is done makes whole rows."""


def command(model: str, stage: Stage, data: str, more: Sequence[str] = ()) -> list[str]:
    """The words of one stage's `kick sweep`.

    Args:
        model: a folder, a GGUF file or a hub id.
        stage: what is measured.
        data: the folder with the official data.
        more: further words, such as `--devices all`.
    """
    words = [sys.executable, "-m", "kick_core", "sweep", model, "--data", data]
    words += [word for recipe in stage.recipes for word in ("--recipe", recipe)]
    words += [word for task in stage.tasks for word in ("--task", task)]
    limits = {task: count for task, count in stage.limits.items() if task in stage.tasks}
    words += [word for task, count in limits.items() for word in ("--limit-of", f"{task}={count}")]
    return [*words, *stage.more, *more]


def run(words: Sequence[str], seconds: float | None) -> int | None:
    """Run a command; after `seconds` it is asked to stop, and keeps what is finished.

    Returns:
        Its exit status; None where the time was up.
    """
    with subprocess.Popen(words, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        try:
            return process.wait(seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            os.killpg(process.pid, signal.SIGINT)  # all of its workers, as a terminal's Ctrl-C does
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, KeyboardInterrupt):
                raise
            return None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: stages in order until they are done or the time is up."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", required=True, metavar="DIR")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES), metavar="STAGE")
    parser.add_argument("--seconds", type=float, metavar="N", help="stop then; the same command goes on from there")
    parser.add_argument("--recipes", type=int, metavar="N", help="the first N recipes of each stage, to try it out")
    parser.add_argument("--without", nargs="+", default=[], metavar="TASK", help="tasks that are not asked")
    parser.add_argument("--limit", type=int, metavar="N", help="N examples of each task, to try it out")
    parser.add_argument("--print", action="store_true", dest="printed", help="only print the commands")
    args, more = parser.parse_known_args(arguments)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's `&` would have sweeps ignore their stop
    started, failed = time.monotonic(), 0
    for name in args.stages:
        stage = STAGES[name]
        tasks = tuple(task for task in stage.tasks if task not in args.without)
        if not tasks:
            continue
        chosen = replace(stage, recipes=stage.recipes[: args.recipes], tasks=tasks)
        if args.limit:
            chosen = replace(chosen, limits=dict.fromkeys(tasks, args.limit))
        words = command(args.model, chosen, str(Path(args.data)), more)
        if args.printed:
            print(shlex.join(["kick", *words[3:]]))
            continue
        left = None if args.seconds is None else args.seconds - (time.monotonic() - started)
        if left is not None and left < 5:
            print(f"{name}: no time left", file=sys.stderr)
            return failed
        began = time.monotonic()
        status = run(words, left)
        outcome = "stopped, the time is up" if status is None else "done" if status == 0 else f"failed ({status})"
        print(f"{name}: {outcome} after {time.monotonic() - began:.0f} s", file=sys.stderr)
        failed = failed or (status or 0)
    return failed


if __name__ == "__main__":
    raise SystemExit(main())
