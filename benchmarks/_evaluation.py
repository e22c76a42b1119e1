"""`kick evaluate` as a user runs it, each row beside the least that its tokens can take on this machine.

Peers are measured in the same process that opens the model: transformers' `generate` over prompts sorted by length,
padded on the left, in batches that fit; lm-evaluation-harness where it is installed (see docs/lm-eval.md).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _padded_generate
import _task_data
import torch
from _commands import kick, table

from kick_core.keys import sha256_file

if TYPE_CHECKING:
    from whole_command import Bench

BARS = {"summarization": 8.0, "multiple_choice": 6.0, "perplexity": 8.0}
"""Seconds that a 7B of 32 blocks may take on one H200 for 72 stories, 400 questions, 157 windows."""
CELLS = ("magnitude@0.3", "magnitude@0.5")
SWEEP = tuple(f"{m}@{t}" for m in ("magnitude", "wanda", "ria", "sparsegpt") for t in ("0.3", "0.5", "0.6", "2:4"))
"""Recipes of the whole sweep that is timed on one GPU and on all."""


def evaluate(bench: Bench, tasks: Sequence[str], limit: int) -> dict[str, Any]:
    """`kick evaluate … dense` into an empty cache, and once more with nothing kept but the memos of files and trials; a
    task's seconds are those that its answers took."""
    cache, data = bench.cache(), _data(bench)
    asked = [word for task in tasks for word in ("--task", task)]
    words = ["evaluate", str(bench.model), "dense", *asked, "--data", str(data), "--limit", str(limit)]
    words += ["--cache", str(cache), "--device", bench.device, "--json"]
    facts = _evaluated(bench, words)
    for place in ("results", "examples"):
        shutil.rmtree(cache / place)
    bench.tell(["again, with the model's files hashed and its forms tried:"])
    facts["again"] = _evaluated(bench, words)
    shutil.rmtree(cache)
    return facts


def _evaluated(bench: Bench, words: Sequence[str]) -> dict[str, Any]:
    ran = kick(words, bench.tree)
    facts = ran.facts() | {"tasks": {}}
    lines = table(ran, {})
    for result in (ran.result or {}).get("results", []):
        task, seconds, rate = result["task"], result["seconds"], result["tokens_per_second"]
        score = result["scorers"][result["headline"]]["mean"]
        facts["tasks"][task] = {"seconds": seconds, "n": result["n"], "tokens_per_second": rate, "score": score}
        said = f"{result['n']} examples, {rate:.0f} tokens a second"
        lines.append(f"  {task:24} {seconds:8.2f} s for {said} (bar for a 7B on an H200: {BARS[task]} s)")
    bench.tell([*lines, *([ran.said[-1500:]] if ran.status else [])])
    return facts


def cells(bench: Bench) -> dict[str, Any]:
    """One `kick sweep` over masks that are made already: seconds from the last answer of a cell to the next one's first
    question, in which outputs are sealed, verdicts derived and the next recipe's weights put on."""
    cache, data = bench.cache(), _data(bench)
    usual = ["--cache", str(cache), "--device", bench.device, "--json"]
    made = kick(["compress", str(bench.model), *CELLS, *usual], bench.tree)
    recipes = [word for recipe in ("dense", *CELLS) for word in ("--recipe", recipe)]
    words = ["sweep", str(bench.model), *recipes, "--task", "multiple_choice", "--data", str(data)]
    words += ["--limit", "16", "--workers", "1"]  # one process: its stages one after the other
    ran = kick([*words, *usual], bench.tree)
    gaps = _gaps(ran.lines)
    lines = [*table(ran, {}), f"  from a cell to the next: {', '.join(f'{gap:.2f}' for gap in gaps)} s (bar 1 s)"]
    bench.tell([*lines, *(run.said[-1500:] for run in (made, ran) if run.status)])
    shutil.rmtree(cache)
    return ran.facts() | {"gaps": gaps}


def _gaps(lines: Sequence[Mapping[str, Any]]) -> list[float]:
    """Between the questions of one cell and those of the next; weights are put on in the longest pauses."""
    spans = sorted((x["began"], x["began"] + x["seconds"]) for x in lines if x["stage"] in ("tokenise", "options"))
    pauses = [(after[0] - before[1], after[0]) for before, after in pairwise(spans)]
    longest = sorted(pauses, reverse=True)[: len(CELLS)]
    return [seconds for seconds, _ in sorted(longest, key=lambda pause: pause[1])]


def devices(bench: Bench) -> dict[str, Any]:
    """One `kick sweep` on one GPU, and on all of the host, each into an empty cache: their seconds, and whether every
    artifact and result is the same file. Without GPUs in one process, and in two."""
    data, facts, sums = _data(bench), dict[str, Any](), []
    cuda = bench.device != "cpu" and torch.cuda.is_available()
    ways = {"one": ["--device", "cuda:0"], "all": ["--devices", "all"]}
    ways = ways if cuda else {n: ["--device", "cpu", "--workers", w] for n, w in (("one", "1"), ("all", "2"))}
    recipes = [word for recipe in SWEEP for word in ("--recipe", recipe)]
    words = ["sweep", str(bench.model), *recipes, "--task", "multiple_choice", "--task", "perplexity"]
    words += ["--data", str(data), "--limit", "400", "--calibration", str(bench.model / "text.txt")]
    words += ["--windows", str(bench.windows), "--length", str(bench.length), "--json"]
    for name, where in ways.items():
        cache = bench.cache()
        ran = kick([*words, *where, "--cache", str(cache)], bench.tree)
        facts[name] = ran.facts()
        sums.append(_sums_of(cache))
        bench.tell([f"{' '.join(where)}: {ran.seconds:.1f} s", *([ran.said[-1500:]] if ran.status else [])])
        shutil.rmtree(cache)
    facts |= {"ratio": facts["one"]["seconds"] / facts["all"]["seconds"], "files": len(sums[0])}
    facts["same"] = sums[0] == sums[1]
    bench.tell([f"{facts['ratio']:.2f} times as fast; the same {facts['files']} files: {facts['same']}"])
    return facts


def _sums_of(cache: Path) -> dict[str, str]:
    """Hashes of all weights, and the names of all outputs and verdicts, which end with their sums."""
    weights = sorted((cache / "weights").rglob("*.safetensors"))
    hashes = {str(path.relative_to(cache)): sha256_file(path) for path in weights}
    return hashes | {str(path.relative_to(cache)): "" for path in sorted((cache / "results").rglob("*.parquet"))}


def _data(bench: Bench) -> Path:
    data = bench.folder / "tasks"
    if not data.exists():
        _task_data.make(data, bench.model, 1.0 if bench.shape.hidden >= 1024 else 0.1)
    return data


def peer_summaries(bench: Bench) -> dict[str, Any]:
    """transformers' own `generate` on the same stories: sorted, padded, 16 at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from kick_core import evaluation, tasks
    from kick_core.models.tokenization import dialogue, encode

    data = _data(bench)
    device = "cuda" if bench.device != "cpu" and torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(
        bench.model, dtype="auto", use_safetensors=True, trust_remote_code=False
    ).to(device)
    tokenizer = AutoTokenizer.from_pretrained(bench.model, trust_remote_code=False)
    task = tasks.get("summarization", str(data))
    examples = evaluation.examples(task, evaluation.open_session(model, tokenizer), str(data))[: _task_data.STORIES]
    prompts = [encode(tokenizer, dialogue(tokenizer, e.prompt[:1], [], task.strict.template)) for e in examples]
    began = time.perf_counter()
    written = sum(map(len, _padded_generate.texts(model, prompts, task.strict.new_tokens)))
    seconds = time.perf_counter() - began
    rate = f"{written / seconds:.0f} new tokens a second"
    bench.tell([f"transformers generate, {_padded_generate.ROWS} rows: {seconds:.2f} s, {rate}"])
    return {"seconds": seconds, "n": len(prompts), "new_tokens": written}


EVALUATE: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "evaluate": lambda bench: evaluate(bench, tuple(BARS), 400),
    "mmlu 8": lambda bench: evaluate(bench, ("multiple_choice",), 8),
    "cells": cells,
    "devices": devices,
    "peer summaries": peer_summaries,
}
