"""The forgetting view: twenty questions along a method, answers turning from right to wrong; and by popularity."""

from __future__ import annotations

import pandas as pd

from kick_core import views
from kick_core.explorer import address, charts, data, later
from kick_core.explorer.frame import heading
from kick_core.explorer.safe import Safe, many, show, tag
from kick_core.views.charts import popularity
from kick_core.views.example_text import excerpt
from kick_core.views.forgetting import Forgetting, Row, Step

SIGN = {True: "✓", False: "✗", None: "?"}
TONE = {True: "right", False: "wrong", None: ""}


def section(row: pd.Series) -> None:
    """The questions of a `scores` row's task along its method.

    Which step the slider shows, and what comes after it, is marked in the browser (see `steps`): the table is the same
    at all of them, so a move of the slider does not send it again.

    Args:
        row: any recipe of the method.
    """
    if row["verdict"] == views.AT_FLOOR:
        show(tag("p", f"{row['title']}: {views.AT_CHANCE}, so nothing can be forgotten.", cls="quiet"))
        return
    found = data.forgetting(row)
    if not found.rows:
        return
    kind = "at every sparsity" if row["kind"] == "ratio" else "at every width" if row["kind"] == "bits" else ""
    heading(
        f"Forgetting, question by question: {row['title']}",
        f"{len(found.rows)} of the {found.total:,} questions that dense answers correctly, picked by a fixed rule, "
        f"and what {row['method']} leaves of the answers {kind}. First forgotten, first listed.",
    )
    show(tag("div", table(found), cls="scroll", tabindex="0", role="region", **{"aria-label": "Forgetting"}))
    popular = data.by_popularity(row)
    if len(popular) and row["kind"] == "ratio":
        heading(
            "By how well known the subject is",
            "Of the facts that dense answers correctly, the share that still is.",
        )
        steps = {step.target_label: step.severity for step in found.steps}
        drawn = popularity(popular, steps, str(row["method"]))
        later.part("later-popularity", drawn["layout"]["height"], lambda: charts.draw(
            drawn, key="popularity", follows=True,
            alt="Share of facts kept against sparsity, one line per tier of popularity",
        ))  # fmt: skip


def table(found: Forgetting) -> Safe:
    """Questions down, steps across, an answer in every cell."""
    heads = (tag("th", step.target_label, scope="col", **_reached(step)) for step in found.steps)
    names = {
        row.id: tag(
            "th", excerpt(row.question, 90), tag("span", f"gold {excerpt(row.gold, 40)}", cls="quiet"), scope="row"
        )
        for row in found.rows
    }
    body = many(
        tag(
            "tr", names[row.id],
            *(_cell(row, at, step) for at, step in enumerate(found.steps)),
        )
        for row in found.rows
    )  # fmt: skip
    return tag("table", tag("thead", tag("tr", tag("th", "Question"), *heads)), tag("tbody", body), cls="forgetting")


def _cell(row: Row, at: int, step: Step) -> Safe:
    right, answer = row.right[at], row.answers[at]
    words, title = excerpt(answer, 72, row.gold if right else "") or "(empty)", answer[:300]
    if answer == views.NOT_IN_PACK:  # a pack leaves out the words of answers that are judged as dense's
        words, title = (TONE[right], "Judged like dense's answer; the pack does not hold its words.")
    text = tag("a", f"{SIGN[right]} {words}", title=title,
               href=f"evaluate?{address.query(b=step.recipe, s='', method='', ex=row.id, kind='', why='', slice='')}",
               target="_self", **{"data-inside": ""}) if at else tag(
        "span", f"{SIGN[right]} {words}", title=title)  # fmt: skip
    return tag("td", text, cls=TONE[right], **_reached(step))


def _reached(step: Step) -> dict[str, str]:
    return {"data-reached": str(round(100 * step.severity))}


def of(frame: pd.DataFrame, recipe: str) -> None:
    """The forgetting view of the first knowledge task that a recipe was evaluated on and dense knows anything of."""
    cells = [data.cell(frame, recipe, task) for task in views.task_names(measures="knowledge")]
    rows = sorted((row for row in cells if row is not None), key=lambda row: bool(row["verdict"] == views.AT_FLOOR))
    if rows:
        section(rows[0])
