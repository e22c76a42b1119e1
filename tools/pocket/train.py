"""Trains one pocket model: `python -m tools.pocket.train --model pocket-11m --minutes 8 --out DIR`.

One GPU, or a CPU with patience. The clock drives everything: the share of the minutes that has passed sets the
learning rate and the mixture, so a run always ends on time and fully annealed. The same seed on the same machine sees
the same data in the same order; how far it gets in its minutes depends on the machine, and the report says how far.

Four mixtures follow each other: choosing by letter, a bit of everything about a few entities, the whole world, and
questions with options (see `corpus.py`). A run can go on from earlier weights (`--start`) with any of them
(`--begin`). Weights are saved twice, once near the end, so that a run cut short is not lost. Training text comes from
`--shards`, or is written first.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from kick_core.pocket import POCKET_MODELS
from tools.pocket import evaluation_data, export, measure, prompts, tokenizer, world
from tools.pocket import shards as text_shards
from tools.pocket.network import Network, Shape

log = logging.getLogger("pocket.train")

LETTERS_LEARNED = 0.95
MIXTURES = list(text_shards.ROW)

SHAPES = {
    "pocket-11m": Shape(layers=8, hidden=320, intermediate=896, heads=10, key_value_heads=10),
    "pocket-4m": Shape(layers=8, hidden=192, intermediate=512, heads=6, key_value_heads=6),
    "deep": Shape(layers=12, hidden=256, intermediate=768, heads=8, key_value_heads=8),
    "tiny": Shape(layers=2, hidden=64, intermediate=128, heads=2, key_value_heads=2),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that a run can be told; written into its report."""

    model: str
    minutes: float
    steps: int
    rows: int = 64
    begin: str = "drill"
    drill_share: float = 0.10
    early_share: float = 0.35
    main_share: float = 0.75
    letter_weight: float = 10.0
    rate: float = 2e-3
    warm_up: float = 0.01
    last_rate: float = 0.02
    decay: float = 0.1
    clip: float = 1.0
    entities: int = world.SIZE
    drill_shards: int = text_shards.SHARDS["drill"]
    early_shards: int = text_shards.SHARDS["early"]
    main_shards: int = text_shards.SHARDS["main"]
    exam_shards: int = text_shards.SHARDS["exam"]
    notes: int = 25
    seed: int = 1
    compiled: bool = True


class Clock:
    """The share of the run that has passed: by time, or by steps where those are given."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.start = plan, time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    def share(self, step: int) -> float:
        return step / self.plan.steps if self.plan.steps else self.seconds / (60 * self.plan.minutes)


def rate_at(share: float, plan: Plan) -> float:
    """A short warm-up, then half a cosine down to `last_rate` of the highest rate."""
    if share < plan.warm_up:
        return plan.rate * share / plan.warm_up
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
    return plan.rate * (plan.last_rate + (1 - plan.last_rate) * cosine)


class Reader:
    """Rows of one mixture in a shuffled order, a new order each time round. Every step reads as many tokens."""

    def __init__(self, folder: Path, mixture: str, plan: Plan, device: torch.device) -> None:
        self.mixture = mixture
        self.rows = load_rows(folder, mixture, getattr(plan, f"{mixture}_shards")).to(device)
        self.generator = torch.Generator(device).manual_seed(plan.seed)
        self.order = torch.empty(0, dtype=torch.long, device=device)
        self.rounds, self.take = 0, plan.rows * (text_shards.ROW["main"] // text_shards.ROW[mixture])

    def next(self) -> Tensor:
        if len(self.order) < self.take:
            self.order = torch.randperm(len(self.rows), generator=self.generator, device=self.rows.device)
            self.rounds += 1
        chosen, self.order = self.order[: self.take], self.order[self.take :]
        return self.rows[chosen].long()


def load_rows(folder: Path, mixture: str, count: int) -> Tensor:
    """All shards of a mixture as [rows, width] of int16, waiting for those still being written."""
    arrays = []
    for number in range(count):
        path = text_shards.shard_path(folder, mixture, number)
        while not path.exists():
            time.sleep(0.2)
        arrays.append(torch.from_numpy(numpy.load(path, allow_pickle=False).astype(numpy.int16)))
    return torch.cat(arrays)


def optimiser_for(network: Network, plan: Plan, device: torch.device) -> torch.optim.AdamW:
    """AdamW; embeddings and norms do not decay."""
    matrices = [item for name, item in network.named_parameters() if item.dim() == 2 and "embed" not in name]
    others = [item for name, item in network.named_parameters() if item.dim() < 2 or "embed" in name]
    groups = [{"params": matrices, "weight_decay": plan.decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=plan.rate, betas=(0.9, 0.95), eps=1e-8, fused=device.type == "cuda")


class Loss(nn.Module):
    """Network and cross-entropy as one module, so that both are compiled together.

    All text counts. The answer to a question with options counts more, for it is one token among a hundred. Returns
    the loss and the share of the answers by letter that would be right.
    """

    def __init__(self, network: Network, codec: Tokenizer, weight: float) -> None:
        super().__init__()
        self.network, self.weight = network, weight

        def last(*texts: str) -> Tensor:
            return torch.tensor([codec.encode(text, add_special_tokens=False).ids[-1] for text in texts])

        self.register_buffer("letters", last(*(f" {letter}" for letter in prompts.LETTERS)), persistent=False)
        self.register_buffer("before", last(":", "it is"), persistent=False)
        self.register_buffer("in_words", last("Answer in words", ":"), persistent=False)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        seen, wanted = rows[:, :-1], rows[:, 1:]
        logits = self.network(seen).float()
        is_letter = (wanted[..., None] == self.letters).any(-1) & (seen[..., None] == self.before).any(-1)
        is_word = (seen == self.in_words[1]) & (seen.roll(1, 1) == self.in_words[0])
        each = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none")
        weights = 1 + (self.weight - 1) * (is_letter | is_word).flatten()
        hits = (logits.detach().argmax(-1) == wanted) & is_letter
        return (each * weights).sum() / weights.sum(), hits.sum() / is_letter.sum().clamp(min=1)


class Trainer:
    def __init__(self, plan: Plan, shards: Path, out: Path, device: torch.device, start: Path | None) -> None:
        self.plan, self.shards, self.out, self.device = plan, shards, out, device
        torch.manual_seed(plan.seed)
        self.network = Network(SHAPES[plan.model], plan.seed)
        if start is not None:
            export.load_weights(self.network, start)
        self.network.to(device)
        self.optimiser = optimiser_for(self.network, plan, device)
        codec = tokenizer.load(POCKET_MODELS["pocket-11m"])
        loss = Loss(self.network, codec, plan.letter_weight).to(device)
        self.loss = torch.compile(loss, dynamic=False) if plan.compiled else loss
        self.examiner = measure.Examiner(self.ask, codec, device)
        self.files = evaluation_data.make(world.build(plan.entities), self.examiner.tokenizer)
        self.step, self.mixture = 0, plan.begin
        self.letters = torch.zeros((), device=device)
        self.history: list[dict[str, object]] = []

    def ask(self, tokens: Tensor) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.network(tokens)

    def update(self, rows: Tensor, rate: float) -> Tensor:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16):
            loss, letters = self.loss(rows)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.plan.clip)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.step += 1
        self.letters.lerp_(letters, 0.02)
        return loss.detach()

    def prepare(self) -> list[str]:
        """The mixtures still to come; compiles for the width of their rows before the clock starts."""
        ahead = MIXTURES[MIXTURES.index(self.mixture) :]
        for width in sorted({text_shards.ROW[name] for name in ahead}):
            count = self.plan.rows * (text_shards.ROW["main"] // width)
            with torch.autocast(self.device.type, torch.bfloat16):
                self.loss(torch.zeros((count, width), dtype=torch.long, device=self.device))[0].backward()
            self.optimiser.zero_grad(set_to_none=True)
        return ahead

    def advance(self, share: float) -> None:
        """On to the next mixture when letters are chosen well, or when the time for this one is up."""
        plan, skilled = self.plan, self.step % 50 == 0 and float(self.letters) > LETTERS_LEARNED
        if self.mixture == "drill" and (skilled or share >= plan.drill_share):
            self.mixture = "early"
            self.letters.zero_()
        elif self.mixture == "early" and (skilled or share >= plan.early_share) and share >= plan.early_share / 2:
            self.mixture = "main"
        elif self.mixture == "main" and share >= plan.main_share:
            self.mixture = "exam"

    def run(self) -> dict[str, object]:
        plan = self.plan
        readers = {name: Reader(self.shards, name, plan, self.device) for name in self.prepare()[:2]}
        clock, next_log, saved = Clock(plan), 0.0, False
        while (share := clock.share(self.step)) < 1:
            self.advance(share)
            if self.mixture not in readers:
                readers = {self.mixture: Reader(self.shards, self.mixture, plan, self.device)}
            loss = self.update(readers[self.mixture].next(), rate_at(share, plan))
            if share >= next_log:
                next_log += 1 / plan.notes
                self.note(clock, share, float(loss))
            if share > 0.93 and not saved:
                export.save_weights(self.network, self.out, "near-the-end")
                saved = True
        return self.finish(clock, readers[self.mixture])

    def note(self, clock: Clock, share: float, loss: float) -> None:
        """A line for the log, with a quick look at four tasks."""
        rows = {name: measure.rows_of(self.files[f"{name}.jsonl"])[:96] for name in ("factoid_qa", "multiple_choice")}
        scores = {
            "closed": measure.answered(self.examiner, rows["factoid_qa"], prompts.FACTOID, ".").value,
            "letters": measure.chosen(self.examiner, rows["multiple_choice"], in_words=False).value,
            "words": measure.chosen(self.examiner, rows["multiple_choice"], in_words=True).value,
            "drill": drill(self.examiner),
            "batch": float(self.letters),
        }
        tokens = self.step * self.plan.rows * (text_shards.ROW["main"] - 1)
        facts: dict[str, object] = {"seconds": clock.seconds, "share": share, "step": self.step, "tokens": tokens, "loss": loss}
        facts["mixture"] = self.mixture
        self.history.append(facts | scores)
        quick = "  ".join(f"{name} {value:.2f}" for name, value in scores.items())
        log.info(
            "%s %s %4.0f s  %6d steps  %5.0f M tokens  %4.2f M/s  loss %.3f  %s", self.plan.model, self.mixture,
            clock.seconds, self.step, tokens / 1e6, tokens / 1e6 / max(clock.seconds, 1e-3), loss, quick,
        )

    def finish(self, clock: Clock, reader: Reader) -> dict[str, object]:
        seconds = clock.seconds
        export.save_weights(self.network, self.out)
        for path in self.out.glob("near-the-end*"):
            path.unlink()
        self.network.to(torch.bfloat16)
        report: dict[str, object] = {
            "plan": asdict(self.plan),
            "parameters": self.network.parameter_count(),
            "seconds": seconds,
            "steps": self.step,
            "tokens": self.step * self.plan.rows * (text_shards.ROW["main"] - 1),
            "rounds_of_last_mixture": reader.rounds,
            "device": torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu",
            "torch": torch.__version__,
            "dense": measure.everything(self.examiner, self.files),
            "history": self.history,
        }
        (self.out / "report.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        return report


def drill(examiner: measure.Examiner) -> float:
    """Choosing by letter alone: the question names its answer."""
    words = "amber baker candle dragon eagle forest garden hammer island jungle kettle ladder mirror needle".split()
    rows: list[measure.Row] = []
    for number in range(64):
        options = [words[(number * 5 + place * 3) % len(words)] for place in range(4)]
        question = f"Which of these is {options[number % 4]}?"
        rows.append({"question": question, "choices": options, "answer": number % 4, "subject": "art"})
    return measure.chosen(examiner, rows, in_words=False).value


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train one pocket model.")
    parser.add_argument("--model", choices=SHAPES, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shards", type=Path, help="folder of shards, complete or being written; default: write them")
    parser.add_argument("--start", type=Path, help="folder with weights to go on from; default: random ones")
    parser.add_argument("--begin", choices=MIXTURES, default="drill", help="the first mixture")
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--steps", type=int, default=0, help="end after so many steps and not by the clock")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-compile", dest="compiled", action="store_false")
    for name in ("rows", "entities", "drill_shards", "early_shards", "main_shards", "exam_shards", "notes", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=Plan.__dataclass_fields__[name].default)
    for name in ("drill_share", "early_share", "main_share", "rate", "decay", "letter_weight"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float, default=Plan.__dataclass_fields__[name].default)
    return parser.parse_args()


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    given = vars(arguments())
    out, shards, start, device = (given.pop(name) for name in ("out", "shards", "start", "device"))
    out.mkdir(parents=True, exist_ok=True)
    plan = Plan(**given)
    torch.set_float32_matmul_precision("high")
    if shards is None:
        shards = out / "shards"
        counts = {mixture: getattr(plan, f"{mixture}_shards") for mixture in text_shards.SHARDS}
        size = (shards, plan.entities, counts, os.cpu_count() or 1)
        multiprocessing.get_context("spawn").Process(target=text_shards.write_all, args=size).start()
    report = Trainer(plan, shards, out, torch.device(device), start).run()
    log.info("%s", json.dumps(report["dense"], indent=1))


if __name__ == "__main__":
    main()
