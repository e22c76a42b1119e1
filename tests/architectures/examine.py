"""One architecture: compressed and asked by the library, and by plain forwards; what agrees."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

import kick_core
from kick_core import Calibration
from kick_core.engine import generate, plan_for, score_options, window_logprobs
from kick_core.errors import KickError
from tests.architectures import tiny_models
from tests.architectures.products import Region, inputs_of

RECIPES = "wanda@0.5", "sparsegpt@2:4", "gptq@4bit,group=8"
WINDOWS, LENGTH = 12, 40
_TOLERANCE = 2e-3
"""Nats between two float32 forwards of one text."""


@dataclass(frozen=True)
class Outcome:
    """What came out for one architecture: a word per column of the table, and remarks."""

    name: str
    compression: str
    answers: str
    remarks: tuple[str, ...] = ()

    @property
    def right(self) -> bool:
        """Whether nothing is wrong: exact, or refused with a reason."""
        return not any(word in f"{self.compression} {self.answers}" for word in ("WRONG", "TRACEBACK"))


def examine(name: str) -> Outcome:
    """Make an architecture tiny, compress it by three methods, ask it three kinds of question."""
    torch.set_num_threads(1)
    try:
        made = tiny_models.make(name)
    except ValueError as error:
        return Outcome(name, "not made tiny", "not made tiny", (str(error),))
    with tempfile.TemporaryDirectory() as scratch:
        folder = tiny_models.save(made, Path(scratch) / "model")
        try:
            model, _ = kick_core.load(str(folder))
        except KickError as error:
            return Outcome(name, f"refused: {_reason(error)}", f"refused: {_reason(error)}")
        answers = _outcome(lambda: _answers(model))
        compression = _outcome(lambda: _compression(model, Path(scratch)))
    return Outcome(name, compression[0], answers[0], (*compression[1], *answers[1]))


Result = tuple[str, tuple[str, ...]]


def _outcome(ask: Callable[[], Result]) -> Result:
    try:
        return ask()
    except KickError as error:
        return f"refused: {_reason(error)}", ()
    except Exception as error:
        return f"TRACEBACK {type(error).__name__}: {_reason(error)}", ()


def _reason(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return re.sub(r"\S*/tmp\S*", "the folder", text)[:160].replace("|", "/")


def _ids(seed: int, *shape: int) -> Tensor:
    return torch.randint(6, tiny_models.VOCABULARY - 10, shape, generator=torch.Generator().manual_seed(seed))


# --- compression -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def _compression(model: PreTrainedModel, scratch: Path) -> Result:
    ids = _ids(1, WINDOWS, LENGTH)
    np.save(scratch / "windows.npy", ids.numpy())
    calibration = Calibration(str(scratch / "windows.npy"), windows=WINDOWS, length=LENGTH, propagate="dense")
    inputs = inputs_of(model, ids)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrong: list[str] = []
    remarks: list[str] = []
    exact = 0
    for recipe in RECIPES:
        card: Any = list(kick_core.compress(model, recipe, calibration))[-1]
        after = {name: p.detach().clone() for name, p in model.named_parameters()}
        for name, parameter in model.named_parameters():
            parameter.copy_(before[name])
        verdicts = _verdicts(recipe, inputs, before, after)
        exact = sum(verdict == "exact" for verdict in verdicts.values())
        wrong += [
            f"{recipe} {name}: {verdict}" for name, verdict in verdicts.items() if verdict not in ("exact", "left")
        ]
        if recipe == RECIPES[0]:
            remarks += _left(verdicts, before, after, card)
    if wrong:
        return f"WRONG: {len(wrong)} matrices", (*remarks, wrong[0])
    return f"exact, {exact} matrices", tuple(remarks)


def _verdicts(
    recipe: str, inputs: dict[Region, Tensor], before: dict[str, Tensor], after: dict[str, Tensor]
) -> dict[str, str]:
    """For every matrix that was multiplied, and every parameter that was changed, how it was compressed."""
    verdicts: dict[str, str] = {}
    for region, rows in inputs.items():
        old, new = region.of(before[region.parameter]), region.of(after[region.parameter])
        name = f"{region.parameter}+{region.offset}"
        verdicts[name] = "left" if torch.equal(old, new) else _verdict(recipe, old, new, rows)
    known = {region.parameter for region in inputs}
    verdicts |= {
        name: "changed, but nothing is multiplied with it"
        for name in before
        if name not in known and not torch.equal(before[name], after[name])
    }
    return verdicts


def _verdict(recipe: str, old: Tensor, new: Tensor, rows: Tensor) -> str:
    if recipe.startswith("wanda"):
        scores = old.abs() * rows.square().sum(0).sqrt()
        dropped = scores.argsort(dim=-1, stable=True)[:, : old.shape[1] // 2]
        mask = torch.zeros_like(old, dtype=torch.bool).scatter_(1, dropped, True)
        apart = float(((new == 0) != mask).float().mean())
        return "exact" if apart <= 0.005 else f"{apart:.0%} of the mask is another"
    right = kick_core.compress_matrix(old.contiguous(), rows[None], recipe).weight
    error, least = (float(((w - old) @ rows.T).square().sum()) for w in (new, right))
    return "exact" if error <= 1.05 * least + 1e-9 else f"error {error / max(least, 1e-9):.2f} times as large"


_ROUTER = re.compile(r"router|(^|\.)gate\.|gate\.wg|expert_gate|classifier")


def _left(verdicts: dict[str, str], before: dict[str, Tensor], after: dict[str, Tensor], card: Any) -> list[str]:
    """Words on what was not compressed though it is multiplied, and on routers that were."""
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    blocks = {name for name in before if re.search(r"\.\d+\.", name) and before[name].dim() >= 2}
    whole = sum(before[name].numel() for name in blocks)
    share = sum(before[name].numel() for name in changed) / max(whole, 1)
    remarks = [f"{share:.0%} of the blocks' weights"]
    if pruned := sorted(name for name in changed if _ROUTER.search(name)):
        remarks.append(f"router compressed ({pruned[0]})")
    return remarks


# --- answers ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def _answers(model: PreTrainedModel) -> Result:
    wrong = []
    for kind, ask in (("options", _options), ("texts", _texts), ("perplexity", _windows)):
        try:
            problem = ask(model)
        except KickError as error:
            problem = f"refused: {_reason(error)}"
        except Exception as error:
            problem = f"TRACEBACK {type(error).__name__}: {_reason(error)}"
        if problem:
            wrong.append(f"{kind} {problem}")
    tied = _tied(model) if wrong else 0.0
    if tied > _TOLERANCE and not any("TRACEBACK" in problem or "refused" in problem for problem in wrong):
        return f"approximate: plain forwards differ by {tied:.1g} nats when tokens are added behind", ()
    if wrong and all("refused: " in problem for problem in wrong):
        return wrong[0][wrong[0].index("refused: ") :], ()
    return "; ".join(wrong) or "equal", ()


def _plain(model: PreTrainedModel, ids: list[int]) -> Tensor:
    """Log-probabilities [length, vocabulary] of one text, by a forward without a cache."""
    extra = {"use_cache": False} if "use_cache" in inspect.signature(model.forward).parameters else {}
    return model(input_ids=torch.tensor([ids]), **extra).logits[0].float().log_softmax(-1)


def _tied(model: PreTrainedModel) -> float:
    """By how much plain forwards of some texts change, at the same tokens, when tokens are added behind: nothing in a
    causal model, but for choices of keys that are tied."""
    worst = 0.0
    for number in range(6):
        ids = _ids(300 + number, 40 + number).tolist()
        wholes = [_plain(model, ids[: 30 + number + more])[: 30 + number] for more in (0, 1, 2, 8)]
        worst = max(worst, *(float((other - wholes[0]).abs().max()) for other in wholes[1:]))
    return worst


def _options(model: PreTrainedModel) -> str:
    prefix = _ids(2, 24).tolist()
    prompts = [prefix + _ids(10 + n, 3 + 2 * n).tolist() for n in range(10)]
    options = [[_ids(100 * n + o, 1 + o % 3).tolist() for o in range(4)] for n in range(10)]
    answers: dict[int, Any] = {}
    for batch in score_options(model, prompts, options, plan=plan_for(torch.device("cpu")), filler=0):
        answers |= batch
    worst = 0.0
    for number, (prompt, choices) in enumerate(zip(prompts, options, strict=True)):
        for option, value in zip(choices, answers[number].logprobs, strict=True):
            plain = _plain(model, prompt + option)
            right = sum(float(plain[len(prompt) - 1 + n, token]) for n, token in enumerate(option))
            worst = max(worst, abs(value - right))
    return "" if worst < _TOLERANCE else f"WRONG by {worst:.3f} nats"


def _texts(model: PreTrainedModel) -> str:
    prompts = [_ids(50 + n, 3 + 3 * n).tolist() for n in range(12)]
    ends = frozenset(range(0, tiny_models.VOCABULARY, 8))
    texts: dict[int, Any] = {}
    plan = plan_for(torch.device("cpu"))
    for batch in generate(model, prompts, new_tokens=8, ends=ends, stops=lambda ids: False, plan=plan, filler=0):
        texts |= batch
    wrong = 0
    for number, prompt in enumerate(prompts):
        own = list(texts[number].ids)
        plain = _plain(model, prompt + own)[len(prompt) - 1 :]
        sure = all(float(row.max() - row[token]) < _TOLERANCE for row, token in zip(plain, own, strict=False))
        ended = texts[number].stop != "eos" or int(plain[len(own)].argmax()) in ends
        wrong += not (sure and ended and (own or texts[number].stop == "eos"))
    return f"WRONG in {wrong} of {len(prompts)}" if wrong else ""


def _windows(model: PreTrainedModel) -> str:
    windows = _ids(3, 3, 60)
    sums: list[float] = []
    for _, part in window_logprobs(model, windows, rows=2):
        sums += part
    worst = 0.0
    for window, value in zip(windows.tolist(), sums, strict=True):
        plain = _plain(model, window)
        worst = max(worst, abs(value - sum(float(plain[n, token]) for n, token in enumerate(window[1:]))))
    return "" if worst < _TOLERANCE * 10 else f"WRONG by {worst:.3f} nats"
