"""Free text after a raw prompt, and dialogues turn after turn."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from kick_core import engine, timing
from kick_core.engine import Generated, Sampling
from kick_core.engine.packing import shared_prefixes
from kick_core.evaluation import prompting
from kick_core.evaluation.session import EvalSession, prompt_hash, rejected
from kick_core.models.tokenization import dialogue as dialogue_text
from kick_core.models.tokenization import encode_all
from kick_core.records import Example, Output
from kick_core.tasks import PromptSpec


def generate(
    ask: EvalSession, way: PromptSpec, wanted: Sequence[Example], among: Sequence[Example] = ()
) -> Iterator[list[Output]]:
    """One answer to each raw prompt; `among` as in `beginnings`."""
    with timing.stage("tokenise", prompts=len(wanted)):
        shown = prompting.prompts(ask.tokenizer, way, wanted, ask.context - way.new_tokens)
    prompts = [ids for ids, _ in shown]
    fit, refused = _fitting(ask, way, wanted, prompts)
    if refused:
        yield refused
    alike = beginnings(ask, way, among)
    for batch in _continued(ask, way, [wanted[i] for i in fit], [prompts[i] for i in fit], 0, alike):
        empty = [Output(wanted[fit[i]].id, "", shots_used=shown[fit[i]][1]) for i in batch]
        yield [_said(ask, way, e, prompts[fit[i]], found) for e, (i, found) in zip(empty, batch.items(), strict=True)]


def dialogue(
    ask: EvalSession, way: PromptSpec, wanted: Sequence[Example], among: Sequence[Example] = ()
) -> Iterator[list[Output]]:
    """Turn after turn for all examples; an example is done when its last turn is. `among` as in `beginnings`."""
    alike = beginnings(ask, way, among)
    said: list[Output] = [Output(example.id, "") for example in wanted]
    open_ones = list(range(len(wanted)))
    turn = 0
    while open_ones:
        asked = [wanted[i] for i in open_ones]
        texts = [
            dialogue_text(ask.tokenizer, wanted[i].prompt[: turn + 1], said[i].text, way.template) for i in open_ones
        ]
        prompts = encode_all(ask.tokenizer, texts)
        fit, refused = _fitting(ask, way, asked, prompts)
        if refused:
            yield refused
        for batch in _continued(ask, way, [asked[i] for i in fit], [prompts[i] for i in fit], turn, alike):
            if not batch:  # every turn is a part of an example
                whole, underway = max(len(wanted[i].prompt) for i in open_ones), ask.plan.underway
                underway.texts = (turn * len(open_ones) + underway.texts) / whole
                yield []
            done = []
            for position, found in batch.items():
                ids, i = prompts[fit[position]], open_ones[fit[position]]
                said[i] = _said(ask, way, said[i], ids, found)
                if turn + 1 == len(wanted[i].prompt) or found.stop == "not finite":
                    done.append(said[i])
            if done:
                yield done
        turn += 1
        open_ones = [
            open_ones[position]
            for position in fit
            if turn < len(asked[position].prompt) and said[open_ones[position]].stop != "not finite"
        ]


_LOOKED_AT = 64
"""Prompts, the first of a task, in which shared beginnings are looked for: a limit must not cost a whole task's."""
_TOLL, _SHORTEST = 64, 8
"""Tokens of prompts that a beginning saves at least, and its own fewest: reading and seeing it costs something too."""


def beginnings(ask: EvalSession, way: PromptSpec, among: Sequence[Example]) -> list[list[int]]:
    """What prompts of a task begin with alike, as token ids, where they are read in packs.

    Args:
        ask: The model.
        way: How the task is put.
        among: All of the task's examples in their fixed order, so that a prompt is read alike whatever is asked with
            it; without any nothing is shared.
    """
    if not ask.plan_for(way).packed:
        return []
    key = ("beginnings", id(among), ask.context, way.new_tokens, way.shots, way.fewshot_seed, way.prompting)
    if key not in ask.prepared:
        first = among[:_LOOKED_AT]
        if way.kind == "dialogue":
            texts = [dialogue_text(ask.tokenizer, example.prompt[:1], (), way.template) for example in first]
            prompts = encode_all(ask.tokenizer, texts)
        else:
            prompts = [ids for ids, _ in prompting.prompts(ask.tokenizer, way, first, ask.context - way.new_tokens)]
        prompts = [ids for ids in prompts if ids]
        groups = shared_prefixes(prompts, _TOLL)
        alike = [prompts[items[0]][:length] for length, items in groups if length >= _SHORTEST]
        ask.prepared[key] = among, alike  # kept with its examples, so nobody else gets their id
    found: list[list[int]] = ask.prepared[key][1]
    return found


def _budget(ask: EvalSession, way: PromptSpec, prompt: Sequence[int]) -> int:
    """New tokens that an answer may have; 0 or less where the context has no room for one."""
    budget, room = way.times_prompt * len(prompt) or way.new_tokens, ask.context - len(prompt)
    return min(budget, room) if way.fills_context or budget <= room else 0


def _fitting(
    ask: EvalSession, way: PromptSpec, wanted: Sequence[Example], prompts: Sequence[list[int]]
) -> tuple[list[int], list[Output]]:
    """Which prompts leave room for an answer, and rejected outputs for those that do not."""
    fit = [i for i, ids in enumerate(prompts) if ids and _budget(ask, way, ids) > 0]
    kept = set(fit)
    return fit, [rejected(wanted[i], prompts[i]) for i in range(len(prompts)) if i not in kept]


def _continued(
    ask: EvalSession,
    way: PromptSpec,
    wanted: Sequence[Example],
    prompts: Sequence[list[int]],
    turn: int,
    alike: Sequence[list[int]],
) -> Iterator[dict[int, Generated]]:
    """Continuations, those with one budget and one temperature together."""
    stops = engine.stopper(ask.tokenizer, way.stop)
    groups: dict[tuple[int, float], list[int]] = {}
    for i, (example, ids) in enumerate(zip(wanted, prompts, strict=True)):
        groups.setdefault((_budget(ask, way, ids), way.temperature(example)), []).append(i)
    for (budget, temperature), items in sorted(groups.items()):
        for batch in ask.engine.generate(
            [prompts[i] for i in items],
            new_tokens=budget,
            ends=ask.ends,
            stops=stops,
            plan=ask.plan_for(way),
            filler=ask.filler,
            sampling=Sampling(temperature, top_k=way.top_k) if temperature else None,
            seeds=[_seed(wanted[i], turn) for i in items],
            beginnings=alike,
        ):
            yield {items[position]: found for position, found in batch.items()}


def _seed(example: Example, turn: int) -> int:
    """The same draws for an example whatever it is asked with, and whoever is asked."""
    return int.from_bytes(hashlib.sha256(f"{example.id} turn {turn}".encode()).digest()[:7])


def _text(ask: EvalSession, way: PromptSpec, found: Generated) -> str:
    text: str = ask.tokenizer.decode(list(found.ids), skip_special_tokens=True)
    if way.verbatim:
        return text
    text = text.lstrip()
    for stop in way.stop:
        text = text.partition(stop)[0]
    return prompting.open_thought(ask.tokenizer, way) + text.rstrip()  # scorers leave out what is marked as thought


def _said(ask: EvalSession, way: PromptSpec, before: Output, ids: list[int], found: Generated) -> Output:
    """One turn more."""
    stop = "limit" if before.stop == "limit" and found.stop != "not finite" else found.stop
    return replace(
        before,
        prompt_hash=prompt_hash(ids),
        text=(*before.text, _text(ask, way, found)),
        ids=(*before.ids, found.ids),
        stop=stop,
        tokens=before.tokens + len(found.ids),
        prompt_tokens=len(ids),
    )
