"""Findings answers the paper's open question where something was recovered, and says nothing of it elsewhere."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from kick_core import views
from tests import harness, synthetic
from tests.harness import HOME, ROOT

LORA = "wanda@0.5,recover=lora"
TASKS = ("perplexity", "factoid_qa", "retrieval_qa_closed", "retrieval_qa_open")


def run(root: Path, monkeypatch: pytest.MonkeyPatch, page: str = HOME, **query: str) -> AppTest:
    monkeypatch.setenv("KICK_CACHE", str(root))
    monkeypatch.chdir(ROOT)
    st.cache_data.clear()
    return harness.run(page, **query)


def html(app: AppTest) -> str:
    """What stands on the page, without the marks of the terms that are explained on hover."""
    return unescape(re.sub(r"</?abbr[^>]*>", "", "\n".join(element.proto.body for element in app.get("html"))))


def test_the_answer_stands_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipes = ("dense", "wanda@0.3", "wanda@0.5", LORA, "wanda@2:4", "wanda@2:4,recover=blocks")
    store = synthetic.make(tmp_path, recipes=recipes, task_names=TASKS, n=80)
    app = run(tmp_path, monkeypatch, recovered="true")
    said = html(app)
    table = views.recovered(store, views.current(views.scores(store), synthetic.MODEL))
    found = views.recovery_answers(table)
    assert len(found) == 2 and "What recovery brought back" in said
    for answer in found:
        assert answer.verdict in said and answer.label in said
    row = table[(table["recipe"] == LORA) & (table["task"] == "factoid_qa")].iloc[0]
    assert f"{views.percent(row['low'])} to {views.percent(row['high'])}" in said
    assert "16,384 tokens of pocket-unasked" in said and views.RECOVERY_RULE in said
    names = [trace["name"] for chart in app.get("plotly_chart") for trace in json.loads(chart.proto.spec)["data"]]
    assert "wanda + lora" in names and [one.value for one in app.get("segmented_control") if one.key == "method"] != []
    methods = next(one for one in app.get("segmented_control") if one.key == "method")
    assert methods.options == ["wanda"], "a recovered method stands beside its own, not among them"


def test_nothing_is_said_where_nothing_was_recovered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.make(tmp_path, recipes=("dense", "wanda@0.5"), task_names=TASKS, n=8)
    assert "recovery brought back" not in html(run(tmp_path, monkeypatch))


@pytest.mark.parametrize("page", ["pages/evaluate.py", "pages/compare.py", "pages/compress.py"])
def test_recovered_recipes_open_on_every_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.make(tmp_path, recipes=("dense", "wanda@0.5", LORA), task_names=TASKS, n=8)
    said = html(run(tmp_path, monkeypatch, page, b=LORA, task="factoid_qa"))
    assert page == "pages/compress.py" or "lora" in said
