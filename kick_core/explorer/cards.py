"""Cards and small tables made of words and numbers: metrics, claims, the table of the other recipes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlencode

import pandas as pd

from kick_core import views
from kick_core.explorer import glossary
from kick_core.explorer.safe import Safe, chip, tag
from kick_core.units import score_text
from kick_core.views import AT_CHANCE, AT_FLOOR, NOT_MEASURED, Claim, percent, shown
from kick_core.views.chart_style import Row, each


def number(row: Row | pd.Series, column: str = "score") -> str:
    """A score as people read it: shares in percent, perplexity as it is."""
    return score_text(float(row[column]), bool(row["higher_is_better"]))


def metric(row: Row) -> Safe:
    """One task under one recipe: dense → this, and the share kept. It opens the failures where there are any."""
    dense = row["kind"] == "dense"
    before = "" if dense or row["verdict"] == NOT_MEASURED else f"{number(row, 'dense_score')} → "
    query = {"model": row["model"], "protocol": row["protocol"], "task": row["task"], "b": row["recipe"]}
    query |= {"kind": "broke"} if row["broke"] > 0 else {}
    return tag(
        "a",
        tag("div", row["title"], cls="name"),
        tag("div", tag("span", before, cls="quiet"), number(row), cls="value"),
        tag("div", "dense" if dense else _change(row), cls=f"change {_tone(row)}", title=words(row["words"])),
        tag("div", f"{number(row, 'low')} to {number(row, 'high')} · n {row['n']:,}", cls="quiet"),
        cls="card", href=f"evaluate?{urlencode(query)}", target="_self",
        **{"data-task": str(row["task"]), "data-score": f"{row['score']:.6f}", "data-recipe": str(row["recipe"]),
           "data-inside": ""},
    )  # fmt: skip


def _change(row: Row) -> str:
    if row["verdict"] == NOT_MEASURED:
        return "no dense run to compare"
    if row["verdict"] == AT_FLOOR:
        return AT_CHANCE
    if not shown(row):
        return "no difference shown"
    if row["higher_is_better"]:
        return f"▼ keeps {percent(row['share_kept'])}" if row["share_kept"] < 1 else f"▲ {percent(row['share_kept'])}"
    relative = row["score"] / row["dense_score"] - 1
    if math.isinf(relative) or relative > 99:
        return "▲ beyond measure"
    return f"{'▲' if relative > 0 else '▼'} {abs(100 * relative):.0f} %"


def _tone(row: Row) -> str:
    if row["kind"] == "dense" or row["verdict"] in (NOT_MEASURED, AT_FLOOR):
        return "calm"
    worse = row["diff_low"] > 0 if not row["higher_is_better"] else row["diff_high"] < 0
    better = row["diff_high"] < 0 if not row["higher_is_better"] else row["diff_low"] > 0
    return "bad" if worse else "good" if better else "calm"


def metrics(frame: pd.DataFrame, recipe: str, steps: Mapping[int, str] | None = None) -> Safe:
    """A card for every task that a recipe was evaluated on, and in a line what was evaluated elsewhere.

    Args:
        frame: a `current` frame.
        recipe: whose cards they are.
        steps: the sparsities in percent, and their recipes, among which the line says where other tasks were measured.
    """
    mine = {row["task"]: row for row in each(frame[frame["recipe"] == recipe])}
    grid = tag("div", *(metric(mine[task]) for task in views.task_titles(mine)), cls="cards")
    return tag("div", grid, *(tag("p", line, cls="quiet") for line in elsewhere(frame, set(mine), steps or {})))


def elsewhere(frame: pd.DataFrame, shown: Collection[str], steps: Mapping[int, str]) -> list[str]:
    """The tasks that have no card at a step, grouped by the steps at which they were measured.

    Args:
        frame: a `current` frame.
        shown: the tasks that have one.
        steps: sparsities in percent and their recipes; dense, at 0, is no place to compare.
    """
    places: dict[tuple[int, ...], list[str]] = {}
    for task, name in views.task_titles(set(frame["task"]) - set(shown)).items():
        recipes = set(frame.loc[frame["task"] == task, "recipe"])
        at = tuple(step for step, recipe in steps.items() if step and recipe in recipes)
        if at:
            places.setdefault(at, []).append(name)
    return [f"Measured at {_listed(at)} only: {'; '.join(names)}." for at, names in places.items()]


def _listed(steps: Sequence[int]) -> str:
    """Percentages in a row: 30 and 50 %."""
    words = [str(step) for step in steps]
    return f"{' and '.join([', '.join(words[:-1]), words[-1]] if words[1:] else words)} %"


def claim(found: Claim) -> Safe:
    """One claim, its verdict, and its parts with theirs; the votes on hover."""
    parts = [
        tag(
            "li",
            tag("span", glossary.explained(part.text)),
            chip(part.verdict),
            title=f"{part.because[:1].upper()}{part.because[1:]}.",
        )
        for part in found.parts
    ]
    return tag("div", tag("h3", glossary.explained(found.text)), tag("ul", *parts, cls="parts"), cls="claim")


def sentence(row: pd.Series) -> Safe:
    """One recipe's result on one task in a sentence: from, to, interval, test, verdict."""
    head = tag("h2", f"{row['label']}: {number(row)}", tag("span", " "), chip(row["verdict"]))
    if row["kind"] == "dense":
        return tag("div", head, tag("p", f"The reference. {number(row, 'low')} to {number(row, 'high')}.", cls="quiet"))
    sentence = tag("p", glossary.explained(words(row["words"])), style="margin:.3rem 0 0")
    if not row["paired"]:
        return tag("div", head, sentence)
    said = f"Dense {_dense(row)} over {row['paired']:,} paired examples"
    if row["clusters"] < row["n"]:
        said += f" on {row['clusters']:,} passages"
    if not math.isnan(row["share_kept"]):
        said += (
            f"; keeps {percent(row['share_kept'])} of it [{percent(row['share_low'])}, {percent(row['share_high'])}]"
        )
    if not math.isnan(row["chance"]):
        said += f"; blind guessing gives {percent(row['chance'])}"
    if not math.isnan(row["changed"]):
        said += f"; {percent(row['changed'])} of the answers differ from dense's "
        said += f"[{percent(row['changed_low'])}, {percent(row['changed_high'])}]"
    return tag(
        "div", head, sentence, tag("p", glossary.explained(said + "."), cls="quiet", style="margin:.3rem 0 .7rem")
    )


def words(sentence: str) -> str:
    """A sentence of `scores` as one of its own."""
    return sentence[:1].upper() + sentence[1:] + "."


def _dense(row: pd.Series) -> str:
    return percent(row["dense_score"], 1) if row["higher_is_better"] else f"{row['dense_score']:.2f}"


def scorers(rows: pd.DataFrame, reported: str) -> Safe:
    """What every scorer of the task says of one run, with interval and n, and in words; `reported` is drawn."""
    if len(rows) < 2:
        return Safe("")
    lines = [
        tag(
            "tr",
            tag("td", str(row["scorer"]).replace("_", " ") + (" (drawn)" if row["scorer"] == reported else "")),
            tag("td", _plain(row["dense_score"])),
            tag(
                "td", _plain(row["score"]), tag("span", f" {_plain(row['low'])} to {_plain(row['high'])}", cls="quiet")
            ),
            tag("td", str(row["n"])),
            tag("td", "" if row["kind"] == "dense" else row["words"], cls="said"),
        )
        for row in each(rows)
    ]
    heads = [tag("th", name) for name in ("Scorer", "dense", "this, 95 %", "n")]
    heads.append(tag("th", "against dense", cls="said"))
    table = tag("table", tag("tr", *heads), *lines)
    return tag("div", table, cls="scroll")


def _plain(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
