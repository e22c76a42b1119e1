"""Verdicts out of a judge's words: exactly what was asked for, or nothing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kick_core.judging import prompts, styles
from kick_core.judging.reading import Reading

FORMS = sorted(prompts.forms())


def read(form, text, stop):
    return styles.form(form).read(text, stop)


def published(form, text):
    return styles.form(form).published(text)


def test_every_prompt_is_one_styles():
    assert sorted(name for style in map(styles.get, styles.names()) for name in style.forms) == FORMS


SINGLE, PAIR, SUMMARY = "single-v1", "pair-v2", "llm-kick-summary"
GENERAL, MATH = "llm-kick-general", "llm-kick-math"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Good.\n\nRating: [[7]]", 7),
        ("Rating: [[7.5]]", 7.5),
        ("Rating: [[ 10 ]]", 10),
        ('The format is "[[5]]". My rating: [[9]]', 9),
        ("The answer says [[10]]. Rating: [[2]]\nThank you.", 2),
        ("Rating: [[0]]", None),
        ("Rating: [[11]]", None),
        ("First [[5]], then [[11]]", None),  # the last one is meant, and it is no rating
        ("Rating: [7]", None),
        ("Rating: 7", None),
        ("Rating: [[7/10]]", None),
        ("Rating: [[-7]]", None),
        ("Rating: [[nan]]", None),
        ("Rating: [[٧]]", None),
        ("[[99999999999999999999]]", None),
        ("", None),
    ],
)
def test_ratings(text, value):
    assert read(SINGLE, text, "stop") == (None if value is None else Reading((value,)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[[A]]", (1, 0)),
        ("Both fine, but [[B]]", (0, 1)),
        ("[[C]]", (0.5, 0.5)),
        ('"[[A]]" if A is better, "[[B]]" ... my verdict: [[C]]', (0.5, 0.5)),
        ("[[D]]", None),
        ("[[a]]", None),
        ("[A]", None),
        ("A is better", None),
    ],
)
def test_choices(text, value):
    assert read(PAIR, text, "stop") == (None if value is None else Reading((value[0],), (value[1],)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8 7\nBoth are fine.", (8, 7)),
        ("\n\n8.5, 7\nx", (8.5, 7)),
        ("8,7", (8, 7)),
        ("8 7 6", None),
        ("Scores: 8 7", None),
        ("Assistant 1: 8\nAssistant 2: 7", None),
        ("0 7", None),
        ("8 11", None),
        ("8/10 7/10", None),
        ("Both are fine.\n8 7", None),  # the numbers come first, or there are none
        ("nan 7", None),
        ("87", None),
    ],
)
def test_two_numbers(text, value):
    assert read(GENERAL, text, "stop") == (None if value is None else Reading((value[0],), (value[1],)))


def test_four_lines():
    assert read(SUMMARY, "8 7\n7 7\n9 9\n8 6\nBecause …", "stop") == Reading((8, 7, 9, 8), (7, 7, 9, 6))
    for text in (
        "8 7\n7 7\n9 9",
        "8 7\n7 7\n9 9\nBecause",
        "8 7\n7 7\n9 9\n8 60",
        "Coherence: 8 7\n7 7\n9 9\n8 6\n8 7",
    ):
        assert read(SUMMARY, text, "stop") is None


def test_the_math_tuple_stands_at_the_end():
    assert read(MATH, "(3, 4) is the point. So: (8, 7)", "stop") == Reading((8,), (7,))
    assert read(MATH, "So (8, 70)", "stop") is None and read(MATH, "8 7", "stop") is None


def test_a_reply_that_was_cut_off_has_no_final_verdict():
    assert read(SINGLE, 'As "[[5]]" would', "length") is None
    assert read(PAIR, "[[A]]", "length") is None and read(MATH, "(3, 4)", "length") is None
    assert read(GENERAL, "8 7\nThe first is", "length") == Reading((8,), (7,))  # it stood at the beginning


@pytest.mark.parametrize("form", FORMS)
@given(text=st.text() | st.text(alphabet="[]()ABC0123456789., \n-e"), stop=st.sampled_from(["stop", "length", ""]))
def test_nothing_but_verdicts_inside_the_scale_comes_out(form, text, stop):
    found = read(form, text, stop)
    if found is not None:
        bounds = (0, 1) if form.startswith("pair") else (1, 10)
        assert all(bounds[0] <= value <= bounds[1] for side in found for value in side)
        assert len(found.first) == (4 if form == SUMMARY else 1)
        assert len(found.second) == (0 if form.startswith("single") else len(found.first))
    published(form, text)  # whatever it makes of it, it does not fail


@given(before=st.text(), value=st.integers(10, 100).map(lambda v: v / 10), after=st.text(alphabet="abc .\n"))
def test_the_last_rating_counts_whatever_stands_before(before, value, after):
    assert read(SINGLE, f"{before} [[{value:g}]] {after}", "stop") == Reading((value,))


@given(a=st.integers(1, 10), b=st.integers(1, 10), after=st.text())
def test_what_the_judge_explains_does_not_matter(a, b, after):
    assert read(GENERAL, f"{a} {b}\n{after}", "stop") == Reading((a,), (b,))


def test_the_published_readings_and_their_faults():
    assert published(GENERAL, "8 7\nx") == published(GENERAL, "8,7\nx") == Reading((8,), (7,))
    assert published(GENERAL, "8, 7\nx") is None  # a comma and a space are two spaces
    assert published(GENERAL, "8 7 \nx") is None and published(GENERAL, "\n8 7") is None
    assert published(MATH, "I solve it.\n(8, 7)") is None
    assert published(GENERAL, "800 -7") == Reading((800,), (-7,))
    (nan,) = published(GENERAL, "nan 7").first
    assert math.isnan(nan)
    assert published(SUMMARY, "8 7\n7 7\n9 9\n8 6\nx") == Reading((8, 7, 9, 8), (7, 7, 9, 6))
    assert published(SUMMARY, "8 7\n7 7\n9 9") is None and published(SUMMARY, "8\n7 7\n9 9\n8 6") is None
    trailing = "8 7 (good)\n7 7 6\n9 9 \n8 6 9 9 9"
    assert published(SUMMARY, trailing) == Reading((8, 7, 9, 8), (7, 7, 9, 6)) and read(SUMMARY, trailing, "") is None
    assert published(SINGLE, "like [[5]], so [[9]]") == Reading((5,))
    assert published(SINGLE, "as source [1] says: 9") == Reading((1,))
    assert published(SINGLE, "nothing") is None
    assert published(PAIR, "not [[B]] but [[A]]") == Reading((1,), (0,))
