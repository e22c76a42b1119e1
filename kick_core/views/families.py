"""The same recipe on several models: what each keeps of its own dense score, and whether tuning makes that fragile.

LLM-KICK asks for this in its future work: other architectures, and instruction-tuned models beside their base. What
is compared is always the share that a model keeps of *its own* dense score, because two models do not start alike.
Recipes count as the same when all that they resolve to is, the method's version included; calibration tokens are
another model's own tokenizer's work, so `calibration` says how far they were the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from kick_core import methods, stats, tasks
from kick_core.errors import KickError
from kick_core.records import Card
from kick_core.spec import Recipe, parse
from kick_core.stats import CONFIDENCE, MARGIN, Interval, Ratio
from kick_core.store import Store, lineage
from kick_core.views import artifact_tables, clusters, load, recipe_labels
from kick_core.views.findings import percent
from kick_core.views.load import POCKET
from kick_core.views.paired import SILENT, pair
from kick_core.views.scores import current, scores

FAMILIES = {
    "model": "str",
    "same": "str",
    "recipe": "str",
    "label": "str",
    "kind": "str",
    "method": "str",
    "recovered": "str",
    "sparsity": "float",
    "severity": "float",
    "bits_per_weight": "float",
    "task": "str",
    "title": "str",
    "scorer": "str",
    "higher_is_better": "bool",
    "n": "int",
    "total": "int",
    "paired": "int",
    "score": "float",
    "low": "float",
    "high": "float",
    "dense_score": "float",
    "share_kept": "float",
    "share_low": "float",
    "share_high": "float",
    "verdict": "str",
    "words": "str",
    "calibration": "str",
    "tokens": "str",
    "examples": "str",
    "run": "str",
    "dense_run": "str",
    "weights": "str",
    "protocol": "str",
    "data": "str",
    "dtype": "str",
    "device": "str",
    "engine": "str",
    "created": "str",
    "fingerprint": "str",
}


UNRECORDED = "not recorded"
"""What calibrated weights whose card is not in the cache: a pack of results has none."""


def families(
    store: Store,
    data: str | None = None,
    protocol: str = "strict",
    only: Iterable[str] | None = None,
    measured: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """One row per recipe, task and model, of what at least two models were asked; dense is in every row.

    `data` is "pocket" or "official" (the pocket world's where anything was asked of it), `only` keeps these models;
    `measured` is a `scores` frame of all models where there is one already.
    `same` names the resolved recipe; `tokens` what it was calibrated on. Sorted by recipe from mild to harsh within
    a method, task, model.
    """
    measured = scores(store) if measured is None else measured
    names = [name for name in measured["model"].unique() if only is None or name in set(only)]
    asked = set(measured.loc[measured["model"].isin(names), "data"].map(load.kind_of_data))
    kind = data or next((kind for kind in load.DATA if kind in asked), POCKET)
    frames = [current(measured, str(name), protocol, kind) for name in names]
    known = {card.key: card for card in artifact_tables.known_cards(store)}
    rows = [
        row | about
        for frame in frames
        for row in frame[~frame["verdict"].isin((*SILENT, "dense"))].to_dict("records")
        if (about := _about(store, row, known.get(row["weights"])))
    ]
    found = pd.DataFrame(rows, columns=list(FAMILIES)).astype(FAMILIES)
    shared = found.groupby(["same", "task"])["fingerprint"].transform("nunique") >= 2
    return _ordered(found[shared])


def _about(store: Store, row: dict[Any, Any], card: Card | None) -> dict[str, str] | None:
    """What `scores` does not say of a row; None for a recipe that this program's methods cannot resolve."""
    recipe = parse(row["recipe"])
    try:
        same = methods.resolve(recipe).text
        versions = _versions(recipe, card.resolved if card else {})
    except KickError:
        return None
    calibration = (card.calibration if card else None) or {}
    words = artifact_tables.calibrated(calibration) if card else UNRECORDED
    return {
        "same": same + versions,
        "calibration": words if methods.needs(recipe) != "nothing" else "none",
        "tokens": str(calibration.get("ids", "")),
        "examples": load.one(store, row["run"]).card.examples,
    }


def _versions(recipe: Recipe, made_as: dict[str, Any]) -> str:
    """Empty where the methods' versions are this program's (or the artifact is gone), else which they were."""
    said = []
    for part, facts in zip(recipe_labels.parts(recipe), (made_as, made_as.get("then") or {}), strict=False):
        now = methods.card(part.method).version
        if (was := facts.get("version", now)) != now:
            said.append(f" ({part.method}, version {was})")
    return "".join(said)


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    places = {name: at for at, name in enumerate(load.task_titles(frame["task"].unique()))}
    keyed = frame.assign(_task=frame["task"].map(places), _kind=frame["kind"].map(recipe_labels.KINDS.index))
    by = ["method", "_kind", "severity", "same", "_task", "model"]
    return keyed.sort_values(by, kind="stable").drop(columns=["_task", "_kind"]).reset_index(drop=True)


def calibrations(rows: pd.DataFrame) -> str:
    """How far the models of some rows of one recipe were calibrated on the same, in words."""
    unknown = rows[rows["calibration"] == UNRECORDED].drop_duplicates(["model", "title"])
    known = rows[rows["calibration"] != UNRECORDED]
    pairs = [
        f"{model} on {one}" for model, one in dict.fromkeys(zip(known["model"], known["calibration"], strict=True))
    ]
    if len(unknown):
        pairs += [f"{model}, {', '.join(mine['title'])}: not recorded" for model, mine in unknown.groupby("model")]
        return f"calibration: {'; '.join(pairs)}"
    words = list(dict.fromkeys(rows["calibration"]))
    if words == ["none"]:
        return "no calibration needed"
    if len(words) > 1:
        return f"calibrated differently: {'; '.join(pairs)}"
    if rows["tokens"].nunique() == 1 and rows["tokens"].iloc[0]:
        return f"calibrated on the same tokens: {words[0]}"
    return f"calibrated alike, each in its own tokenizer's tokens: {words[0]}"


# --- which model was tuned from which ------------------------------------------------------------------------

How = Literal["said", "names"]

TUNED = ("-instruct", "-chat", "-it")
BASE = ("-base", "-pt")


@dataclass(frozen=True, slots=True)
class Kin:
    """A tuned model and its base, by name, and how that is known: the user said so, or their names suggest it."""

    tuned: str
    base: str
    how: How

    @property
    def told(self) -> str:
        if self.how == "said":
            return f"{self.tuned} was tuned from {self.base}: you said so."
        return f"{self.tuned} looks like {self.base}, tuned: their names alone say so."


def related(store: Store, frame: pd.DataFrame) -> list[Kin]:
    """The pairs of base and tuned among the models of a `families` frame. What nobody said or hints at is not known."""
    names = {str(row["fingerprint"]): str(row["model"]) for row in frame.to_dict("records")}
    said = {tuned: base for tuned, base in lineage.tuned_from(store).items() if tuned in names and base in names}
    found = [Kin(names[tuned], names[base], "said") for tuned, base in said.items()]
    for print_, tuned in names.items():
        base = next((other for other in names.values() if other != tuned and _named_after(tuned, other)), None)
        if base and print_ not in said:
            found.append(Kin(tuned, base, "names"))
    return sorted(found, key=lambda pair: (pair.how != "said", pair.tuned))


def _named_after(tuned: str, base: str) -> bool:
    """Whether a name is another one with a word for tuning in it: Llama-3.2-1B-Instruct, gemma-3-1b-it."""
    plain, tuned = _stem(base), _stem(tuned)
    roots = {plain, *(plain.replace(word, "") for word in BASE)}
    return any(word in tuned and tuned.replace(word, "", 1) in roots for word in TUNED)


def _stem(name: str) -> str:
    return load.asked_name(name).rstrip("/").rpartition("/")[2].lower()


# --- base against tuned --------------------------------------------------------------------------------------

Vote = Literal["less", "more", "alike", "open"]

GAPS = {
    "same": "str", "label": "str", "task": "str", "title": "str", "tuned_kept": "float", "tuned_low": "float",
    "tuned_high": "float", "base_kept": "float", "base_low": "float", "base_high": "float", "gap": "float",
    "gap_low": "float", "gap_high": "float", "n": "int", "shared": "int", "vote": "str", "bites": "bool",
    "words": "str", "calibration": "str", "tuned_run": "str", "base_run": "str",
}  # fmt: skip


def gaps(store: Store, frame: pd.DataFrame, tuned: str, base: str) -> pd.DataFrame:
    """Tuned minus base in the share of the own dense score kept, recipe by recipe, task by task.

    From a `families` frame. The interval is `stats.share_gap`'s; `shared` counts the examples that both were asked,
    over which the two shares' correlation is taken (0: different questions or windows). `bites`: at least one of the
    two surely loses more than the margin, so that there is something to be robust against.
    """
    rows = []
    for (same, task), both in frame[frame["model"].isin((tuned, base))].groupby(["same", "task"], sort=False):
        if set(both["model"]) != {tuned, base}:
            continue
        one, other = (both[both["model"] == name].iloc[-1] for name in (tuned, base))
        gap, shared = _gap(store, one, other)
        kept = {
            f"{name}_{end}": row[f"share_{end}"]
            for name, row in (("tuned", one), ("base", other))
            for end in ("kept", "low", "high")
        }
        rows.append(
            kept
            | {"same": same, "label": one["label"], "task": task, "title": one["title"]}
            | {"gap": gap.value, "gap_low": gap.low, "gap_high": gap.high, "n": gap.n, "shared": shared}
            | {"vote": _vote(gap), "bites": "not matching" in (one["verdict"], other["verdict"])}
            | {"words": _words(gap), "calibration": calibrations(both)}
            | {"tuned_run": one["run"], "base_run": other["run"]}
        )
    return pd.DataFrame(rows, columns=list(GAPS)).astype(GAPS)


def _gap(store: Store, one: pd.Series, other: pd.Series) -> tuple[Interval, int]:
    first, second = (
        Interval(row["share_kept"], row["share_low"], row["share_high"], int(row["paired"])) for row in (one, other)
    )
    if one["examples"] != other["examples"]:
        return stats.share_gap(first, second), 0
    (ids, mine), (others, theirs) = (_ratio(store, row) for row in (one, other))
    _, at, at_other = np.intersect1d(ids.astype(str), others.astype(str), return_indices=True)
    groups = clusters.of(store, str(one["examples"]), ids)[at]
    alike = Ratio(*(part[at] for part in mine)), Ratio(*(part[at_other] for part in theirs))
    return stats.share_gap(first, second, stats.ratio_correlation(*alike, groups)), int(at.size)


def _ratio(store: Store, row: pd.Series) -> tuple[Any, Ratio]:
    """The ids of a row's paired examples, and what its share kept is the ratio of."""
    run, dense = load.one(store, row["run"]), load.one(store, row["dense_run"])
    after, before = (load.verdicts(store, each)[row["scorer"]] for each in (run, dense))
    ids, at_before, at_after = pair(before, after)
    old, new = before.score[at_before], after.score[at_after]
    if run.task.aggregate != "exp":
        return ids, Ratio(new, old)
    tokens = load.tokens(store, run)
    lengths = np.array([tokens[name] for name in ids], dtype=float)
    return ids, Ratio((old - new) * lengths, lengths)


def _vote(gap: Interval) -> Vote:
    if math.isnan(gap.low) or math.isnan(gap.high):
        return "open"
    if gap.high < 0:
        return "less"
    if gap.low > 0:
        return "more"
    return "alike" if gap.low >= -MARGIN and gap.high <= MARGIN else "open"


def _words(gap: Interval) -> str:
    if math.isnan(gap.low) or math.isnan(gap.high):
        return "cannot tell: a share is not known"
    low, high = 100 * gap.low, 100 * gap.high
    if gap.low <= 0 <= gap.high:
        return f"no difference shown (could be up to {max(-low, high):.1f} pp)"
    size = (low, high) if gap.value > 0 else (-high, -low)
    side = "more" if gap.value > 0 else "less"
    bounds = f"{100 * CONFIDENCE:.0f} % CI {size[0]:.1f} to {size[1]:.1f}"
    return f"keeps {abs(100 * gap.value):.1f} pp {side} of its dense score ({bounds})"


@dataclass(frozen=True, slots=True)
class Robustness:
    """Whether tuning made knowledge more or less robust to compression, why in words, and by which rule."""

    verdict: Literal["less robust", "more robust", "as robust", "cannot tell", "not measured"]
    sentence: str
    because: str
    rule: str


def _rule(knowledge: Iterable[str]) -> str:
    return (
        f"Cells: every recipe that both models have on {', '.join(knowledge)}, where at least one of the two surely "
        f"keeps less than {percent(1 - MARGIN)} of its own dense score: elsewhere there is nothing to be robust "
        "against. A cell votes when the interval of the difference leaves 0 out, and is alike when it lies within "
        f"{100 * MARGIN:.0f} points of it. The word is that of more than half of the cells."
    )


def robustness(found: pd.DataFrame, tuned: str, base: str) -> Robustness:
    """The verdict over a `gaps` frame."""
    knowledge = tasks.names(measures="knowledge")
    rule, known = _rule(knowledge), found[found["task"].isin(knowledge)]
    cells = known[known["bites"]]
    if known.empty:
        text = f"No recipe has been measured on a knowledge task of both {tuned} and {base}."
        return Robustness("not measured", text, "No cell.", rule)
    votes = cells["vote"].value_counts()
    less, more, alike, rest = (int(votes.get(name, 0)) for name in ("less", "more", "alike", "open"))
    because = f"Of {len(cells)} cells {less} less, {more} more, {alike} alike, {rest} cannot tell."
    half = len(cells) / 2
    if cells.empty:
        text = f"No shared recipe surely costs {tuned} or {base} knowledge, so nothing tells which is more robust."
        return Robustness("cannot tell", text, because, rule)
    if less > half:
        return Robustness("less robust", f"{tuned} loses more of its knowledge than {base}.", because, rule)
    if more > half:
        return Robustness("more robust", f"{tuned} keeps more of its knowledge than {base}.", because, rule)
    if alike > half:
        return Robustness("as robust", f"{tuned} and {base} keep the same share of their knowledge.", because, rule)
    text = f"It cannot be told whether {tuned} or {base} keeps more of its knowledge."
    return Robustness("cannot tell", text, because, rule)


def pairs(store: Store, frame: pd.DataFrame) -> list[tuple[Kin, pd.DataFrame, Robustness]]:
    """Every pair of base and tuned among the rows of a `families` frame: who, cell by cell, and in one word."""
    found = []
    for one in related(store, frame):
        cells = gaps(store, frame, one.tuned, one.base)
        found.append((one, cells, robustness(cells, one.tuned, one.base)))
    return found
