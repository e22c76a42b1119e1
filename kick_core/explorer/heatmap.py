"""Every recipe on every task by the share of the dense score kept: the whole comparison in one picture."""

from __future__ import annotations

import math
from itertools import groupby
from urllib.parse import urlencode

import pandas as pd

from kick_core import views
from kick_core.explorer import data
from kick_core.explorer.frame import heading, note
from kick_core.explorer.safe import Safe, many, show, tag
from kick_core.views import NOT_MEASURED, percent
from kick_core.views.chart_style import Row, each

MARKS = {"matching": "✓", "not matching": "✗", "cannot tell": "?", views.AT_FLOOR: "–"}
"""A verdict without a colour: surely kept, surely not, cannot tell."""
DEEP = 71
"""Percent lost from which the text changes from black to white (on the dark theme from white to black): on both
ramps of style.css the contrast stays at 4.5:1 on either side."""


def section(frame: pd.DataFrame, method: str = "") -> None:
    """The heat map of a `current` frame; the slider's step of `method` is marked in the browser (see `steps`)."""
    heading(
        "Every recipe on every task",
        "Share of the dense score kept, in percent: the stronger the blue, the more is lost. ✓ surely keeps 95 %, "
        "✗ surely does not, ? cannot be told at this n, – dense is at chance: nothing to lose. "
        "Click a cell for its failures.",
    )
    body = _kept(str(frame["model"].iloc[0]), method)
    show(tag("div", body, cls="scroll", tabindex="0", role="region", **{"aria-label": "Heat map"}))
    note(views.multiplicity(frame))


def _words(model: str, method: str) -> data.Words:
    return (*data.shown_words(model), method)


@data.remembered(32, _words)
def _kept(model: str, protocol: str, kind: str, method: str) -> Safe:
    """The table, kept as it is: writing 252 cells takes a tenth of a second."""
    return table(views.current(data.scores(), model, protocol, kind), method)


def table(frame: pd.DataFrame, method: str) -> Safe:
    """Tasks down, recipes across, grouped by method."""
    recipes = frame.loc[frame["kind"] != "dense"].drop_duplicates("recipe")
    columns = sorted(each(recipes), key=_order)
    cells = {(row["recipe"], row["task"]): row for row in each(frame)}
    compared = set(frame.loc[frame["kind"] != "dense", "task"])  # what dense alone was asked has nothing to show here
    titles = {task: title for task, title in zip(frame["task"], frame["title"], strict=True) if task in compared}
    query = {"model": str(frame["model"].iloc[0]), "protocol": str(frame["protocol"].iloc[0])}
    groups = [(name, len(list(mine))) for name, mine in groupby(columns, key=lambda row: row["method"])]
    body = many(
        tag(
            "tr", tag("th", title, scope="row"),
            *(_cell(cells.get((row["recipe"], task)), row, task, method, query) for row in columns),
        )
        for task, title in titles.items()
    )  # fmt: skip
    return tag(
        "table",
        tag("thead",
            tag("tr", tag("th"), *(tag("th", name, colspan=str(count), scope="colgroup") for name, count in groups)),
            tag("tr", tag("th"), *(tag("th", _short(row), scope="col", **_reached(row, method)) for row in columns))),
        tag("tbody", body), cls="heat",
    )  # fmt: skip


def _order(row: Row) -> tuple[int, str, int, float]:
    names = [card.name for card in views.methods_known()]
    base = str(row["base"]).partition(" ")[0]
    place = names.index(base) if base in names else len(names)
    return place, str(row["method"]), ("ratio", "pattern", "bits", "joint").index(row["kind"]), float(row["severity"])


def _short(row: Row) -> str:
    return str(row["target_label"]).removesuffix(" %").replace(" bit", "b")


def _reached(row: Row, method: str) -> dict[str, str]:
    """The slider's step that a column is, for `steps` to mark."""
    mine = row["method"] == method and row["kind"] == "ratio"
    return {"data-reached": str(round(100 * float(row["sparsity"])))} if mine else {}


def _cell(row: Row | None, column: Row, task: str, method: str, query: dict[str, str]) -> Safe:
    words = {**query, "task": task, "b": str(column["recipe"])}
    reached = _reached(column, method)
    if row is None or row["verdict"] == NOT_MEASURED:
        link = tag("a", "·", href=f"evaluate?{urlencode(words)}", title=f"{column['label']}: not measured", **_INSIDE)
        return tag("td", link, cls="hole", **reached)
    kept = float(row["share_kept"])
    text = f"{row['label']}, {row['title']}: {_kept_words(row)}"
    link = tag(
        "a", "–" if math.isnan(kept) else f"{100 * min(kept, 9.99):.0f}", tag("i", MARKS.get(row["verdict"], "")),
        href=f"evaluate?{urlencode({**words, 'kind': 'broke'} if row['broke'] > 0 else words)}", title=text, **_INSIDE,
    )  # fmt: skip
    lost = 0 if math.isnan(kept) else round(100 * min(max(1 - kept, 0), 1))
    return tag("td", link, cls="deep" if lost >= DEEP else "", style=f"--lost:{lost}%", **reached)


_INSIDE = {"data-inside": "", "target": "_self"}
"""A link to another page of this app: opened without loading the app anew (see `address`)."""


def _kept_words(row: Row) -> str:
    if math.isnan(row["share_kept"]):
        return views.AT_CHANCE
    bounds = f"[{percent(row['share_low'])}, {percent(row['share_high'])}]"
    return f"keeps {percent(row['share_kept'])} {bounds}, n {row['paired']}, {row['verdict']}"
