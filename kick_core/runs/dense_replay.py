"""Dense's own answers under a variant, token for token: how likely it still finds them, and where it leaves them.

The variant is not asked anew: it reads the very tokens that dense wrote (teacher forcing) and gives each one's
log-probability. One forward a batch, no decoding, and far less noise than comparing two texts. The first token of
dense's text that is not the variant's own first choice is where its greedy text would part from dense's: tokens until
divergence. Dense reads itself too: where even that is not its own first choice throughout, the text was drawn, or
rounding decided, and the text has a log-probability but no divergence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kick_core import engine, keys
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.engine import TextScore
from kick_core.evaluation import EvalSession
from kick_core.models.tokenization import dialogue, encode
from kick_core.provenance import now
from kick_core.records import Example, Output, RunCard
from kick_core.runs.measure import TaskData, run_card, wanted
from kick_core.spec import DENSE, Recipe
from kick_core.store import Store, results
from kick_core.store import fidelity as kept
from kick_core.store.locks import locked

KINDS = ("generate", "dialogue")
"""Kinds of task whose answers are texts."""
_SEALED = 64
"""Examples in one part."""


@dataclass(frozen=True, slots=True)
class Text:
    """One answer of dense after its prompt, as tokens."""

    example: str
    turn: int
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def measure(
    store: Store,
    builder: ArtifactBuilder,
    recipe: Recipe,
    ask: EvalSession,
    loaded: TaskData,
    dense_run: str,
    limit: int | None,
) -> Iterator[int]:
    """Let a recipe read dense's answers to the first `limit` examples; yields the number of examples at a time.

    `dense_run` holds the answers; examples that it has not answered are left for another time.
    """
    reference, variant = (card(builder, one, ask, loaded) for one in (DENSE, recipe))
    said = results.outputs(store, dense_run)[: len(wanted(loaded, limit))]
    _read_dense(store, builder, reference, ask, loaded, said)
    yield from _read(store, builder, recipe, variant, ask, loaded, said)


def card(builder: ArtifactBuilder, recipe: Recipe, ask: EvalSession, loaded: TaskData) -> RunCard:
    """The card of a reading: as of a run of the task, under a key of its own."""
    run = run_card(builder, recipe, ask, loaded)
    identity = {"run": run.key, "dense": builder.key(DENSE)}
    return replace(run, key=keys.key("densetext", identity), created=now())


def _read_dense(
    store: Store,
    builder: ArtifactBuilder,
    reference: RunCard,
    ask: EvalSession,
    loaded: TaskData,
    said: Sequence[Output],
) -> None:
    with locked(store.lock_path(reference.key)):
        for _ in _read(store, builder, DENSE, reference, ask, loaded, said):
            pass


def _read(
    store: Store,
    builder: ArtifactBuilder,
    recipe: Recipe,
    run: RunCard,
    ask: EvalSession,
    loaded: TaskData,
    said: Sequence[Output],
) -> Iterator[int]:
    """Read what is not read yet, part by part."""
    done = kept.windows(kept.texts(store, run.key))
    if done >= len(said):
        return
    builder.apply_recipe(recipe)
    kept.keep_card(store, run)
    by_id = {example.id: example for example in loaded.examples}
    for start in range(done, len(said), _SEALED):
        part = said[start : start + _SEALED]
        asked = [text for one in part for text in _texts(ask, loaded, by_id[one.example], one)]
        rows = [
            {"example": t.example, "turn": t.turn, "tokens": len(t.answer), "logprob": r.total, "until": r.until}
            for t, r in zip(asked, read_all(ask, asked), strict=True)
        ]
        kept.keep_texts(store, run.key, start, len(part), rows)
        yield len(part)


def _texts(ask: EvalSession, loaded: TaskData, example: Example, said: Output) -> Iterator[Text]:
    """Dense's answers to one example as tokens; empty ones are left out."""
    for turn, answer in enumerate(said.ids):
        if not answer:
            continue
        prompt = "".join(example.prompt)
        if loaded.task.kind == "dialogue":
            prompt = dialogue(ask.tokenizer, example.prompt[: turn + 1], said.text[:turn], loaded.way.template)
        yield Text(example.id, turn, tuple(encode(ask.tokenizer, prompt)), answer)


def read_all(ask: EvalSession, texts: Sequence[Text]) -> list[TextScore]:
    """Read texts in batches of the asker's plan."""
    found: dict[int, TextScore] = {}
    prompts, answers = [text.prompt for text in texts], [text.answer for text in texts]
    for batch in engine.text_logprobs(ask.model, prompts, answers, plan=ask.plan, filler=ask.filler):
        found |= batch
    return [found[item] for item in range(len(texts))]
