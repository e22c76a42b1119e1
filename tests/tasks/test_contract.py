"""Contract tests: every task file gets these by existing, and two fixture tasks with data of one kind only."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import streamlit as st

import kick_core
from kick_core import evaluation, tasks, views
from kick_core.artifacts.loaded_model import open_for
from kick_core.cli import main
from kick_core.errors import BadRequest
from kick_core.records import Example, Output
from kick_core.spec import ModelRef
from kick_core.store import open_store
from kick_core.sweeps.request import preset
from kick_core.tasks import breakdowns
from kick_core.tasks.wording import choice, lettered
from kick_core.views import chart_style, charts
from tests import harness, synthetic

FIXTURES = Path(__file__).parent / "fixtures"
POCKET_ONLY, OFFICIAL_ONLY = "fixture_pocket", "fixture_official"
NAMES = (*tasks.names(unlisted=True), POCKET_ONLY, OFFICIAL_ONLY)

SAME_ON_ALL_DATA = (
    "name", "title", "measures", "order", "colour", "noun", "context_partner", "in_paper", "demo_examples", "listed",
    "aggregate", "higher_is_better",
)  # fmt: skip


@pytest.fixture(autouse=True)
def fixtures(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package also looks for tasks in the folder of fixtures."""
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(FIXTURES)])


def records(name: str) -> list[tasks.Task]:
    return [tasks.get(name, data) for data in ("pocket", "official") if name in tasks.names(data, unlisted=True)]


@pytest.mark.parametrize("name", NAMES)
def test_a_record_says_all_that_other_files_need(name: str) -> None:
    assert records(name), "at least one kind of data"
    for task in records(name):
        assert task.name == name and task.title and task.about and task.version >= 1
        assert task.headline in task.scorers and (not task.published or task.published in task.scorers)
        assert all(tasks.about_scorer(task, scorer) != scorer for scorer in task.scorers), "a docstring for people"
        assert task.asking("strict").kind == task.asking("paper").kind
        for one in SAME_ON_ALL_DATA:
            assert getattr(task, one) == getattr(tasks.record(name), one), one


@pytest.mark.parametrize("name", NAMES)
def test_what_a_record_belongs_to_has_its_data(name: str) -> None:
    task = tasks.record(name)
    assert not task.in_paper or name in tasks.names("official")
    assert task.demo_examples is None or name in tasks.names("pocket")
    if task.context_partner:
        for data in ("pocket", "official"):
            assert (name in tasks.names(data)) <= (task.context_partner in tasks.names(data))


def test_places_and_colours_are_each_tasks_own() -> None:
    shown = [tasks.record(name) for name in NAMES]
    assert len({task.order for task in shown}) == len({task.colour for task in shown}) == len(shown)
    assert [task.order for task in shown[:-2]] == sorted(task.order for task in shown[:-2])


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name in (*tasks.names("pocket", unlisted=True), POCKET_ONLY)]
)
def test_examples_have_one_order_and_a_gold_that_can_be_chosen(name: str) -> None:
    way = tasks.get(name).strict
    examples = way.load("pocket")
    assert examples == way.load("pocket") and len({example.id for example in examples}) == len(examples)
    for example in examples if way.kind == "choose" else ():
        assert len(example.answers) == 1 and example.answers[0] in lettered(example.choices)
    with pytest.raises(BadRequest, match="unknown data"):
        way.load("no such data")


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_answer_is_not_judged(name: str) -> None:
    example = Example("e", ("q",), choices=(" A", " B"), answers=("A",), meta={"checks": [], "facts": [["x"]]})
    for task in records(name):
        for stop in tasks.UNJUDGED:
            verdicts = tasks.judge(task, example, Output("e", "h", stop=stop))
            assert {verdict.score for verdict in verdicts} == {None} and {v.why for v in verdicts} == {stop}


def test_tasks_need_neither_torch_nor_datasets() -> None:
    code = "import sys; from kick_core import tasks; tasks.names(); print(*({'torch', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.split()


def test_no_other_file_names_a_task() -> None:
    """Names that are words of the grammar too ("perplexity": a kind of prompt, an objective) are left out."""
    names = set(tasks.names(unlisted=True)) - {"perplexity"}
    root = Path(kick_core.__file__).parent
    paths = [path for path in root.rglob("*.py") if root / "tasks" not in path.parents]
    paths += (root.parent / "pages").glob("*.py")
    assert len(paths) > 100
    for path in paths:
        literals = {node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant)}
        assert not names & {value for value in literals if isinstance(value, str)}, path


# --- data of one kind only -----------------------------------------------------------------------------------


def test_data_that_a_task_has_not_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match=r"fixture_official.*'pocket'"):
        tasks.get(OFFICIAL_ONLY)
    with pytest.raises(BadRequest, match=r"fixture_pocket.*'official'"):
        tasks.get(POCKET_ONLY, "official")
    assert POCKET_ONLY in tasks.names("pocket") and POCKET_ONLY not in tasks.names("official")
    assert tasks.record(OFFICIAL_ONLY).title == views.task_titles()[OFFICIAL_ONLY] == "Fixture colours"


def test_presets_ask_what_the_records_say() -> None:
    demo = preset("demo", "pocket")
    assert demo.limit_of(POCKET_ONLY) == 5 and OFFICIAL_ONLY not in demo.tasks
    assert OFFICIAL_ONLY in preset("paper", "pocket", "official").tasks
    assert {OFFICIAL_ONLY, POCKET_ONLY}.isdisjoint(preset("paper", "pocket").tasks)


@pytest.mark.parametrize(("name", "data"), [(POCKET_ONLY, "pocket"), (OFFICIAL_ONLY, "official")])
def test_evaluated_planned_and_read(
    name: str, data: str, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--data", data, "--cache", str(tmp_path), "--json"]
    asked = [str(tiny_folder), "--recipe", "magnitude@0.5", "--task", name, *place]
    assert main(["sweep", *asked, "--plan"]) == 0
    assert name in capsys.readouterr().out
    assert main(["evaluate", str(tiny_folder), "dense", "magnitude@0.5", "--task", name, *place]) == 0
    results = json.loads(capsys.readouterr().out)["results"]
    assert [(row["recipe"], row["task"]) for row in results] == [("dense", name), ("magnitude@0.5", name)]
    store = open_store(tmp_path)
    frame = views.current(views.scores(store), views.models(store)[0])
    assert set(frame["title"]) == {tasks.record(name).title} and (frame["n"] > 0).all()


def test_a_new_knowledge_task_leads_headline_claims_and_charts(tmp_path: Path) -> None:
    store = synthetic.make(
        tmp_path / "cache", recipes=synthetic.FEW, task_names=("perplexity", POCKET_ONLY), n=40, weights=False
    )
    frame = views.current(views.scores(store), synthetic.MODEL)
    headline = views.headline(frame, "magnitude@0.7")
    assert "perplexity rises" in headline and "Fixture sums" in headline
    knowledge, _, _ = views.claims(frame)
    assert set(knowledge.evidence["task"]) == {POCKET_ONLY} and "Fixture sums" in knowledge.rule
    lines = {trace["name"]: trace["line"] for trace in charts.overlay(frame, "magnitude")["data"]}
    assert chart_style.task_colour(POCKET_ONLY) == "#123456"
    assert lines["Fixture sums"]["width"] > 4, "it comes before every other knowledge task"


@pytest.mark.parametrize("page", ["pages/home.py", "pages/evaluate.py", "pages/compare.py", "pages/compress.py"])
@pytest.mark.parametrize(("name", "data"), [(POCKET_ONLY, "pocket"), (OFFICIAL_ONLY, "official")])
def test_every_page_opens_on_it(
    name: str, data: str, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synthetic.make(tmp_path / "cache", recipes=("dense", "magnitude@0.5"), task_names=(name,), n=12, data=data)
    monkeypatch.setenv("KICK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(harness.ROOT)
    st.cache_data.clear()
    app = harness.run(page)
    if page == "pages/evaluate.py":
        assert "Fixture" in "".join(element.proto.body for element in app.get("html")) or any(
            box.value == name for box in app.selectbox
        )


# --- any number of options -----------------------------------------------------------------------------------


def choose_task(count: int) -> tasks.Task:
    """A task of this many options, the last one always right."""
    options = [f"thing {n}" for n in range(count)]

    def load(data: str) -> tuple[Example, ...]:
        letters = lettered(options)
        shown = tuple(f" {letter}" for letter in letters)
        return tuple(
            Example(f"e{n}", (choice(f"Question {n}?", options),), choices=shown, answers=(letters[-1],))
            for n in range(4)
        )

    return replace(tasks.get("multiple_choice", "official"), strict=tasks.PromptSpec("choose", load), paper=None)


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_any_number_of_options(count: int, tiny_folder: Path) -> None:
    task = choose_task(count)
    examples = task.strict.load("pocket")
    assert examples[0].prompt[0].splitlines()[count] == f"{'ABCDEFGHIJ'[count - 1]}. thing {count - 1}"
    opened = open_for(ModelRef(str(tiny_folder)), None, "cpu")
    outputs = list(evaluation.evaluate(opened.model, opened.tokenizer, task))
    assert [len(output.logprobs) for output in outputs] == [count] * 4
    best = Output("e0", "h", logprobs=(-3.0,) * (count - 1) + (-1.0,), argmax=f" {lettered(examples[0].choices)[-1]}")
    scores = {verdict.scorer: verdict.score for verdict in tasks.judge(task, examples[0], best)}
    assert scores["accuracy"] == scores["free_choice"] == scores["letter_given"] == 1
    assert 1 / count < scores["gold_probability"] < 1
    tables = breakdowns.details(task, examples, [best], tasks.judge(task, examples[0], best))
    assert [row["letter"] for row in tables["letters"]] == list("ABCDEFGHIJ"[:count])
    assert tables["letters"][-1]["found"] == 1


def test_more_options_than_letters_are_refused() -> None:
    with pytest.raises(BadRequest, match="27 options"):
        choice("Which?", ["x"] * 27)


def test_a_record_that_cannot_be_shown_is_refused() -> None:
    task = tasks.record("multiple_choice")
    with pytest.raises(BadRequest, match="acuracy"):
        replace(task, headline="acuracy")
    with pytest.raises(BadRequest, match="colour 'red'"):
        replace(task, colour="red")
    assert {field.name for field in fields(task)} >= set(SAME_ON_ALL_DATA)
