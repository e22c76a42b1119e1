"""How closely a variant predicts what dense predicts: KL, top-1 agreement and overlap on running text.

Perplexity looks at one token a position, the one that came; two models can share it and disagree on everything
else. Here whole distributions are compared, KL(dense || variant) first (llama.cpp's measure). Dense's distribution is
kept as its most likely tokens and the mass of the rest: a whole one of 32,000 tokens would be 500 times larger. On
this coarser partition KL is a lower bound of the exact one and the overlap (the expected acceptance rate of
speculative decoding, 1 - total variation) an upper bound, by the data processing inequality. Top-1 agreement is exact.

The windows, their shapes and their order are the perplexity task's.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from kick_core.provenance import now
from kick_core.records import RunCard
from kick_core.runs.measure import TaskData, run_card, wanted
from kick_core.spec import DENSE, Recipe
from kick_core.store import Store
from kick_core.store import fidelity as kept
from kick_core.store.files import require_space
from kick_core.store.locks import locked

TOP = 64
"""Tokens of which dense's log-probability is kept at every position."""
_SEALED = 16
"""Windows in one part, at least; a killed run loses no more."""


Side = TypeVar("Side", WindowScores, GivenScores)


def measure(
    store: Store, builder: ArtifactBuilder, recipe: Recipe, ask: EvalSession, loaded: TaskData, limit: int | None = None
) -> Iterator[int]:
    """Compare a recipe with dense on the first `limit` windows; yields the number of windows done at a time.

    Reads dense first where it has not been read. A stopped run goes on at its part.
    """
    reference, variant = (card(builder, one, ask, loaded) for one in (DENSE, recipe))
    windows = torch.tensor([example.meta["ids"] for example in wanted(loaded, limit)])
    _read_dense(store, builder, reference, windows, ask)
    done = kept.windows(kept.parts(store, variant.key))
    if done >= len(windows):
        return
    builder.apply_recipe(recipe)
    kept.keep_card(store, variant)
    rows, size = _shape(ask)
    for start in range(done, len(windows), size):
        part = windows[start : start + size]
        dense = _dense(store, reference.key, start, len(part))
        found = [at for _, at in engine.given_scores(ask.model, part, dense.ids, rows=rows, plan=ask.plan)]
        kept.keep_part(store, variant.key, start, len(part), compare(dense, _joined(found), start))
        yield len(part)


def card(builder: ArtifactBuilder, recipe: Recipe, ask: EvalSession, loaded: TaskData) -> RunCard:
    """The card of a comparison: as of a perplexity run, under a key of its own."""
    if loaded.task.kind != "perplexity":
        raise BadRequest(f"fidelity is measured on running text (perplexity), not on {loaded.task.name}")
    run = run_card(builder, recipe, ask, loaded)
    identity = {"run": run.key, "dense": builder.key(DENSE), "top": TOP}
    return replace(run, key=keys.key("fidelity", identity), settings=run.settings | {"top": TOP}, created=now())


def left(
    store: Store, builder: ArtifactBuilder, recipe: Recipe, ask: EvalSession, loaded: TaskData, limit: int | None
) -> int:
    """How many of the first `limit` windows are not compared yet."""
    paths = kept.parts(store, card(builder, recipe, ask, loaded).key)
    return max(0, len(wanted(loaded, limit)) - kept.windows(paths))


def bytes_for(windows: int, length: int) -> int:
    """Bytes that dense's side of so many windows takes on disk."""
    return windows * (length - 1) * (8 * TOP + 8)


def _shape(ask: EvalSession) -> tuple[int, int]:
    """Rows of one forward (those of the perplexity task), and windows of one part: a multiple of them."""
    rows = max(1, ask.plan.tokens // 4 // ask.window)
    return rows, -(-_SEALED // rows) * rows


def _read_dense(store: Store, builder: ArtifactBuilder, reference: RunCard, windows: Tensor, ask: EvalSession) -> None:
    if kept.windows(kept.tops(store, reference.key)) >= len(windows):
        return
    with locked(store.lock_path(reference.key)):
        done = kept.windows(kept.tops(store, reference.key))
        require_space(store.root, bytes_for(len(windows) - done, windows.shape[1]))
        builder.apply_recipe(DENSE)
        kept.keep_card(store, reference)
        rows, size = _shape(ask)
        for start in range(done, len(windows), size):
            part = windows[start : start + size]
            found = _joined(
                [top for _, top in engine.window_scores(ask.model, part, rows=rows, top=TOP, plan=ask.plan)]
            )
            kept.keep_top(store, reference.key, start, len(part), save(found._asdict()))


def _dense(store: Store, key: str, start: int, count: int) -> WindowScores:
    """Dense's side of windows `start` … `start + count - 1`, from whichever parts hold them."""
    found = []
    for path in kept.tops(store, key):
        first, end = map(int, path.name.split("-")[1:3])
        if first < start + count and start < end:
            whole = WindowScores(**load_file(path))
            found.append(WindowScores(*(side[max(0, start - first) : start + count - first] for side in whole)))
    return _joined(found)


def _joined(found: list[Side]) -> Side:
    return type(found[0])(*(torch.cat(sides).contiguous() for sides in zip(*found, strict=True)))


def compare(dense: WindowScores, other: GivenScores, first: int = 0) -> dict[str, np.ndarray]:
    """The columns of `store.fidelity.POSITION`, one row a position; windows are numbered from `first` on.

    Log-probabilities that are not finite (a broken model) give nan, and `same` False.
    """
    p = torch.cat([dense.logprobs, dense.rest[..., None]], -1).double()
    q = torch.cat([other.logprobs, other.rest[..., None]], -1).double()
    terms = torch.where(p == -torch.inf, 0.0, p.exp() * (p - q))  # 0 log 0 = 0; a vocabulary may have no rest
    kl = terms.sum(-1).clamp(min=0)
    overlap = torch.minimum(p.exp(), q.exp()).sum(-1)
    number = torch.arange(first, first + len(p))[:, None].expand(p.shape[:2])
    columns = {
        "window": number.int(),
        "kl": kl.float(),
        "overlap": overlap.float().clamp(max=1),
        "same": other.same,
        "logprob": other.tokens,
    }
    return {name: column.reshape(-1).numpy() for name, column in columns.items()}
