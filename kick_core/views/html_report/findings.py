"""What was found: the abstract, the poster, the claims, what every recipe keeps, sizes, closeness, other models."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd

from kick_core import tasks
from kick_core.units import count_text
from kick_core.views import chart_style, charts, commands, size_charts
from kick_core.views.chart_style import each
from kick_core.views.claims import SIZE
from kick_core.views.families import calibrations, families, pairs
from kick_core.views.fidelity import BOUNDS, fidelity, texts
from kick_core.views.findings import headline, leading, percent, widest_gap
from kick_core.views.forgetting import by_popularity
from kick_core.views.html_report.facts import (
    MARKS,
    Story,
    between,
    bullets,
    cells,
    figure,
    kept,
    quiet,
    said,
    score,
    table,
    token,
)
from kick_core.views.markup import Child, Safe, tag
from kick_core.views.noise import noise
from kick_core.views.paired import AT_FLOOR
from kick_core.views.reproduced import furthest
from kick_core.views.scores import NOT_MEASURED

COLUMNS = 2
"""Small pictures side by side."""


def abstract(story: Story) -> list[Safe]:
    """The story in sentences; every one is computed from the tables below."""
    frame = story.frame
    if frame.empty:
        return [said("Nothing has been measured.")]
    recipes, answers = frame["recipe"].nunique(), int(frame["n"].sum() + frame["unjudged"].sum())
    lines = [
        f"{story.model} was asked {count_text(len(story.titles), 'task')} under {count_text(recipes, 'recipe')}, dense "
        f"among them: {answers:,} answers.",
        *(headline(frame, recipe) for recipe in _telling(story)),
    ]
    if story.pruners:
        lines.append(_furthest(story))
    words = ("holds", "does not hold", "cannot tell", "not measured")
    counted = [(word, sum(claim.verdict == word for claim in story.claims)) for word in words]
    told = ", ".join(f"{count} “{word}”" for word, count in counted if count)
    lines.append(f"The paper's three claims, put to these data: {told}.")
    floor = noise(story.store, str(frame["fingerprint"].iloc[0]))
    if len(floor):
        lines.append(_noise_said(story, floor.to_dict("records")))
    return [tag("p", " ".join(line for line in lines if line), cls="abstract")]


def _telling(story: Story) -> list[str]:
    """The recipes that the abstract speaks of: of each kind the best of those nearest to half pruned, or to 4 bits."""
    asked = story.frame[(story.frame["task"] == story.task) & (story.frame["recovered"] == "")]
    picked = []
    for kind, aim in (("ratio", 0.5), ("pattern", 0.5), ("bits", 0.75)):
        rows = asked[asked["kind"] == kind]
        if len(rows):
            picked.append(str(min(each(rows), key=lambda row: (abs(row["severity"] - aim), -row["score"]))["recipe"]))
    return picked


def _furthest(story: Story) -> str:
    """How far pruning alone may go on the two tasks that the headlines speak of."""
    pruned = story.frame[(story.frame["kind"] == "ratio") & (story.frame["recovered"] == "")]
    told = []
    for task in leading(set(pruned["task"])):
        steps = [step for step in furthest(pruned[pruned["task"] == task]).split(", ") if not step.endswith(" none")]
        reach = f"up to {', '.join(steps)}" if steps else "at no measured sparsity"
        told.append(f"{story.titles[task]} {reach}")
    return f"Pruned, it surely keeps 95 % of dense in {'; in '.join(told)}." if told else ""


def _noise_said(story: Story, floor: Sequence[Mapping[Hashable, Any]]) -> str:
    mine = [row for row in floor if row["dense_run"] in set(story.frame["run"]) and row["headline"]]
    flips = [row for row in mine if not math.isnan(row["flips"])]
    if not flips:
        return ""
    moved, over = sum(row["broke"] + row["fixed"] for row in flips), sum(row["paired"] for row in flips)
    return f"The evaluator's own noise: dense asked twice in other batches flipped {moved:.0f} of {over:,} answers."


# --- the poster ----------------------------------------------------------------------------------------------


def poster(story: Story) -> list[Safe]:
    """The share kept against sparsity, one picture a method; on a screen the slider chooses."""
    if not story.pruners:
        return []
    pictures = [
        figure(
            charts.overlay(story.frame, name),
            f"What {name} keeps of the dense score, against the share of weights that it drops. Every line starts at "
            "100 %; perplexity is dense / compressed (dotted). Bars are 95 % paired intervals."
            + (f" In the table only: {'; '.join(titles)}." if (titles := charts.left_out(story.frame, name)) else ""),
            f"Share of the dense score kept by {name} against sparsity, one line a task",
            cls="poster", method=name,
        )
        for name in story.pruners
    ]  # fmt: skip
    method, percent_ = _opens(story)
    chosen = {True: {"selected": ""}, False: {}}
    options = [tag("option", name, **chosen[name == method]) for name in story.pruners]
    choice = tag("label", "Method ", tag("select", *options, id="method", **{"data-percent": f"{percent_:g}"}))
    slider = tag("label", "Sparsity ", Safe('<input id="s" type="range" min="0" step="1">'), tag("b", "", id="shown"))
    control = tag(
        "div", tag("p", choice, slider), tag("p", "", id="headline"), tag("div", "", id="cards"), cls="screen"
    )
    return [control, *pictures]


def _opens(story: Story) -> tuple[str, float]:
    """Where the reader was, else where the pages open."""
    if story.opens and story.opens[0] in story.pruners:
        return story.opens
    rows = story.frame[story.frame["recipe"] == widest_gap(story.frame)]
    if rows.empty:
        return story.pruners[0], 50.0
    return str(rows["method"].iloc[0]), round(100 * float(rows["sparsity"].iloc[0]), 4)


def popularity(story: Story) -> list[Safe]:
    """The share of facts kept along every method, by how well known their subjects are; nothing where none says so."""
    figures = []
    for name in story.pruners:
        rows = story.rows(task=story.task, method=name)
        rows = rows[(rows["kind"] == "ratio") & (rows["dense_run"] != "")]
        table_ = by_popularity(story.store, rows["run"].iloc[-1], rows["scorer"].iloc[-1]) if len(rows) else rows
        if len(table_):
            steps = {"dense": 0.0, **dict(zip(rows["target_label"], rows["sparsity"], strict=True))}
            figures.append(figure(
                charts.popularity(table_, {name: steps[name] for name in table_.columns if name in steps}, name),
                f"{name}: of the facts that dense has right, the share still right.",
                f"Share of facts kept by {name} against sparsity, one line per tier of popularity",
                width=460, height=250,
            ))  # fmt: skip
    return [tag("div", *figures, cls="pair")] if figures else []


def states(story: Story) -> dict[str, list[dict[str, Any]]]:
    """For the slider: what is said of each method at every sparsity that was measured."""
    return {name: _states(story, name) for name in story.pruners}


def _states(story: Story, method: str) -> list[dict[str, Any]]:
    frame = story.frame
    plain = (frame["kind"] == "ratio") & (frame["recovered"] == "")
    mine = frame[(frame["kind"] == "dense") | ((frame["method"] == method) & plain)]
    found = []
    for ratio, rows in mine.groupby("sparsity", sort=True):
        cards = [[str(r["title"]), score(r), _keeps(r), str(r["verdict"]), int(r["n"])] for r in each(rows)]
        words = headline(frame, str(rows["recipe"].iloc[0]))
        found.append({"s": round(100 * float(str(ratio)), 4), "words": words, "cards": cards})
    return found


def _keeps(row: chart_style.Row) -> str:
    return kept(row) if row["verdict"] == AT_FLOOR else f"keeps {kept(row)}"


# --- claims and tables ---------------------------------------------------------------------------------------


def verdicts(story: Story) -> list[Safe]:
    """The paper's claims, each with its verdict, the cells that voted, and the rule."""
    if story.frame.empty:
        return []
    return [
        tag(
            "section",
            tag("h3", tag("b", found.verdict, cls=f"chip {token(found.verdict)}"), " ", found.text),
            *(said(line) for line in found.because),
            quiet(found.rule),
            cls="claim",
        )
        for found in story.claims
    ]


def shares(story: Story) -> list[Safe]:
    """Every recipe on every task: the share kept with its interval and its verdict."""
    if story.frame.empty:
        return []
    known = cells(story.frame)
    rows = [
        [label, *(_share(known.get((recipe, task))) for task in story.titles)] for recipe, label in story.labels.items()
    ]
    legend = ", ".join(f"{mark} {word}" for word, mark in MARKS.items())
    return [
        quiet(
            "Dense rows are scores, all others the share of the dense score that is kept, over the same examples, with "
            f"its 95 % interval. {legend}: whether at least 95 % of dense is kept; · not measured. The appendix "
            "has every score, its n and its key."
        ),
        table(["Recipe", *story.titles.values()], rows, "Share of the dense score kept", "shares"),
    ]


def _share(row: chart_style.Row | None) -> Child | tuple[Child, str]:
    if row is None or row["verdict"] == NOT_MEASURED:
        return "·", "quiet"
    if row["kind"] == "dense":
        return score(row)
    if math.isnan(row["share_kept"]):
        return MARKS[AT_FLOOR] if row["verdict"] == AT_FLOOR else "dense scores 0", "quiet"
    inner = tag("span", f"{MARKS[row['verdict']]} {percent(row['share_kept'])}")
    return tag("span", inner, tag("small", between(row, "share_low", "share_high"))), token(row["verdict"])


def by_task(story: Story) -> list[Safe]:
    """A picture a task: scores against sparsity, and beside them patterns and widths."""
    if story.frame[story.frame["kind"] != "dense"].empty:
        return []
    pictures = [
        figure(
            charts.accuracy(story.frame, task), title, f"{title} of all methods against sparsity, N:M and bits",
            width=460, height=250,
        )
        for task, title in story.titles.items()
    ]  # fmt: skip
    note = "Scores from 0, perplexity on a logarithmic axis, where up is worse. Bars are 95 % intervals of each alone."
    return [quiet(note), tag("div", *pictures, cls="pair")]


def sizes(story: Story) -> list[Safe]:
    """Pruning beside quantization on the axis that they share, and which recipes nothing beats at their size."""
    if story.frame[story.frame["kind"] != "dense"].empty:
        return []
    weights = next((card.weights for card in story.cards.values()), 0)
    fluency = [task for task in tasks.names(measures="fluency") if task in story.titles]
    shown = list(dict.fromkeys([story.task, *fluency[:1]]))
    pictures = [
        figure(
            size_charts.pareto(story.frame, task, weights),
            f"{story.titles[task]} by size; dotted: the best at each size.",
            f"{story.titles[task]} against the size of the compressed linears, all recipes", width=460, height=290,
        )
        for task in shown
    ]  # fmt: skip
    fronts = [
        (
            title,
            " · ".join(
                f"{r['label']} ({r['bits_per_weight']:.2f})" for r in each(size_charts.frontier(story.rows(task=task)))
            ),
        )
        for task, title in story.titles.items()
    ]
    note = (
        f"A dense weight takes {SIZE} bits; a pruned one {SIZE} if kept and one bit to say where; a quantized one its "
        "code and its share of a scale. Embeddings and lm_head stay dense and are not counted."
    )
    listed = table(
        ["Task", "best at their size, small to large (bits a weight)"],
        fronts,
        "What nothing beats at its size",
        "words",
    )
    return [quiet(note), tag("div", *pictures, cls="pair"), listed]


# --- closeness, other models ---------------------------------------------------------------------------------


def close(story: Story) -> list[Safe]:
    """Distributions beside dense's, dense's texts read by the variant, and the evaluator's own noise."""
    if story.frame.empty:
        return []
    mine = str(story.frame["fingerprint"].iloc[0])
    weights, runs_ = set(story.frame["weights"]), set(story.frame["run"])
    near, read = (view(story.store, mine) for view in (fidelity, texts))
    floor = noise(story.store, mine)
    near, read = near[near["weights"].isin(weights)], read[read["weights"].isin(weights)]
    floor = floor[floor["dense_run"].isin(runs_) & floor["headline"]]
    parts = []
    if len(near):
        heads = ["Recipe", "KL, nats a token, ≥", "same most likely token", "overlap ≤", "windows", "tokens"]
        parts += [table(heads, (_near(row) for row in each(near)), "Distributions on running text"), quiet(BOUNDS)]
    if len(read):
        heads = ["Recipe", "task", "nats a token lost", "tokens until another choice", "to the end", "texts"]
        parts.append(table(heads, (_read(row) for row in each(read)), "Dense's own answers, read by the variant"))
    if len(floor):
        rows = [(row["title"], row["words"]) for row in each(floor)]
        parts.append(
            table(["Task", "dense against dense, in other batches"], rows, "The evaluator's own noise", "words")
        )
    missing = [flag for flag, found in (("--fidelity", near), ("--noise-floor", floor)) if found.empty]
    if missing:
        first = commands.sweeps(story.store, story.frame)[0]
        parts += [
            quiet("This measures what is missing here:"),
            tag("pre", commands.wrapped(f"{first} {' '.join(missing)}")),
        ]
    return parts


def _near(row: chart_style.Row) -> list[Child]:
    bounds = _with_bounds(row, "kl")
    same = f"{percent(row['same'], 1)} [{percent(row['same_low'], 1)} to {percent(row['same_high'], 1)}]"
    return [row["label"], bounds, same, percent(row["overlap"], 1), str(row["n"]), f"{row['tokens']:,}"]


def _with_bounds(row: chart_style.Row, name: str) -> str:
    """A number with its interval; a dash where it was not measured, or is not finite."""
    if not math.isfinite(row[name]):
        return "–"
    return f"{row[name]:.3g} [{row[f'{name}_low']:.3g} to {row[f'{name}_high']:.3g}]"


def _read(row: chart_style.Row) -> list[Child]:
    lost, until = _with_bounds(row, "lost"), _with_bounds(row, "until")
    return [row["label"], row["task"], lost, until, percent(row["never"]), str(row["n"])]


def others(story: Story) -> list[Safe]:
    """The same recipes on other models of this cache, and base beside tuned; nothing where no recipe is shared."""
    frame = families(story.store, story.data, story.protocol, measured=story.measured)
    mine = frame[frame["same"].isin(frame.loc[frame["model"] == story.model, "same"])]
    mine = mine[mine["task"].isin(story.titles)]
    if mine.empty:
        return []
    names = list(dict.fromkeys([story.model, *sorted(mine["model"].unique())]))
    rows = []
    for (label, title), alike in mine.groupby(["label", "title"], sort=False):
        by = {row["model"]: row for row in each(alike)}
        rows.append([f"{label}, {title}", *(_beside(by.get(name)) for name in names)])
    parts = [
        quiet("Each model's share of its own dense score; brackets are 95 % intervals."),
        table(["Recipe and task", *names], rows, "The same recipe on several models"),
        bullets(_calibrated(mine)),
    ]
    for pair, _, word in pairs(story.store, mine):
        if story.model in (pair.tuned, pair.base):
            told = f": {word.sentence} {word.because}"
            parts += [said(pair.told, " ", tag("b", word.verdict), told), quiet(word.rule)]
    return parts


def _calibrated(mine: pd.DataFrame) -> list[str]:
    """How far the models were calibrated alike, recipes of which the same is to be said together."""
    told: dict[str, list[str]] = {}
    for _, rows in mine.groupby("same", sort=False):
        told.setdefault(calibrations(rows), []).append(str(rows["label"].iloc[0]))
    return [f"{', '.join(labels)}: {words}" for words, labels in told.items()]


def _beside(row: chart_style.Row | None) -> Child | tuple[Child, str]:
    return ("not measured", "quiet") if row is None else (kept(row), token(row["verdict"]))
