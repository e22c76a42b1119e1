"""Beyond compressing by the book: what recovery brought back, what searches chose; nothing where nothing was done."""

from __future__ import annotations

from kick_core.views import recovery, search_tables
from kick_core.views.chart_style import Row, each
from kick_core.views.findings import percent
from kick_core.views.html_report.facts import Story, bullets, quiet, said, score, table
from kick_core.views.markup import Child, Safe, tag


def recovered(story: Story) -> list[Safe]:
    """An answer for every recovered recipe, and the shares that it stands on."""
    found = recovery.recovered(story.store, story.frame)
    if found.empty:
        return []
    lines = [(one.label, one.text, *map(_came, one.words.values(), one.shares.values()), one.verdict)
             for one in recovery.answers(found)]  # fmt: skip
    heads = ("Recipe", "on", *recovery.KINDS, "in words")
    tasks = ("Recipe and task", "n", "dense", "compressed", "recovered", "share that came back", "")
    return [
        table(heads, lines, "Does recovery bring knowledge back, or perplexity alone?", "words"),
        table(tasks, map(_came_back, each(found)), "What came back, task by task"),
        quiet(recovery.RULE),
    ]


def _came(word: str, share: str) -> str:
    return f"{share} {word}".strip()


def _came_back(row: Row) -> list[Child]:
    scores = [score(row, name) for name in ("dense", "compressed", "recovered")]
    known = row["share"] == row["share"]
    share = f"{percent(row['share'])} [{percent(row['low'])}, {percent(row['high'])}]" if known else "–"
    return [f"{row['label']}, {row['title']}", str(row["n"]), *scores, share, row["word"]]


def searches(story: Story) -> list[Safe]:
    """Recipes of one size that share it out differently: every task under each, and what the searches saw."""
    parts: list[Safe] = []
    for family in search_tables.families(story.frame):
        scores = search_tables.scores_of(story.frame, family)
        seen = search_tables.looked(story.store, story.frame, family)
        caption = f"{family.title}, shared out over the model in several ways"
        parts += [
            table([str(name) for name in ("Recipe", *scores.columns[1:])], map(_texts, each(scores)), caption),
            bullets(search_tables.differences(story.frame, family)),
            *(said(tag("b", row["label"]), f": {_saw(row)}") for row in each(seen)),
        ]
    if parts:
        rule = "A search for a task looks at examples that are then never asked of that recipe."
        parts.append(quiet(f"{rule} Brackets are 95 % intervals."))
    return parts


def _texts(row: Row) -> list[Child]:
    return ["–" if value != value else str(value) for value in row.values()]


def _saw(row: Row) -> str:
    looks = [f"{int(row[name])} {word}" for name, word in _LOOKS.items() if row[name] == row[name] and row[name]]
    return (
        f"searched by {', '.join([str(row['objective']), *looks])}: "
        f"{row['even']:.3f} shared out evenly, {row['found']:.3f} as found"
    )


_LOOKS = {"examples": "examples or windows", "candidates": "candidates looked at"}
