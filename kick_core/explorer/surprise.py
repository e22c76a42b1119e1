"""Why perplexity does not notice: a window of running text, each token by how much its surprise grew against dense."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from math import exp

import pandas as pd

from kick_core import views
from kick_core.explorer import coverage_grid, data, gaps, job_cards
from kick_core.explorer.frame import heading, note, store
from kick_core.explorer.safe import Safe, many, show, tag
from kick_core.views import Token, percent

LEVELS = (0.5, 1.0, 2.0, 4.0)
"""Growth in nats at which a token gets the next deeper colour."""


def section(row: pd.Series, example: str) -> None:
    """One window of a perplexity row, its tokens coloured, and how much each kind of token carries."""
    if row["kind"] == "dense" or not row["dense_run"] or row["task"] not in views.task_names(kind="perplexity"):
        return
    heading(
        "Why perplexity does not notice",
        "Perplexity is a mean over all tokens. Redder: more surprising than to dense, by "
        + ", ".join(f"{level:g}" for level in LEVELS)
        + " nats or more. Grey: as likely as before; dotted: likelier.",
    )
    tokens = views.window_tokens(store(), row["run"], row["dense_run"], example)
    if tokens is None:
        _unread(row)
        return
    label = str(row["label"])
    found = data.surprise_by_kind(row)
    if any(token.text for token in tokens):
        if carries := carried(found, label):
            show(tag("p", carries, cls="said"))
        show(tag("div", coloured(tokens, label), cls="text surprise", tabindex="0", role="region",
                 **{"aria-label": "The window, token by token"}))  # fmt: skip
        show(by_kind(found, label))
    else:
        note("The model's tokenizer is not on this machine, so it is not known what these tokens say.")


def _unread(row: pd.Series) -> None:
    """These weights were not compared with dense token by token: offer it."""
    model, recipe, task = (str(row[name]) for name in ("model", "recipe", "task"))
    show(tag("p", "Perplexity keeps a sum per window. Token by token, both models have to read the windows once more."))
    covered = coverage_grid.coverage(model)
    gaps.offer(model, [recipe], [task], covered, "Read them token by token", key="tokens", fidelity=True)
    job_cards.live(ended=0)
    gaps.command(gaps.sweep_command(model, recipe, task, "--fidelity"), model=model)


def coloured(tokens: Iterable[Token], label: str) -> Safe:
    """The text, its tokens coloured by growth; neighbours without a colour are one element."""
    parts: list[Safe] = []
    for name, group in groupby(tokens, key=_colour):
        some = list(group)
        if name:
            parts += [_marked(token, name, label) for token in some if token.text]
        else:
            parts.append(tag("span", "".join(token.text for token in some)))
    return many(parts)


def _marked(token: Token, name: str, label: str) -> Safe:
    word = token.text.lstrip() or token.text
    return tag("span", token.text[: len(token.text) - len(word)], tag("span", word, cls=name, title=_tip(token, label)))


def _colour(token: Token) -> str:
    """The class of a token: "" where it is about as likely as to dense."""
    level = sum(token.growth >= step for step in LEVELS)
    return f"grew{level}" if level else "less" if token.growth <= -LEVELS[0] else ""


def _tip(token: Token, label: str) -> str:
    before, after = (_probability(value) for value in (token.dense, token.variant))
    return f"{token.kind}: dense {before}, {label} {after}; {token.growth:+.1f} nats"


def _probability(logprob: float) -> str:
    share = exp(logprob)
    return f"{100 * share:.2g} %" if share < 0.1 else percent(share)


def carried(found: pd.DataFrame, label: str) -> str:
    """Names and numbers against grammar in a sentence; "" where the loss did not grow or a kind is missing."""
    rows = found.set_index("kind")
    facts = [kind for kind in ("names", "numbers") if kind in rows.index]
    if not facts or "grammar" not in rows.index or rows["carried"].isna().any():
        return ""
    mine, grammar = rows.loc[facts], rows.loc["grammar"]
    growth = float((mine["growth"] * mine["n"]).sum() / mine["n"].sum())
    return (
        f"Names and numbers are {percent(float(mine['tokens'].sum()))} of the tokens and carry "
        f"{percent(float(mine['carried'].sum()))} of what {label} finds more surprising than dense: "
        f"{growth:+.2f} nats each, {grammar['growth']:+.2f} for a token of grammar."
    )


def by_kind(found: pd.DataFrame, label: str) -> Safe:
    """Surprise by kind of token, over all windows."""
    heads = ("Tokens", "n", "of all", "dense", label, "more, 95 %", "carries")
    lines = (
        tag(
            "tr", tag("td", row["kind"]), tag("td", f"{row['n']:,}"), tag("td", percent(row["tokens"])),
            tag("td", f"{row['before']:.2f}"), tag("td", f"{row['after']:.2f}"),
            tag("td", f"{row['growth']:+.2f} ", tag("span", f"{row['growth_low']:+.2f} to {row['growth_high']:+.2f}",
                                                    cls="quiet")),
            tag("td", "–" if row["carried"] != row["carried"] else percent(row["carried"])),
        )
        for row in found.to_dict("records")
    )  # fmt: skip
    table = tag("table", tag("tr", *(tag("th", name) for name in heads)), *lines)
    legend = "Mean surprise per token in nats, over all windows; intervals over windows. Kinds are told by spelling: a "
    legend += "name is a capitalised word inside a sentence, a number has a digit, grammar is a list of common words."
    return tag("div", tag("div", table, cls="scroll"), tag("p", legend, cls="quiet"))
