"""The report: the pages' numbers, the same bytes twice, nothing that runs or fetches, commands, twelve examples."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest

from kick_core import views
from kick_core.cli import main
from kick_core.cli.arguments import parser
from kick_core.cli.requests import preset_job
from kick_core.store import Store
from kick_core.views import chart_style, charts, commands, html_report, size_charts
from kick_core.views.findings import percent
from kick_core.views.html_report import beyond, examples, facts, svg
from kick_core.views.markup import Safe, tag
from tests import synthetic


class Read(HTMLParser):
    """A page as tables (caption -> rows of cell texts), its tags with their attributes, and its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open, self._cell, self._rows = "", "", "", [["x"]]
        self.feed(page)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((name, dict(attributes)))
        self._open = name
        if name == "caption":
            self._cell = ""
        if name == "tr":
            self._rows.append([])
        if name in ("td", "th"):
            self._cell = ""

    def handle_data(self, data: str) -> None:
        if self._open not in ("style", "script"):
            self.text += data
        self._cell += data

    def handle_endtag(self, name: str) -> None:
        if name == "caption":
            self._rows = self.tables.setdefault(self._cell, [])
        if name in ("td", "th"):
            self._rows[-1].append(self._cell)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic.make(tmp_path_factory.mktemp("story") / "cache", recipes=synthetic.FEW, n=40)


@pytest.fixture(scope="module")
def frame(store: Store) -> pd.DataFrame:
    return views.current(views.scores(store), synthetic.MODEL)


@pytest.fixture(scope="module")
def page(store: Store) -> str:
    return views.report(store, synthetic.MODEL)


# --- numbers -------------------------------------------------------------------------------------------------


def test_the_table_of_shares_is_the_frame(frame: pd.DataFrame, page: str) -> None:
    head, *rows = Read(page).tables["Share of the dense score kept"]
    titles = dict(zip(frame["title"], frame["task"], strict=True))
    for label, *cells in rows:
        for title, cell in zip(head[1:], cells, strict=True):
            (row,) = frame[(frame["label"] == label) & (frame["task"] == titles[title])].to_dict("records")
            if row["kind"] != "dense":
                mark = facts.MARKS[row["verdict"]]
                bounds = f"{percent(row['share_low'])} to {percent(row['share_high'])}"
                assert cell == f"{mark} {percent(row['share_kept'])}{bounds}"
    assert [label for label, *_ in rows] == list(dict.fromkeys(frame["label"]))


def test_the_appendix_has_every_score_with_its_run(store: Store, frame: pd.DataFrame, page: str) -> None:
    tables = Read(page).tables
    for task, title in views.task_titles(frame["task"].unique()).items():
        rows = {row[0]: row for row in tables[title][1:]}
        mine = frame[frame["task"] == task]
        assert len(rows) == len(mine)
        for row in mine.to_dict("records"):
            told = rows[row["label"]]
            assert told[1] == str(row["n"]) and told[2].startswith(facts.score(row)) and told[7] == row["verdict"]
            (key,) = [key for key in store.keys("results") if key.startswith(told[-1])]
            assert key == row["run"], "the beginning of a key is enough to find it"


def test_sentences_and_claims_are_the_pages(frame: pd.DataFrame, page: str) -> None:
    text = Read(page).text
    for claim in views.claims(frame):
        assert claim.text in text and claim.rule in text and all(line in text for line in claim.because)
    half = frame[(frame["kind"] == "ratio") & (frame["sparsity"] == 0.5) & (frame["task"] == "factoid_qa")]
    assert views.headline(frame, str(half.loc[half["score"].idxmax(), "recipe"])) in text
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    for method, states in json.loads(data).items():
        for state in states[1:]:
            assert state["words"] == views.headline(frame, f"{method}@{state['s'] / 100:g}")


def test_the_abstract_says_how_far_pruning_may_go(frame: pd.DataFrame, page: str) -> None:
    text = Read(page).text
    kept = frame[(frame["task"] == "perplexity") & (frame["recipe"] == "magnitude@0.3")]["verdict"].iloc[0]
    said = re.search(r"surely keeps 95 % of dense in Perplexity (up to|at no) ([^;]+);", text)
    assert said and ("magnitude 30 %" in said[2]) == (kept == "matching")


# --- offline, inert, the same ----------------------------------------------------------------------------------


ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "span", "small", "b", "u", "nav",
    "ol", "ul", "li", "a", "section", "figure", "figcaption", "svg", "g", "line", "path", "text", "tspan", "circle",
    "polygon", "div", "label", "select", "option", "input", "table", "caption", "thead", "tbody", "tr", "th", "td",
    "dl", "dt", "dd", "pre", "script",
}  # fmt: skip


def inert(page: str) -> None:
    for name, attributes in Read(page).tags:
        assert name in ALLOWED, name
        assert not [one for one in attributes if one.startswith("on") or one in ("style", "src", "srcdoc", "srcset")]
        assert (attributes.get("href") or "#").startswith("#")
    assert page.count("<script") <= 2 and "url(" not in page.split("</style>")[0]


def test_nothing_runs_but_the_slider_and_nothing_is_fetched(page: str) -> None:
    inert(page)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy
    style, script = re.search(r"<style>(.*?)</style>", page, re.S), re.search(r"<script>(.*?)</script>", page, re.S)
    for part in (style, script):
        assert part is not None
        digest = base64.b64encode(hashlib.sha256(part[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    assert "http:" not in page and "https:" not in page and len(page) < 400_000


def test_hostile_answers_are_text(tmp_path: Path) -> None:
    model = f"pocket-11m{synthetic.HOSTILE}"
    recipes = ("dense", "magnitude@0.5", "wanda@0.5,x=<img src=x onerror=alert(1)>")
    hostile = synthetic.make(tmp_path, recipes=recipes, n=16, hostile=True, model=model)
    page = views.report(hostile, views.models(hostile)[0])
    inert(page)
    assert "<script>window.hacked=1</script>" in Read(page).text


def test_the_same_cache_gives_the_same_bytes(store: Store, page: str, tmp_path: Path) -> None:
    assert views.report(store, synthetic.MODEL) == page
    assert "2026-11-23" in page
    again = synthetic.make(tmp_path / "again", recipes=synthetic.FEW, n=40)
    assert views.report(again, synthetic.MODEL) == page


# --- what there is to tell -------------------------------------------------------------------------------------


def headings(page: str) -> list[str]:
    return re.findall(r'<h2 id="s\d+">([^<]*)</h2>', page)


def test_a_model_without_sparsities_has_no_slider(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense", "rtn@4bit"), task_names=("factoid_qa",), n=5)
    page = views.report(store, synthetic.MODEL)
    assert "Weights in 4 bits by rtn: " in page and "<script" not in page
    assert "1 The model and its questions" in headings(page)


def test_dense_alone_and_nothing_at_all_are_told(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense",), task_names=("perplexity",), n=5)
    assert "asked 1 task under 1 recipe, dense" in Read(views.report(store, synthetic.MODEL)).text
    assert "Nothing has been measured." in views.report(store, "nobody")


def test_a_section_is_added_in_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def more(about: facts.Story) -> list[Safe]:
        return [tag("p", f"of {about.model} & others")]

    monkeypatch.setattr(
        html_report, "SECTIONS", (("Added", more), ("Silent", lambda about: []), *html_report.SECTIONS[:1])
    )
    page = views.report(store, synthetic.MODEL)
    assert headings(page) == ["1 Added", "2 What is kept"] and f"of {synthetic.MODEL} &amp; others" in page


def test_other_models_stand_beside(store: Store, tmp_path: Path) -> None:
    root = tmp_path / "two"
    synthetic.make(root, recipes=("dense", "wanda@0.5"), task_names=("factoid_qa",), n=20, model="Small-1B")
    two = synthetic.make(
        root, recipes=("dense", "wanda@0.5"), task_names=("factoid_qa",), n=20, model="Small-1B-Instruct"
    )
    page = views.report(two, "Small-1B")
    head, *rows = Read(page).tables["The same recipe on several models"]
    assert head[1:] == ["Small-1B", "Small-1B-Instruct"] and rows[0][0] == "wanda 50 %, Factoid QA"
    assert rows[0][1] == rows[0][2] and "their names alone say so" in Read(page).text
    assert "The same recipe on several models" not in views.report(store, synthetic.MODEL)


def test_recovery_and_searches_are_told_where_there_are_any(store: Store, page: str, tmp_path: Path) -> None:
    again, searched = "wanda@0.5,recover=lora", "wanda@0.5,alloc=search,objective=factoid_qa"
    kept = synthetic.make(tmp_path / "beyond", recipes=("dense", "wanda@0.5", again, searched), n=30)
    now = views.current(views.scores(kept), synthetic.MODEL)
    read = Read(views.report(kept, synthetic.MODEL))
    head, answer = read.tables["Does recovery bring knowledge back, or perplexity alone?"]
    (told,) = views.recovery_answers(views.recovered(kept, now))
    assert answer[0] == told.label and answer[2:-1] == [
        f"{told.shares[kind]} {told.words[kind]}".strip() for kind in head[2:-1]
    ]
    assert answer[-1] == told.verdict
    assert len(read.tables["What came back, task by task"]) == 1 + now["task"].nunique()
    names = [row[0] for row in read.tables["wanda 50 %, shared out over the model in several ways"][1:]]
    assert set(names) >= set(now.loc[now["recipe"].isin(["wanda@0.5", searched]), "label"])
    assert "searched by factoid_qa" in read.text and "then never asked" in read.text
    solved = {"objective": "error", "examples": None, "candidates": float("nan"), "even": 0.9, "found": 0.4}
    assert beyond._saw(solved) == "searched by error: 0.900 shared out evenly, 0.400 as found"
    assert not any("brought back" in head or "searches chose" in head for head in headings(page))


# --- examples --------------------------------------------------------------------------------------------------


def test_twelve_answers_that_broke_take_turns(store: Store) -> None:
    about = facts.gather(store, synthetic.MODEL)
    found = examples.chosen(about)
    assert len(found) == examples.COUNT and len({name for _, name in found}) == examples.COUNT
    for row, name in found:
        table = views.examples(store, row["run"], row["dense_run"], row["scorer"])
        assert name in set(table.loc[table["flip"] == "broke", "id"])
    tasks = [row["task"] for row, _ in found]
    first = tasks[: len(set(tasks))]
    assert len(set(first)) == len(first), "every task has its turn before one has a second"
    assert len({row["label"] for row, _ in found}) > 2
    page = views.report(store, synthetic.MODEL)
    assert page.count('<section class="example">') == examples.COUNT and views.RULE in Read(page).text


def test_the_first_example_is_picked_by_the_stated_rule(store: Store) -> None:
    (row, name), *_ = examples.chosen(facts.gather(store, synthetic.MODEL))
    table = views.examples(store, row["run"], row["dense_run"], row["scorer"])
    assert name == views.pick(table.loc[table["flip"] == "broke", "id"].tolist())


def test_long_answers_are_cut_and_say_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples, "LONGEST", 20)
    assert re.search(r"… \(\d+ characters\)", Read(views.report(store, synthetic.MODEL)).text)


# --- commands --------------------------------------------------------------------------------------------------


def requested(line: str) -> Any:
    return preset_job(parser().parse_args(shlex.split(line)[1:]))


def test_every_cell_is_in_one_command_with_its_options(store: Store, frame: pd.DataFrame) -> None:
    lines = commands.sweeps(store, frame)
    cells = set()
    for request in map(requested, lines):
        assert request.limit == 40 and request.dtype == "float32" and request.device == "cpu"
        cells |= {(recipe, task) for recipe in request.recipes for task in request.tasks}
        if any(recipe.startswith("wanda") for recipe in request.recipes):
            assert (request.calibration.windows, request.calibration.length, request.calibration.seed) == (64, 256, 0)
    assert cells == set(zip(frame["recipe"], frame["task"], strict=True)) and len(lines) == 1


def test_other_limits_are_other_commands(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense", "rtn@4bit"), task_names=("perplexity", "factoid_qa"), n=30,
                           limit={"perplexity": 8})  # fmt: skip
    found = {request.tasks: request.limit for request in map(requested, commands.sweeps(store, current(store)))}
    assert found == {("perplexity",): 8, ("factoid_qa",): 30}
    (other,) = {requested(line).model for line in commands.sweeps(store, current(store), "my model")}
    assert other == "my model"


def current(store: Store) -> pd.DataFrame:
    return views.current(views.scores(store), synthetic.MODEL)


def test_a_lost_calibration_is_admitted(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense", "wanda@0.5", "magnitude@0.5"), task_names=("factoid_qa",), n=5,
                           weights=False)  # fmt: skip
    assert commands.unknown_calibrations(store, current(store)) == ["wanda@0.5"]
    assert "The calibration of wanda@0.5 is not known any more" in Read(views.report(store, synthetic.MODEL)).text


def test_a_wrapped_command_is_the_command_again() -> None:
    line = shlex.join(["kick", "sweep", "a folder/it's", *(word for i in range(40) for word in ("--recipe", f"w@{i}"))])
    told = commands.wrapped(line)
    assert max(map(len, told.splitlines())) <= 100
    assert shlex.split(told.replace("\\\n", " ")) == shlex.split(line)


# --- the command line ------------------------------------------------------------------------------------------


def test_report_command(store: Store, page: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "r.html"
    assert main(["report", str(file), "--cache", str(store.root), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "file": str(file), "bytes": len(page.encode()), "model": synthetic.MODEL, "protocol": "strict", "data": "pocket"
    }  # fmt: skip
    assert file.read_text() == page


@pytest.mark.parametrize("words, said", [
    (["--data", "official"], "was not asked on data 'official': it was asked on pocket"),
    (["--protocol", "loose"], "was not asked under protocol 'loose': only strict"),
    (["--model", "pocket-11"], "Did you mean 'pocket-11m'"),
])  # fmt: skip
def test_what_was_not_asked_is_refused(
    store: Store, words: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path / "r.html"), *words, "--cache", str(store.root)]) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "r.html").exists()


def test_official_data_has_a_report_of_its_own(tmp_path: Path) -> None:
    root, names = tmp_path / "cache", ("multiple_choice", "factoid_qa")
    synthetic.make(root, recipes=("dense", "wanda@0.5"), task_names=names, n=20)
    synthetic.make(root, recipes=("dense", "wanda@0.7"), task_names=names, n=12, data="official")
    for words, label, told in ((["--data", "official"], "wanda 70 %", " --data official"), ([], "wanda 50 %", "")):
        assert main(["report", str(tmp_path / "r.html"), "--cache", str(root), *words]) == 0
        page = Read((tmp_path / "r.html").read_text())
        assert [row[0] for row in page.tables["Share of the dense score kept"][1:]] == ["dense", label]
        assert f"kick report report.html --model {synthetic.MODEL}{told}" in re.sub(r" *\\\n *", " ", page.text)


# --- pictures --------------------------------------------------------------------------------------------------


def drawn(chart: chart_style.Chart) -> ElementTree.Element:
    return ElementTree.fromstring(svg.draw(chart, "a <title>"))


CHARTS = {
    "overlay": (charts.overlay, "magnitude"),
    "panels": (charts.panels,),
    "accuracy": (charts.accuracy, "perplexity"),
    "pareto": (size_charts.pareto, "factoid_qa"),
    "sizes": (size_charts.sizes, "factoid_qa"),
}


@pytest.mark.parametrize("name", CHARTS)
def test_every_chart_becomes_a_picture(frame: pd.DataFrame, name: str) -> None:
    draw, *words = CHARTS[name]
    chart = draw(frame, *words)
    picture = drawn(chart)
    assert picture.find("title").text == "a <title>" and picture.get("role") == "img"
    width, height = map(float, picture.get("viewBox").split()[2:])
    points = sum(len([y for y in trace["y"] if y is not None]) for trace in chart["data"] if "markers" in trace["mode"])
    assert sum(len(group) for group in picture.findall("g")) >= points
    for mark in (*picture.iter("circle"), *picture.iter("text")):
        x, y = (float(mark.get(one) or mark.get(f"c{one}")) for one in "xy")
        assert -1 <= x <= width and -1 <= y <= height + 1, ElementTree.tostring(mark)


LINE = {
    "type": "scatter", "mode": "lines+markers", "x": [0, 50, None, 100], "y": [1.0, 0.5, 0.4, 2.0], "name": "a",
    "line": {"color": "#123456", "dash": "dash", "width": 2}, "marker": {"color": "#123456", "symbol": "circle"},
    "error_y": {"array": [0.1, 9.0, 0, 0], "arrayminus": [0.1, 0.1, 0, 0]},
}  # fmt: skip
LAYOUT = {
    "height": 200, "xaxis": {"range": [0, 100], "ticksuffix": " %"}, "yaxis": {"range": [0, 1], "tickformat": ".0%"},
}  # fmt: skip


def test_places_are_proportional_and_what_lies_beyond_is_cut() -> None:
    picture = drawn({"data": [LINE], "layout": LAYOUT})
    (path,) = picture.iter("path")
    assert path.get("stroke-dasharray") == svg.DASHES["dash"] and path.get("d").count("M") == 2, "a gap stays a gap"
    dots = [(float(dot.get("cx")), float(dot.get("cy"))) for dot in picture.iter("circle")]
    zero, unit = float(picture.get("data-zero")), float(picture.get("data-unit"))
    assert [x for x, _ in dots] == pytest.approx([zero, zero + 50 * unit, zero + 100 * unit], abs=0.1)
    assert dots[2][1] == pytest.approx(dots[0][1], abs=0.1), "200 % is drawn where the axis ends"
    bars = [(float(bar.get("y1")), float(bar.get("y2"))) for bar in picture.find("g").iter("line")]
    assert min(bars[1]) == pytest.approx(dots[0][1], abs=0.1), "an endless bar is cut there too"


def test_a_logarithm_and_words_on_axes() -> None:
    axis = {"type": "log", "range": [0, 2], "tickvals": [1, 10, 100]}
    steep = {**LINE, "x": ["b", "a"], "y": [10.0, 100.0]}
    steep.pop("error_y")
    layout = {"height": 200, "yaxis": axis, "xaxis": {"type": "category", "categoryarray": ["a", "b"]}}
    dots = [dot for dot in drawn({"data": [steep], "layout": layout}).iter("circle")]
    bottom = next(float(t.get("y")) for t in drawn({"data": [steep], "layout": layout}).iter("text") if t.text == "1")
    first, second = (float(dot.get("cy")) for dot in dots)
    assert first - second == pytest.approx(bottom - 4 - first, abs=0.2) and dots[1].get("cx") < dots[0].get("cx")


def test_hostile_names_and_colours_are_text() -> None:
    hostile = chart_style.plain("</svg><script>x</script>")
    bad = {**LINE, "name": hostile, "line": {"color": '"><script>', "width": 1}}
    picture = svg.draw({"data": [bad, LINE], "layout": LAYOUT}, "<script>")
    assert "<script" not in picture and ElementTree.fromstring(picture) is not None
    assert any(text.text == "</svg><script>x</script>" for text in ElementTree.fromstring(picture).iter("text"))


def test_no_data_no_picture() -> None:
    assert svg.draw({"data": [], "layout": LAYOUT}, "x") == ""
    assert facts.figure({"data": [], "layout": LAYOUT}, "caption", "alt") == ""


def test_an_unknown_symbol_is_a_circle() -> None:
    for name, wanted in (("diamond", "polygon"), ("x", "line"), ("star", "circle")):
        assert svg.symbol(name, 1, 1, 3, "#000").startswith(f"<{wanted}")
    assert replace(svg._Axis("xaxis", 0, 1, 0, 1, False, {}, (), "", True), low=0).at(None) is None
