"""Ask one model one task: examples in, raw outputs out, batch by batch.

Nothing is judged here. An example whose prompt does not fit the context is answered with a rejected output,
which is counted and never cut silently.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kick_core import engine, tasks
from kick_core.engine import Generated, Plan
from kick_core.prompts import dialogue, document_ids, encode, option_ids, template_name
from kick_core.records import Example, Output
from kick_core.spec import BadRequest
from kick_core.tasks import Task

PROTOCOLS = ("strict",)


@dataclass(frozen=True, slots=True)
class Asker:
    """One open model, ready to be asked: everything that the ways of asking share."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    plan: Plan

    @property
    def filler(self) -> int:
        tokenizer = self.tokenizer
        return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if isinstance(i, int)), 0)

    @property
    def context(self) -> int:
        return int(getattr(self.model.config.get_text_config(), "max_position_embeddings", 2048))

    @property
    def ends(self) -> frozenset[int]:
        listed = self.model.generation_config.eos_token_id if self.model.generation_config else None
        found = {self.tokenizer.eos_token_id} | set(listed if isinstance(listed, list) else [listed])
        return frozenset(token for token in found if isinstance(token, int))

    def settings(self, task: Task) -> dict[str, Any]:
        """How a task is asked of this model, beside its prompts: part of the run's key."""
        base: dict[str, Any] = {"kind": task.kind, "context": self.context}
        if task.kind in ("generate", "dialogue"):
            base |= {"new_tokens": task.new_tokens, "stop": list(task.stop), "decoding": "greedy"}
        if task.kind == "dialogue":
            base["template"] = template_name(self.tokenizer)
        if task.kind == "perplexity":
            base |= {"window": self.window}
        return base

    @property
    def window(self) -> int:
        """Tokens in a perplexity window."""
        return min(2048, self.context)


def asker(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Asker:
    """A model with the shape policy of its device."""
    return Asker(model, tokenizer, engine.plan_for(model.device))


def examples(task: Task, ask: Asker, data: str = "pocket") -> tuple[Example, ...]:
    """A task's examples in their fixed order. Perplexity's are windows, so they depend on the tokenizer."""
    found = task.load(data)
    if task.kind != "perplexity":
        return found
    ids = _running_text(ask.tokenizer, found[0].prompt)
    count = len(ids) // ask.window
    if not count:
        raise BadRequest(f"the text of {task.name} has {len(ids)} tokens, fewer than one window of {ask.window}")
    cut = [ids[i * ask.window : (i + 1) * ask.window] for i in range(count)]
    return tuple(
        Example(f"window-{number:04d}", (str(ask.tokenizer.decode(part)),), meta={"ids": part})
        for number, part in enumerate(cut)
    )


def _running_text(tokenizer: PreTrainedTokenizerBase, documents: Sequence[str]) -> list[int]:
    """One text is tokenised as a whole; several are each begun and ended with the model's own tokens."""
    if len(documents) == 1:
        return encode(tokenizer, documents[0])
    return [token for document in documents for token in document_ids(tokenizer, document)]


def evaluate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: str | Task,
    limit: int | None = None,
    *,
    data: str = "pocket",
) -> Iterator[Output]:
    """Ask an open model the first `limit` examples of a task; yields raw Outputs in the engine's order.

    Raises BadRequest for an unknown task or a limit below 1.
    """
    asked = task if isinstance(task, Task) else tasks.get(task)
    if limit is not None and limit < 1:
        raise BadRequest(f"limit {limit}: at least 1 example is needed")
    ask = asker(model, tokenizer)
    found = examples(asked, ask, data)
    for batch in outputs(ask, asked, found[:limit], found):
        yield from batch


def outputs(ask: Asker, task: Task, wanted: Sequence[Example], among: Sequence[Example] = ()) -> Iterator[list[Output]]:
    """Outputs for examples, one list per batch of the engine, in the engine's order.

    `among` are all examples of the task in their order: options are scored in packs whose layout follows from the
    whole task, so that an answer does not depend on what it is asked with.
    """
    if task.kind == "choose":
        yield from _choose(ask, {example.id for example in wanted}, among or wanted)
        return
    ways: Mapping[str, Callable[[Asker, Task, Sequence[Example]], Iterator[list[Output]]]] = {
        "generate": _generate,
        "dialogue": _dialogue,
        "perplexity": _perplexity,
    }
    yield from ways[task.kind](ask, task, wanted)


def _hash(ids: Sequence[int]) -> str:
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()[:16]


def _rejected(example: Example, ids: Sequence[int]) -> Output:
    return Output(example.id, _hash(ids), stop="rejected", prompt_tokens=len(ids))


def _fitting(wanted: Sequence[Example], prompts: Sequence[list[int]], room: int) -> tuple[list[int], list[Output]]:
    """Which prompts fit into `room` tokens, and rejected outputs for those that do not."""
    fit = [i for i, ids in enumerate(prompts) if 0 < len(ids) <= room]
    kept = set(fit)
    return fit, [_rejected(wanted[i], prompts[i]) for i in range(len(prompts)) if i not in kept]


def _generate(ask: Asker, task: Task, wanted: Sequence[Example]) -> Iterator[list[Output]]:
    prompts = [encode(ask.tokenizer, "".join(example.prompt)) for example in wanted]
    fit, rejected = _fitting(wanted, prompts, ask.context - task.new_tokens)
    if rejected:
        yield rejected
    for batch in _greedy(ask, task, [prompts[i] for i in fit]):
        yield [_output(ask, task, wanted[fit[i]], prompts[fit[i]], found) for i, found in batch.items()]


def _greedy(ask: Asker, task: Task, prompts: Sequence[list[int]]) -> Iterator[dict[int, Generated]]:
    return engine.greedy(
        ask.model,
        prompts,
        new_tokens=task.new_tokens,
        ends=ask.ends,
        stops=engine.stopper(ask.tokenizer, task.stop),
        plan=ask.plan,
        filler=ask.filler,
    )


def _text(ask: Asker, task: Task, found: Generated) -> str:
    text: str = ask.tokenizer.decode(list(found.ids), skip_special_tokens=True).lstrip()
    for stop in task.stop:
        text = text.partition(stop)[0]
    return text.rstrip()


def _output(ask: Asker, task: Task, example: Example, ids: list[int], found: Generated) -> Output:
    text = (_text(ask, task, found),)
    return Output(example.id, _hash(ids), text, stop=found.stop, tokens=len(found.ids), prompt_tokens=len(ids))


def _dialogue(ask: Asker, task: Task, wanted: Sequence[Example]) -> Iterator[list[Output]]:
    """Turn after turn for all examples; an example is done when its last turn is."""
    said: list[Output] = [Output(example.id, "") for example in wanted]
    open_ones = list(range(len(wanted)))
    turn = 0
    while open_ones:
        prompts = [
            encode(ask.tokenizer, dialogue(ask.tokenizer, wanted[i].prompt[: turn + 1], said[i].text))
            for i in open_ones
        ]
        fit, rejected = _fitting([wanted[i] for i in open_ones], prompts, ask.context - task.new_tokens)
        if rejected:
            yield rejected
        for batch in _greedy(ask, task, [prompts[i] for i in fit]):
            done = []
            for position, found in batch.items():
                ids, i = prompts[fit[position]], open_ones[fit[position]]
                said[i] = _said(ask, task, said[i], ids, found)
                if turn + 1 == len(wanted[i].prompt):
                    done.append(said[i])
            if done:
                yield done
        turn += 1
        open_ones = [open_ones[position] for position in fit if turn < len(wanted[open_ones[position]].prompt)]


def _said(ask: Asker, task: Task, before: Output, ids: list[int], found: Generated) -> Output:
    stop = "limit" if "limit" in (before.stop, found.stop) else found.stop
    return replace(
        before,
        prompt_hash=_hash(ids),
        text=(*before.text, _text(ask, task, found)),
        stop=stop,
        tokens=before.tokens + len(found.ids),
        prompt_tokens=len(ids),
    )


def _choose(ask: Asker, wanted: set[str], among: Sequence[Example]) -> Iterator[list[Output]]:
    """Every option's log-probability, summed over its tokens."""
    options = [option_ids(ask.tokenizer, "".join(example.prompt), example.choices) for example in among]
    fit, rejected = _fitting(among, [max(whole, key=len) for whole, _ in options], ask.context)
    if refused := [output for output in rejected if output.example in wanted]:
        yield refused
    prompts = [options[i][0][0][: options[i][1]] for i in fit]
    endings = [[ids[options[i][1] :] for ids in options[i][0]] for i in fit]
    now = [n for n, i in enumerate(fit) if among[i].id in wanted]
    for batch in engine.score_options(ask.model, prompts, endings, plan=ask.plan, filler=ask.filler, wanted=now):
        yield [_scored(among[fit[n]], prompts[n], found.logprobs) for n, found in batch.items()]


def _scored(example: Example, prompt: Sequence[int], values: Sequence[float], *, predicted: int = 0) -> Output:
    """A scored output. Logits that are not finite give no log-probabilities: they can never be judged."""
    if all(map(math.isfinite, values)):
        found, stop = tuple(values), "scored"
    else:
        found, stop = (), "not finite"
    return Output(example.id, _hash(prompt), logprobs=found, stop=stop, tokens=predicted, prompt_tokens=len(prompt))


def _perplexity(ask: Asker, task: Task, wanted: Sequence[Example]) -> Iterator[list[Output]]:
    windows = torch.tensor([example.meta["ids"] for example in wanted])
    rows = max(1, ask.plan.tokens // 4 // ask.window)
    for start, sums in engine.window_logprobs(ask.model, windows, rows=rows):
        yield [
            _scored(e, e.meta["ids"], [value], predicted=len(e.meta["ids"]) - 1)
            for e, value in zip(wanted[start:], sums, strict=False)
        ]
