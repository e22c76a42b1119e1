"""Dense's own answers under a variant, token for token: how likely they are to it, and where it diverges from them.

The variant does not generate: it reads the very tokens that dense wrote (teacher forcing) and gives each one's
log-probability. One forward per batch, no decoding, and far less noise than comparing two texts. The first token of
dense's text that is not the variant's own first choice is where its greedy text would part from dense's: tokens until
divergence. Dense reads itself too: where even that is not its own first choice throughout, the text was sampled, or
rounding decided, and the text has a log-probability but no divergence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from kick_core import engine, keys
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.engine import TextScore
from kick_core.evaluation import EvalSession, prompting
from kick_core.models.tokenization import dialogue, encode
from kick_core.provenance import now
from kick_core.records import Example, Output, RunCard
from kick_core.runs.measure import TaskData, requested, run_card
from kick_core.spec import DENSE, Recipe
from kick_core.store import Store, results
from kick_core.store import fidelity as fidelity_store
from kick_core.store.locks import locked

KINDS = ("generate", "dialogue")
"""Kinds of task whose answers are texts."""
_PART = 64
"""Examples in one part."""


@dataclass(frozen=True, slots=True)
class Text:
    """One answer of dense after its prompt, as tokens.

    Attributes:
        example: The example's id.
        turn: Of a dialogue, from 0.
        prompt: Token ids of everything before the answer.
        answer: Token ids.
    """

    example: str
    turn: int
    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def measure(
    store: Store,
    builder: ArtifactBuilder,
    recipe: Recipe,
    session: EvalSession,
    loaded: TaskData,
    dense_run: str,
    limit: int | None,
) -> Iterator[int]:
    """Score dense's answers under a recipe.

    Args:
        store: Where parts are kept; a stopped run goes on at its part.
        builder: Of the model.
        recipe: Whose artifact is built already.
        session: The evaluation of the open model.
        loaded: The task.
        dense_run: The key of the run that holds dense's answers; what it has not answered is left for another time.
        limit: How many of the first examples; None: all.

    Yields:
        The number of examples done at a time.
    """
    reference, variant = (card(builder, one, session, loaded) for one in (DENSE, recipe))
    answers = results.outputs(store, dense_run)[: len(requested(loaded, limit))]
    _read_dense(store, builder, reference, session, loaded, answers)
    yield from _read(store, builder, recipe, variant, session, loaded, answers)


def card(builder: ArtifactBuilder, recipe: Recipe, session: EvalSession, loaded: TaskData) -> RunCard:
    """The card of a replay: that of a run of the task, under a key of its own.

    Args:
        builder: Of the model.
        recipe: What reads.
        session: The evaluation of the open model.
        loaded: The task.
    """
    run = run_card(builder, recipe, session, loaded)
    identity = {"run": run.key, "dense": builder.key(DENSE)}
    settings = run.settings
    if fidelity_store.SENT & set(settings):
        identity["version"] = "2"  # the first one read answers after the task's own prompt, whatever had been sent
        settings = settings | {fidelity_store.VERSION: 2}
    return replace(run, key=keys.key("densetext", identity), settings=settings, created=now())


def _read_dense(
    store: Store,
    builder: ArtifactBuilder,
    reference: RunCard,
    session: EvalSession,
    loaded: TaskData,
    answers: Sequence[Output],
) -> None:
    with locked(store.lock_path(reference.key)):
        for _ in _read(store, builder, DENSE, reference, session, loaded, answers):
            pass


def _read(
    store: Store,
    builder: ArtifactBuilder,
    recipe: Recipe,
    run: RunCard,
    session: EvalSession,
    loaded: TaskData,
    answers: Sequence[Output],
) -> Iterator[int]:
    """Read what is not read yet, part by part."""
    done = fidelity_store.windows(fidelity_store.texts(store, run.key))
    if done >= len(answers):
        return
    builder.apply_recipe(recipe)
    fidelity_store.keep_card(store, run)
    by_id = {example.id: example for example in loaded.examples}
    for start in range(done, len(answers), _PART):
        part = answers[start : start + _PART]
        texts = list(_texts(session, loaded, [by_id[one.example] for one in part], part))
        rows = [
            {"example": t.example, "turn": t.turn, "tokens": len(t.answer), "logprob": r.total, "until": r.until}
            for t, r in zip(texts, read_all(session, texts), strict=True)
        ]
        fidelity_store.keep_texts(store, run.key, start, len(part), rows)
        yield len(part)


def _texts(
    session: EvalSession, loaded: TaskData, examples: Sequence[Example], outputs: Sequence[Output]
) -> Iterator[Text]:
    """Dense's answers as tokens, each after the prompt that it answered; empty ones are left out."""
    if loaded.task.kind != "dialogue":
        room = session.context - loaded.spec.new_tokens
        shown = prompting.prompts(session.tokenizer, loaded.spec, examples, room)
        for (prompt, _), output in zip(shown, outputs, strict=True):
            yield from (Text(output.example, 0, tuple(prompt), answer) for answer in output.ids if answer)
        return
    for example, output in zip(examples, outputs, strict=True):
        for turn, answer in enumerate(output.ids):
            if answer:
                turns, replies = example.prompt[: turn + 1], output.text[:turn]
                prompt_text = dialogue(session.tokenizer, turns, replies, loaded.spec.template)
                yield Text(example.id, turn, tuple(encode(session.tokenizer, prompt_text)), answer)


def read_all(session: EvalSession, texts: Sequence[Text]) -> list[TextScore]:
    """Score texts in the batches of the session's policy.

    Args:
        session: The evaluation of the open model.
        texts: What is read.

    Returns:
        One score per text, in the same order.
    """
    scores: dict[int, TextScore] = {}
    prompts, answers = [text.prompt for text in texts], [text.answer for text in texts]
    for batch in engine.text_logprobs(session.model, prompts, answers, plan=session.plan, filler=session.filler):
        scores |= batch
    return [scores[item] for item in range(len(texts))]
