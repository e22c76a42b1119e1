"""What judges said, as small tables: one row per judging, one per control, and single replies with their words.

Everything is read out of the stored raw replies. What a judge wrote is untrusted text, like a model's answer.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from kick_core import stats
from kick_core.errors import BadRequest, KickError, nearest
from kick_core.judging import Control, Outcome, outcome
from kick_core.judging.prompts import METRICS
from kick_core.models.source import ALIASES
from kick_core.records import CHOSEN, JudgingCard, Question, Reply
from kick_core.spec import parse
from kick_core.store import Store, judgments
from kick_core.views import load, recipe_labels
from kick_core.views.load import Asked

COLUMNS = {
    "model": "str",
    "recipe": "str",
    "label": "str",
    "task": "str",
    "style": "str",
    "as_published": "bool",
    "judge": "str",
    "served": "str",
    "host": "str",
    "repeats": "int",
    "examples": "int",
    "n": "int",
    "score": "float",
    "low": "float",
    "high": "float",
    "dense_score": "float",
    "difference": "float",
    "diff_low": "float",
    "diff_high": "float",
    "win": "int",
    "tie": "int",
    "loss": "int",
    "win_rate": "float",
    "win_low": "float",
    "win_high": "float",
    "consistent": "float",
    "noise": "float",
    "verdict": "str",
    **dict.fromkeys(METRICS, "float"),
    "asked": "int",
    "answered": "int",
    "unparsed": "int",
    "cut": "int",
    "defused": "int",
    "published_score": "float",
    "published_n": "int",
    "published_unparsed": "int",
    "null": "float",
    "injection": "float",
    "same": "float",
    "controls_hold": "str",
    "judging": "str",
    "run": "str",
    "dense_run": "str",
    "created": "str",
}
"""`score` is from 1 to 10, pairwise the share of wins (ties half). `n` examples are judged of `examples` asked.
`null` and `injection` are shares judged at least as good as dense, `same` the share judged alike; nan: not
measured. `controls_hold`: yes, no, or not measured. `served`: what the endpoint calls its model."""

CONTROL_COLUMNS = {
    "judging": "str",
    "control": "str",
    "about": "str",
    "n": "int",
    "hits": "int",
    "share": "float",
    "low": "float",
    "high": "float",
    "score": "float",
    "holds": "str",
}


def judgings(store: Store) -> pd.DataFrame:
    """One row per judging of one recipe's run, with its controls' shares; the newest wording last."""
    rows = [_row(card, found) for card, found in _outcomes(store)]
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def judge_controls(store: Store) -> pd.DataFrame:
    """One row per judging and control."""
    rows = [
        {
            "judging": card.key,
            "control": control.name,
            "about": control.about,
            "n": control.n,
            "hits": control.hits,
            "share": control.share.value,
            "low": control.share.low,
            "high": control.share.high,
            "score": control.score,
            "holds": _word(control.holds),
        }
        for card, found in _outcomes(store)
        for control in found.controls
    ]
    return pd.DataFrame(rows, columns=list(CONTROL_COLUMNS)).astype(CONTROL_COLUMNS)


def _outcomes(store: Store) -> list[tuple[JudgingCard, Outcome]]:
    return [(card, _outcome(store, card, *_files(store, card))) for card in judgments.cards(store)]


def _files(store: Store, card: JudgingCard) -> tuple[tuple[Path, ...], ...]:
    """The files that an outcome is derived from. They never change under one name."""
    return (
        tuple(judgments.sealed(store, "judgments", card.key)),
        tuple(judgments.sealed(store, "replies", card.replies)),
    )


@lru_cache(maxsize=256)
def _outcome(store: Store, card: JudgingCard, asked: tuple[Path, ...], said: tuple[Path, ...]) -> Outcome:
    return outcome(card, judgments.questions(store, card.key, words=False), judgments.replies(store, card.replies))


def _row(card: JudgingCard, found: Outcome) -> dict[str, object]:
    published = found.published
    return {
        "model": card.model,
        "recipe": card.recipe,
        "label": recipe_labels.label(parse(card.recipe)),
        "task": card.task,
        "style": card.style,
        "as_published": card.as_published,
        "judge": card.judge,
        "served": ", ".join(found.served),
        "host": card.host,
        "repeats": found.repeats,
        "examples": found.examples,
        "n": found.score.n,
        **_interval(("score", "low", "high"), found.score),
        "dense_score": found.dense.value,
        **_interval(("difference", "diff_low", "diff_high"), found.difference),
        "win": found.win,
        "tie": found.tie,
        "loss": found.loss,
        **_interval(("win_rate", "win_low", "win_high"), found.win_rate),
        "consistent": found.consistent.value,
        "noise": found.noise,
        "verdict": found.verdict,
        **{name: found.metrics.get(name, math.nan) for name in METRICS},
        "asked": found.asked,
        "answered": found.answered,
        "unparsed": found.unparsed,
        "cut": found.cut,
        "defused": found.defused,
        "published_score": published.score if published else math.nan,
        "published_n": published.n if published else 0,
        "published_unparsed": published.unparsed if published else 0,
        **{control.name: control.share.value for control in found.controls},
        "controls_hold": _word(_all_hold(found.controls)),
        "judging": card.key,
        "run": card.run,
        "dense_run": card.dense_run,
        "created": card.created,
    }


def _interval(names: Sequence[str], found: stats.Interval) -> dict[str, float]:
    return dict(zip(names, found[:3], strict=True))


def _all_hold(controls: Sequence[Control]) -> bool | None:
    held = [control.holds for control in controls]
    return False if False in held else (None if None in held or not held else True)


def _word(holds: bool | None) -> str:
    return {True: "yes", False: "no", None: "not measured"}[holds]


@dataclass(frozen=True, slots=True)
class Said:
    """One question and what the judge wrote; None: no reply yet. The text is untrusted."""

    question: Question
    reply: Reply | None


def said(store: Store, judging: str, example: str | None = None) -> list[Said]:
    """Everything that was asked in a judging (about one example), with the raw replies."""
    replies = judgments.replies(store, judgments.card(store, judging).replies)
    asked = judgments.questions(store, judging)
    return [Said(question, replies.get(question.key)) for question in asked if example in (None, question.example)]


# --- what can be judged ------------------------------------------------------------------------------------


def to_judge(store: Store, named: str, recipes: Sequence[str], task: str) -> list[tuple[Asked, Asked]]:
    """The stored runs that a judging means, each with its dense run.

    `named` is a model (by its name or fingerprint) or a run's key or its beginning; a run alone is judged
    itself, with recipes it says which model, data and settings are meant. Of several runs of one recipe the
    newest counts. Raises BadRequest or KickError that says what is missing and how to get it.
    """
    among = [run for run in load.asked(store) if run.card.task == task]
    fits, wanted = _named(store, among, named, recipes)
    found = []
    for text in wanted:
        mine = [run for run in fits if run.recipe.text == text]
        if not mine:
            there = ", ".join(sorted({run.recipe.text for run in fits if run.recipe.target})) or "none"
            raise KickError(
                f"{text} of {named} has no answers to {task} in {store.root} (compressed recipes there: {there}): "
                f"run `kick evaluate {named} {text} --task {task}` first"
            )
        run = max(mine, key=lambda run: run.card.created)
        dense = load.dense_of(run, among)
        if dense is None:
            raise KickError(
                f"dense has no answers to {task} that were asked like those of {text}: run `kick evaluate` first"
            )
        found.append((run, dense))
    return found


def _named(store: Store, among: list[Asked], named: str, recipes: Sequence[str]) -> tuple[list[Asked], list[str]]:
    """The runs that a name means, and the recipes that are wanted of them."""
    wanted = list(dict.fromkeys(text for recipe in recipes if (text := parse(recipe).text) != "dense"))
    if re.match(r"run\d+-", named):
        keyed = [run for run in among if run.key.startswith(named)]
        if len(keyed) != 1:
            raise BadRequest(
                f"{len(keyed)} runs of this task begin with {named!r} in {store.root}: `kick list` shows the keys"
            )
        fits = [run for run in among if load.alike(run) == load.alike(keyed[0])]
        if not wanted and keyed[0].recipe.target:
            return [keyed[0]], [keyed[0].recipe.text]
    else:
        name = ALIASES.get(named, named)
        names = load.model_names(among)
        whole = [run for run in among if CHOSEN not in run.card.settings]
        fits = [run for run in whole if name in (run.card.model, run.card.fingerprint, names[run.card.fingerprint])]
        if not fits:
            raise nearest(named, sorted(set(names.values())), "model with answers to this task")
    if not wanted:
        raise BadRequest("dense is what recipes are compared with: name at least one compressed recipe")
    return fits, wanted
