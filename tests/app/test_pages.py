"""The pages' logic, run by Streamlit's own test harness on a made-up cache; clicks and links are the browser's."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from kick_core import jobs, views
from kick_core.store import Store
from tests import synthetic

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("pages/home.py", "pages/compress.py", "pages/evaluate.py", "pages/compare.py")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic.make(tmp_path_factory.mktemp("app") / "cache", recipes=synthetic.FEW, n=40)


@pytest.fixture(scope="module")
def frame(store: Store) -> pd.DataFrame:
    return views.current(views.scores(store), synthetic.MODEL)


@pytest.fixture(autouse=True)
def use(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KICK_CACHE", str(store.root))
    monkeypatch.chdir(ROOT)
    st.cache_data.clear()


def run(page: str = PAGES[0], **query: str) -> AppTest:
    app = AppTest.from_file(str(ROOT / "app.py"), default_timeout=60)
    if page != PAGES[0]:
        app.run()
        app.switch_page(page)
    for name, value in query.items():
        app.query_params[name] = value
    app.run()
    assert not app.exception, app.exception
    return app


def html(app: AppTest) -> str:
    return "\n".join(element.proto.body for element in app.get("html"))


def charts(app: AppTest) -> dict[str, Any]:
    return {chart.proto.id.split("-")[-1]: json.loads(chart.proto.spec) for chart in app.get("plotly_chart")}


def cell(frame: pd.DataFrame, recipe: str, task: str) -> pd.Series:
    return frame[(frame["recipe"] == recipe) & (frame["task"] == task)].iloc[0]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_runs_and_says_where_numbers_come_from(page: str) -> None:
    said = html(run(page))
    assert "pocket-11m" in said
    if page != "pages/compress.py":
        for fact in ("protocol strict", "n 40 of 80", "95 % intervals", "2026-11-23"):
            assert fact in said


def test_findings_show_the_views_numbers(frame: pd.DataFrame) -> None:
    said = html(run(s="50", method="magnitude"))
    assert views.headline(frame, "magnitude@0.5") in said
    for task in frame["task"].unique():
        assert f'data-task="{task}" data-score="{cell(frame, "magnitude@0.5", task)["score"]:.6f}"' in said


def test_the_slider_moves_headline_cards_and_marker(frame: pd.DataFrame) -> None:
    app = run(method="magnitude")
    app.slider(key="s").set_value(70).run()
    assert views.headline(frame, "magnitude@0.7") in html(app)
    lines = [shape["x0"] for shape in charts(app)["overlay"]["layout"]["shapes"] if shape["line"].get("dash") == "dash"]
    assert lines == [70]


def test_a_value_between_two_steps_is_the_nearer_one(frame: pd.DataFrame) -> None:
    assert views.headline(frame, "magnitude@0.7") in html(run(s="63", method="magnitude"))


def test_dense_end_of_the_slider() -> None:
    assert "everything is kept" in html(run(s="0"))


def test_claims_are_the_views(frame: pd.DataFrame) -> None:
    said = html(run())
    for claim in views.claims(frame):
        assert claim.text in said and claim.verdict in said


def test_overlay_traces_are_the_frame(frame: pd.DataFrame) -> None:
    overlay = charts(run(method="magnitude"))["overlay"]
    for trace in overlay["data"]:
        for (recipe, task), y in zip(trace["customdata"], trace["y"], strict=True):
            assert y == pytest.approx(cell(frame, recipe, task)["share_kept"], abs=1e-6)
    assert overlay["layout"]["hovermode"] == "closest"
    assert overlay["layout"]["yaxis"]["range"][0] == 0
    dotted = [trace["name"] for trace in overlay["data"] if trace["line"]["dash"] == "dot"]
    assert dotted == ["Perplexity"]


def test_rising_perplexity_is_red() -> None:
    said = html(run(s="70", method="magnitude"))
    card = said.split('data-task="perplexity"')[1].split("data-task")[0]
    assert 'class="change bad">▲' in card


def test_evaluate_shows_broken_examples_first(store: Store, frame: pd.DataFrame) -> None:
    app = run("pages/evaluate.py", b="magnitude@0.5", task="factoid_qa")
    row = cell(frame, "magnitude@0.5", "factoid_qa")
    table = app.dataframe[0].value
    examples = views.examples(store, row["run"], row["dense_run"])
    assert table["id"].tolist() == examples.loc[examples["flip"] == "broke", "id"].tolist()
    assert f"{row['broke']:.0f}" in html(app)
    assert "Gold" in html(app)


def test_stepping_changes_the_open_example() -> None:
    app = run("pages/evaluate.py", b="magnitude@0.5", task="factoid_qa")
    first = app.query_params["ex"]
    next(button for button in app.button if button.label == "Next").click().run()
    assert app.query_params["ex"] != first
    next(button for button in app.button if button.label == "Previous").click().run()
    assert app.query_params["ex"] == first


def test_a_link_opens_its_example() -> None:
    app = run("pages/evaluate.py", b="magnitude@0.5", task="factoid_qa", kind="both right")
    table = app.dataframe[0].value
    wanted = str(table["id"].iloc[2])
    again = run("pages/evaluate.py", b="magnitude@0.5", task="factoid_qa", kind="both right", ex=wanted)
    assert again.query_params["ex"] == [wanted] or again.query_params["ex"] == wanted
    assert wanted in html(again)


def test_every_task_opens_on_every_page() -> None:
    for task in views.task_titles():
        for page in PAGES[2:]:
            run(page, task=task, b="wanda@2:4")


def test_compare_shows_the_flip_matrix(frame: pd.DataFrame) -> None:
    app = run("pages/compare.py", a="dense", b="wanda@0.5", task="retrieval_qa_closed")
    row = cell(frame, "wanda@0.5", "retrieval_qa_closed")
    said = html(app)
    for word in ("both_right", "broke", "fixed", "both_wrong"):
        assert f"<b>{row[word]:.0f}</b>" in said
    assert "exact McNemar" in said and said.count('class="frame') == 3


def test_compare_of_a_recipe_with_itself_says_so() -> None:
    assert "same recipe" in html(run("pages/compare.py", a="dense", b="dense"))


def test_compress_previews_without_pressing(store: Store) -> None:
    said = html(run("pages/compress.py", model=synthetic.MODEL, make="magnitude"))
    made = views.preview(store, synthetic.MODEL, "magnitude@0.5")
    assert f"{made.bits_per_weight:.2f} bits per weight" in said and "on 2026-11-23" in said


def test_compress_starts_the_request_on_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(jobs, "start", lambda store, wanted: asked.append(wanted.to_json()))
    app = run("pages/compress.py", make="magnitude")
    app.slider(key="to").set_value(45).run()
    app.button(key="go").click().run()
    assert asked[0]["recipes"] == ("magnitude@0.45",) and asked[0]["model"] == "pocket-11m" and asked[0]["tasks"] == ()


def test_an_impossible_recipe_is_told() -> None:
    app = run("pages/compress.py", make="rtn")
    assert not app.exception


@pytest.mark.parametrize("page", PAGES)
def test_empty_cache(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KICK_CACHE", str(tmp_path / "empty"))
    app = run(page)
    assert any("kick sweep pocket --preset demo" in code.value for code in app.code)


@pytest.mark.parametrize(
    "recipes", [("dense",), ("magnitude@0.5",), ("dense", "rtn@4bit"), ("dense", "wanda@2:4")], ids="+".join
)
@pytest.mark.parametrize("page", PAGES)
def test_half_filled_caches(
    page: str, recipes: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.make(tmp_path, recipes=recipes, task_names=("factoid_qa", "perplexity"), n=8)
    monkeypatch.setenv("KICK_CACHE", str(tmp_path))
    run(page)


def test_a_missing_task_is_not_measured(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "cache"
    shutil.copytree(store.root, copy)
    gone = views.current(views.scores(views.open_store(copy)), synthetic.MODEL)
    key = cell(gone, "magnitude@0.5", "factoid_qa")["run"]
    shutil.rmtree(views.open_store(copy).folder("results", key))
    monkeypatch.setenv("KICK_CACHE", str(copy))
    assert "not measured" in html(run(s="50", method="magnitude"))


@pytest.mark.parametrize("page", PAGES[2:])
def test_a_gap_names_its_command(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.make(tmp_path, recipes=("dense", "magnitude@0.5"), task_names=("factoid_qa",), n=8)
    synthetic.make(tmp_path, recipes=("dense",), task_names=("multiple_choice",), n=8)
    monkeypatch.setenv("KICK_CACHE", str(tmp_path))
    app = run(page, b="magnitude@0.5", task="multiple_choice")
    wanted = "kick sweep pocket-11m --recipe magnitude@0.5 --task multiple_choice"
    assert wanted in [code.value for code in app.code]


def test_pages_load_no_torch(store: Store) -> None:
    code = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        "app = AppTest.from_file('app.py', default_timeout=60).run()\n"
        f"for page in {PAGES[1:]}: app.switch_page(page).run(); assert not app.exception, app.exception\n"
        "print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip().endswith("set()"), done.stdout + done.stderr


def test_settings_are_safe() -> None:
    settings = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text())
    assert settings["server"]["address"] == "127.0.0.1"
    assert settings["server"]["allowedHosts"] == ["localhost", "127.0.0.1"]
    assert settings["server"]["enableXsrfProtection"] and settings["server"]["enableCORS"]
    assert len(settings["theme"]["chartCategoricalColors"]) == 10
    assert settings["runner"]["magicEnabled"] is False and settings["browser"]["gatherUsageStats"] is False
