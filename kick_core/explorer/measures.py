"""Two folds under a chosen cell: how close it stays to dense beside its score, and what its answers say as a whole.

Both are worked out only while they are open. What was not measured says so, with the command that fills it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer import address, cards, data, gaps, glossary
from kick_core.explorer.browser import EVERY
from kick_core.explorer.frame import heading, note
from kick_core.explorer.safe import Child, Safe, many, show, tag
from kick_core.views import percent

Form = Callable[[Any], str]
"""A number as text."""

# --- beside the score ----------------------------------------------------------------------------------------


def more(row: pd.Series) -> None:
    """Every scorer, closeness to dense, the noise floor, and judges."""
    opened = address.fold("more")
    with st.expander("More measures", key="more", on_change="rerun"):
        if not opened:
            return
        if scorers := cards.scorers(data.scorers(row["run"]), row["scorer"]):
            show(scorers)
        _closer(row)
        if row["task"] in views.task_names(kind="dialogue") and row["kind"] != "dense":
            _judges(row)


def _closer(row: pd.Series) -> None:
    """Fidelity, dense's texts and the noise floor as rows of one table; what is missing in a line, with its command."""
    close, read, floor = data.fidelity(row)
    dense = row["kind"] == "dense"
    shared = None if dense else data.divergence(row)
    writes = bool(len(read) or (shared and shared.n))
    rows = [*_fidelity(close), *_texts(read), *([_shared_words(shared)] if shared and shared.n else []), *_noise(floor)]
    heading("Close to dense" if not dense else "Noise floor")
    if rows:
        show(table(("Measure", "this", "95 %", "over"), rows, said=3))
    if len(close) or len(read):
        note(f"{views.BOUNDS} Read: the variant is shown the very tokens that dense wrote.")
    missing = {
        "how close its probabilities are to dense's": "--fidelity" * (close.empty and not dense),
        "how likely dense's answers are to it": "--fidelity" * (read.empty and writes),
        "how many answers change when dense is asked twice": "--noise-floor" * floor.empty,
    }
    options = list(dict.fromkeys(option for option in missing.values() if option))
    if options:
        note(f"Not measured: {'; '.join(words for words, option in missing.items() if option)}.")
        limit = ["--limit", str(row["n"] + row["unjudged"])]
        gaps.command(gaps.sweep_command(row["model"], row["recipe"], row["task"], *limit, *options), model=row["model"])


def _fidelity(found: pd.DataFrame) -> list[Sequence[Child]]:
    names = ("KL to dense, nats per token, at least", "Same most likely token", "Overlap, at most")
    if found.empty:
        return []
    row = found.iloc[-1]
    over = f"{row['n']} windows, {row['tokens']:,} tokens"
    over += f", {row['unjudged']} windows not finite" if row["unjudged"] else ""
    return [
        _bounded(names[0], row, "kl", over + f"; median {row['kl_median']:.2g}, 99 % below {row['kl_99']:.3g}"),
        _bounded(names[1], row, "same", over, share=True),
        _bounded(names[2], row, "overlap", f"{over}; of dense's {row['top']} likeliest tokens", share=True),
    ]


def _texts(found: pd.DataFrame) -> list[Sequence[Child]]:
    names = ("Dense's answers, read: nats per token lost", "… tokens until another first choice", "… kept to the end")
    if found.empty:
        return []
    row = found.iloc[-1]
    faithful = f"{row['faithful']} answers that dense reads as written"
    return [
        _bounded(names[0], row, "lost", f"{row['n']} answers"),
        _bounded(names[1], row, "until", faithful),
        _bounded(names[2], row, "never", faithful, share=True),
    ]


def _shared_words(found: views.Interval) -> Sequence[Child]:
    bounds = f"{found.low:.3g} to {found.high:.3g}"
    over = f"{found.n:,} answers, from their beginning"
    return "Words shared with dense's answer", f"{found.value:.3g}", bounds, over


def _noise(found: pd.DataFrame) -> list[Sequence[Child]]:
    if found.empty:
        return []
    row = found.iloc[-1]
    moved = row["flips"] if row["flips"] == row["flips"] else math.nan
    bounds = "" if math.isnan(moved) else f"at most {percent(row['flips_high'], 1)}"
    changed = "" if math.isnan(row["changed"]) else f"; {percent(row['changed'], 1)} another answer"
    over = f"{row['words']}{changed}; {row['dtype']} on {row['device']}, other batches"
    return [("Noise floor: dense asked twice", percent(moved, 1) if bounds else "–", bounds, over)]


def _bounded(name: str, row: pd.Series, column: str, over: str, *, share: bool = False) -> Sequence[Child]:
    value, low, high = (_number(row[f"{column}{end}"], share) for end in ("", "_low", "_high"))
    return name, value, f"{low} to {high}", over


def _number(value: float, share: bool) -> str:
    return percent(value, 1) if share else "–" if math.isnan(value) else f"{value:.3g}"


def _judges(row: pd.Series) -> None:
    """What judges said of this run beside dense, and whether the judge passed its controls."""
    judgings, controls = data.judgings(row)
    heading("Judges", "" if judgings.empty else "1 to 10; pairwise the share of wins. A judge counts if controls hold.")
    if judgings.empty:
        note("No judge has been shown these answers. With OPENAI_BASE_URL and OPENAI_API_KEY set, this asks one:")
        asked = f"kick judge {row['run'][:20]} --task {row['task']} --judge MODEL"
        st.code(asked, language="bash", wrap_lines=True)
        return
    lines = [
        (f"{one['judge']} · {one['style']}{' · as published' if one['as_published'] else ''}",
         f"{one['score']:.2f}", f"{one['low']:.2f} to {one['high']:.2f}", _judged(one), one["controls_hold"])
        for one in judgings.to_dict("records")
    ]  # fmt: skip
    show(table(("Judge", "this", "95 %", "against dense", "controls hold"), lines, said=3))
    checks = [
        (one["about"], f"{one['hits']} of {one['n']}", f"{percent(one['low'])} to {percent(one['high'])}", one["holds"])
        for one in controls.to_dict("records")
    ]
    if checks:
        show(table(("Control", "share", "95 %", "holds"), checks))


def _judged(one: dict[Hashable, Any]) -> str:
    if one["style"] == "mt-bench":
        return (
            f"dense {one['dense_score']:.2f}; difference {one['difference']:+.2f} "
            f"[{one['diff_low']:+.2f}, {one['diff_high']:+.2f}]: {one['verdict']}; n {one['n']}"
        )
    return f"{one['win']} won, {one['tie']} tied, {one['loss']} lost: {one['verdict']}; n {one['n']}"


# --- the answers as a whole ----------------------------------------------------------------------------------


def whole(row: pd.Series) -> None:
    """The run's own tables beside dense's."""
    opened = address.fold("whole")
    with st.expander("What else the answers say", key="whole", on_change="rerun"):
        if not opened:
            return
        found = data.details(row)
        if row["protocol"] == "paper" and not row["headline"]:
            note("Reasons, groups and use of the context are by the strict scorer; the last table has both.")
        places = st.columns(3, gap="large")
        with places[0]:
            _ends(found)
        groups = [name for name in found if name.startswith("by_")]
        with places[1]:
            _reads(found)
            if "letters" not in found:
                _groups(found, groups[:1])
                groups = groups[1:]
        with places[2]:
            _groups(found, groups)
        _protocols(found, row)


def _ends(found: dict[str, pd.DataFrame]) -> None:
    """Reasons, and how the outputs ended."""
    if "failures" in found:
        heading("Right, wrong and why")
        show(_compared(found["failures"], "why", {"count": ("answers", _count)}))
    heading("Health of the outputs")
    if "health" in found:
        show(_turned(found["health"], _HEALTH))
    else:
        note("Not known: the pack leaves out the words of answers that are judged as dense's.")
    if "bytes" in found:
        show(_turned(found["bytes"], _BYTES))
    if "shots" in found:
        show(_compared(found["shots"], "shots", {"count": ("questions", _count)}, "Examples shown before"))


def _reads(found: dict[str, pd.DataFrame]) -> None:
    """Letters and calibration of a choice, use of the context of an open book."""
    if "letters" in found:
        heading("Letters", "How often each place is chosen, and found where it is right. Free: of all tokens.")
        columns = {"chosen": ("chosen", _share), "found": ("found", _share), "free": ("free", _share)}
        gold = found["letters"].assign(letter=[
            f"{letter} ({_share(share)} gold)"
            for letter, share in zip(found["letters"]["letter"], found["letters"]["gold"], strict=True)
        ])  # fmt: skip
        show(_compared(gold, "letter", columns))
        heading("Calibration", "The error is the mean gap between confidence and accuracy, in ten bins.")
        show(_turned(found["calibration"], _CALIBRATION))
    if "context" in found:
        asked = bool(found["context"]["closed_book_asked"].iloc[0])
        heading(
            "Use of the context",
            "" if asked else "These questions were not asked closed-book: what is right counts as retrieved.",
        )
        told = found["context"].assign(
            answer_in_context=[
                "in the text" if inside else "not in it" for inside in found["context"]["answer_in_context"]
            ]
        )
        columns = {name: (name, _count) for name in ("retrieved", "remembered", "lost")}
        show(_compared(told[told["n"] > 0], "answer_in_context", columns, "Answer stands"))


def _groups(found: dict[str, pd.DataFrame], names: Iterable[str]) -> None:
    """Scores by group: over questions (micro) and over groups (macro)."""
    for name in names:
        words = name.removeprefix("by_").replace("_lm_eval", ", as lm-eval groups").replace("_", " ")
        about = "Tier 1 holds the best known subjects. " if words == "tier" else ""
        heading(f"By {words}", f"{about}Micro is the mean over all questions, macro over the groups.")
        told = _compared(found[name], "group", {"n": ("n", _count), "mean": ("mean", _share)})
        show(tag("div", told, cls="tall", tabindex="0", role="region", **{"aria-label": f"By {words}"}))


def _protocols(found: dict[str, pd.DataFrame], row: pd.Series) -> None:
    """Strict against as published on the very same outputs; the examples on which they disagree open below."""
    if "protocols" not in found:
        return
    heading("Strict and as published", "The same outputs by both scorers. The named examples open below.")
    flips = data.examples(row, row["dense_run"]).set_index("id")["flip"] if row["dense_run"] else pd.Series(dtype=str)
    lines = []
    for one in found["protocols"].to_dict("records"):
        ids = one["examples"]
        names = many(tag("span", _link(row, name, str(flips.get(name, ""))), " ") for name in ids[:MOST])
        rest = tag("span", f" and {len(ids) - MOST} more", cls="quiet") if len(ids) > MOST else Safe("")
        dense = [_count(one["dense_count"])] if "dense_count" in one else []
        lines.append((f"strict {one['strict']}, as published {one['as_published']}", *dense, _count(one["count"]),
                      many([names, rest])))  # fmt: skip
    heads = ("Judged", "dense", "this", "examples") if "dense_count" in found["protocols"] else ("Judged", "this", "")
    show(table(heads, lines, said=len(heads) - 1))


MOST = 24
"""Examples named where two scorers disagree."""


def _link(row: pd.Series, name: str, flip: str) -> Safe:
    """An example's address on this page; one that dense was not asked, or that did not move, is only named."""
    if not flip or row["kind"] == "dense":
        return tag("span", name)
    here = address.query(kind=flip, why=EVERY, slice=EVERY, q="", ex=name)
    return tag("a", name, href=f"?{here}", target="_self")


# --- tables --------------------------------------------------------------------------------------------------


def table(heads: Sequence[str], rows: Iterable[Sequence[Child]], *, said: int = -1) -> Safe:
    """A small table; `said` is the column of words, which may wrap."""
    body = many(
        tag(
            "tr",
            *(
                tag(
                    "td",
                    glossary.explained(cell) if at == 0 and isinstance(cell, str) else cell,
                    cls="said" if at == said else "",
                )
                for at, cell in enumerate(row)
            ),
        )
        for row in rows
    )
    top = tag("tr", *(tag("th", head, cls="said" if at == said else "") for at, head in enumerate(heads)))
    return tag("div", tag("table", tag("thead", top), tag("tbody", body)), cls="scroll")


def _compared(frame: pd.DataFrame, by: str, columns: Mapping[str, tuple[str, Form]], head: str = "") -> Safe:
    """One row a group, dense → this in every column where dense is known."""
    lines = [
        (str(row[by]), *(_both(row, name, form) for name, (_, form) in columns.items() if _any(frame, name)))
        for row in frame.to_dict("records")
    ]
    heads = [title for name, (title, _) in columns.items() if _any(frame, name)]
    known = any(str(name).startswith("dense_") for name in frame)
    return table((head or ("dense → this" if known else ""), *heads), lines)


def _turned(frame: pd.DataFrame, facts: Mapping[str, tuple[str, Form]]) -> Safe:
    """A table of one row, a fact a line; facts that are nothing in both are left out."""
    row = frame.iloc[0].to_dict()
    lines = [
        (title, _both(row, name, form))
        for name, (title, form) in facts.items()
        if name in row and (_known(row[name]) or _known(row.get(f"dense_{name}")))
    ]
    return table(("dense → this" if any(str(name).startswith("dense_") for name in row) else "", ""), lines)


def _both(row: dict[Hashable, Any], name: str, form: Form) -> Safe:
    """A number beside dense's."""
    before, after = (form(row[key]) if key in row else "" for key in (f"dense_{name}", name))
    if not before or (name == "n" and before == after):
        return tag("b", after)
    return many([tag("span", f"{before} → ", cls="quiet"), tag("b", after)])


def _any(frame: pd.DataFrame, name: str) -> bool:
    return any(frame[column].notna().any() for column in (name, f"dense_{name}") if column in frame)


def _known(value: Any) -> bool:
    return value is not None and value == value


def _count(value: Any) -> str:
    return f"{value:,.0f}" if _known(value) else "–"


def _share(value: Any) -> str:
    return percent(value) if _known(value) else "–"


def _decimal(value: Any) -> str:
    return f"{value:.3g}" if _known(value) else "–"


_HEALTH: dict[str, tuple[str, Form]] = {
    "n": ("asked", _count),
    "rejected": ("longer than the context", _count),
    "not_finite": ("logits not finite", _count),
    "empty": ("empty", _count),
    "hit_limit": ("cut at the limit", _count),
    "tokens_a_text": ("tokens an answer", _decimal),
}
_BYTES: dict[str, tuple[str, Form]] = {
    "bytes": ("bytes", _count),
    "byte_perplexity": ("perplexity per byte", _decimal),
    "bits_per_byte": ("bits per byte", _decimal),
}
_CALIBRATION: dict[str, tuple[str, Form]] = {
    "n": ("questions", _count),
    "expected_calibration_error": ("expected calibration error", _decimal),
    "mean_confidence": ("mean confidence", _share),
}
