"""What searches chose: recipes of one kind and size beside each other, shared out evenly and for several objectives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kick_core import methods
from kick_core.errors import KickError
from kick_core.methods import storage
from kick_core.records import Card
from kick_core.spec import BitBudget, Recipe, parse
from kick_core.store import Store
from kick_core.views import artifact_tables, recipe_labels
from kick_core.views.chart_style import Chart, plain


@dataclass(frozen=True, slots=True)
class Family:
    """Recipes that differ only in how their sparsity, or their bits, are shared out over the model."""

    title: str
    recipes: tuple[str, ...]
    unit: str


def families(frame: pd.DataFrame) -> list[Family]:
    """The families among the recipes of a `current` frame of which one at least looked at the whole model."""
    found: dict[tuple[str, str], list[str]] = {}
    titles: dict[tuple[str, str], Family] = {}
    for text in dict.fromkeys(frame["recipe"]):
        recipe = parse(str(text))
        if recipe.target is None or recipe.then:
            continue
        kin = _kin(recipe)
        found.setdefault(kin, []).append(recipe.text)
        unit = "bits a weight" if isinstance(recipe.target, BitBudget) else "sparsity"
        titles[kin] = Family(f"{kin[0]} {recipe_labels.target_label(recipe)}", (), unit)
    return [
        Family(titles[kin].title, tuple(recipes), titles[kin].unit)
        for kin, recipes in found.items()
        if len(recipes) > 1 and any(_looks(text) for text in recipes)
    ]


def _kin(recipe: Recipe) -> tuple[str, str]:
    """What the members of a family have in common: how it is done, and how much of it."""
    assert recipe.target is not None
    lines = recipe.method in methods.names() and methods.card(recipe.method).lines
    return "blocks, channels and heads" if lines else recipe.method, recipe.target.text


def _looks(text: str) -> bool:
    try:
        return methods.plans(parse(text))
    except KickError:  # of a method that is gone
        return False


ALLOCATION = ("recipe", "label", "axis", "place", "value")


def allocation(store: Store, frame: pd.DataFrame, family: Family) -> pd.DataFrame:
    """How a family's artifacts share their sparsity (or bits) out: the mean over every block, and over every kind of
    matrix; `axis` is "block" or "matrix", `place` its number or name. An artifact that is not there has no row."""
    keys = frame.drop_duplicates("recipe").set_index("recipe")["weights"]
    cards = {card.key: card for card in artifact_tables.known_cards(store)}
    rows: list[dict[str, Any]] = []
    for recipe in family.recipes:
        card = cards.get(str(keys[recipe]))
        if card is None:
            continue
        about = {"recipe": recipe, "label": recipe_labels.label(parse(recipe))}
        table = _matrices(card, family)
        for axis in ("block", "matrix"):
            mean = table.groupby(axis, sort=False)[["total", "weights"]].sum()
            for place, row in mean.iterrows():
                rows.append({**about, "axis": axis, "place": str(place), "value": row["total"] / row["weights"]})
    return pd.DataFrame(rows, columns=list(ALLOCATION))


def _matrices(card: Card, family: Family) -> pd.DataFrame:
    """Every matrix of an artifact with its weights and what of the family's unit it has in all."""
    recipes = (card.plan or {}).get("recipes", {})
    dense = 8 * card.dense_bytes / card.weights
    rows = []
    for layer in card.layers:
        block, _, name = layer.name.partition(".")
        weights = layer.rows * layer.cols
        bits = storage.bits_per_weight(parse(recipes.get(layer.name, "dense")), dense) if recipes else float("nan")
        total = layer.zeros if family.unit == "sparsity" else weights * bits
        rows.append((block, name.rpartition(".")[2], weights, total))
    return pd.DataFrame(rows, columns=["block", "matrix", "weights", "total"])


def chart(table: pd.DataFrame, unit: str) -> Chart:
    """How recipes share out their sparsity (or bits), as two strips of heat: by block, and by kind of matrix.

    `table` is `allocation`'s; one row a recipe, the first on top.
    """
    names = [plain(label) for label in dict.fromkeys(table["label"])][::-1]
    share = unit == "sparsity"
    layout: Chart = {
        "height": 90 + 34 * len(names), "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "yaxis": {**_AXIS, "categoryorder": "array", "categoryarray": names},
        "coloraxis": {
            "colorscale": [[0, "#eef2fb"], [1, "#2c55b0" if share else "#1b7a5a"]], "cmin": float(table["value"].min()),
            "cmax": float(table["value"].max()),
            "colorbar": {"title": {"text": unit}, "tickformat": ".0%" if share else ".1f", "thickness": 12},
        },
    }  # fmt: skip
    traces: list[Chart] = []
    for number, axis in (("", "block"), ("2", "matrix")):
        rows = table[table["axis"] == axis]
        places = [plain(place) for place in dict.fromkeys(rows["place"])]
        wide = rows.assign(label=rows["label"].map(plain), place=rows["place"].map(plain))
        wide = wide.pivot_table(index="label", columns="place", values="value", sort=False).reindex(names)[places]
        values = [[None if math.isnan(v) else round(float(v), 6) for v in row] for row in wide.to_numpy()]
        traces.append(
            {"type": "heatmap", "x": places, "y": names, "z": values, "xaxis": f"x{number}", "coloraxis": "coloraxis",
             "texttemplate": "%{z:.0%}" if share else "%{z:.1f}", "xgap": 2, "ygap": 2,
             "hovertemplate": f"<b>%{{y}}</b><br>{axis} %{{x}}: %{{z{':.1%' if share else ':.2f'}}}<extra></extra>"}
        )  # fmt: skip
        domain = [0, 0.5] if axis == "block" else [0.52, 1]
        title = "Block" if axis == "block" else "Kind of matrix"
        layout[f"xaxis{number}"] = {**_AXIS, "title": {"text": title}, "domain": domain}
    return {"data": traces, "layout": layout}


_AXIS: Chart = {"fixedrange": True, "automargin": True, "type": "category", "showgrid": False}


def looked(store: Store, frame: pd.DataFrame, family: Family) -> pd.DataFrame:
    """What the searches of a family saw: the objective, its number when shared out evenly and as found, how many
    candidates were looked at, on how many examples. Recipes that searched for nothing have no row."""
    keys = frame.drop_duplicates("recipe").set_index("recipe")["weights"]
    cards = {card.key: card for card in artifact_tables.known_cards(store)}
    rows = []
    for recipe in family.recipes:
        card = cards.get(str(keys[recipe]))
        plan = (card.plan if card else None) or {}
        if "uniform" in plan:
            examples = len(plan.get("examples", ())) or plan.get("windows")
            about = (recipe, recipe_labels.label(parse(recipe)), str(plan["objective"]), plan["uniform"], plan["found"])
            rows.append((*about, plan.get("evaluations"), examples))
    return pd.DataFrame(rows, columns=["recipe", "label", "objective", "even", "found", "candidates", "examples"])


def differences(frame: pd.DataFrame, family: Family) -> list[str]:
    """For every task, in one sentence, which member of the family does best, and whether that can be told."""
    said = []
    for _, rows in frame[frame["recipe"].isin(family.recipes)].groupby("task", sort=False):
        known = rows[rows["score"].notna()]
        if len(known) > 1:
            said.append(_best(known))
    return said


def _best(rows: pd.DataFrame) -> str:
    up = bool(rows["higher_is_better"].iloc[0])
    ordered = rows.sort_values("score", ascending=not up, kind="stable")
    first, second, last = ordered.iloc[0], ordered.iloc[1], ordered.iloc[-1]
    best, worst = (f"{row['label']} ({_number(row)})" for row in (first, last))
    text = f"{first['title']}: best under {best}, worst under {worst}"
    apart = first["low"] > second["high"] if up else first["high"] < second["low"]
    if apart:
        return f"{text}."
    if first["low"] > last["high"] if up else first["high"] < last["low"]:
        return f"{text}; best and next best cannot be told apart at this n."
    return f"{text}; none of them can be told apart at this n."


def _number(row: pd.Series) -> str:
    return f"{100 * row['score']:.1f} %" if row["higher_is_better"] else f"{row['score']:.2f}"


def scores_of(frame: pd.DataFrame, family: Family) -> pd.DataFrame:
    """A family's scores: one row a recipe, one column a task, in words with the 95 % interval."""
    rows = frame[frame["recipe"].isin(family.recipes)]
    said = rows.assign(said=[_with_interval(row) for row in rows.to_dict("records")])
    titles: Sequence[str] = list(dict.fromkeys(said["title"]))
    wide = said.pivot_table(index="label", columns="title", values="said", aggfunc="first", sort=False)
    return wide[list(titles)].reset_index()


def _with_interval(row: dict[Any, Any]) -> str:
    scale, form = (100, ".0f") if row["higher_is_better"] else (1, ".2f")
    low, high = (f"{scale * row[name]:{form}}" for name in ("low", "high"))
    return f"{scale * row['score']:.1f} % [{low}, {high}]" if scale == 100 else f"{row['score']:.2f} [{low}, {high}]"
