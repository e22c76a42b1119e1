"""How measured numbers hang together: perplexity and knowledge, popularity and forgetting, pocket and real models."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats as scipy_stats
from statsmodels.stats.proportion import confint_proportions_2indep

from kick_core import tasks, views
from kick_core.spec import parse
from kick_core.units import count_text
from kick_core.views import recovery as recovery_view
from kick_core.views.recipe_labels import kind, method, target_label

Pairs = tuple[NDArray[np.float64], NDArray[np.float64]]


def popularity(store: views.Store, frame: pd.DataFrame) -> str:
    """The share of facts kept by how well known they are: one row a recipe series, one column a tier."""
    lines, gaps = [], dict[str, list[tuple[float, float]]]()
    guessed = guessing(frame)
    for task in frame["task"].unique():
        rows = frame[(frame["task"] == task) & (frame["kind"].isin(("ratio", "bits"))) & (frame["recovered"] == "")]
        if tasks.record(task).measures != "knowledge" or task in guessed:
            continue
        for (name, _), series in rows.groupby(["method", "kind"], sort=False):
            table = views.by_popularity(store, str(series["run"].iloc[-1]), str(series["scorer"].iloc[0]))
            if table.empty or len(table) < 2:
                continue
            steps = [column for column in table.columns if column not in ("tier", "popularity", "n")][1:]
            title, heads = str(series["title"].iloc[0]), len(table)
            for step in steps:
                gap, low, high = _gap(table, step)
                shares = " | ".join(f"{100 * row[step]:.0f} % of {row['n']}" for row in table.to_dict("records"))
                lines.append(f"| {title} | {name} {step} | {shares} | {gap:+.0f} [{low:+.0f}, {high:+.0f}] |")
                if _LEAST < float(np.average(table[step], weights=table["n"])) < 1 - _LEAST:
                    gaps.setdefault(title, []).append((low, high))
    if not lines:
        return "(not measured: no task that names the popularity of its subjects has anything to lose)"
    first = "| task | recipe | best known |" + " |" * (heads - 2) + " least known | difference, points [95 %] |"
    said = [f"- {title}: {_first_to_go(pairs)}." for title, pairs in gaps.items()]
    return "\n".join([first, "|---|---|" + "---|" * (heads + 1), *lines, "", *said])


def _first_to_go(gaps: Sequence[tuple[float, float]]) -> str:
    """In how many recipes an interval of the difference says that the least, or the best, known facts go first."""
    rare, known = sum(low > 0 for low, _ in gaps), sum(high < 0 for _, high in gaps)
    recipes = count_text(len(gaps), "recipe")
    kept = "keep and lose more than a twentieth"
    return f"the least known facts go first in {rare} of {recipes} that {kept}, the best known in {known}"


_LEAST = 0.05
"""Recipes that keep less, or lose less, say nothing of what goes first."""


def guessing(frame: pd.DataFrame) -> set[str]:
    """Tasks on which dense itself may be guessing: there is nothing to lose."""
    return set(frame.loc[(frame["kind"] == "dense") & frame["share_kept"].isna(), "task"])


def _gap(table: pd.DataFrame, step: str) -> tuple[float, float, float]:
    """Kept of the best known minus kept of the least known, in points, with Newcombe's 95 % interval."""
    first, last = table.iloc[0], table.iloc[-1]
    low, high = confint_proportions_2indep(
        round(first[step] * first["n"]), first["n"], round(last[step] * last["n"]), last["n"], method="newcomb"
    )
    gap, low, high = (100 * value for value in (first[step] - last[step], low, high))
    return gap, low, high


def correlation(frame: pd.DataFrame) -> str:
    """Perplexity against every task over recipes: rank correlation, and how often it ranks equal sizes rightly."""
    plain = frame[(frame["kind"] != "dense") & (frame["recovered"] == "")]
    fluency = [task for task in plain["task"].unique() if tasks.record(task).measures == "fluency"]
    if not fluency:
        return "(no perplexity was measured)"
    perplexity = plain[plain["task"] == fluency[0]].set_index("recipe")
    lines = [
        f"| task | recipes | rank correlation with {perplexity['title'].iloc[0]} | pairs of equal size that differ | "
        "of them, the better perplexity has the better score | the same without magnitude |",
        "|---|---|---|---|---|---|",
    ]
    for _, rows in plain[~plain["task"].isin([*fluency, *guessing(frame)])].groupby("task", sort=False):
        both = rows.set_index("recipe").join(perplexity["score"].rename("perplexity"), how="inner")
        if len(both) < 4:
            continue
        interval = _correlation((-both["perplexity"].to_numpy(), both["score"].to_numpy()))
        right, total = _equal_size(both)
        share = f"{right} ({100 * right / total:.0f} %)" if total else "–"
        others = _equal_size(both[both["method"] != "magnitude"])
        lines.append(
            f"| {rows['title'].iloc[0]} | {len(both)} | {interval} | {total} | {share} | {others[0]} of {others[1]} |"
        )
    return (
        "\n".join(lines) if len(lines) > 2 else "(not measured: no task that has anything to lose, under four recipes)"
    )


def _correlation(pairs: Pairs) -> str:
    """Spearman's rank correlation with a 95 % interval (Fisher's z, standard error of Bonett and Wright 2000), which a
    correlation of 1 has not."""
    rho, n = float(scipy_stats.spearmanr(*pairs).statistic), len(pairs[0])
    if not abs(rho) < 1 or n < 4:
        return f"{rho:.2f} (no interval)"
    z, half = math.atanh(rho), 1.96 * math.sqrt((1 + rho**2 / 2) / (n - 3))
    return f"{rho:.2f} [{math.tanh(z - half):.2f}, {math.tanh(z + half):.2f}]"


def _equal_size(both: pd.DataFrame) -> tuple[int, int]:
    """Of the pairs of recipes with one target whose intervals on the task do not overlap: in how many the better
    perplexity has the better score, and how many there are."""
    right = total = 0
    for _, rows in both.groupby(["kind", "target_label"], sort=False):
        records = rows.to_dict("records")
        for at, one in enumerate(records):
            for other in records[at + 1 :]:
                if one["low"] > other["high"] or other["low"] > one["high"]:
                    total += 1
                    right += (one["score"] > other["score"]) == (one["perplexity"] < other["perplexity"])
    return right, total


def fidelity(store: views.Store, frame: pd.DataFrame) -> str:
    """How far recipes take the distributions on running text from dense's, and how often the likeliest token stays."""
    table = views.fidelity(store, str(frame["fingerprint"].iloc[0]))
    chosen = frame.set_index("recipe")["weights"].to_dict()
    table = table[
        [chosen.get(recipe) == weights for recipe, weights in zip(table["recipe"], table["weights"], strict=True)]
    ]
    if table.empty:
        return "(not measured: `--fidelity`)"
    lines = ["| recipe | windows | KL(dense, recipe), nats a token | same likeliest token, % |", "|---|---|---|---|"]
    for row in table.to_dict("records"):
        kl, same = (
            _between([row[f"kl{end}"] for end in ENDS], 3),
            _between([100 * row[f"same{end}"] for end in ENDS], 1),
        )
        lines.append(f"| {row['label']} | {row['n']} | {kl} | {same} |")
    return "\n".join(lines)


ENDS = ("", "_low", "_high")


def _between(values: Sequence[float], digits: int) -> str:
    """A value with its interval."""
    value, low, high = ("–" if math.isnan(one) else f"{one:.{digits}f}" for one in values)
    return f"{value} [{low}, {high}]"


def forms(scores: pd.DataFrame, model: str) -> str:
    """Dense, in every form of prompting in which it was asked."""
    rows = scores[
        (scores["model"] == model)
        & (scores["kind"] == "dense")
        & scores["headline"]
        & (scores["protocol"] == "strict")
        & scores["higher_is_better"]
    ].drop_duplicates(["task", "prompting", "dtype", "device"], keep="last")
    rows = rows[rows.groupby("task")["prompting"].transform("nunique") > 1]
    if rows.empty:
        return "(one form was measured)"
    lines = ["| task | form | examples | score | chance |", "|---|---|---|---|---|"]
    for row in rows.sort_values(["task", "prompting"], kind="stable").to_dict("records"):
        score, low, high, chance = (100 * row[name] for name in ("score", "low", "high", "chance"))
        where = row["prompting"] + (f" ({row['dtype']} on {row['device']})" if rows["device"].nunique() > 1 else "")
        guessed = "–" if math.isnan(chance) else f"{chance:.0f} %"
        lines.append(f"| {row['title']} | {where} | {row['n']:,} | {score:.1f} % [{low:.1f}, {high:.1f}] | {guessed} |")
    return "\n".join(lines)


def recovery(store: views.Store, frame: pd.DataFrame) -> str:
    """The share of each loss that recovery brought back, task by task."""
    table = views.recovered(store, frame)
    table = table[table["word"] != recovery_view.UNKNOWN] if len(table) else table
    if table.empty:
        return "(no recovered recipe was measured beside the one it started from)"
    columns = {str(task): str(rows["title"].iloc[0]) for task, rows in table.groupby("task", sort=False)}
    lines = [f"| recipe | {' | '.join(columns.values())} |", f"|---|{'---|' * len(columns)}"]
    for recipe, rows in table.groupby("recipe", sort=False):
        known = {row["task"]: row for row in rows.to_dict("records")}
        cells = [_back(known[task]) if task in known else "–" for task in columns]
        lines.append(f"| {views.label_of(str(recipe))} | {' | '.join(cells)} |")
    said = [
        f"- {answer.label} ({answer.text}): **{answer.verdict.removesuffix('.')}**. {'; '.join(answer.because)}."
        for answer in views.recovery_answers(table)
    ]
    return "\n".join([*lines, "", *said])


def _back(row: Mapping[Any, Any]) -> str:
    share, low, high = (float(row[name]) for name in ("share", "low", "high"))
    if math.isnan(share) or row["word"] == recovery_view.NO_LOSS:
        return str(row["word"])
    return f"{100 * share:.0f} % [{100 * low:.0f}, {100 * high:.0f}], {row['word']}"


def seeds(scores: pd.DataFrame, model: str) -> str:
    """Scores of recipes that were made with several calibration seeds: the range, beside the interval of one."""
    mine = scores[(scores["model"] == model) & scores["headline"] & (scores["protocol"] == "strict")]
    lines = ["| recipe | task | seeds | lowest | highest | interval of one |", "|---|---|---|---|---|---|"]
    for (recipe, _), rows in mine.groupby(["recipe", "task"], sort=False):
        made = rows.drop_duplicates("weights")
        if len(made) < 2 or made["kind"].iloc[0] == "dense":
            continue
        digits = 2 if not made["higher_is_better"].iloc[0] else None
        values = [made["score"].min(), made["score"].max(), made["low"].iloc[0], made["high"].iloc[0]]
        low, high, from_, to = (f"{v:.{digits}f}" if digits else f"{100 * v:.1f} %" for v in values)
        label, title = views.label_of(str(recipe)), made["title"].iloc[0]
        lines.append(f"| {label} | {title} | {len(made)} | {low} | {high} | {from_} to {to} |")
    return "\n".join(lines) if len(lines) > 2 else "(one seed was measured)"


def pocket(scores: pd.DataFrame, models: list[str]) -> str:
    """Do the pocket models predict the real ones? Over recipes that both have: the rank correlation of the knowledge
    kept, and how much more of it the pocket model keeps."""
    small = [name for name in views.POCKETS if (scores["model"] == name).any()]
    if not small or not models:
        return "(no pocket model was measured in these results)"
    lines = [
        "| pocket model | real model | recipes | rank correlation of knowledge kept | "
        "the pocket model keeps more by, points |",
        "|---|---|---|---|---|",
    ]
    for one in small:
        for other in models:
            both = pd.concat([_kept(scores, one), _kept(scores, other)], axis=1, join="inner").dropna()
            if len(both) < 4:
                continue
            pairs = both.iloc[:, 0].to_numpy(), both.iloc[:, 1].to_numpy()
            more = 100 * (pairs[0] - pairs[1])
            lines.append(
                f"| {one} | {other} | {len(both)} | {_correlation(pairs)} | "
                f"{more.mean():.0f} ({more.min():.0f} to {more.max():.0f}) |"
            )
    return "\n".join(lines)


_COMMON = 0.9
"""Of the recipes that a mean over tasks is made for, the share that must have a task for it to count."""


def _kept(scores: pd.DataFrame, model: str) -> pd.Series:
    """The mean share of knowledge kept, above guessing where it can be guessed, over the tasks that nearly all recipes
    have; by method and target: groups of other sizes are the same recipe here."""
    frame = views.current(scores, model, "strict")
    lost = guessing(frame)
    known = [task for task in frame["task"].unique() if tasks.record(task).measures == "knowledge" and task not in lost]
    frame = frame[frame["task"].isin(known) & (frame["kind"] != "dense") & (frame["recovered"] == "")]
    recipes = [parse(str(text)) for text in frame["recipe"]]
    names = [f"{method(one)} {kind(one)} {target_label(one)}" for one in recipes]
    shares = frame["share_above"].fillna(frame["share_kept"])
    table = frame.assign(name=names, share=shares).pivot_table(index="name", columns="task", values="share")
    return table.loc[:, table.count() >= _COMMON * table.count().max()].dropna().mean(axis="columns").rename(model)
