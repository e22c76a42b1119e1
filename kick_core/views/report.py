"""The finding as one HTML file that works offline: for people who will never start the tool.

plotly.js is inside the file, the slider moves without a server, nothing is fetched from anywhere. Every text is
escaped, data for the script is JSON with `<` written as an escape, and a policy in the file itself forbids
requests. Whoever opens it sees the same numbers as on the Findings page, from the same functions.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from kick_core.store import Store
from kick_core.views import plots
from kick_core.views.examples import RULE, example, examples, pick
from kick_core.views.findings import IN_CONTEXT, KNOWLEDGE, claims, headline, percent
from kick_core.views.made import calibration_of
from kick_core.views.runs import task_titles
from kick_core.views.scores import NOT_MEASURED, current, scores


def report(store: Store, model: str, protocol: str | None = None, data: str | None = None) -> str:
    """The report on one model under one protocol (the one it was asked under most) on one kind of data, as HTML.

    About 5 MB, nearly all of it plotly.js.
    """
    measured = scores(store, model)
    asked_most = str(measured["protocol"].mode().iloc[0]) if len(measured) else None
    frame = current(measured, model, protocol or asked_most, data)
    plain = frame[(frame["kind"] == "ratio") & (frame["recovered"] == "")]
    methods = [str(name) for name in plain["method"].value_counts().index]
    states = {name: _states(frame, name) for name in methods}
    body = [
        '<h1 id="headline"></h1>',
        _provenance(frame, calibration_of(store, frame["weights"])),
        _controls(methods),
        '<div id="cards"></div><div id="overlay"></div>',
        "<h2>The paper's claims, put to this data</h2>",
        *(_claim(found.text, found.verdict, (*found.because, found.rule)) for found in claims(frame)),
        "<h2>Every task, all methods</h2><p class=quiet>Raw scores from 0; perplexity on a logarithmic axis, where up"
        ' is worse. Bars are 95 % intervals.</p><div id="panels"></div>',
        "<h2>All recipes</h2><p class=quiet>Share of the dense score kept, with its 95 % interval.</p>",
        _table(frame),
        "<h2>What it looks like</h2>",
        *_broken(store, frame, methods),
    ]
    shown = {
        "states": states,
        "overlay": {name: plots.overlay(frame, name) for name in methods},
        "panels": plots.panels(frame) if methods else None,
        "colour": plots.MARKER,
        "only": headline(frame, str(frame["recipe"].iloc[-1])) if len(frame) else "Nothing has been measured.",
    }
    return _page("".join(body), shown)


def _states(frame: pd.DataFrame, method: str) -> list[dict[str, Any]]:
    """What the page says at each sparsity of a method: the sentence and the cards."""
    mine = frame[(frame["kind"] == "dense") | ((frame["method"] == method) & (frame["kind"] == "ratio"))]
    found = []
    for ratio, rows in mine.groupby("sparsity", sort=True):
        recipe = str(rows["recipe"].iloc[0])
        cards = [
            [str(row["title"]), _score(row), _kept(row), str(row["verdict"]), int(row["n"])] for row in plots.each(rows)
        ]
        found.append({"s": round(100 * float(str(ratio)), 4), "words": headline(frame, recipe), "cards": cards})
    return found


def _kept(row: plots.Row) -> str:
    if row["kind"] == "dense" or row["verdict"] == NOT_MEASURED:
        return str(row["verdict"])
    return f"keeps {percent(row['share_kept'])} [{percent(row['share_low'])}, {percent(row['share_high'])}]"


def _score(row: plots.Row) -> str:
    return percent(row["score"], 1) if row["higher_is_better"] else f"{row['score']:.2f}"


def _escaped(text: object) -> str:
    return html.escape(str(text))


def _provenance(frame: pd.DataFrame, calibrations: list[str]) -> str:
    facts = {
        "model": frame["model"],
        "data": frame["data"],
        "protocol": frame["protocol"],
        "number format": frame["dtype"],
        "device": frame["device"],
        "n a task": frame["n"],
        "measured": frame["created"].str[:10],
    }
    said = [f"{name} {', '.join(sorted({str(value) for value in values}))}" for name, values in facts.items()]
    said += [f"calibration {' and '.join(calibrations)}"] if calibrations else []
    said.append(f"written {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by LLM-KICK Explorer")
    return f'<p class="quiet">{_escaped(" · ".join(said))}</p>'


def _controls(methods: list[str]) -> str:
    if not methods:
        return ""
    options = "".join(f"<option>{_escaped(name)}</option>" for name in methods)
    return (
        f'<p><label>Method <select id="method">{options}</select></label> '
        f'<label>Sparsity <input id="s" type="range" min="0" step="1"> <b id="shown"></b></label></p>'
    )


def _claim(text: str, verdict: str, because: Iterable[str]) -> str:
    lines = "".join(f'<p class="quiet">{_escaped(line)}</p>' for line in because)
    return f'<section><b class="{verdict.replace(" ", "-")}">{verdict}</b><h3>{_escaped(text)}</h3>{lines}</section>'


def _table(frame: pd.DataFrame) -> str:
    titles = task_titles(frame["task"].unique())
    cells = {(row["recipe"], row["task"]): row for row in plots.each(frame)}
    lines = []
    for recipe, label in dict(zip(frame["recipe"], frame["label"], strict=True)).items():
        shown = "".join(_cell(cells.get((recipe, task))) for task in titles)
        lines.append(f"<tr><th>{_escaped(label)}</th>{shown}</tr>")
    heads = "".join(f"<th>{_escaped(title)}</th>" for title in titles.values())
    return f'<div class="wide"><table><tr><th>Recipe</th>{heads}</tr>{"".join(lines)}</table></div>'


def _cell(row: plots.Row | None) -> str:
    if row is None or row["verdict"] == NOT_MEASURED:
        return '<td class="quiet">not measured</td>'
    if row["kind"] == "dense":
        return f"<td>{_score(row)}</td>"
    bounds = f"{percent(row['share_low'])} to {percent(row['share_high'])}"
    name = str(row["verdict"]).replace(" ", "-")
    return f'<td class="{name}">{percent(row["share_kept"])}<br><small>{bounds}</small></td>'


def _broken(store: Store, frame: pd.DataFrame, methods: list[str]) -> Iterable[str]:
    """For every method one example that broke at the sparsity nearest to a half, by the stated rule."""
    yield f'<p class="quiet">One broken answer a method, at its sparsity nearest to 50 %: {_escaped(RULE)}.</p>'
    for method in methods:
        mine = frame[(frame["method"] == method) & (frame["kind"] == "ratio") & (frame["broke"] > 0)]
        mine = mine[mine["task"].isin((*KNOWLEDGE, *IN_CONTEXT))]
        if mine.empty:
            continue
        row = min(plots.each(mine), key=lambda row: abs(row["sparsity"] - 0.5))
        table = examples(store, str(row["run"]), str(row["dense_run"]), str(row["scorer"]))
        name = pick(table.loc[table["flip"] == "broke", "id"].tolist())
        detail = example(store, str(row["run"]), str(name), str(row["scorer"]))
        before, after = detail.of(str(row["dense_run"])), detail.of(str(row["run"]))
        if before and after:
            asked = str(detail.example.meta.get("question") or "\n\n".join(detail.example.prompt))[-800:]
            pairs = [("asked", asked), ("gold", " · ".join(detail.example.answers)), ("dense", before.text)]
            pairs.append((after.label, after.text))
            yield (
                "<section>"
                + "".join(f"<h3>{_escaped(k)}</h3><pre>{_escaped(v)}</pre>" for k, v in pairs)
                + "</section>"
            )


def _page(body: str, data: dict[str, Any]) -> str:
    from plotly.offline import get_plotlyjs

    folder = Path(__file__).parent
    safe = json.dumps(data, allow_nan=False).replace("<", "\\u003c").replace("\u2028", "").replace("\u2029", "")
    policy = (
        "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>LLM-KICK report</title>'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><style>{(folder / "report.css").read_text()}</style>'
        f'</head><body>{body}<script>{get_plotlyjs()}</script><script type="application/json" id="data">{safe}</script>'
        f"<script>{(folder / 'report.js').read_text()}</script></body></html>"
    )
