"""The coverage grid: every task under every recipe, measured, partly measured or missing."""

from __future__ import annotations

import pandas as pd

from kick_core.views.plots import Row, each
from pages.parts.safe import Safe, many, tag


def coverage(frame: pd.DataFrame) -> Safe:
    """Tasks down, recipes across, grouped by method; a square is a cell."""
    recipes = frame.drop_duplicates("recipe")[["recipe", "label"]].copy()
    recipes["method"] = recipes["label"].str.partition(" ")[0]
    cells = {(row["recipe"], row["task"]): row for row in each(frame)}
    spans = recipes.groupby("method", sort=False).size()
    heads = many(tag("th", str(name), colspan=str(count), style="text-align:left") for name, count in spans.items())
    rungs = many(
        tag("th", label.partition(" ")[2].removesuffix(" %"), style="font-size:.68rem") for label in recipes["label"]
    )
    rows = many(
        tag("tr", tag("td", title), *(_square(cells[recipe, task]) for recipe in recipes["recipe"]))
        for task, title in dict(zip(frame["task"], frame["title"], strict=True)).items()
    )
    table = tag("table", tag("tr", tag("th", ""), heads), tag("tr", tag("th", ""), rungs), rows, cls="grid")
    return many([tag("div", table, cls="scroll"), _legend(frame)])


def said(frame: pd.DataFrame) -> str:
    """How much of the grid is filled, in words."""
    measured = int((frame["state"] != "missing").sum())
    return f"{measured} of {len(frame)} cells of {frame['recipe'].nunique()} recipes x {frame['task'].nunique()} tasks"


def _square(cell: Row) -> Safe:
    text = f"{cell['label']} · {cell['title']}: "
    if cell["state"] == "missing":
        text += "not measured"
    else:
        text += f"{cell['n']} of {cell['wanted']} asked elsewhere, {cell['total']} in all"
    return tag("td", tag("span", cls=f"cell {cell['state']}", title=text))


def _legend(frame: pd.DataFrame) -> Safe:
    counts = frame["state"].value_counts()
    names = {"done": "measured", "partial": "fewer examples than elsewhere", "missing": "not measured"}
    return tag(
        "div",
        *(
            tag("span", tag("i", cls=f"cell {state}"), f"{counts.get(state, 0)} {name}")
            for state, name in names.items()
        ),
        cls="legend",
        style="margin-top:.5rem",
    )
