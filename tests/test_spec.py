"""Recipes: the text form, what is refused, and exact counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kick_core import methods
from kick_core.errors import BadRequest
from kick_core.spec import Calibration, IntGrid, KeepNofM, ModelRef, Recipe, Unstructured, parse

WRITTEN = [
    "dense",
    "magnitude@0.5",
    "wanda@2:4",
    "rtn@3bit,group=64",
    "gptq@4bit,group=64,sym=false,act_order=true",
    "rtn@8bit,group=-1",
]


@pytest.mark.parametrize("text", WRITTEN)
def test_text_form_comes_back(text):
    assert parse(text).text == text
    assert parse(parse(text).text) == parse(text)


targets = st.one_of(
    st.integers(0, 999).map(lambda thousandth: Unstructured(thousandth / 1000)),
    st.integers(1, 32).flatmap(lambda m: st.integers(1, m).map(lambda n: KeepNofM(n, m))),
    st.builds(IntGrid, st.integers(2, 8), st.sampled_from([None, -1, 32, 64, 128]), st.booleans()),
)
options = st.dictionaries(
    st.sampled_from(["block", "damp", "name"]), st.one_of(st.booleans(), st.integers(0, 999)), max_size=3
)


@given(targets, options)
def test_every_recipe_survives_its_text(target, chosen):
    recipe = Recipe("wanda", target, tuple(chosen.items()))
    assert parse(recipe.text) == recipe


@given(st.text(max_size=40))
def test_any_text_is_a_recipe_or_a_plain_refusal(text):
    try:
        assert parse(parse(text).text) == parse(text)
    except BadRequest as error:
        assert "\n" not in str(error).replace(text, "")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("wanda", "wanda@0.5"),
        ("wanda@1.5", "1.5"),
        ("wanda@1", "[0, 1)"),
        ("wanda@-0.1", "-0.1"),
        ("wanda@4:2", "4:2"),
        ("wanda@0:4", "0:4"),
        ("rtn@9bit", "2..8"),
        ("rtn@1bit", "2..8"),
        ("rtn@4bit,group=0", "group size 0"),
        ("rtn@4bit,sym=7", "sym=7"),
        ("wanda@50%", "50%"),
        ("wanda@", "'@'"),
        ("dense@0.5", "dense"),
        ("wanda@0.5,damp", "damp"),
        ("Wanda@0.5", "Wanda"),
        ("", "recipe ''"),
    ],
)
def test_refusals_name_the_fault(text, named):
    with pytest.raises(BadRequest) as refusal:
        parse(text)
    assert named in str(refusal.value)


def test_counts_are_those_of_the_decimal_that_was_written():
    assert Unstructured(0.29).count(100) == 29  # 0.29 * 100 is 28.999… in binary
    assert Unstructured(0.7).count(10) == 7
    assert Unstructured(0.5).count(7) == 3
    assert Unstructured(0.0).count(9) == 0


def test_resolving_fills_in_defaults_and_refuses_strangers():
    with pytest.raises(BadRequest, match="Did you mean 'wanda'"):
        methods.resolve(parse("wandaa@0.5"))
    with pytest.raises(BadRequest, match="rtn@4bit"):
        methods.resolve(parse("rtn@0.5"))
    with pytest.raises(BadRequest, match="damp"):
        methods.resolve(parse("magnitude@0.5,damp=1"))
    assert methods.payload(parse("rtn@4bit"))["group"] == 128
    assert methods.payload(parse("int8_outlier@8bit"))["group"] == -1
    with pytest.raises(BadRequest, match="its own grid"):
        methods.resolve(parse("int8_outlier@8bit,group=64"))


def test_other_values_are_checked_too():
    with pytest.raises(BadRequest, match="float33"):
        ModelRef("pocket", dtype="float33")  # type: ignore[arg-type]
    with pytest.raises(BadRequest, match="windows"):
        Calibration(windows=0)
    with pytest.raises(BadRequest, match="propagation"):
        Calibration(propagate="sideways")  # type: ignore[arg-type]
