"""Keys: order-free, sensitive to every field, and blind to where files lie."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kick_core import keys, methods
from kick_core.spec import parse

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=6), values, min_size=1, max_size=4))
def test_order_does_not_matter_and_content_does(payload):
    turned = dict(reversed(payload.items()))
    assert keys.key("x", payload) == keys.key("x", turned)
    assert keys.key("x", payload) != keys.key("y", payload)
    assert keys.key("x", payload) != keys.key("x", {**payload, "one more": 1})


def test_fractions_must_be_text():
    with pytest.raises(TypeError, match=r"0\.5"):
        keys.key("x", {"ratio": 0.5})


def test_every_field_of_a_recipe_changes_the_key():
    texts = [
        "magnitude@0.5", "magnitude@0.50001", "wanda@0.5", "magnitude@2:4", "magnitude@4:8", "rtn@4bit",
        "rtn@3bit", "rtn@4bit,group=64", "rtn@4bit,sym=false",
    ]  # fmt: skip
    found = {keys.key("weights", methods.payload(parse(text))) for text in texts}
    assert len(found) == len(texts)
    assert methods.payload(parse("rtn@4bit")) == methods.payload(parse("rtn@4bit,group=128,sym=true"))


def test_fingerprint_is_content_not_place(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")
    first, second = (keys.fingerprint((tmp_path / name).iterdir()) for name in "ab")
    assert first == second
    memo: dict[str, str] = {}
    assert keys.fingerprint((tmp_path / "a").iterdir(), memo=memo) == first
    assert len(memo) == 2
    edited = tmp_path / "a" / "model.safetensors"
    edited.write_bytes(b"Weights")  # same size, edited in place
    os.utime(edited, ns=(1, 1))
    assert keys.fingerprint((tmp_path / "a").iterdir(), memo=memo) != first


def test_hashing_tells_how_far_it_is_and_can_be_stopped(tmp_path):
    for number in range(3):
        (tmp_path / f"{number}").write_bytes(bytes(3 << 20))
    heard, memo = [], {}
    whole = keys.fingerprint(tmp_path.iterdir(), memo=memo, heard=lambda *told: heard.append(told))
    assert sorted(heard)[-1] == (9 << 20, 9 << 20) and len(heard) == 3
    assert keys.fingerprint(tmp_path.iterdir(), memo=memo, heard=lambda *told: heard.append(told)) == whole
    assert len(heard) == 3, "what is remembered is not read"

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        keys.fingerprint(tmp_path.iterdir(), heard=stop)
