"""Greedy decoding: the engine's recorded steps, against `generate` with a growing cache and with a compiled static one.

A random Llama of the 7B shape on a GPU; `--small` a small one on a CPU. Rates are those of decoding alone (the time
for all tokens less the time for the first one) and of everything. `--compiled` adds the two forms that need
torch.compile: about a minute each. `--mix` instead writes texts after prompts of 500 to 3,800 tokens, as those of
summaries are, beside `generate` in padded batches by length and transformers' own continuous batching.

    python3 benchmarks/decoding.py --case 1
    python3 benchmarks/decoding.py --case 128
    python3 benchmarks/decoding.py --mix
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _machine
import _padded_generate
import _shapes

from kick_core import engine

BARS = {(1, 512): 220, (128, 512): 6000}
"""Tokens a second of so many rows and prompts of so many tokens that one H200 is to reach."""


def ours(model: Any, prompts: list[list[int]], plan: engine.BatchPolicy, new_tokens: int) -> list[tuple[int, ...]]:
    batches = engine.generate(
        model, prompts, new_tokens=new_tokens, ends=frozenset(), stops=lambda _: False, plan=plan, filler=0
    )
    found = {item: text.ids for batch in batches for item, text in batch.items()}
    return [found[item] for item in range(len(prompts))]


@torch.inference_mode()
def library(model: Any, prompts: list[list[int]], new_tokens: int, **how: Any) -> list[tuple[int, ...]]:
    ids = torch.tensor(prompts, device=model.device)
    text = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=new_tokens, min_new_tokens=new_tokens,
        do_sample=False, **how,
    )  # fmt: skip
    return [tuple(row) for row in text[:, ids.shape[1] :].tolist()]


def rates(device: torch.device, rows: int, new_tokens: int, work: Callable[[int], Any]) -> tuple[dict[str, float], Any]:
    """Tokens a second of decoding alone and with the prompts."""
    work(4)  # whatever is compiled or recorded for these shapes
    first, _ = _shapes.seconds(device, lambda: work(1))
    whole, found = _shapes.seconds(device, lambda: work(new_tokens))
    return {
        "decoding": rows * (new_tokens - 1) / max(whole - first, 1e-9),
        "with_prompts": rows * new_tokens / whole,
        "first_token_s": first,
    }, found


def floor(model: Any, rows: int, columns: float, bandwidth: float) -> float:
    """Tokens a second when a step takes just the time to read weights and cache once."""
    config = model.config
    cache = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 2 * columns
    read = 2 * (_shapes.linear_weights(model) + config.vocab_size * config.hidden_size) + rows * cache
    return rows * bandwidth / read


def measured(model: Any, rows: int, length: int, new_tokens: int, compiled: bool) -> dict[str, Any]:
    draw = random.Random(0)
    prompts = [[1, *(draw.randrange(400, 31000) for _ in range(length - 1))] for _ in range(rows)]
    plan = dataclasses.replace(engine.plan_for(model.device), tokens=1 << 20, rows=rows, notes=[])
    forms: dict[str, Callable[[int], Any]] = {
        "engine": lambda n: ours(model, prompts, plan, n),
        "generate, growing cache": lambda n: library(model, prompts, n),
    }
    if compiled:
        quick = dataclasses.replace(plan, compiled=True)
        forms["engine, compiled"] = lambda n: ours(model, prompts, quick, n)
        forms["generate, static compiled"] = lambda n: library(model, prompts, n, cache_implementation="static")
    found, texts = {}, {}
    for name, work in forms.items():
        found[name], texts[name] = rates(model.device, rows, new_tokens, work)
        print(f"  {name}: {found[name]['decoding']:.1f} tokens/s", flush=True)
    best = max(rate["decoding"] for name, rate in found.items() if name.startswith("engine"))
    columns, bandwidth = length + new_tokens / 2, _shapes.bandwidth(model.device)
    lowest, bar = floor(model, rows, columns, bandwidth), BARS.get((rows, length))
    same = [
        sum(a == b for a, b in zip(one, other, strict=True))
        for one, other in zip(texts["engine"], texts["generate, growing cache"], strict=True)
    ]
    return {
        "rows": rows, "prompt": length, "new_tokens": new_tokens, "notes": plan.notes, "rates": found,
        "bar": bar, "bar_share_of_h200_floor": bar and bar / floor(model, rows, columns, _shapes.BANDWIDTHS["H200"]),
        "floor": lowest, "floor_bandwidth": bandwidth, "share_of_floor": best / lowest,
        "times_generate": best / found["generate, growing cache"]["decoding"],
        "same_tokens": f"{sum(same)}/{rows * new_tokens}",
    }  # fmt: skip


MIX = 72, 500, 3800, 256
"""Texts, tokens of the shortest and the longest prompt, new tokens: like the summaries of CNN/DailyMail."""


def continuous(model: Any, prompts: list[list[int]], new_tokens: int) -> list[tuple[int, ...]]:
    """transformers' own continuous batching."""
    how = GenerationConfig(max_new_tokens=new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0)
    found = model.generate_batch(inputs=prompts, generation_config=how, progress_bar=False)
    return [
        tuple(one.generated_tokens) for _, one in sorted(found.items(), key=lambda pair: int(pair[0].split("_")[-1]))
    ]


def mixed(model: Any, texts: int, shortest: int, longest: int, new_tokens: int) -> dict[str, Any]:
    """Texts of many lengths: seconds of decoding and in all, beside those of reading weights and caches once a step."""
    draw = random.Random(0)
    lengths = [int(shortest * (longest / shortest) ** (draw.betavariate(2, 2))) for _ in range(texts)]
    prompts = [[1, *(draw.randrange(400, 31000) for _ in range(length - 1))] for length in lengths]
    slots = dataclasses.replace(engine.plan_for(model.device), notes=[])
    pages = dataclasses.replace(slots, paged=True, varied=True)
    forms: dict[str, Callable[[int], list[tuple[int, ...]]]] = {
        "engine, pages": lambda n: ours(model, prompts, pages, n),
        "transformers, continuous": lambda n: continuous(model, prompts, n),
        "engine, slots": lambda n: ours(model, prompts, slots, n),
        "generate, padded by length": lambda n: _padded_generate.texts(model, prompts, n),
    }
    found, written = {}, {}
    for name, work in forms.items():
        try:
            found[name], written[name] = rates(model.device, texts, new_tokens, work)
            print(f"  {name}: {found[name]['decoding']:.1f} tokens/s", flush=True)
        except Exception as error:
            found[name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
            print(f"  {name}: {found[name]['failed']}", flush=True)
    columns, bandwidth = sum(lengths) / texts + new_tokens / 2, _shapes.bandwidth(model.device)
    lowest = floor(model, texts, columns, bandwidth)
    best = found["engine, pages"].get("decoding", 0.0)
    same = [
        sum(a == b for a, b in zip(one, other, strict=True))
        for one, other in zip(
            written.get("engine, pages", []), written.get("generate, padded by length", []), strict=False
        )
    ]
    return {
        "texts": texts, "prompts": lengths, "new_tokens": new_tokens, "notes": slots.notes, "rates": found,
        "floor": lowest, "floor_bandwidth": bandwidth, "share_of_floor": best / lowest, "bar_share_of_floor": 0.7,
        "same_tokens": f"{sum(same)}/{texts * new_tokens}",
    }  # fmt: skip


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--small", action="store_true", help="a small model on the CPU")
    parse.add_argument("--case", type=int, nargs="*", default=[1, 128], help="rows: 1 and 128")
    parse.add_argument("--prompt", type=int, default=512)
    parse.add_argument("--new-tokens", type=int, default=128)
    parse.add_argument("--layers", type=int, help="fewer than the model has")
    parse.add_argument("--mix", action="store_true", help="texts of many lengths")
    parse.add_argument("--compiled", action="store_true", help="also the forms that torch.compile makes")
    parse.add_argument("--out", type=Path)
    asked = parse.parse_args()
    model = _shapes.llama(asked.small, asked.layers)
    if asked.mix:
        mix = mixed(model, *((6, 20, 90, 8) if asked.small else MIX))
        _machine.write(asked.out, "decoding_mix", {**_shapes.device_facts(model.device), **mix})
        print(f"share of the memory floor {mix['share_of_floor']:.2f}, notes {mix['notes']}")
        return
    cases = []
    for rows in asked.case:
        shape = (min(rows, 8), 64, 16) if asked.small else (rows, asked.prompt, asked.new_tokens)
        cases.append(measured(model, *shape, asked.compiled))
    facts = _shapes.device_facts(model.device)
    _machine.write(asked.out, "decoding", {**facts, "cases": cases})
    for case in cases:
        print(f"{facts['device']}: {case['rows']} rows of {case['prompt']} tokens, {case['new_tokens']} new")
        for name, rate in case["rates"].items():
            print(f"  {name:28s} {rate['decoding']:9.1f} tokens/s, with prompts {rate['with_prompts']:9.1f}")
        if not asked.small:
            print(f"  {'floor (memory)':28s} {case['floor']:9.1f}, the engine is {case['share_of_floor']:.2f} of it")
            print(f"  {'bar (set on an H200)':28s} {case['bar']}, {case['bar_share_of_h200_floor']} of its floor")
        print(f"  {case['times_generate']:.1f} times generate; same tokens {case['same_tokens']}")


if __name__ == "__main__":
    main()
