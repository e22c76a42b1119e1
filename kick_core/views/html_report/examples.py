"""Twelve answers that broke, picked by a stated rule, told in full."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from kick_core.store.starred import starred
from kick_core.views import example_text
from kick_core.views.chart_style import Row, each
from kick_core.views.examples import RULE, Answer, Detail, broke, example, pick
from kick_core.views.html_report.facts import Story, quiet
from kick_core.views.markup import Safe, tag
from kick_core.views.text_diff import heat

COUNT = 12
LONGEST = 500
"""Characters of an answer; what is longer is cut, and says so."""

HOW = (
    f"At most {COUNT}, picked by rule and not by hand: tasks take turns in reading order, and with every turn the next "
    f"recipe; a method stands with its recipe nearest to half of its weights dropped, or to 4 bits. Of a cell's broken "
    f"answers {RULE}; no question is told twice."
)


def broken(story: Story) -> list[Safe]:
    """The examples; nothing where no answer broke."""
    boxes = [_box(story, number, row, name) for number, (row, name) in enumerate(chosen(story), 1)]
    return [quiet(HOW), *boxes] if boxes else []


def picked(story: Story) -> list[Safe]:
    """The examples that somebody starred, with their comments; nothing where none is of this model and protocol."""
    rows = {str(row["run"]): row for row in each(story.frame)}
    boxes: list[Safe] = []
    for star in starred(story.store):
        row = rows.get(star.run)
        detail = example(story.store, star.run, star.example, row["scorer"]) if row is not None else None
        if row is None or detail is None or detail.of(star.run) is None or detail.of(star.other) is None:
            continue
        boxes.append(_box(story, len(boxes) + 1, row, star.example, star.other))
        if star.comment:
            boxes.append(quiet(f"Comment: {star.comment}"))
    return [quiet("Starred in the explorer by hand, so they are no sample of anything."), *boxes] if boxes else []


def chosen(story: Story) -> list[tuple[Row, str]]:
    """The rows and ids of the examples, by the rule that `HOW` states."""
    tables = {task: _broken(story, task) for task in story.titles}
    queues = {task: list(cells) for task, cells in tables.items() if cells}
    found: list[tuple[Row, str]] = []
    taken: set[str] = set()
    turn = 0
    while queues and len(found) < COUNT:
        for at, task in enumerate(list(queues)):
            cells = queues[task]
            row, ids = cells[(turn + at) % len(cells)]
            name = pick([one for one in ids if one not in taken])
            if name is not None and len(found) < COUNT:
                found.append((row, name))
                taken.add(name)
                ids.remove(name)
            queues[task] = [cell for cell in cells if set(cell[1]) - taken]
            if not queues[task]:
                del queues[task]
        turn += 1
    return found


def _broken(story: Story, task: str) -> list[tuple[Row, list[str]]]:
    """One row a method with the ids of its broken answers; methods where none broke are left out."""
    rows = story.rows(task=task)
    found = []
    for row in _one_a_method(rows[(rows["broke"] > 0) & (rows["dense_run"] != "")]):
        found.append((row, broke(story.store, row["run"], row["dense_run"], row["scorer"])))
    return found


def _one_a_method(rows: pd.DataFrame) -> Iterator[Row]:
    for (_, kind), mine in rows.groupby(["method", "kind"], sort=True):
        aim = 0.75 if kind == "bits" else 0.5
        yield min(each(mine), key=lambda row: (abs(row["severity"] - aim), row["recipe"]))


def _box(story: Story, number: int, row: Row, name: str, other: str = "") -> Safe:
    """One example under a row's recipe, beside dense or `other`, another run."""
    runs = (row["run"], other or row["dense_run"])
    detail = example(story.store, row["run"], name, row["scorer"], among=runs)
    before, after = detail.of(other or row["dense_run"]), detail.of(row["run"])
    assert before is not None and after is not None
    facts = [row["title"], row["label"], detail.subject, name]
    return tag(
        "section",
        tag("h3", f"{number}. ", " · ".join(str(fact) for fact in facts if fact)),
        tag(
            "dl",
            *_pair("asked", _cut(example_text.question(detail))),
            *_pair("gold", _cut(example_text.gold(detail))),
            *_pair(f"{_sign(before)} {before.label}", _cut(example_text.said(detail, before))),
            *_pair(f"{_sign(after)} {after.label}", _answer(detail, after)),
        ),
        cls="example",
    )


def _sign(answer: Answer) -> str:
    return {True: "✓", False: "✗", None: "?"}[answer.right]


def _pair(name: str, content: Safe | str) -> tuple[Safe, Safe]:
    return tag("dt", name), tag("dd", content)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} … ({len(text):,} characters)"


def _answer(detail: Detail, answer: Answer) -> Safe:
    """What was said, with the words that it repeats underlined, and why it counts as wrong."""
    words = [tag("u" if word.times else "span", word.text) for word in heat(_cut(example_text.said(detail, answer)))]
    why = answer.why if answer.why not in ("", "wrong", "right") else ""
    return tag("span", *words, tag("small", f" ({why})") if why else "")
