"""What a report tells of, gathered once, and the small pieces of HTML that its sections are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from kick_core import tasks
from kick_core.records import Card, RunCard
from kick_core.store import Store
from kick_core.units import score_text
from kick_core.views import artifact_tables, load
from kick_core.views.chart_style import Chart, Row, each
from kick_core.views.claims import Claim, claims
from kick_core.views.findings import percent
from kick_core.views.html_report import svg
from kick_core.views.markup import Child, Safe, many, tag
from kick_core.views.paired import AT_CHANCE, AT_FLOOR, SILENT
from kick_core.views.scores import current, scores

MARKS = {"matching": "✓", "not matching": "✗", "cannot tell": "?", AT_FLOOR: "–"}
"""Beside the colours, for those who print in black or do not see them."""


SHORT = 24
"""Rows of a table that is not broken over two sheets."""


@dataclass(frozen=True, slots=True)
class Story:
    """One model under one protocol on one kind of data. `frame` is what the pages show of it, `cards` its artifacts
    and `asked` its runs, both by key and only those behind the frame. `measured` are the scores of all models.
    `opens`: the method and the sparsity in percent that the slider opens at."""

    store: Store
    model: str
    protocol: str
    data: str
    frame: pd.DataFrame
    measured: pd.DataFrame
    claims: tuple[Claim, ...]
    cards: dict[str, Card]
    asked: dict[str, RunCard]
    opens: tuple[str, int] | None = None

    @property
    def titles(self) -> dict[str, str]:
        """Task name -> title, in reading order."""
        return load.task_titles(self.frame["task"].unique())

    @property
    def labels(self) -> dict[str, str]:
        """Recipe -> label, in reading order."""
        return dict(zip(self.frame["recipe"], self.frame["label"], strict=True))

    @property
    def pruners(self) -> list[str]:
        """Methods measured at plain sparsities, those with most first, equal ones by name."""
        plain = self.frame[(self.frame["kind"] == "ratio") & (self.frame["recovered"] == "")]
        counts = plain["method"].value_counts()
        return sorted(map(str, counts.index), key=lambda name: (-counts[name], name))

    @property
    def task(self) -> str:
        """The task that single pictures are about: the first knowledge task that was asked, else the first task."""
        knowledge = [name for name in tasks.names(measures="knowledge") if name in self.titles]
        return next(iter([*knowledge, *self.titles]), "")

    def rows(self, **wanted: str) -> pd.DataFrame:
        """The rows of the frame with these values."""
        found = self.frame
        for name, value in wanted.items():
            found = found[found[name] == value]
        return found


Section = Callable[[Story], Sequence[Safe]]
"""A part of the report. Nothing is returned where there is nothing to tell; then it has no heading either."""


def gather(
    store: Store,
    model: str,
    protocol: str | None = None,
    data: str | None = None,
    measured: pd.DataFrame | None = None,
    opens: tuple[str, int] | None = None,
) -> Story:
    """Everything that is known of a model; the arguments are those of `report`."""
    measured = scores(store) if measured is None else measured
    most = measured.loc[measured["model"] == model, "protocol"].value_counts()
    chosen = protocol or (str(most.index[0]) if len(most) else "strict")
    frame = current(measured, model, chosen, data)
    kind = data or (load.kind_of_data(str(frame["data"].iloc[0])) if len(frame) else load.POCKET)
    weights = set(frame["weights"])
    cards = {card.key: card for card in artifact_tables.known_cards(store) if card.key in weights}
    asked = {key: load.one(store, key).card for key in dict.fromkeys(frame["run"])}
    return Story(store, model, chosen, kind, frame, measured, tuple(claims(frame)), cards, asked, opens)


# --- pieces --------------------------------------------------------------------------------------------------


def said(*words: Child) -> Safe:
    return tag("p", *words)


def quiet(*words: Child) -> Safe:
    return tag("p", *words, cls="quiet")


def table(
    heads: Sequence[Child], rows: Iterable[Sequence[Child | tuple[Child, str]]], caption: str, cls: str = ""
) -> Safe:
    """A table with a caption; the first cell of a row names it. A cell with a class comes as (content, class)."""
    lines = [[_cell(cell) for cell in row] for row in rows]
    body = many(
        tag("tr", tag("th", line[0][0], scope="row"), *(tag("td", text, cls=kind) for text, kind in line[1:]))
        for line in lines
    )
    top = tag("tr", *(tag("th", head, scope="col") for head in heads))
    inner = tag("table", tag("caption", caption), tag("thead", top), tag("tbody", body), cls=cls)
    kind = "wide" if len(lines) > SHORT else "wide short"
    return tag("div", inner, cls=kind, tabindex="0", role="region", **{"aria-label": caption})


def _cell(cell: Child | tuple[Child, str]) -> tuple[Child, str]:
    return cell if isinstance(cell, tuple) else (cell, "")


def figure(
    chart: Chart, caption: str, alt: str, *, cls: str = "", method: str = "", width: float = 760,
    height: float | None = None,
) -> Safe:  # fmt: skip
    """A chart as a picture with its caption; nothing for a chart without data. `method`: which one it is about."""
    drawn = svg.draw(chart, alt, width=width, height=height)
    about = {"data-method": method} if method else {}
    return tag("figure", Safe(drawn), tag("figcaption", caption), cls=cls, **about) if drawn else Safe("")


def bullets(lines: Iterable[Child]) -> Safe:
    return tag("ul", *(tag("li", line) for line in lines))


def score(row: Row, name: str = "score") -> str:
    """A score as people read it: shares in percent, perplexity as it is."""
    return score_text(float(row[name]), bool(row["higher_is_better"]))


def between(row: Row, low: str, high: str, form: Callable[[float], str] = percent) -> str:
    return f"{form(row[low])} to {form(row[high])}"


def kept(row: Row) -> str:
    """The share of dense that is kept with its interval, or what there is instead."""
    if row["verdict"] == AT_FLOOR:
        return AT_CHANCE
    if row["kind"] == "dense" or row["verdict"] in SILENT:
        return str(row["verdict"])
    return f"{percent(row['share_kept'])} [{between(row, 'share_low', 'share_high')}]"


def token(verdict: Any) -> str:
    """A verdict as the name of a class."""
    return str(verdict).replace(" ", "-")


def short(key: str) -> str:
    """The beginning of a key, which is enough for `kick show`."""
    kind, _, digest = key.partition("-")
    return f"{kind}-{digest[:8]}"


def cells(frame: pd.DataFrame) -> dict[tuple[str, str], Row]:
    return {(row["recipe"], row["task"]): row for row in each(frame)}
