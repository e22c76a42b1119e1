"""How close a variant stays to dense, whatever is right: distributions on running text, and texts side by side."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd

from kick_core import stats
from kick_core.errors import KickError
from kick_core.records import RunCard
from kick_core.spec import Recipe, parse
from kick_core.stats import Interval
from kick_core.store import Store
from kick_core.store import fidelity as kept
from kick_core.views import load, recipe_labels
from kick_core.views.paired import pair
from kick_core.views.text_diff import words

_RECIPE = {
    "model": "str",
    "recipe": "str",
    "label": "str",
    "kind": "str",
    "method": "str",
    "severity": "float",
}
"""The columns that say of which recipe a row is."""

FIDELITY = _RECIPE | {
    "n": "int",
    "unjudged": "int",
    "tokens": "int",
    "kl": "float",
    "kl_low": "float",
    "kl_high": "float",
    "kl_median": "float",
    "kl_99": "float",
    "same": "float",
    "same_low": "float",
    "same_high": "float",
    "overlap": "float",
    "overlap_low": "float",
    "overlap_high": "float",
    "top": "int",
    "data": "str",
    "weights": "str",
    "key": "str",
    "fingerprint": "str",
}

BOUNDS = (
    "KL(dense || variant) in nats a token over dense's most likely tokens and the rest as one: a lower bound. "
    "Overlap (the expected acceptance rate of speculative decoding) on the same: an upper bound. "
    "Same: both find the same token most likely; exact."
)
"""What the numbers are; belongs beside them wherever they are shown."""


def fidelity(store: Store, model: str | None = None) -> pd.DataFrame:
    """One row per compared variant: means over all predicted tokens, with 95 % intervals over windows.

    Windows with a value that is not finite are not judged and counted in `unjudged`; `n` windows are.
    """
    rows = []
    for card, recipe in _known(store, model):
        if kept.parts(store, card.key):
            rows.append(_about(card, recipe) | {"top": card.settings["top"]} | _measured(store, card.key))
    return pd.DataFrame(rows, columns=list(FIDELITY)).astype(FIDELITY)


def _known(store: Store, model: str | None) -> list[tuple[RunCard, Recipe]]:
    """What was compared, of recipes that parse, in reading order."""
    found = []
    for card in kept.cards(store):
        if model in (None, card.model, card.fingerprint):
            try:
                found.append((card, parse(card.recipe)))
            except KickError:
                continue  # of another version's methods
    return sorted(found, key=lambda pair: (pair[0].model, recipe_labels.order(pair[1]), pair[0].task))


def _about(card: RunCard, recipe: Recipe) -> dict[str, Any]:
    return {
        "model": card.model,
        "recipe": card.recipe,
        "label": recipe_labels.label(recipe),
        "kind": recipe_labels.kind(recipe),
        "method": recipe_labels.method(recipe),
        "severity": recipe_labels.severity(recipe),
        "task": card.task,
        "data": card.data,
        "weights": card.weights,
        "key": card.key,
        "fingerprint": card.fingerprint,
    }


def _measured(store: Store, key: str) -> dict[str, Any]:
    table = kept.positions(store, key)
    window, kl, overlap, same = (table[name].to_numpy() for name in ("window", "kl", "overlap", "same"))
    _, window = np.unique(window, return_inverse=True)  # in the order of the text, without those that were not asked
    whole = np.bincount(window, ~np.isfinite(kl)) == 0
    judged = whole[window]
    tokens = np.bincount(window)[whole]
    found: dict[str, Any] = {"n": int(whole.sum()), "unjudged": int((~whole).sum()), "tokens": int(tokens.sum())}
    for name, column in (("kl", kl), ("same", same), ("overlap", overlap)):
        sums = np.bincount(window, np.where(judged, column, 0).astype(float))[whole]
        value, low, high, _ = stats.rate_of_windows(sums, tokens)
        most = math.inf if name == "kl" else 1.0
        found |= {name: value, f"{name}_low": max(low, 0.0), f"{name}_high": min(high, most)}
    quantiles = np.quantile(kl[judged], (0.5, 0.99)) if judged.any() else (math.nan, math.nan)
    return found | {"kl_median": float(quantiles[0]), "kl_99": float(quantiles[1])}


TEXTS = _RECIPE | {
    "task": "str",
    "n": "int",
    "lost": "float",
    "lost_low": "float",
    "lost_high": "float",
    "faithful": "int",
    "until": "float",
    "until_low": "float",
    "until_high": "float",
    "never": "float",
    "never_low": "float",
    "never_high": "float",
    "data": "str",
    "weights": "str",
    "key": "str",
    "fingerprint": "str",
}


def texts(store: Store, model: str | None = None) -> pd.DataFrame:
    """One row per variant and task whose dense answers it has read (teacher forcing), over `n` texts.

    `lost`: nats a token by which dense's text is less likely under the variant. `until`: tokens of dense's text
    before the variant's first choice is another, the mean over the `faithful` texts that dense itself reads as
    written; `never`: the share of those that the variant would have written to their end.
    """
    # of the first version, answers that were read after another prompt than the one sent
    known = [
        (c, recipe)
        for c, recipe in _known(store, model)
        if not kept.SENT & set(c.settings) or kept.VERSION in c.settings
    ]
    dense = {_asked(card): card.key for card, recipe in known if recipe.target is None}
    rows = []
    for card, recipe in known:
        base = dense.get(_asked(card))
        if recipe.target is not None and base and kept.texts(store, card.key):
            rows.append(_about(card, recipe) | _read(store, card.key, base))
    return pd.DataFrame(rows, columns=list(TEXTS)).astype(TEXTS)


def _asked(card: RunCard) -> tuple[str, ...]:
    """What a variant's reading and dense's have in common."""
    settings = json.dumps(card.settings, sort_keys=True)
    return card.fingerprint, card.task, card.examples, card.plan, card.dtype, card.device, settings


def _read(store: Store, key: str, dense: str) -> dict[str, Any]:
    mine, base = (kept.readings(store, one).to_pandas() for one in (key, dense))
    both = mine.merge(base, on=["example", "turn"], suffixes=("", "_dense"))
    both = both[np.isfinite(both["logprob"])]
    lost = both["logprob_dense"] - both["logprob"]
    by_example = both.assign(lost=lost).groupby("example")[["lost", "tokens"]].sum()
    faithful = both[both["until_dense"] == both["tokens"]]
    never = (faithful["until"] == faithful["tokens"]).astype(float)
    return {
        "n": len(both),
        "faithful": len(faithful),
        **_bounded("lost", stats.ratio_of_sums(by_example["lost"], by_example["tokens"])),
        **_bounded("until", stats.clustered_score(faithful["until"], faithful["example"].tolist()), least=0.0),
        **_bounded("never", stats.clustered_score(never, faithful["example"].tolist())),
    }


def _bounded(name: str, found: Interval, *, least: float = -math.inf) -> dict[str, float]:
    return {name: found.value, f"{name}_low": max(found.low, least), f"{name}_high": found.high}


def until_divergence(store: Store, run_key: str, dense_key: str) -> Interval:
    """The mean number of words that a variant's texts share with dense's from the start, over texts of both.

    Texts that are equal to their end count with their length: they did not diverge so far. Only for tasks that
    generate; nan for others. No model is needed, so words are counted and not tokens.
    """
    mine, base = load.answers(store, run_key), load.answers(store, dense_key)
    before = dict(zip(base["example"].to_pylist(), base["text"].to_pylist(), strict=True))
    shared = [
        stats.common_prefix(words(" ".join(before[name])), words(" ".join(text)))
        for name, text in zip(mine["example"].to_pylist(), mine["text"].to_pylist(), strict=True)
        if text and before.get(name)
    ]
    return stats.mean(shared)


def bootstrap(store: Store, run_key: str, dense_key: str, scorer: str) -> Interval | None:
    """The paired bootstrap's interval of a graded scorer's difference from dense; None for right and wrong.

    Takes milliseconds to a second, so it is computed where it is shown and not for every row of `scores`.
    """
    run = load.one(store, run_key)
    before, after = (load.verdicts(store, one).get(scorer) for one in (load.one(store, dense_key), run))
    if before is None or after is None:
        return None
    _, at_before, at_after = pair(before, after)
    dense, mine = before.score[at_before], after.score[at_after]
    if stats.is_binary(dense) and stats.is_binary(mine):
        return None
    return stats.bootstrap_difference(dense, mine)
