"""How closely a variant predicts what dense predicts: KL, top-1 agreement and overlap on running text.

Perplexity looks at one token a position, the one that came; two models can share it and disagree on everything
else. Here whole distributions are compared, KL(dense || variant) first (llama.cpp's measure). Dense's distribution is
kept as its most likely tokens and the mass of the rest: a whole one of 32,000 tokens would be 500 times larger. On
this coarser partition KL is a lower bound of the exact one and the overlap (the expected acceptance rate of
speculative decoding, 1 - total variation) an upper bound, by the data processing inequality. Top-1 agreement is exact.

The windows, their shapes and their order are the perplexity task's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from kick_core import engine, keys
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.engine import GivenScores, WindowScores
from kick_core.errors import BadRequest
from kick_core.evaluation import EvalSession
from kick_core.evaluation.perplexity import place
from kick_core.provenance import now
from kick_core.records import RunCard
from kick_core.runs.measure import TaskData, requested, run_card
from kick_core.spec import DENSE, Recipe
from kick_core.store import Store
from kick_core.store import fidelity as fidelity_store
from kick_core.store.files import require_space
from kick_core.store.locks import locked

TOP = 64
"""Tokens of which dense's log-probability is kept at every position."""
_PART = 16
"""Windows in one part, at least; a killed run loses no more."""


Side = TypeVar("Side", WindowScores, GivenScores)


def measure(
    store: Store,
    builder: ArtifactBuilder,
    recipe: Recipe,
    session: EvalSession,
    loaded: TaskData,
    limit: int | None = None,
) -> Iterator[int]:
    """Compare a recipe's next-token distributions with dense's. Reads dense first where it has not been read.

    Args:
        store: Where parts are kept; a stopped run goes on at its part.
        builder: Of the model.
        recipe: Whose artifact is built already.
        session: The evaluation of the open model.
        loaded: The perplexity task, with its windows.
        limit: How many of the first windows; None: all.

    Yields:
        The number of windows done at a time.

    Raises:
        BadRequest: The task is not running text.
        KickError: The disk has no space for dense's side.
    """
    reference, variant = (card(builder, one, session, loaded) for one in (DENSE, recipe))
    examples = requested(loaded, limit)
    windows = torch.tensor([example.meta["ids"] for example in examples])
    places = [place(example) for example in examples]
    _read_dense(store, builder, reference, windows, session)
    done = fidelity_store.windows(fidelity_store.parts(store, variant.key))
    if done >= len(windows):
        return
    builder.apply_recipe(recipe)
    fidelity_store.keep_card(store, variant)
    rows, size = _shape(session)
    for start in range(done, len(windows), size):
        part = windows[start : start + size]
        dense = _dense(store, reference.key, start, len(part))
        scores = [at for _, at in engine.given_scores(session.model, part, dense.ids, rows=rows, plan=session.plan)]
        columns = compare(dense, _joined(scores), places[start : start + size])
        fidelity_store.keep_part(store, variant.key, start, len(part), columns)
        yield len(part)


def card(builder: ArtifactBuilder, recipe: Recipe, session: EvalSession, loaded: TaskData) -> RunCard:
    """The card of a comparison: that of a perplexity run, under a key of its own.

    Args:
        builder: Of the model.
        recipe: What is compared with dense.
        session: The evaluation of the open model.
        loaded: The perplexity task.

    Raises:
        BadRequest: The task is not running text.
    """
    if loaded.task.kind != "perplexity":
        raise BadRequest(f"fidelity is measured on running text (perplexity), not on {loaded.task.name}")
    run = run_card(builder, recipe, session, loaded)
    identity = {"run": run.key, "dense": builder.key(DENSE), "top": TOP}
    return replace(run, key=keys.key("fidelity", identity), settings=run.settings | {"top": TOP}, created=now())


def remaining(
    store: Store, builder: ArtifactBuilder, recipe: Recipe, session: EvalSession, loaded: TaskData, limit: int | None
) -> int:
    """How many of the first windows are not compared yet.

    Args:
        store: Where parts are kept.
        builder: Of the model.
        recipe: What is compared with dense.
        session: The evaluation of the open model.
        loaded: The perplexity task.
        limit: How many of the first windows; None: all.
    """
    paths = fidelity_store.parts(store, card(builder, recipe, session, loaded).key)
    return max(0, len(requested(loaded, limit)) - fidelity_store.windows(paths))


def bytes_for(windows: int, length: int) -> int:
    """Bytes that dense's side takes on disk.

    Args:
        windows: How many.
        length: Tokens of each.
    """
    return windows * (length - 1) * (8 * TOP + 8)


def _shape(session: EvalSession) -> tuple[int, int]:
    """Rows of one forward (those of the perplexity task), and windows of one part: a multiple of them."""
    rows = max(1, session.plan.tokens // 4 // session.window)
    return rows, -(-_PART // rows) * rows


def _read_dense(
    store: Store, builder: ArtifactBuilder, reference: RunCard, windows: Tensor, session: EvalSession
) -> None:
    if fidelity_store.windows(fidelity_store.tops(store, reference.key)) >= len(windows):
        return
    with locked(store.lock_path(reference.key)):
        done = fidelity_store.windows(fidelity_store.tops(store, reference.key))
        require_space(store.root, bytes_for(len(windows) - done, windows.shape[1]))
        builder.apply_recipe(DENSE)
        fidelity_store.keep_card(store, reference)
        rows, size = _shape(session)
        for start in range(done, len(windows), size):
            part = windows[start : start + size]
            scores = _joined(
                [top for _, top in engine.window_scores(session.model, part, rows=rows, top=TOP, plan=session.plan)]
            )
            fidelity_store.keep_top(store, reference.key, start, len(part), save(scores._asdict()))


def _dense(store: Store, key: str, start: int, count: int) -> WindowScores:
    """Dense's side of windows `start` … `start + count - 1`, from whichever parts hold them."""
    parts = []
    for path in fidelity_store.tops(store, key):
        first, end = map(int, path.name.split("-")[1:3])
        if first < start + count and start < end:
            whole = WindowScores(**load_file(path))
            parts.append(WindowScores(*(side[max(0, start - first) : start + count - first] for side in whole)))
    return _joined(parts)


def _joined(parts: list[Side]) -> Side:
    return type(parts[0])(*(torch.cat(sides).contiguous() for sides in zip(*parts, strict=True)))


def compare(dense: WindowScores, other: GivenScores, places: Sequence[int] | None = None) -> dict[str, np.ndarray]:
    """Measures of closeness at every position, from dense's side and the variant's.

    Args:
        dense: Log-probabilities of dense's `TOP` tokens [windows, positions, TOP], and of all others together.
        other: The variant's log-probabilities of the same tokens, and of all others together.
        places: The windows' places in their text; None: from 0 on.

    Returns:
        The columns of `store.fidelity.POSITION`, one row per position. Log-probabilities that are not finite (a broken
        model) give nan, and `same` False.
    """
    p = torch.cat([dense.logprobs, dense.rest[..., None]], -1).double()
    q = torch.cat([other.logprobs, other.rest[..., None]], -1).double()
    terms = torch.where(p == -torch.inf, 0.0, p.exp() * (p - q))  # 0 log 0 = 0; a vocabulary may have no rest
    kl = terms.sum(-1).clamp(min=0)
    overlap = torch.minimum(p.exp(), q.exp()).sum(-1)
    number = torch.tensor(range(len(p)) if places is None else places)[:, None].expand(p.shape[:2])
    columns = {
        "window": number.int(),
        "kl": kl.float(),
        "overlap": overlap.float().clamp(max=1),
        "same": other.same,
        "logprob": other.tokens,
    }
    return {name: column.reshape(-1).numpy() for name, column in columns.items()}
