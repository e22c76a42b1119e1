"""`kick evaluate` as a user runs it, each row beside the least that its tokens can take on this machine.

Peers are measured in the same process that opens the model: transformers' `generate` over prompts sorted by length,
padded on the left, in batches that fit; lm-evaluation-harness where it is installed (see docs/lm-eval.md).
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import _task_data
import torch
from _commands import kick, table

if TYPE_CHECKING:
    from whole_command import Bench

BARS = {"summaries": 8.0, "mmlu 400": 6.0, "mmlu 8": None, "perplexity": 8.0}
"""Seconds of asking for a 7B of 32 blocks on one H200, imports and opening aside."""
_PEER_ROWS = 16


def evaluate(bench: Bench, row: str, task: str, limit: int) -> dict[str, Any]:
    """One `kick evaluate … dense` of a task into an empty cache; `asking` are the seconds that its answers took."""
    cache, data = bench.cache(), bench.folder / "tasks"
    if not data.exists():
        _task_data.make(data, bench.model, 1.0 if bench.shape.hidden >= 1024 else 0.1)
    words = ["evaluate", str(bench.model), "dense", "--task", task, "--data", str(data), "--limit", str(limit)]
    ran = kick([*words, "--cache", str(cache), "--device", bench.device, "--json"], bench.tree)
    facts = ran.facts()
    lines = table(ran, {})
    for result in (ran.result or {}).get("results", []):
        facts |= {"asking": result["seconds"], "n": result["n"], "tokens_per_second": result["tokens_per_second"]}
        facts |= {"score": result["scorers"][result["headline"]]["mean"]}
        rate = f"{result['n']} examples, {result['tokens_per_second']:.0f} tokens a second"
        lines.append(f"  {row:24} {result['seconds']:8.2f} s for {rate} (bar for a 7B on an H200: {BARS[row]} s)")
    bench.tell([*lines, *([ran.said[-1500:]] if ran.status else [])])
    shutil.rmtree(cache)
    return facts


def peer_summaries(bench: Bench) -> dict[str, Any]:
    """transformers' own `generate` on the same stories: sorted, padded, 16 at a time."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from kick_core import evaluation, tasks
    from kick_core.models.tokenization import dialogue, encode

    data = bench.folder / "tasks"
    if not data.exists():
        _task_data.make(data, bench.model, 1.0 if bench.shape.hidden >= 1024 else 0.1)
    device = "cuda" if bench.device != "cpu" and torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(bench.model, dtype="auto").to(device)
    tokenizer = AutoTokenizer.from_pretrained(bench.model)
    task = tasks.get("summarization", str(data))
    examples = evaluation.examples(task, evaluation.open_session(model, tokenizer), str(data))[: _task_data.STORIES]
    prompts = [encode(tokenizer, dialogue(tokenizer, e.prompt[:1], [], task.strict.template)) for e in examples]
    began = time.perf_counter()
    written = sum(_generated(model, part, task.strict.new_tokens) for part in _sorted(prompts))
    seconds = time.perf_counter() - began
    bench.tell(
        [f"transformers generate, {_PEER_ROWS} rows: {seconds:.2f} s, {written / seconds:.0f} new tokens a second"]
    )
    return {"seconds": seconds, "n": len(prompts), "new_tokens": written}


def _sorted(prompts: Sequence[list[int]]) -> list[list[list[int]]]:
    order = sorted(prompts, key=len, reverse=True)
    return [order[at : at + _PEER_ROWS] for at in range(0, len(order), _PEER_ROWS)]


def _generated(model: Any, prompts: Sequence[list[int]], new_tokens: int) -> int:
    length = max(map(len, prompts))
    ids = torch.tensor([[0] * (length - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (length - len(p)) + [1] * len(p) for p in prompts], device=model.device)
    with torch.inference_mode():
        found = model.generate(
            ids, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False, eos_token_id=None, pad_token_id=0
        )
    return int((found.shape[1] - length) * len(prompts))


EVALUATE: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "summaries": lambda bench: evaluate(bench, "summaries", "summarization", _task_data.STORIES),
    "mmlu 400": lambda bench: evaluate(bench, "mmlu 400", "multiple_choice", 400),
    "mmlu 8": lambda bench: evaluate(bench, "mmlu 8", "multiple_choice", 8),
    "perplexity": lambda bench: evaluate(bench, "perplexity", "perplexity", _task_data.WINDOWS),
    "peer summaries": peer_summaries,
}
