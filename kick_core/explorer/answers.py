"""One example opened: prompt, gold, answers, what changed between them, what repeats, which option won."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import exp

import pandas as pd
import streamlit as st

from kick_core import views
from kick_core.explorer import address, glossary, steps
from kick_core.explorer.safe import Safe, chip, many, show, tag
from kick_core.explorer.stepper import each
from kick_core.views import Answer, Claim, Detail, percent
from kick_core.views.example_text import excerpt, gold, prompt, question, said


def mark(answer: Answer) -> Safe:
    """Right, wrong or not judged, with why."""
    why = f", {answer.why}" if answer.why not in ("", "wrong", "right") else ""
    if answer.right is None:
        return chip("not judged")
    if 0 < answer.score < 1:
        return tag("span", f"scores {percent(answer.score)}{why}", cls="chip open")
    return chip("right") if answer.right else tag("span", f"✗ wrong{why}", cls="chip bad")


def head(name: str, answer: Answer, note: str = "") -> Safe:
    return tag("div", tag("b", name), mark(answer), tag("span", note, cls="quiet"), cls="answer")


def box(*children: Safe | str) -> Safe:
    return tag("div", *children, cls="text long")


def golden(detail: Detail) -> Safe:
    """The accepted answers of an example, where its data hold any."""
    if not (words := gold(detail)):
        return Safe("")
    return tag("p", glossary.term("Gold", "gold"), ": ", tag("b", words), style="margin:.45rem 0 .2rem")


def along(detail: Detail, runs: Mapping[int, str], here: int) -> None:
    """One example at every step: question, gold, dense's answer, and the answer of the step that the slider shows."""
    given = {step: answer for step, run in runs.items() if (answer := detail.of(run))}
    dense = given.get(0)
    if dense is None:
        return
    pieces = {
        step: many([head(answer.label, answer), box(warm(said(detail, answer)))])
        for step, answer in given.items()
        if step
    }
    pieces[0] = tag("p", "The dense model itself.", cls="quiet")
    show(
        box(question(detail)),
        golden(detail),
        head("dense", dense), box(said(detail, dense)),
        steps.each(dict(sorted(pieces.items())), here),
    )  # fmt: skip


def warm(text: str) -> Safe:
    """A text in which repeated words glow."""
    return many(
        tag("span", word.text, cls=f"heat{min(word.times, 4)}", title=f"said {word.times} times before")
        if word.times
        else tag("span", word.text)
        for word in views.heat(text)
    )


def changed(before: str, after: str) -> Safe:
    """The second text with what it took away struck through and what it brought underlined."""
    return _pieces(views.difference(before, after))


def _pieces(pieces: list[views.Piece]) -> Safe:
    return many(tag("span", piece.text, cls="" if piece.kind == "same" else piece.kind) for piece in pieces)


def both(before: str, after: str) -> tuple[Safe, Safe]:
    """Two texts as they are, what both share marked."""
    first, second = views.shared_words(before, after)
    return _pieces(first), _pieces(second)


def probabilities(detail: Detail, before: Answer, after: Answer, names: tuple[str, str]) -> Safe:
    """Paired bars: each option's probability among the four, in both models; the gold one is named."""
    options = detail.example.meta.get("options") or detail.example.choices
    rows = []
    for at, option in enumerate(options):
        letter = chr(ord("A") + at)
        is_gold = letter in detail.example.answers
        shares = [a.probabilities[at] if at < len(a.probabilities) else 0.0 for a in (before, after)]
        bars = many(
            tag("div", tag("i", style=f"width:{100 * share:.1f}%;background:{colour}"), cls="bar")
            for share, colour in zip(shares, ("#7f8c8d", "#3366cc"), strict=True)
        )
        name = f"{letter}. {str(option).strip()}" + (" ✓ gold" if is_gold else "")
        rows += [
            tag("b" if is_gold else "span", name),
            tag("div", bars),
            tag("span", f"{percent(shares[0])} → {percent(shares[1])}"),
        ]
    note = tag("p", f"Upper bar {names[0]}, lower bar {names[1]}.", cls="quiet")
    return tag("div", tag("div", *rows, cls="options"), note)


def repetition_note(answer: Answer) -> str:
    found = answer.repetition
    if found.tokens < 2:
        return ""
    loop = f", from word {found.loop.onset + 1} on a loop of {_words(found.loop.period)}" if found.loop else ""
    said = f"{_words(found.tokens)}, {found.unique} different, {percent(found.repeated)} of 4-grams repeated"
    return said + loop


def _words(count: int) -> str:
    return "1 word" if count == 1 else f"{count} words"


def opened(details: Mapping[str, Detail], here: str, run: str, dense: str) -> None:
    """The example in full: prompt, gold, both answers, their difference, repetition, option probabilities.

    Args:
        details: the open example and its neighbours by id, which are drawn hidden (see `stepper`).
        here: the id of the open one.
        run: the key of the run whose answers are looked at.
        dense: the key of the run that they are compared with.
    """
    pairs = {
        name: (detail, before, after)
        for name, detail in details.items()
        if (before := detail.of(dense)) is not None and (after := detail.of(run)) is not None
    }
    if here not in pairs:
        show(tag("p", "This example has not been asked of both models.", cls="quiet"))
        return
    show(each({name: _asked(detail) for name, (detail, _, _) in pairs.items()}, here))
    detail, before, after = pairs[here]
    with st.container(key="follows"), st.expander("The prompt as it was sent"):
        st.code(prompt(detail), language=None, wrap_lines=True)
    if not detail.judged:
        show(each({name: windows(first, second) for name, (_, first, second) in pairs.items()}, here))
    elif before.probabilities or after.probabilities:
        show(each({name: _options(*pair) for name, pair in pairs.items()}, here))
    else:
        side_by_side(pairs, here)


def _asked(detail: Detail) -> Safe:
    """What an example is about, its question and its gold answer."""
    facts = [detail.example.meta.get(name) for name in ("subject", "discipline", "bucket", "category")]
    return many([
        tag("p", " · ".join([detail.example.id, *(str(fact) for fact in facts if fact)]), cls="quiet"),
        box(question(detail)),
        golden(detail) if detail.judged else Safe(""),
    ])  # fmt: skip


def _options(detail: Detail, before: Answer, after: Answer) -> Safe:
    """What both models chose, and how likely every option was to them."""
    names = before.label, after.label
    return many([head(names[0], before), head(names[1], after), probabilities(detail, before, after, names)])


def windows(before: Answer, after: Answer) -> Safe:
    """A window of running text: how surprised each model is by it, in nats per token."""
    said = f"{before.label} {before.score:.3f} → {after.label} {after.score:.3f} nats per token"
    times = f"{exp(after.score - before.score):.2f} times the perplexity, over {after.output.tokens} predicted tokens"
    return tag("p", tag("b", said), f": {times}.", style="margin-top:.45rem")


READINGS = _, SHARED, _, _ = ("as written", "shared words", "repeated words", "difference")
"""Ways of reading two answers side by side. The difference is on offer where it is one of like texts."""
LIKE = 0.5
"""Share of words in common from which a difference can be read; below it is a heap of replaced words."""


def side_by_side(pairs: Mapping[str, tuple[Detail, Answer, Answer]], here: str) -> None:
    """Both answers as they were given; what they share, what repeats and what changed can be marked."""
    texts = {name: (said(detail, first), said(detail, second)) for name, (detail, first, second) in pairs.items()}
    readings = {
        name: READINGS[:1] if detail.example.choices else _readings(*texts[name])
        for name, (detail, _, _) in pairs.items()
    }
    chosen = reading(readings[here]) if len(readings[here]) > 1 else SHARED
    columns: tuple[dict[str, Safe], dict[str, Safe]] = {}, {}
    for name, (_, *both_answers) in pairs.items():
        how = next((one for one in (chosen, SHARED) if one in readings[name]), READINGS[0])
        for column, answer, text in zip(columns, both_answers, marked(how, *texts[name]), strict=True):
            column[name] = many([head(answer.label, answer), box(text), _notes(answer)])
    for place, column in zip(st.columns(2), columns, strict=True):
        with place:
            show(each(column, here))


@lru_cache(maxsize=256)
def _readings(first: str, second: str) -> tuple[str, ...]:
    """The readings that help with two texts: of one word there is only one."""
    if min(len(first.split()), len(second.split())) < 2:
        return READINGS[:1]
    return READINGS if LIKE <= views.likeness(first, second) < 1 else READINGS[:3]


def reading(readings: Sequence[str]) -> str:
    """The control that chooses what is marked in texts that stand side by side."""
    return address.choice("read", readings, SHARED, lambda key: st.segmented_control(
        "Mark", readings, required=True, key=key, persist_state="session"
    ), noun="reading", why="does not help with these texts")  # fmt: skip


@lru_cache(maxsize=256)
def marked(reading: str, first: str, second: str) -> tuple[Safe, Safe]:
    """Two texts side by side, with what the reading (one of `READINGS`) asks for marked in them."""
    match reading:
        case "shared words":
            return both(first, second)
        case "repeated words":
            return warm(first), warm(second)
        case "difference":
            return tag("span", first), changed(first, second)
        case _:
            return tag("span", first), tag("span", second)


def _notes(answer: Answer) -> Safe:
    """How repetitive a text is, and what the scorer took for the answer where that is not all of it."""
    read = answer.extracted if answer.extracted != answer.text else ""
    return many([
        tag("p", "Read as: ", tag("b", read), cls="quiet") if read else Safe(""),
        tag("p", repetition_note(answer), cls="quiet"),
    ])  # fmt: skip


def strip(along: list[Answer], here: str, detail: Detail) -> Safe:
    """One prompt at every sparsity: green while it is right, and what was said."""
    return tag("div", *(_frame(step, here, detail) for step in along), cls="strip")


def _frame(step: Answer, here: str, detail: Detail) -> Safe:
    tone = {True: "right", False: "wrong", None: ""}[step.right]
    sign = {True: "✓", False: "✗", None: "?"}[step.right]
    text = said(detail, step)
    return tag(
        "div",
        tag("b", f"{sign} {step.target_label}"),
        tag("span", excerpt(text, 90, gold(detail) if step.right else "")),
        cls=f"frame {tone}{' here' if step.run == here else ''}",
        title=text[:300],
    )


def evidence(found: Claim) -> None:
    """The cells behind a claim."""
    if found.evidence.empty:
        show(tag("p", "Nothing has been measured.", cls="quiet"))
        return
    columns = ["label", "title", "share_kept", "share_low", "share_high", "paired", "vote"]
    columns += [name for name in ("rival", "rival_kept") if name in found.evidence]
    shares = [name for name in columns if name.startswith("share_") or name == "rival_kept"]
    table = found.evidence.assign(**{name: 100 * found.evidence[name] for name in shares})
    st.dataframe(table[columns], hide_index=True, height=220, column_config=_EVIDENCE, alt="Cells behind the claim")


_EVIDENCE = {
    "label": "recipe",
    "title": "task",
    "share_kept": st.column_config.NumberColumn("kept", format="%.0f %%"),
    "share_low": st.column_config.NumberColumn("from", format="%.0f %%"),
    "share_high": st.column_config.NumberColumn("to", format="%.0f %%"),
    "paired": "n",
    "rival": "against",
    "rival_kept": st.column_config.NumberColumn("its share", format="%.0f %%"),
}


def flips(row: pd.Series) -> Safe:
    """The 2 x 2 table of one recipe against dense."""
    counts = [int(row[name]) for name in ("both_right", "broke", "fixed", "both_wrong")]
    return matrix(counts, "dense", "compressed", graded=row["dense_score"] > 0)


def matrix(counts: Sequence[int], a: str, b: str, *, graded: bool) -> Safe:
    """How answers moved from A to B.

    Args:
        counts: answers right in both, right in A alone, right in B alone, wrong in both.
        a: the name of A.
        b: the name of B.
        graded: whether A scores above 0; where nothing is right all the same, answers are graded.
    """
    both_right, broke, fixed, both_wrong = counts
    if graded and not both_right + broke + fixed:
        return tag("p", "Answers are graded, and none scores 100 %: nothing is simply right or wrong.", cls="quiet")
    return tag(
        "div",
        tag("span"), tag("span", f"{b} right", cls="head"), tag("span", f"{b} wrong", cls="head"),
        tag("span", f"{a} right", cls="head"), _cell(both_right, "kept", "kept"), _cell(broke, "broke", "broke"),
        tag("span", f"{a} wrong", cls="head"), _cell(fixed, "fixed", "fixed"), _cell(both_wrong, "both wrong", ""),
        cls="matrix",
    )  # fmt: skip


def _cell(count: int, word: str, cls: str) -> Safe:
    return tag("div", tag("b", f"{count:,}"), tag("span", word, cls="quiet"), cls=f"box {cls}")
