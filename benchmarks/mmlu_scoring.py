"""MMLU, 5 shots, by log-probability: packed behind shared prefixes, against padded batches and against `generate`.

A random Llama of the 7B shape on a GPU; `--small` a small one on a CPU. `--mmlu FOLDER` takes the real questions
(CSV files in dev/ and test/); without it, random ids of such lengths. There is no Llama tokenizer here: text is cut
into pieces of about its granularity, which keeps lengths and shared prefixes real.

    python3 benchmarks/mmlu_scoring.py --mmlu data/mmlu
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import random
import re
import sys
import zlib
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import _machine
import _shapes

from kick_core import engine
from kick_core.engine.packing import shared_prefixes

_PIECES = re.compile(r" ?[A-Za-z]{1,6}|\d|\s|[^\sA-Za-z\d]")
_CONTEXT = 2048
LETTERS = [[319], [350], [315], [360]]


def pieces(text: str) -> list[int]:
    """Text as token ids, each piece always the same one."""
    return [400 + zlib.crc32(piece.encode()) % 31000 for piece in _PIECES.findall(text)]


def real(folder: Path, subjects: int, questions: int) -> list[list[int]]:
    """5-shot prompts of the first subjects, as many questions of each; shots are dropped until a prompt fits."""
    prompts = []
    names = sorted(path.name.removesuffix("_test.csv") for path in (folder / "test").glob("*_test.csv"))
    step = max(1, len(names) // subjects)
    for name in names[::step][:subjects]:
        header = f"The following are multiple choice questions (with answers) about {name.replace('_', ' ')}.\n\n"
        shots = [_block(row) + f" {row[5]}\n\n" for row in _rows(folder / "dev" / f"{name}_dev.csv")[:5]]
        for row in _rows(folder / "test" / f"{name}_test.csv")[: questions // subjects]:
            left = len(shots)
            while len(ids := pieces(header + "".join(shots[:left]) + _block(row))) > _CONTEXT and left:
                left -= 1
            prompts.append([1, *ids])
    return prompts


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _block(row: list[str]) -> str:
    return row[0] + "".join(f"\n{letter}. {text}" for letter, text in zip("ABCD", row[1:5], strict=True)) + "\nAnswer:"


def made_up(subjects: int, questions: int) -> list[list[int]]:
    """Random ids; lengths as measured on MMLU with Llama's tokenizer: prefixes of 652 tokens, questions of 122."""
    draw = random.Random(0)
    prompts = []
    for _ in range(subjects):
        prefix = [draw.randrange(400, 31000) for _ in range(int(draw.uniform(300, 1000)))]
        for _ in range(questions // subjects):
            own = max(20, min(900, int(draw.lognormvariate(4.62, 0.6))))
            prompts.append([1, *prefix, *(draw.randrange(400, 31000) for _ in range(own))])
    return prompts


def ours(model: Any, prompts: list[list[int]], plan: engine.BatchPolicy) -> dict[int, engine.OptionScores]:
    batches = engine.score_options(model, prompts, [LETTERS] * len(prompts), plan=plan, filler=0)
    return {item: score for batch in batches for item, score in batch.items()}


@torch.inference_mode()
def in_padded_batches(model: Any, prompts: list[list[int]], rows: int = 16) -> dict[int, tuple[float, ...]]:
    """The usual form: sorted by length, padded on the left, one forward per batch, last logits."""
    order, found = sorted(range(len(prompts)), key=lambda i: -len(prompts[i])), {}
    for start in range(0, len(order), rows):
        items = order[start : start + rows]
        longest = len(prompts[items[0]])
        ids = torch.tensor([[0] * (longest - len(prompts[i])) + prompts[i] for i in items], device=model.device)
        mask = torch.tensor([[0] * (longest - len(prompts[i])) + [1] * len(prompts[i]) for i in items]).to(ids.device)
        places = (mask.cumsum(-1) - 1).clamp(min=0)
        logits = model(
            input_ids=ids, attention_mask=mask, position_ids=places, logits_to_keep=1, use_cache=False
        ).logits
        values = logits[:, -1].float().log_softmax(-1)[:, [x for (x,) in LETTERS]].tolist()
        found |= dict(zip(items, map(tuple, values), strict=True))
    return found


@torch.inference_mode()
def by_generate(model: Any, prompts: list[list[int]]) -> None:
    """LLM-KICK's form: one new token for one prompt at a time."""
    for prompt in prompts:
        ids = torch.tensor([prompt], device=model.device)
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1, do_sample=False)[0, -1].item()


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--small", action="store_true", help="a small model on the CPU")
    parse.add_argument("--mmlu", type=Path, help="folder with dev/ and test/ of the real data")
    parse.add_argument("--questions", type=int, default=600)
    parse.add_argument("--subjects", type=int, default=6)
    parse.add_argument("--row", type=int, help="tokens of a row of a pack")
    parse.add_argument("--pack", type=int, help="tokens of a pack")
    parse.add_argument("--out", type=Path)
    asked = parse.parse_args()
    model = _shapes.llama(asked.small)
    questions = 48 if asked.small else asked.questions
    prompts = real(asked.mmlu, asked.subjects, questions) if asked.mmlu else made_up(asked.subjects, questions)
    plan = engine.plan_for(model.device)
    sizes = {name: value for name in ("row", "pack") if (value := getattr(asked, name))}
    plan = dataclasses.replace(plan, notes=[], **sizes)
    figures = measured(model, prompts, plan)
    _machine.write(asked.out, "mmlu_scoring", figures)
    print(f"{figures['device']}: {len(prompts)} questions, {figures['tokens_mean']:.0f} tokens each, "
          f"{figures['tokens_shared']:.0f} with prefixes shared; plan {figures['plan_hash']}")  # fmt: skip
    for name, rate in figures["per_second"].items():
        print(f"  {name:24s} {rate:8.1f} questions/s, {rate / figures['per_second']['packed']:.2f} of packed")
    if not asked.small:
        print(
            f"  {'arithmetic floor':24s} {figures['floor_per_second']:8.1f}, "
            f"packed is {figures['share_of_floor']:.2f} of it"
        )
    print(f"  largest difference to padded {figures['largest_difference']:.3f}, same choice {figures['same_choice']}")


def measured(model: Any, prompts: list[list[int]], plan: engine.BatchPolicy) -> dict[str, Any]:
    device = model.device
    groups = shared_prefixes(prompts, plan.row // 2)
    shared = sum(prefix + sum(len(prompts[i]) - prefix for i in items) for prefix, items in groups)
    some = random.Random(1).sample(range(len(prompts)), min(96, len(prompts)))
    few = some[:24]
    ours(model, [prompts[i] for i in few], plan), in_padded_batches(model, [prompts[i] for i in some[:16]])
    by_generate(model, [prompts[few[0]]])
    packed_s, found = _shapes.seconds(device, lambda: ours(model, prompts, plan))
    padded_s, padded = _shapes.seconds(device, lambda: in_padded_batches(model, [prompts[i] for i in some]))
    generate_s, _ = _shapes.seconds(device, lambda: by_generate(model, [prompts[i] for i in few]))
    rates = {
        "packed": len(prompts) / packed_s,
        "padded batches of 16": len(some) / padded_s,
        "generate, batch 1": len(few) / generate_s,
    }
    floor = len(prompts) / (2 * _shapes.linear_weights(model) * shared / _shapes.BFLOAT16_PEAK)
    pairs = [(found[i].logprobs, padded[n]) for n, i in enumerate(some)]
    return {
        **_shapes.device_facts(device),
        "questions": len(prompts),
        "tokens_mean": sum(map(len, prompts)) / len(prompts),
        "tokens_shared": shared / len(prompts),
        "plan": plan.text,
        "plan_hash": engine.plan_hash(model, prompts, [LETTERS] * len(prompts), plan),
        "notes": plan.notes,
        "per_second": rates,
        "floor_per_second": floor,
        "share_of_floor": rates["packed"] / floor,
        "times_padded": rates["packed"] / rates["padded batches of 16"],
        "largest_difference": max(abs(a - b) for one, other in pairs for a, b in zip(one, other, strict=True)),
        "same_choice": f"{sum(a.index(max(a)) == b.index(max(b)) for a, b in pairs)}/{len(pairs)}",
    }


if __name__ == "__main__":
    main()
