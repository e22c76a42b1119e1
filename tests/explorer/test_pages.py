"""The pages' logic, run by Streamlit's own test harness on a made-up cache; clicks and links are the browser's."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
import tomllib
from dataclasses import asdict, replace
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pandas as pd
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from kick_core import jobs, views
from kick_core.cli import main
from kick_core.errors import BadRequest
from kick_core.records import Example, SentPrompt, SentPrompts
from kick_core.spec import Calibration
from kick_core.store import Store, results
from kick_core.store.files import seal_json
from kick_core.sweeps import driver
from kick_core.sweeps.request import SweepJob
from kick_core.views import charts as poster
from kick_core.views import load, search_tables
from tests import synthetic
from tests.harness import HOME, ROOT, address, charts, run
from tests.judging.server import FakeJudge

PAGES = (HOME, "pages/compress.py", "pages/evaluate.py", "pages/compare.py")


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


def html(app: AppTest) -> str:
    """What stands on the page, without the marks of the terms that are explained on hover."""
    body = "\n".join(element.proto.body for element in app.get("html"))
    return re.sub(r"</?abbr[^>]*>", "", body)


def shown(said: str, tag: str) -> list[str]:
    """The texts of the steps that an element shows: those that are not hidden."""
    (inside,) = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", said, re.DOTALL)[:1] or [""]
    return [
        unescape(re.sub("<[^>]+>", "", text))
        for text in re.findall(r'<span data-step="\d+">(.*?)</span></span>', inside)
    ]


def cell(frame: pd.DataFrame, recipe: str, task: str) -> pd.Series:
    return frame[(frame["recipe"] == recipe) & (frame["task"] == task)].iloc[0]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_runs_and_says_where_numbers_come_from(page: str) -> None:
    said = re.sub("<[^>]+>", "", html(run(page)))
    assert "pocket-11m" in said
    if page != "pages/compress.py":
        for fact in ("protocol strict", "40 of 80 examples per task", "95 % intervals", "2026-11-23"):
            assert fact in said


def test_findings_show_the_views_numbers(frame: pd.DataFrame) -> None:
    said = html(run(s="50", method="magnitude"))
    assert shown(said, "h1") == [views.headline(frame, "magnitude@0.5")]
    for task in frame["task"].unique():
        assert f'data-task="{task}" data-score="{cell(frame, "magnitude@0.5", task)["score"]:.6f}"' in said


def test_the_slider_moves_headline_cards_and_marker(frame: pd.DataFrame) -> None:
    app = run(method="magnitude")
    app.select_slider(key="s").set_value(70).run()
    assert views.headline(frame, "magnitude@0.7") in html(app)
    assert shown(html(app), "h1") == [views.headline(frame, "magnitude@0.7")]
    assert charts(app)["overlay"]["layout"]["meta"] == {"follows": [""]}


def test_the_slider_stands_only_on_what_is_measured(frame: pd.DataFrame) -> None:
    app = run(s="63", method="magnitude")
    assert "names the sparsity 63, which magnitude was not measured at" in html(app)
    slider = app.select_slider(key="s")
    assert slider.options == ["0 %", "30 %", "50 %", "70 %"] and slider.value == 50
    assert shown(html(app), "h1") == [views.headline(frame, "magnitude@0.5")] and address(app)["s"] == "50"


def test_dense_end_of_the_slider() -> None:
    assert shown(html(run(s="0")), "h1") == ["Dense: nothing is compressed, so everything is kept."]


def test_claims_are_the_views(frame: pd.DataFrame) -> None:
    said = html(run())
    for claim in views.claims(frame):
        assert claim.text in said
        for part in claim.parts:
            assert f"<span>{part.text}</span>" in said and f">{part.verdict}</span>" in said


def test_a_task_with_few_sparsities_has_no_line_on_the_poster(frame: pd.DataFrame) -> None:
    hidden = (frame["task"] == "summarization") & ~frame["recipe"].isin(("dense", "magnitude@0.5"))
    mine = frame[~hidden]
    drawn = {str(trace["name"]) for trace in poster.overlay(mine, "magnitude")["data"]}
    assert poster.left_out(mine, "magnitude") == ["Summarization"] and "Summarization" not in drawn
    assert poster.left_out(frame, "magnitude") == [] and drawn | {"Summarization"} == set(frame["title"])


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
    said = html(run(s="70", method="magnitude")).split('<div data-step="70">')[1]
    card = said.split('data-task="perplexity"')[1].split("data-task")[0]
    assert 'class="change bad"' in card and ">▲ " in card


def test_evaluate_shows_broken_examples_first(store: Store, frame: pd.DataFrame) -> None:
    app = run("pages/evaluate.py", b="magnitude@0.5", task="factoid_qa")
    row = cell(frame, "magnitude@0.5", "factoid_qa")
    table = app.dataframe[0].value
    examples = views.examples(store, row["run"], row["dense_run"])
    assert table["id"].tolist() == examples.loc[examples["flip"] == "broke", "id"].tolist()
    assert f"{row['broke']:.0f}" in html(app)
    assert "Gold" in html(app)


def test_a_link_opens_its_example() -> None:
    app = run("pages/evaluate.py", b="magnitude@0.5", task="factoid_qa", kind="both right")
    wanted = str(app.dataframe[0].value["id"].iloc[2])
    again = run("pages/evaluate.py", b="magnitude@0.5", task="factoid_qa", kind="both right", ex=wanted)
    assert address(again)["ex"] == wanted and f"{wanted} · " in html(again)


def test_the_check_tells_verdicts_and_prompts(store: Store, frame: pd.DataFrame) -> None:
    (dense,) = frame.loc[(frame["recipe"] == "dense") & (frame["task"] == "factoid_qa"), "run"]
    asked = results.outputs(store, dense)[0].example
    prompt = SentPrompt(asked, (("<s>", True), (f"Who? {synthetic.HOSTILE}", False)), 9, ((" a", "b"),))
    results.keep_prompts(store, dense, SentPrompts("chat", "the model has a chat template", 512, (prompt,)))
    said = html(run("pages/evaluate.py", task="factoid_qa", check="true"))
    assert "can be measured" in said and "because dense scores" in said and "n = 40 of" in said
    assert "chat: the model has a chat template" in said and "<mark>&lt;s&gt;</mark>" in said
    assert "<script>" not in said


def test_pages_draw_no_share_of_a_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quality = synthetic.quality
    knowledge = views.task_names(measures="knowledge")
    monkeypatch.setattr(synthetic, "quality", lambda task, recipe: 0.0 if task in knowledge else quality(task, recipe))
    cache = synthetic.make(tmp_path / "cache", recipes=synthetic.FEW, n=30)
    monkeypatch.setenv("KICK_CACHE", str(cache.root))
    for page, more in ((HOME, {}), ("pages/evaluate.py", {"check": "true"}), ("pages/compare.py", {})):
        app = run(page, task="factoid_qa", b="wanda@0.5", **more)
        said = unescape(html(app))
        assert not app.exception and views.AT_CHANCE in said.replace("Nothing", "nothing"), page
        assert "keeps –" not in said and not re.search(r"\bnan\b", said), page


def test_ones_own_questions_are_checked_kept_and_asked(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = synthetic.make(tmp_path / "cache", recipes=("dense", "wanda@0.5"), task_names=("factoid_qa",), n=20)
    monkeypatch.setenv("KICK_CACHE", str(cache.root))
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(jobs, "start", lambda store, wanted: asked.append(wanted.to_json()))
    app = run("pages/evaluate.py", b="wanda@0.5", own="true")
    upload = app.file_uploader(key="own_file")
    app = upload.set_value(("mine.csv", b"question,answer\nWhy?\n", "text/csv")).run()
    assert "mine.csv, line 2: the column &#x27;answer&#x27; is missing or empty" in html(app) and not asked
    good = b"question,answer\nCapital of France?,Paris\n"
    app = app.file_uploader(key="own_file").set_value(("mine.csv", good, "text/csv")).run()
    assert "1 question, asked as “Your questions”" in html(app)
    app.button(key="own-ask").click().run()
    (spec,) = asked
    assert spec["recipes"] == ("dense", "wanda@0.5") and spec["tasks"] == ("own_questions",)
    assert Path(spec["data"]).read_bytes() == good and Path(spec["data"]).is_relative_to(cache.root / "questions")


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
    assert f"B against A: {row['words']}." in said
    strips = said.split('class="strip"')[1:]  # of the open example and, hidden, of its two neighbours
    assert [strip.count('class="frame') for strip in strips] == [3, 3, 3]


def test_any_two_recipes_are_compared_in_words(store: Store, frame: pd.DataFrame) -> None:
    a, b = (cell(frame, recipe, "factoid_qa") for recipe in ("magnitude@0.3", "magnitude@0.7"))
    said = html(run("pages/compare.py", a=a["recipe"], b=b["recipe"], task="factoid_qa"))
    words = views.words_between(store, b["run"], a["run"], "contains", "A")
    assert f"B against A: {words}." in said and "of A is kept" in words and "worse by" in words
    windows = html(run("pages/compare.py", a=a["recipe"], b=b["recipe"], task="perplexity"))
    runs = [cell(frame, row["recipe"], "perplexity")["run"] for row in (b, a)]
    assert f"B against A: {views.words_between(store, *runs, 'perplexity', 'A')}." in unescape(windows)


def test_compare_of_a_recipe_with_itself_says_so() -> None:
    assert "same recipe" in html(run("pages/compare.py", a="dense", b="dense"))


def test_compress_previews_without_pressing(store: Store) -> None:
    said = html(run("pages/compress.py", model=synthetic.MODEL, make="magnitude"))
    made = views.preview(store, synthetic.MODEL, "magnitude@0.5")
    assert f"{made.bits_per_weight:.2f} bits per weight" in said and "on 2026-11-23" in said


def test_compress_composes_a_joint_recipe_from_its_address() -> None:
    link = {"make": "sparsegpt", "how": "pattern", "nm": "2:4", "then": "gptq", "bits": "3", "group": "64"}
    app = run("pages/compress.py", model=synthetic.MODEL, recover="lora", **link)
    assert "recipe sparsegpt@2:4+gptq@3bit,group=64,recover=lora" in html(app)
    assert {"then": "gptq", "bits": "3"}.items() <= address(app).items()


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
    wanted = "kick sweep pocket-11m --recipe magnitude@0.5 --task multiple_choice --limit 8 --dtype float32"
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


# --- what is missing, and what fills it --------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_a_cache_of_another_layout_is_told(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "VERSION").write_text('{"layout": 99}')
    monkeypatch.setenv("KICK_CACHE", str(tmp_path))
    said = html(run(page))
    assert "layout 99" in said and "--cache DIR" in said


@pytest.mark.parametrize("page", PAGES)
def test_runs_of_another_version_are_counted(
    page: str, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = views.open_store(shutil.copytree(store.root, tmp_path / "cache"))
    keys = copy.keys("results")[:2]
    for key, change in zip(keys, ({"task": "cooking"}, {"recipe": "melt@@"}), strict=True):
        path = copy.folder("results", key) / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    monkeypatch.setenv("KICK_CACHE", str(copy.root))
    app = run(page)
    assert "2 runs of this cache are not shown" in html(app)
    assert "kick verify && kick list" in [code.value for code in app.code]


def test_a_model_folder_that_moved_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = str(tmp_path / "llama")
    synthetic.make(tmp_path / "cache", recipes=("dense", "magnitude@0.5"), task_names=("factoid_qa",), n=8, model=gone)
    monkeypatch.setenv("KICK_CACHE", str(tmp_path / "cache"))
    for page in PAGES:
        said = html(run(page))
        assert "is not there any more" in said and "the same files are the same model" in said
    assert "data-task" in html(run()), "what was measured stays readable"


def test_a_job_that_died_can_be_started_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = views.open_store(shutil.copytree(store.root, tmp_path / "cache"))
    wanted = jobs.request(synthetic.MODEL, ["wanda@0.45"])
    folder = copy.root / "jobs" / jobs.job_id(wanted)
    folder.mkdir(parents=True)
    state = jobs.Job(folder.name, wanted.to_json(), state="running", message="block 3")
    (folder / "state.json").write_bytes(seal_json(asdict(state)))
    monkeypatch.setenv("KICK_CACHE", str(copy.root))
    app = run("pages/compress.py")
    assert f'data-job="{folder.name}" data-state="lost"' in html(app) and "start it again" in html(app)
    asked: list[str] = []
    monkeypatch.setattr(jobs, "again", lambda store, name: asked.append(name))
    app.button(key=f"again-{folder.name}").click().run()
    assert asked == [folder.name]


def test_a_job_on_a_cluster_says_where_it_runs(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = views.open_store(shutil.copytree(store.root, tmp_path / "cache"))
    spec = jobs.request(synthetic.MODEL, ["wanda@0.45"]).to_json() | {"cluster": {"address": "10.0.0.7:6379"}}
    name = "job1-" + "ab" * 20
    folder = copy.root / "jobs" / name
    folder.mkdir(parents=True)
    where = "Ray, 10.0.0.7:6379: 2 tasks on node<b>1"
    state = jobs.Job(name, spec, state="running", updated=time.time(), host="elsewhere", where=where)
    (folder / "state.json").write_bytes(seal_json(asdict(state)))
    monkeypatch.setenv("KICK_CACHE", str(copy.root))
    said = html(run("pages/compress.py"))
    assert f'data-job="{name}" data-state="running"' in said
    assert "Ray, 10.0.0.7:6379: 2 tasks on node&lt;b&gt;1" in said


def test_nothing_measured_under_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.make(tmp_path, recipes=("dense", "magnitude@0.5"), task_names=("factoid_qa",), n=8, data="official")
    monkeypatch.setenv("KICK_CACHE", str(tmp_path))
    for page in PAGES[2:]:
        app = run(page, protocol="paper")
        assert "under the protocol paper" in html(app)
        wanted = "kick sweep pocket-11m --preset demo --protocol paper --data official"
        assert wanted in [code.value for code in app.code]


def test_the_papers_scorer_of_a_run_that_both_protocols_ask_alike(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = views.open_store(shutil.copytree(store.root, tmp_path / "cache"))
    scores = views.scores(copy)
    key = cell(views.current(scores, synthetic.MODEL), "magnitude@0.5", "retrieval_qa_closed")["run"]
    lost = synthetic.disagree(copy, key)
    monkeypatch.setenv("KICK_CACHE", str(copy.root))
    asked = {"task": "retrieval_qa_closed", "b": "magnitude@0.5", "whole": "true"}
    for protocol, scorer in (("strict", "exact_match"), ("paper", "exact_match_as_published")):
        row = cell(views.current(views.scores(copy), synthetic.MODEL, protocol), "magnitude@0.5", asked["task"])
        app = run("pages/evaluate.py", protocol=protocol, **asked)
        said = html(app)
        assert row["scorer"] == scorer and f"scored by {scorer.replace('_', ' ')}" in said
        assert f"magnitude 50 %: {views.percent(row['score'], 1)}" in said and f"protocol {protocol}" in said
        assert f"<b>{row['both_right']:.0f}</b>" in said
        assert said.count(f"ex={lost}") == 1 and "strict wrong, as published right" in said
    link = next(part for part in said.split('"') if part.startswith("?") and f"ex={lost}" in part)
    there = run("pages/evaluate.py", **{name: value[0] for name, value in parse_qs(unescape(link[1:])).items()})
    assert f">{lost} · " in html(there)


def test_pocket_and_official_data_are_two_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"recipes": ("dense", "magnitude@0.5"), "task_names": ("factoid_qa",)}
    synthetic.make(tmp_path, n=8, **made)
    folder = str(tmp_path / "benchmarks")
    store = synthetic.make(tmp_path, n=12, data=folder, **made)
    monkeypatch.setenv("KICK_CACHE", str(tmp_path))
    assert views.data_kinds(views.scores(store), synthetic.MODEL) == ["pocket", "official"]
    for page in (PAGES[0], *PAGES[2:]):
        assert "data pocket" in html(run(page)) and "8 of 16 examples" in html(run(page))
        other = html(run(page, data="official"))
        assert f"data {folder}" in other and "12 of 24 examples" in other
    app = run("pages/evaluate.py", data="official", task="factoid_qa", b="magnitude@0.5", more="true")
    assert (
        f"kick sweep pocket-11m --recipe magnitude@0.5 --task factoid_qa --limit 12 --fidelity --noise-floor "
        f"--data {folder} --dtype float32 --prompting raw" in [code.value for code in app.code]
    )
    assert len(charts(app)["curves"]["data"][0]["x"]) == 2


def test_the_protocol_switch_shows_the_other_runs(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = views.open_store(shutil.copytree(store.root, tmp_path / "cache"))
    moved = views.current(views.scores(copy), synthetic.MODEL)
    for key in moved.loc[moved["task"] == "factoid_qa", "run"]:
        path = copy.folder("results", key) / "run.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "protocol": "paper"}))
    monkeypatch.setenv("KICK_CACHE", str(copy.root))
    assert "protocol paper" in html(run("pages/evaluate.py", protocol="paper", b="magnitude@0.5"))
    strict = run("pages/evaluate.py", protocol="strict", b="magnitude@0.5")
    assert "protocol strict" in html(strict) and "factoid_qa" not in strict.selectbox(key="task").options


# --- read-only ---------------------------------------------------------------------------------------------


def test_read_only_shows_everything_and_starts_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(jobs.READ_ONLY, "1")
    for page in PAGES:
        app = run(page)
        assert "This explorer is read-only" in html(app)
        assert {button.label for button in app.button} <= {"Swap", "Share", "Glossary"}
    own = run("pages/compare.py", view="Your own prompt")
    assert not own.text_area and "read-only" in html(own)
    for act in (
        lambda: jobs.start(store, jobs.request(synthetic.MODEL, ["wanda@0.45"])),
        lambda: jobs.cancel(store, "job1-0"),
        lambda: jobs.forget(store, "job1-0"),
    ):
        with pytest.raises(BadRequest, match="read-only"):
            act()
    assert not (store.root / "jobs").exists() or not list((store.root / "jobs").iterdir())


# --- the newer parts ---------------------------------------------------------------------------------------


def test_the_grid_tells_running_cells_and_fills_like_the_rest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from kick_core.explorer import coverage_grid, data, gaps

    covered = views.coverage(store, synthetic.MODEL, more=["wanda@0.4"])
    monkeypatch.setattr(data, "protocol", lambda model: "strict")
    asked = gaps.request_for(synthetic.MODEL, ["wanda@0.4"], ["factoid_qa"], covered).to_json()
    assert asked["recipes"] == ("dense", "wanda@0.4") and asked["limits"] == {"factoid_qa": 40}
    assert asked["calibration"]["windows"] == 64 and asked["protocol"] == "strict"
    assert asked["dtype"] == "float32" and "--dtype float32" in gaps.sweep_command(
        synthetic.MODEL, "wanda@0.4", "factoid_qa"
    ), "bfloat16 is the model's own, but not that of the grid"
    drawn = coverage_grid.squares(
        covered.assign(state=covered["state"].mask(covered["recipe"] == "wanda@0.4", "running"))
    )
    names = {trace["name"]: trace for trace in drawn["data"]}
    assert len(names["queued or running"]["x"]) == covered["task"].nunique()
    assert all(recipe == "wanda@0.4" for recipe, _, _ in names["queued or running"]["customdata"])


def test_compress_looks_inside_a_matrix(store: Store) -> None:
    app = run("pages/compress.py", model=synthetic.MODEL, make="magnitude", matrix="2.mlp.down_proj")
    said = html(app)
    assert "Block 2, mlp.down_proj, 320 x 896" in said and "red is dropped" in said
    weights = charts(app)["weights"]
    assert [trace["name"] for trace in weights["data"]] == ["kept", "dropped"]
    assert sum(weights["data"][1]["y"]) == 320 * 896 // 2
    assert len(app.get("image")) == 1


def test_compress_foretells_magnitude_before_it_is_made() -> None:
    app = run("pages/compress.py", model=synthetic.MODEL, make="magnitude", to="65", matrix="1.self_attn.q_proj")
    said = html(app)
    assert "What magnitude@0.65 will work on" in said and "Will keep here" in said
    dropped = charts(app)["weights"]["data"][1]
    assert sum(dropped["y"]) == int(320 * 320 * 0.65)


def test_sizes_draw_the_best_at_each_size(frame: pd.DataFrame) -> None:
    app = run("pages/compare.py", view="Same size", task="factoid_qa")
    drawn = charts(app)["pareto"]
    line, *points = drawn["data"]
    assert {recipe for trace in points for recipe, _ in trace["customdata"]} == set(
        frame.loc[frame["task"] == "factoid_qa", "recipe"]
    )
    assert line["y"] == sorted(line["y"]) and line["x"] == sorted(line["x"])
    assert drawn["layout"]["yaxis"]["range"][0] == 0 and "n 40" in drawn["layout"]["yaxis"]["title"]["text"]


@pytest.mark.parametrize("method", ["depth", "width", "mop", "mix"])
def test_methods_that_look_at_the_whole_model_can_be_chosen(method: str) -> None:
    app = run("pages/compress.py", model=synthetic.MODEL, make=method)
    goal = "4.5bpw" if method == "mix" else "0.5"
    assert f"recipe {method}@{goal}" in html(app) and "Compress" in {button.label for button in app.button}
    assert all(box.key != "alloc" for box in app.selectbox)
    group = app.button_group(key="methods").value
    assert group == ("mixed" if method == "mix" else "structured pruning"), "a link opens the method's group"
    app.button_group(key="methods").set_value("quantization").run()
    assert app.button_group(key="make").options == ["gptq", "rtn", "awq", "int8_outlier"]
    assert "recipe gptq@4bit" in html(app)


def test_a_ratio_can_be_searched_for() -> None:
    app = run("pages/compress.py", model=synthetic.MODEL, make="wanda")
    app.selectbox(key="alloc").set_value("alloc=search,objective=factoid_qa").run()
    assert not app.exception and "recipe wanda@0.5,alloc=search,objective=factoid_qa" in html(app)
    app.selectbox(key="recover").set_value("blocks").run()
    assert not app.exception and "recipe wanda@0.5,alloc=search,objective=factoid_qa,recover=blocks" in html(app)
    app.button(key="go")


def test_what_searches_chose_stands_beside_what_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where something was searched; names and numbers are the views', and a chart that plotly takes."""
    import plotly.graph_objects as go

    assert "What was chosen" not in html(run("pages/compare.py", view="Same size", task="factoid_qa"))
    recipes = ("dense", "wanda@0.5", "wanda@0.5,alloc=search,objective=perplexity")
    kept = synthetic.make(tmp_path, recipes=recipes, task_names=["factoid_qa", "perplexity"], n=30)
    monkeypatch.setenv("KICK_CACHE", str(tmp_path))
    app = run("pages/compare.py", view="Same size", task="factoid_qa")
    shown = views.current(views.scores(kept), synthetic.MODEL)
    (family,) = search_tables.families(shown)
    said = unescape(html(app))
    assert "What was chosen for wanda 50 %" in said
    assert all(line in said for line in search_tables.differences(shown, family))
    strip = charts(app)["allocation0"]
    go.Figure(strip)
    assert strip["data"][0]["x"] == ["0", "1", "2", "3"] and len(strip["data"][0]["y"]) == 2
    _, scores, looked = (frame.value for frame in app.dataframe)
    pd.testing.assert_frame_equal(
        scores.astype(str), search_tables.scores_of(shown, family).astype(str), check_names=False
    )
    assert looked["candidates"].tolist() == [66]


def test_a_slice_filters_the_examples(store: Store, frame: pd.DataFrame) -> None:
    row = cell(frame, "magnitude@0.7", "factoid_qa")
    examples = views.examples(store, row["run"], row["dense_run"])
    app = run("pages/evaluate.py", b="magnitude@0.7", task="factoid_qa", kind="broke", slice="STEM")
    wanted = examples[(examples["flip"] == "broke") & (examples["discipline"] == "STEM")]
    assert app.dataframe[0].value["id"].tolist() == wanted["id"].tolist() and len(wanted)


def test_own_prompt_is_asked_of_the_measured_weights(
    store: Store, frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def start(store: Store, wanted: jobs.SweepJob) -> jobs.Job:
        asked.append(wanted.to_json())
        return jobs.Job(jobs.job_id(wanted), wanted.to_json())

    monkeypatch.setattr(jobs, "start", start)
    app = run("pages/compare.py", view="Your own prompt", a="dense", b="wanda@0.5", task="factoid_qa")
    app.text_area(key="own_text").set_value("Who taught Mira Tolsk?")
    next(button for button in app.button if button.label == "Ask both").click().run()
    assert asked[0]["prompt"] == "Who taught Mira Tolsk?" and asked[0]["recipes"] == ("dense", "wanda@0.5")
    assert asked[0]["weights"][1] == cell(frame, "wanda@0.5", "factoid_qa")["weights"]
    assert app.session_state["at:ask"] == jobs.job_id(_Spec(asked[0]))


class _Spec:
    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec

    def to_json(self) -> dict[str, Any]:
        return self.spec


def test_an_empty_prompt_is_refused_in_words() -> None:
    """Of a recipe, too, that was evaluated on nothing."""
    app = run("pages/compare.py", view="Your own prompt", b="magnitude@0.45")
    app.text_area(key="own_text").set_value("  ")
    next(button for button in app.button if button.label == "Ask both").click().run()
    assert "a prompt of 2 characters" in html(app)


def test_every_chart_is_one_that_plotly_takes(store: Store) -> None:
    """The pages send charts unchecked, for speed: so they are checked here, all of them."""
    import plotly.graph_objects as go

    seen = set()
    for page, query in (
        (PAGES[0], {}), (PAGES[1], {"make": "magnitude"}), (PAGES[2], {"b": "magnitude@0.5"}),
        (PAGES[3], {"b": "magnitude@0.7", "task": "instructions"}), (PAGES[3], {"b": "wanda@0.5"}),
        (PAGES[3], {"view": "Same size"}),
    ):  # fmt: skip
        for name, spec in charts(run(page, **query)).items():
            go.Figure(spec)
            seen.add(name)
    assert seen >= {"overlay", "panels", "sizes", "layers", "weights", "grid", "curves", "slices", "survival", "pareto"}


# --- measures beside the score -----------------------------------------------------------------------------


def test_a_chosen_cell_is_told_in_words(frame: pd.DataFrame) -> None:
    for recipe in ("magnitude@0.3", "magnitude@0.7"):
        row = cell(frame, recipe, "factoid_qa")
        said = unescape(html(run("pages/evaluate.py", b=recipe, task="factoid_qa")))
        assert row["words"][1:] + "." in said and f"{views.percent(row['changed'])} of the answers" in said


def test_folds_are_worked_out_when_they_are_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "details", lambda *_: pytest.fail("the fold is closed"))
    assert "Close to dense" not in html(run("pages/evaluate.py", b="magnitude@0.5", task="factoid_qa"))


def test_what_was_not_measured_names_its_command(frame: pd.DataFrame) -> None:
    app = run("pages/evaluate.py", b="wanda@0.5", task="factoid_qa", more="true")
    assert "Not measured: how close its probabilities are to dense's; how likely" in unescape(html(app))
    wanted = (
        "kick sweep pocket-11m --recipe wanda@0.5 --task factoid_qa --limit 40 --fidelity --noise-floor "
        "--dtype float32 --windows 64 --length 256"
    )
    assert wanted in [code.value for code in app.code]
    judged = run("pages/evaluate.py", b="wanda@0.5", task="instructions", more="true")
    key = cell(frame, "wanda@0.5", "instructions")["run"]
    assert f"kick judge {key[:20]} --task instructions --judge MODEL" in [code.value for code in judged.code]


def test_whole_run_tables_are_the_views(store: Store, frame: pd.DataFrame) -> None:
    for task in ("multiple_choice", "factoid_qa", "perplexity"):
        row = cell(frame, "magnitude@0.7", task)
        said = html(run("pages/evaluate.py", b="magnitude@0.7", task=task, whole="true"))
        found = views.details(store, row["run"], row["dense_run"])
        for one in found.get("failures", pd.DataFrame()).to_dict("records"):
            line = f"<b>{one['count']:.0f}</b>"
            assert f">{one['why']}</td>" in said and f"{one['dense_count']:.0f} → </span>{line}" in said
        assert ("expected calibration error" in said) == ("letters" in found) == (task == "multiple_choice")
        assert all(f"By {name[3:]}" in said for name in found if name.startswith("by_"))


def test_what_a_pack_leaves_out_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where answers' words are missing there is no table of how the outputs ended."""
    whole = views.details
    monkeypatch.setattr(views, "details", lambda *words: {
        name: table for name, table in whole(*words).items() if name != "health"
    })  # fmt: skip
    app = run("pages/evaluate.py", b="magnitude@0.3", task="factoid_qa", whole="true")
    assert not app.exception and "Not known: the pack leaves out" in html(app) and "Example by example" in html(app)


def test_closeness_of_a_real_sweep(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = views.open_store(tmp_path)
    asked = SweepJob(
        model=str(tiny_folder), recipes=("dense", "magnitude@0.5"), tasks=("factoid_qa",), limit=4, device="cpu",
        calibration=Calibration(windows=2, length=16), fidelity=True, noise_floor=True,
    )  # fmt: skip
    for _ in driver.run(asked, kept, 1):
        pass
    monkeypatch.setenv("KICK_CACHE", str(tmp_path))
    app = run("pages/evaluate.py", b="magnitude@0.5", task="factoid_qa", more="true")
    said = html(app)
    close, read, noise = views.fidelity(kept).iloc[0], views.texts(kept).iloc[0], views.noise(kept)
    for value in (f"{close['kl']:.3g}", views.percent(close["same"], 1), f"{read['lost']:.3g}", views.BOUNDS):
        assert value in unescape(said)
    assert noise.loc[noise["headline"], "words"].iloc[0] in said
    table = said.split("Close to dense")[1].partition("</table>")[0]
    assert "Noise floor" in table and "not measured" not in table
    assert not [code.value for code in app.code if code.value.startswith("kick")]


def test_judges_are_shown_with_their_controls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = synthetic.make(tmp_path, recipes=("dense", "wanda@0.5"), task_names=["instructions"], n=6, weights=False)
    with FakeJudge(lambda prompt: "Rating: [[7]]") as fake:
        monkeypatch.setenv("OPENAI_BASE_URL", fake.url)
        monkeypatch.setenv("OPENAI_API_KEY", "none")
        line = ["judge", synthetic.MODEL, "wanda@0.5", "--task", "instructions", "--judge", "judge-1"]
        assert main([*line, "--cache", str(tmp_path), "--json"]) == 0
    monkeypatch.setenv("KICK_CACHE", str(tmp_path))
    said = unescape(html(run("pages/evaluate.py", b="wanda@0.5", task="instructions", more="true")))
    judged, controls = views.judgings(kept).iloc[0], views.judge_controls(kept)
    assert "judge-1 · mt-bench" in said and f"dense {judged['dense_score']:.2f}" in said and len(controls)
    for about, holds in zip(controls["about"], controls["holds"], strict=True):
        assert about in said and holds in said


# --- the table of examples -----------------------------------------------------------------------------------


def test_the_table_has_the_texts_and_is_searched(store: Store, frame: pd.DataFrame) -> None:
    row = cell(frame, "magnitude@0.7", "factoid_qa")
    app = run("pages/evaluate.py", b="magnitude@0.7", task="factoid_qa", kind="broke")
    table = app.dataframe[0].value
    texts = views.example_texts(store, row["run"], row["dense_run"]).set_index("id")
    for name in ("question", "gold", "before", "after"):
        assert table[name].tolist() == texts.loc[table["id"], name].tolist()
    assert "dense_score" not in table, "0 and 1 say no more than the kind of flip"
    words = table["question"].iloc[-1]
    app.text_input(key="q").set_value(words.upper()).run()
    found = app.dataframe[0].value
    assert 0 < len(found) < len(table) and set(found["question"]) == {words} and address(app)["q"] == words.upper()
    again = run("pages/evaluate.py", b="magnitude@0.7", task="factoid_qa", kind="broke", q=words)
    assert again.dataframe[0].value["id"].tolist() == found["id"].tolist()


def test_many_recipes_side_by_side(store: Store, frame: pd.DataFrame) -> None:
    recipes = ("dense", "magnitude@0.5", "wanda@0.5")
    link = {"view": "Many recipes", "task": "factoid_qa", "with": " ".join((*recipes, "wanda@0.99"))}
    app = run("pages/compare.py", **link, apart="all")
    assert "names the recipe wanda@0.99" in html(app) and address(app)["with"] == " ".join(recipes)
    table = app.dataframe[0].value.set_index("id")
    assert len(table) == 40 and list(table.columns) == ["question", "gold", "dense", "magnitude 50 %", "wanda 50 %"]
    for recipe in recipes:
        row = cell(frame, recipe, "factoid_qa")
        for name in table.index[:5]:
            answer = views.example(store, row["run"], name).of(row["run"])
            assert answer is not None and table.at[name, row["label"]] == f"{'✓' if answer.right else '✗'} " + (
                text if len(text := " ".join(answer.text.split())) <= 48 else text[:47].rstrip() + "…"
            )
    parted = run("pages/compare.py", **link).dataframe[0].value
    signs = parted[["dense", "magnitude 50 %", "wanda 50 %"]].map(lambda text: text[0])
    assert len(parted) and (signs.nunique(axis=1) > 1).all(), "opens with those on which they part"


def test_repetition_is_a_distribution_that_filters(store: Store, frame: pd.DataFrame) -> None:
    row = cell(frame, "magnitude@0.7", "factoid_qa")
    examples = views.examples(store, row["run"], row["dense_run"])
    app = run("pages/compare.py", a="dense", b="magnitude@0.7", task="factoid_qa")
    a, b = charts(app)["repetition"]["data"]
    assert sum(a["y"]) == sum(b["y"]) == len(examples) and b["y"][0] == (examples["repetition"] == 0).sum()
    word, kind = next(data for data, count in zip(b["customdata"][::-1], b["y"][::-1], strict=True) if count)
    app = run("pages/compare.py", a="dense", b="magnitude@0.7", task="factoid_qa", kind=kind, repeats=word)
    mine = examples[(views.repeated(examples["repetition"]) == word) & (examples["flip"] == kind)]
    assert len(mine) and sorted(app.dataframe[0].value["id"]) == sorted(mine["id"])


def test_a_kind_without_examples_is_not_on_offer(frame: pd.DataFrame) -> None:
    app = run("pages/evaluate.py", b="wanda@0.3", task="factoid_qa", kind="cooked")
    assert "names the kind cooked, which has no example here" in html(app)
    row, kinds = cell(frame, "wanda@0.3", "factoid_qa"), app.get("button_group")
    assert kinds and address(app)["kind"] in ("broke", "fixed", "both wrong", "both right")
    assert row[address(app)["kind"].replace(" ", "_")] > 0


def test_stars_and_comments_go_into_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = synthetic.make(tmp_path, recipes=("dense", "magnitude@0.5"), task_names=("factoid_qa",), n=20)
    monkeypatch.setenv("KICK_CACHE", str(tmp_path))
    assert "Picked by hand" not in views.report(kept, synthetic.MODEL)
    app = run("pages/evaluate.py", b="magnitude@0.5")
    name = address(app)["ex"]
    next(button for button in app.button if button.label == "Star").click().run()
    next(field for field in app.text_input if str(field.key).startswith("comment")).set_value("<b>why</b>").run()
    assert not app.exception
    (star,) = views.starred(kept)
    assert (star.example, star.comment) == (name, "<b>why</b>")
    page = views.report(kept, synthetic.MODEL)
    assert "Picked by hand" in page and "Comment: &lt;b&gt;why&lt;/b&gt;" in page
    assert app.dataframe[0].value["starred"].tolist()[0]
    next(button for button in app.button if button.label == "Unstar").click().run()
    assert views.starred(kept) == []


# --- findings ------------------------------------------------------------------------------------------------


def test_pages_open_where_perplexity_and_knowledge_part_most(frame: pd.DataFrame) -> None:
    assert shown(html(run()), "h1") == [views.headline(frame, views.widest_gap(frame))]


def test_the_heat_map_is_the_frame(frame: pd.DataFrame) -> None:
    said = html(run())
    table = said.split('class="heat"')[1].split("</table>")[0]
    cells = dict(re.findall(r'<a href="evaluate\?([^"]+)"[^>]*>(\d+|–|·)', table))
    known = {unescape(query): text for query, text in cells.items()}
    assert len(known) == len(frame[frame["kind"] != "dense"])
    for query, text in known.items():
        words = parse_qs(query)
        row = cell(frame, words["b"][0], words["task"][0])
        assert text == f"{100 * row['share_kept']:.0f}" and (words.get("kind") == ["broke"]) == (row["broke"] > 0)


def test_twenty_questions_turn_from_right_to_wrong(store: Store, frame: pd.DataFrame) -> None:
    row = cell(frame, "magnitude@0.7", "factoid_qa")
    found = views.forgetting(store, row["run"], row["scorer"])
    assert [step.target_label for step in found.steps] == ["dense", "30 %", "50 %", "70 %"]
    assert all(question.right[0] for question in found.rows) and found.total == row["both_right"] + row["broke"]
    assert [question.breaks for question in found.rows] == sorted(question.breaks for question in found.rows)
    for question in found.rows:
        detail = views.example(store, row["run"], question.id, row["scorer"])
        for step, answer, right in zip(found.steps, question.answers, question.right, strict=True):
            whole = detail.of(step.run)
            assert whole is not None and (whole.text, whole.right) == (answer, right)
    said = html(run(method="magnitude", s="50"))
    table = said.split('class="forgetting"')[1].split("</table>")[0]
    assert table.count('class="wrong"') == sum(question.right.count(False) for question in found.rows)
    assert table.count("data-reached") == (1 + len(found.rows)) * len(found.steps)
    assert f"of the {found.total} questions" in said


def test_popularity_is_shown_where_the_data_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = synthetic.make(tmp_path, recipes=("dense", "magnitude@0.5"), task_names=("factoid_qa",), n=30)
    monkeypatch.setenv("KICK_CACHE", str(tmp_path))
    row = views.current(views.scores(kept), synthetic.MODEL).iloc[-1]
    assert views.by_popularity(kept, row["run"], row["scorer"]).empty and "how well known" not in html(run())
    plain = load.examples

    def tiered(store: Store, key: str) -> dict[str, Example]:
        tiers = (("head", 900), ("tail", 3))
        return {
            name: replace(one, meta={**one.meta, **dict(zip(("tier", "popularity"), tiers[at % 2], strict=True))})
            for at, (name, one) in enumerate(plain(store, key).items())
        }

    monkeypatch.setattr(load, "examples", tiered)
    st.cache_data.clear()
    table = views.by_popularity(kept, row["run"], row["scorer"])
    assert table["tier"].tolist() == ["head", "tail"] and (table["dense"] == 1).all()
    assert table["n"].sum() == row["both_right"] + row["broke"]
    assert (table["n"] * table["50 %"]).sum() == pytest.approx(row["both_right"])
    said = html(run(method="magnitude", s="50"))
    assert "By how well known the subject is" in said and "head" in said
    numbered = {
        name: replace(one, meta={**one.meta, "popularity": at})
        for at, (name, one) in enumerate(plain(kept, load.one(kept, row["run"]).card.examples).items())
    }
    monkeypatch.setattr(load, "examples", lambda store, key: numbered)
    assert views.by_popularity(kept, row["run"], row["scorer"])["tier"].tolist() == [1, 2, 3, 4], "quarters"
