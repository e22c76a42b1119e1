"""Dense's own answers under a variant, word for word: how likely it still finds them, and where it leaves them.

The variant is not asked anew: it reads what dense wrote (teacher forcing) and gives the log-probability of each token.
One forward a batch, no decoding, and far less noise than comparing two texts. The first token of dense's text that
is not the variant's own first choice is where its greedy text would part from dense's: tokens until divergence.

Stored answers are texts, and a text can be cut into tokens otherwise than it was written. So dense reads itself
first, with and without the space that may have stood before the answer, and the likelier form counts. Where dense
is not its own first choice throughout, the tokens were others: such texts have a log-probability but no divergence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from filelock import FileLock

from kick_core import engine, keys
from kick_core.evaluation import Asker
from kick_core.prompts import dialogue, option_ids
from kick_core.provenance import now
from kick_core.records import Example, Output, RunCard
from kick_core.runs import TaskData, run_card, wanted
from kick_core.spec import DENSE, Recipe
from kick_core.store import Store, results
from kick_core.store import fidelity as kept
from kick_core.workshop import Workshop

KINDS = ("generate", "dialogue")
"""Kinds of task whose answers are texts."""
_SEALED = 64
"""Examples in one part."""
_KEPT = 32
"""Positions whose logits are computed are a multiple of this, so that shapes stay few."""


@dataclass(frozen=True, slots=True)
class Text:
    """One answer of dense after its prompt, as tokens: `ids` from `start` on are the answer."""

    example: str
    turn: int
    space: bool
    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True, slots=True)
class Read:
    """How a model reads a text: summed log-probability of its tokens, and how many come before its first choice is
    another (all of them when it never is).
    """

    logprob: float
    until: int


def measure(
    store: Store, shop: Workshop, recipe: Recipe, ask: Asker, loaded: TaskData, dense_run: str, limit: int | None
) -> Iterator[int]:
    """Let a recipe read dense's answers to the first `limit` examples; yields the number of examples at a time.

    `dense_run` holds the answers; examples that it has not answered are left for another time.
    """
    reference, variant = (card(shop, one, ask, loaded) for one in (DENSE, recipe))
    said = results.outputs(store, dense_run)[: len(wanted(loaded, limit))]
    _read_dense(store, shop, reference, ask, loaded, said)
    yield from _read(store, shop, recipe, variant, ask, loaded, said, kept.spaces(store, reference.key))


def card(shop: Workshop, recipe: Recipe, ask: Asker, loaded: TaskData) -> RunCard:
    """The card of a reading: as of a run of the task, under a key of its own."""
    run = run_card(shop, recipe, ask, loaded)
    identity = {"run": run.key, "dense": shop.key(DENSE)}
    return replace(run, key=keys.key("densetext", identity), created=now())


def _read_dense(
    store: Store, shop: Workshop, reference: RunCard, ask: Asker, loaded: TaskData, said: Sequence[Output]
) -> None:
    lock = store.lock_path(reference.key)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock):
        for _ in _read(store, shop, DENSE, reference, ask, loaded, said, None):
            pass


def _read(
    store: Store,
    shop: Workshop,
    recipe: Recipe,
    run: RunCard,
    ask: Asker,
    loaded: TaskData,
    said: Sequence[Output],
    spaces: dict[tuple[str, int], bool] | None,
) -> Iterator[int]:
    """Read what is not read yet, part by part; without `spaces` both forms of every text, keeping the likelier."""
    done = kept.windows(kept.texts(store, run.key))
    if done >= len(said):
        return
    shop.put_on(recipe)
    kept.keep_card(store, run)
    by_id = {example.id: example for example in loaded.examples}
    for start in range(done, len(said), _SEALED):
        part = said[start : start + _SEALED]
        forms = (False, True) if spaces is None else (None,)
        found: dict[tuple[str, int], tuple[Text, Read]] = {}
        for form in forms:
            asked = [text for one in part for text in _texts(ask, loaded, by_id[one.example], one, form, spaces)]
            for text, read in zip(asked, read_all(ask, asked), strict=True):
                name = (text.example, text.turn)
                if name not in found or read.logprob > found[name][1].logprob:
                    found[name] = (text, read)
        rows = [
            {"example": t.example, "turn": t.turn, "space": t.space, "tokens": len(t.ids) - t.start,
             "logprob": r.logprob, "until": r.until}
            for t, r in found.values()
        ]  # fmt: skip
        kept.keep_texts(store, run.key, start, len(part), rows)
        yield len(part)


def _texts(
    ask: Asker,
    loaded: TaskData,
    example: Example,
    said: Output,
    form: bool | None,
    spaces: dict[tuple[str, int], bool] | None,
) -> Iterator[Text]:
    """Dense's answers to one example as tokens; empty ones and those beyond the context are left out."""
    for turn, text in enumerate(said.text):
        space = spaces.get((example.id, turn), False) if spaces is not None else bool(form)
        prompt = "".join(example.prompt)
        if loaded.task.kind == "dialogue":
            prompt = dialogue(ask.tokenizer, example.prompt[: turn + 1], said.text[:turn])
        if not text.strip():
            continue
        (ids,), start = option_ids(ask.tokenizer, prompt, [(" " if space else "") + text])
        if 0 < start < len(ids) <= ask.context:
            yield Text(example.id, turn, space, tuple(ids), start)


@torch.inference_mode()
def read_all(ask: Asker, texts: Sequence[Text]) -> list[Read]:
    """Read texts in batches of the asker's plan. A token that ties with the first choice counts as it."""
    found: dict[int, Read] = {}
    whole = [text.ids for text in texts]
    for batch in engine.batches([len(ids) for ids in whole], ask.plan):
        padded = engine._pad(whole, batch, ask.filler, ask.model.device)
        longest = max(len(whole[i]) - texts[i].start for i in batch.items) + 1
        keep = min(batch.length, -(-longest // _KEPT) * _KEPT)
        inputs = {"input_ids": padded.ids, "attention_mask": padded.mask, "position_ids": padded.positions}
        logits = engine._logits(ask.model, inputs | {"use_cache": False}, keep)
        for row, item in enumerate(batch.items):
            answer = torch.tensor(whole[item][texts[item].start :], device=logits.device)
            logprobs = logits[row, -len(answer) - 1 : -1].log_softmax(-1)
            taken = logprobs.gather(-1, answer[:, None])[:, 0]
            other = (taken != logprobs.amax(-1)).nonzero()
            found[item] = Read(float(taken.sum()), int(other[0]) if len(other) else len(answer))
    return [found[item] for item in range(len(texts))]
