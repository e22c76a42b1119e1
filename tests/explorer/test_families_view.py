"""Compare's Families view: what it offers, which numbers it shows, what it says where a second model is missing."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from kick_core import jobs, views
from kick_core.store import Store, lineage
from kick_core.views import lineage_charts
from tests import harness, synthetic
from tests.harness import ROOT, charts

ONE, TWO = "pocket-11m", "lab/Other-1B"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    root = tmp_path_factory.mktemp("kin") / "cache"
    tasks = ("perplexity", "factoid_qa")
    synthetic.make(root, recipes=("dense", "wanda@0.5", "magnitude@0.5", "rtn@4bit"), task_names=tasks, n=30, model=ONE)
    return synthetic.make(root, recipes=("dense", "wanda@0.5", "rtn@4bit"), task_names=tasks, n=30, model=TWO)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    st.cache_data.clear()


def run(store: Store, monkeypatch: pytest.MonkeyPatch, **query: str) -> AppTest:
    monkeypatch.setenv("KICK_CACHE", str(store.root))
    return harness.run("pages/compare.py", timeout=120, **{"view": "Families", **query})


def html(app: AppTest) -> str:
    return unescape("\n".join(element.proto.body for element in app.get("html")))


def test_two_models_side_by_side(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    app = run(store, monkeypatch, b="wanda@0.5", task="factoid_qa")
    frame, said = views.families(store), html(app)
    assert app.selectbox(key="b").value == "wanda@0.5" and app.selectbox(key="task").value == "factoid_qa"
    assert app.selectbox(key="b").options == ["rtn 4 bit", "wanda 50 %"], "what one model alone has is not offered"
    drawn = charts(app)
    for row in frame[frame["recipe"] == "wanda@0.5"].to_dict("records"):
        trace = next(trace for trace in drawn["kin_tasks"]["data"] if trace["name"] == row["model"])
        places = dict(zip([task for _, task in trace["customdata"]], trace["x"], strict=True))
        assert places[row["task"]] == pytest.approx(row["share_kept"], abs=1e-6)
        assert f"{views.percent(row['share_kept'])} [{views.percent(row['share_low'])}" in said
    assert {trace["marker"]["symbol"] for trace in drawn["kin_tasks"]["data"]} == {"circle", "diamond"}
    assert "Calibrated on the same tokens" in said and "95 % intervals" in said
    assert {button.proto.label for button in app.get("download_button")} == {"CSV of these rows", "Parquet", "Report"}


def test_who_was_tuned_is_unknown_until_it_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    app = run(store, monkeypatch)
    assert "is not known" in html(app)
    assert any("--tuned-from BASE" in code.value for code in app.code)
    prints = dict(zip(views.families(store)["model"], views.families(store)["fingerprint"], strict=True))
    lineage.set_base_model(store, prints[TWO], prints[ONE])
    try:
        app = run(store, monkeypatch)
        frame = views.families(store)
        word = views.robustness(views.gaps(store, frame, TWO, ONE), TWO, ONE)
        said = html(app)
        assert f"{TWO} was tuned from {ONE}: you said so." in said
        assert word.verdict in said and word.because in said and "over 30 shared examples" in said
    finally:
        (store.root / lineage.FILE).unlink()


def test_one_model_alone_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = synthetic.make(tmp_path, recipes=("dense", "wanda@0.5"), task_names=("factoid_qa",), n=12, model=ONE)
    app = run(one, monkeypatch)
    commands = [code.value for code in app.code]
    (line,) = [line for line in commands if line.startswith("kick sweep")]
    assert line.startswith("kick sweep pocket-4m --recipe wanda@0.5 --task factoid_qa --limit 12")
    assert "--windows 64 --length 256" in line
    assert any(line.startswith("kick reproduce families --model") for line in commands)
    assert f"Only {ONE} has been measured so far." in html(app)
    asked: list[dict[str, object]] = []
    monkeypatch.setattr(jobs, "start", lambda store, wanted: asked.append(wanted.to_json()))
    app.button(key="families").click().run()
    assert asked[0]["model"] == "pocket-4m" and asked[0]["recipes"] == ("dense", "wanda@0.5")
    assert asked[0]["tasks"] == ("factoid_qa",) and asked[0]["limits"] == {"factoid_qa": 12}


def test_charts_are_plotlys(store: Store) -> None:
    from plotly import graph_objects

    frame = views.families(store)
    frame.loc[frame.index[0], "share_high"] = float("inf")
    for chart in (lineage_charts.by_task(frame, "wanda@0.5"), lineage_charts.by_recipe(frame, "factoid_qa")):
        assert graph_objects.Figure(chart).data and json.dumps(chart, allow_nan=False)
    hostile = frame.assign(model="<img src=x onerror=alert(1)>")
    assert "<img" not in json.dumps(lineage_charts.by_task(hostile, "wanda@0.5"))


def test_a_recipe_of_one_model_alone_gives_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    app = run(store, monkeypatch, b="magnitude@0.5")
    assert app.selectbox(key="b").value in ("wanda@0.5", "rtn@4bit")
    assert "This address names the recipe magnitude@0.5, which is not measured here." in html(app)
