"""The whole story of a model as one HTML file that works offline and prints: for people who never start the tool.

Pictures are static SVG, so the file is small, prints, and needs no script; where a browser runs one, a slider shows
one sparsity at a time. Nothing is fetched from anywhere, every text is escaped, and a policy in the file allows its
own style and script, by their hashes, and nothing else. Whoever opens it sees the numbers of the pages, from the same
functions. The same cache gives the same bytes: its date is that of its newest answer.

A section is a function of the `Story` that returns pieces of HTML, or nothing where there is nothing to tell. To add
one, put it into `SECTIONS`.
"""

from __future__ import annotations

import pandas as pd

from kick_core.store import Store
from kick_core.views.html_report import beyond, examples, findings, method
from kick_core.views.html_report.facts import Section, Story, gather
from kick_core.views.html_report.page import whole
from kick_core.views.markup import Safe, tag

SECTIONS: tuple[tuple[str, Section], ...] = (
    ("What is kept", findings.poster),
    ("By how well known the subject is", findings.popularity),
    ("The model and its questions", method.subject),
    ("The paper's claims, put to these data", findings.verdicts),
    ("What every recipe keeps", findings.shares),
    ("Task by task", findings.by_task),
    ("At the same size", findings.sizes),
    ("What recovery brought back", beyond.recovered),
    ("What searches chose", beyond.searches),
    ("Close to dense", findings.close),
    ("Beside other models", findings.others),
    ("Picked by hand", examples.picked),
    ("Twelve answers that broke", examples.broken),
    ("Methods", method.procedures),
    ("Limits", method.limits),
    ("Provenance", method.provenance),
    ("How to reproduce it", method.reproduce),
    ("Appendix: every number", method.numbers),
)
"""The report from top to bottom; numbered as they come."""


def report(
    store: Store,
    model: str,
    protocol: str | None = None,
    data: str | None = None,
    *,
    measured: pd.DataFrame | None = None,
    opens: tuple[str, int] | None = None,
) -> str:
    """The report on one model.

    Args:
        store: the cache.
        model: the model's name.
        protocol: the one it was asked under most unless it is given.
        data: the kind of data; as `views.current`.
        measured: `views.scores` of the cache where the caller has them; they are most of the work.
        opens: the method and the sparsity in percent that its slider opens at; else where the pages open.

    Returns:
        One HTML document.
    """
    story = gather(store, model, protocol, data, measured, opens)
    parts = [(title, body) for title, section in SECTIONS if (body := list(section(story)))]
    listed = [tag("li", tag("a", title, href=f"#s{at}")) for at, (title, _) in enumerate(parts, 1)]
    contents = tag("nav", tag("ol", *listed), **{"aria-label": "Contents"})
    sections = [tag("h2", f"{at} ", title, id=f"s{at}") + "".join(body) for at, (title, body) in enumerate(parts, 1)]
    top = [tag("h1", f"What compression takes from {model}"), _line(story), *findings.abstract(story), contents]
    return whole(f"What compression takes from {model}", Safe("".join([*top, *sections])), findings.states(story))


def _line(story: Story) -> Safe:
    newest = max((card.created for card in story.asked.values()), default="")[:10]
    words = ["LLM-KICK Explorer", f"protocol {story.protocol}", f"data {story.data}", *([newest] if newest else [])]
    return tag("p", " · ".join(words), cls="quiet")
