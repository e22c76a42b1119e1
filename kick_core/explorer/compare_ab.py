"""A against B in numbers: how answers moved, whether that is chance, where, and how repetitive both are."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer import answers, data, glossary
from kick_core.explorer.browser import slicing
from kick_core.explorer.charts import draw
from kick_core.explorer.frame import heading
from kick_core.explorer.safe import Safe, show, tag
from kick_core.views import AT_FLOOR, percent
from kick_core.views.chart_style import Chart, plain, share_axis

KINDS = {"ratio": "sparsities", "pattern": "patterns", "bits": "widths"}
SLICES = 12
"""Subjects drawn at most; the most broken ones."""


def overview(examples: pd.DataFrame, a: pd.Series, b: pd.Series) -> None:
    """The three blocks over the examples that both have."""
    found = views.versus(examples)
    left, middle, right = st.columns([4, 4, 4], gap="medium")
    with left:
        show(_words(found, a, b, data.between(b, a, "A")))
        show(answers.matrix(found.table, "A", "B", graded=found.before > 0))
    with middle:
        column = slicing(examples)
        slices = views.by(examples, column)
        heading(
            f"Flips by {_group(examples, column)}", "Click a bar to see its examples only." if len(slices) > 1 else ""
        )
        if len(slices):
            draw(_diverging(slices.head(SLICES), column), key="slices", on_select=_take, selection_mode="points",
                 alt=f"Share of answers that flipped by {column}")  # fmt: skip
    with right:
        known = examples[examples[["repetition", "dense_repetition"]].notna().all(axis=1)]
        if known[["repetition", "dense_repetition"]].max().max() > 0:
            partly = f" Over {len(known):,} of {len(examples):,} examples: the pack does not hold the other answers."
            heading(
                "Repeated 4-grams",
                "Click a bar to see B's answers that repeat so much." + (partly if len(known) < len(examples) else ""),
            )
            draw(_repetition(known), key="repetition", on_select=_take_repetition, selection_mode="points",
                 alt="How repetitive the answers of A and B are")  # fmt: skip
        else:
            _survival(a if b["kind"] == "dense" else b)
        show(_rests(found))


def windows(examples: pd.DataFrame, a: pd.Series, b: pd.Series) -> None:
    """Perplexity: nothing is right or wrong, so window by window how much less likely the text has become."""
    gap = examples["score"] - examples["dense_score"]
    worse = int((gap > 0).sum())
    left, right = st.columns([4, 5], gap="large")
    with left:
        show(
            tag("h2", f"{a['score']:.2f} → {b['score']:.2f}"),
            tag("p", f"B against A: {data.between(b, a, 'A')}.", style="margin:.3rem 0 0"),
            tag("p", f"A {a['label']}, B {b['label']}. Less likely under B: {worse} of {len(gap)} windows.",
                cls="quiet"),
        )  # fmt: skip
    with right:
        heading("Window by window", "Nats per token that B loses against A, each window a bar.")
        ordered = gap.sort_values(ascending=False)
        bars = {
            "type": "bar", "x": list(range(1, len(gap) + 1)), "y": ordered.round(5).tolist(), "hoverinfo": "text",
            "marker": {"color": "#3366cc"}, "hovertext": [
                f"{plain(str(examples.at[at, 'id']))}: {value:+.3f} nats per token" for at, value in ordered.items()
            ],
        }  # fmt: skip
        layout = {
            "height": 240, "margin": {"l": 8, "r": 8, "t": 8, "b": 8}, "hovermode": "closest", "showlegend": False,
            "xaxis": {"title": {"text": "windows, most harmed first"}, "fixedrange": True, "showgrid": False},
            "yaxis": {"title": {"text": "nats per token"}, "fixedrange": True, "automargin": True},
        }  # fmt: skip
        draw({"data": [bars], "layout": layout}, key="windows", alt="Loss of every window, B against A")


def _take() -> None:
    """A click on a bar filters the table by its slice and shows its kind."""
    points = st.session_state["slices"]["selection"]["points"]
    if points:
        st.session_state["slice"], st.session_state["kind"] = points[0]["customdata"]


def _words(found: views.Versus, a: pd.Series, b: pd.Series, words: str) -> Safe:
    broke, fixed = found.table.broke, found.table.fixed
    title = f"{percent(found.before, 1)} → {percent(found.after, 1)}"
    if broke and fixed:  # flips that cancel out are what a difference of scores hides
        hidden = 2 * abs(broke - fixed) < broke + fixed
        title += f"{', but' if hidden else ';'} {percent(found.table.share, 1)} of the answers turned right or wrong"
    return tag(
        "div",
        tag("h2", title),
        tag("p", glossary.explained(f"B against A: {words}."), style="margin:.3rem 0 0"),
        tag("p", f"A {a['label']}, B {b['label']}, n {found.table.n:,}.", cls="quiet", style="margin:.2rem 0 .6rem"),
    )


def _rests(found: views.Versus) -> Safe:
    return tag(
        "p",
        glossary.explained(
            f"With {found.table.n:,} paired answers and {percent(found.table.share, 1)} flips, a true difference below "
            f"about {100 * found.detectable:.1f} points would usually be missed (80 % power)."
        ),
        cls="quiet",
    )


def _survival(row: pd.Series) -> None:
    """What is left, step by step, of the answers that are right under dense, whatever A and B are."""
    if row["verdict"] == AT_FLOOR:
        return  # the sentence above says that there is nothing to lose
    lasting = data.survival(row, "")
    if len(lasting) < 3:
        return
    heading(
        f"Still right along {row['method']}",
        f"Of the {lasting['n'].iloc[0]} answers that are right under dense, those that no step so far has broken.",
    )
    line = {
        "type": "scatter", "mode": "lines+markers", "x": [plain(name) for name in lasting["target_label"]],
        "y": lasting["share"].tolist(), "line": {"shape": "hv", "color": "#3366cc"}, "hoverinfo": "text",
        "hovertext": [
            f"{plain(name)}: {left} of {n}" for name, left, n in
            zip(lasting["target_label"], lasting["left"], lasting["n"], strict=True)
        ],
    }  # fmt: skip
    layout = {
        "height": 240, "hovermode": "closest", "margin": {"l": 8, "r": 8, "t": 8, "b": 8}, "showlegend": False,
        "xaxis": {"type": "category", "fixedrange": True, "automargin": True, "showgrid": False},
        "yaxis": share_axis(1, range=[0, 1.04]),
    }  # fmt: skip
    draw({"data": [line], "layout": layout}, key="survival", alt="Share of the right answers that no step has broken")


def _group(examples: pd.DataFrame, column: str) -> str:
    """What the groups of a task are: disciplines and subjects of questions, else what its data calls a bucket."""
    names = set(examples[column])
    if column == "discipline" and not names & {"STEM", "humanities", "social sciences", "other"}:
        return "length" if names <= {"small", "medium", "large", ""} else "kind"
    return column


def _diverging(slices: pd.DataFrame, column: str) -> Chart:
    most = 100 * float(slices[["broke_share", "fixed_share"]].max().max())
    step = 50 if most > 75 else 25 if most > 25 else 10 if most > 10 else 5
    reach = step * (most // step + 1)
    names = [f"{plain(str(name))[:28]} (n {n:,})" for name, n in zip(slices[column], slices["n"], strict=True)]
    bars = [
        {
            "type": "bar", "orientation": "h", "y": names, "x": (sign * 100 * slices[f"{kind}_share"]).tolist(),
            "name": kind, "marker": {"color": colour}, "hoverinfo": "text",
            "customdata": [[str(name), kind] for name in slices[column]], "unselected": {"marker": {"opacity": 0.75}},
            "hovertext": [f"{name}<br>{count} {kind}" for name, count in zip(names, slices[kind], strict=True)],
        }
        for kind, sign, colour in (("broke", -1, "#d6453d"), ("fixed", 1, "#3366cc"))
    ]  # fmt: skip
    layout = {
        "barmode": "relative", "height": 60 + 26 * max(4, len(names)), "bargap": 0.25, "hovermode": "closest",
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"tickvals": list(range(-100, 101, step)), "ticktext": [f"{abs(v)} %" for v in range(-100, 101, step)],
                  "range": [-reach, reach], "zeroline": True, "fixedrange": True, "automargin": True},
        "yaxis": {"autorange": "reversed", "automargin": True, "fixedrange": True, "showgrid": False},
    }  # fmt: skip
    return {"data": bars, "layout": layout}


def _take_repetition() -> None:
    """A click on a bar shows the answers that repeat themselves so much, whatever became of them."""
    points = st.session_state["repetition"]["selection"]["points"]
    if points:
        st.session_state["repeats"], st.session_state["kind"] = points[0]["customdata"]


def _repetition(examples: pd.DataFrame) -> Chart:
    """How many answers of A and of B repeat so much of themselves, over examples of which both answers are known; a
    bar knows the commonest flip of its answers."""
    bins = {name: views.repeated(examples[column]) for name, column in (("A", "dense_repetition"), ("B", "repetition"))}
    kinds = [_most(examples.loc[bins["B"] == name, "flip"]) for name in views.REPEATED]
    traces = [
        {"type": "bar", "x": list(views.REPEATED), "y": [int((mine == word).sum()) for word in views.REPEATED],
         "name": name, "marker": {"color": colour}, "hovertemplate": f"{name}: %{{y:,}} answers, %{{x}}<extra></extra>",
         "customdata": [[word, kind] for word, kind in zip(views.REPEATED, kinds, strict=True)],
         "unselected": {"marker": {"opacity": 0.75}}}
        for (name, mine), colour in zip(bins.items(), ("#7f8c8d", "#e07b00"), strict=True)
    ]  # fmt: skip
    layout = {
        "barmode": "group", "height": 240, "hovermode": "closest", "margin": {"l": 8, "r": 8, "t": 8, "b": 8},
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "xaxis": {"type": "category", "title": {"text": "of an answer's 4-grams"}, "fixedrange": True,
                  "automargin": True},
        "yaxis": {"title": {"text": "answers"}, "fixedrange": True, "automargin": True},
    }  # fmt: skip
    return {"data": traces, "layout": layout}


def _most(flips: pd.Series) -> str:
    return str(flips.mode().iloc[0]) if len(flips) else ""
