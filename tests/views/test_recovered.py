"""What recovery brought back: the table against scores by hand, the words by their rule, the pictures."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kick_core import stats, views
from kick_core.spec import parse
from kick_core.store import Store
from kick_core.views import charts, load, recipe_labels, recovery
from tests import synthetic

LORA = "wanda@0.5,recover=lora,recover_rank=4"
RECIPES = ("dense", "wanda@0.5", LORA, "rtn@2bit", "rtn@2bit,recover=lora", "magnitude@0.3,recover=blocks")
TASKS = ("perplexity", "factoid_qa", "retrieval_qa_closed", "retrieval_qa_open")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic.make(tmp_path_factory.mktemp("recovered") / "cache", recipes=RECIPES, task_names=TASKS, n=120)


@pytest.fixture(scope="module")
def frame(store: Store) -> pd.DataFrame:
    return views.current(views.scores(store), synthetic.MODEL)


@pytest.fixture(scope="module")
def table(store: Store, frame: pd.DataFrame) -> pd.DataFrame:
    return views.recovered(store, frame)


def cell(table: pd.DataFrame, recipe: str, task: str) -> pd.Series:
    return table[(table["recipe"] == recipe) & (table["task"] == task)].iloc[0]


def test_shares_are_those_of_the_stored_scores(store: Store, frame: pd.DataFrame, table: pd.DataFrame) -> None:
    row = cell(table, LORA, "factoid_qa")
    scores = {r: float(cell(frame, r, "factoid_qa")["score"]) for r in ("dense", "wanda@0.5", LORA)}
    assert (row["dense"], row["compressed"], row["recovered"]) == pytest.approx(tuple(scores.values()))
    share = (scores[LORA] - scores["wanda@0.5"]) / (scores["dense"] - scores["wanda@0.5"])
    assert row["share"] == pytest.approx(share) and row["low"] < row["share"] < row["high"] and row["n"] == 120
    assert row["text"] == "16,384 tokens of pocket-unasked" and row["how"] == "lora (rank=4)"
    fluent = cell(table, LORA, "perplexity")
    nats = [math.log(fluent[name]) for name in ("dense", "compressed", "recovered")]
    assert fluent["share"] == pytest.approx((nats[1] - nats[2]) / (nats[1] - nats[0]))
    assert fluent["low"] <= fluent["share"] <= fluent["high"]


def test_what_was_not_asked_is_not_measured(table: pd.DataFrame) -> None:
    rows = table[table["recipe"] == "magnitude@0.3,recover=blocks"]
    assert set(rows["word"]) == {"not measured"} and rows["share"].isna().all()
    (answer,) = (one for one in views.recovery_answers(table) if one.recipe == "magnitude@0.3,recover=blocks")
    assert answer.verdict == "Perplexity: not measured; knowledge: not measured."


def answered(*cells: tuple[str, float, float, float]) -> recovery.Answer:
    rows = [
        {"recipe": "r", "label": "r", "text": "", "task": task, "title": task, "share": share, "low": low, "high": high,
         "word": recovery._word(stats.Interval(share, low, high, 100))}
        for task, share, low, high in cells
    ]  # fmt: skip
    (found,) = views.recovery_answers(pd.DataFrame(rows))
    return found


BACK, LOST, OPEN, NONE = (0.8, 0.6, 0.9), (0.1, -0.1, 0.3), (0.5, 0.2, 0.8), (math.nan,) * 3
SOME = (0.4, 0.35, 0.45)


@pytest.mark.parametrize(
    ("fluent", "facts", "more", "said"),
    [
        (BACK, LOST, LOST, "Perplexity recovered over half of its loss, knowledge under half."),
        (LOST, BACK, BACK, "Knowledge recovered over half of its loss, perplexity under half."),
        (BACK, BACK, NONE, "Perplexity and knowledge both recovered over half of their loss."),
        (LOST, LOST, LOST, "Neither perplexity nor knowledge recovered half of its loss."),
        (SOME, LOST, LOST, "Neither perplexity nor knowledge recovered half of its loss; perplexity recovered"),
        (BACK, OPEN, LOST, "Perplexity: over half came back; knowledge: cannot tell"),
        (BACK, BACK, LOST, "Perplexity: over half came back; knowledge: differs by task."),
        (BACK, NONE, NONE, "Perplexity: over half came back; knowledge: no loss shown."),
    ],
)
def test_the_answer_by_its_rule(fluent, facts, more, said) -> None:
    found = answered(("perplexity", *fluent), ("factoid_qa", *facts), ("retrieval_qa_closed", *more))
    assert found.verdict.startswith(said), found.verdict
    assert found.words["open-book skill"] == "not measured"


def test_names_sizes_and_claims(store: Store, frame: pd.DataFrame) -> None:
    recipe = parse("sparsegpt@2:4+gptq@4bit,group=64,recover=lora,recover_seed=3")
    assert recipe_labels.label(recipe) == "sparsegpt 2:4 + gptq 4 bit (group=64) + lora (seed=3)"
    assert recipe_labels.method(recipe) == "sparsegpt+gptq (group=64) + lora (seed=3)"
    plain, again = (cell(frame, text, "factoid_qa") for text in ("rtn@2bit", "rtn@2bit,recover=lora"))
    factors = 32 * 8 * sum(320 + cols for cols in (320, 320, 896)) / sum(320 * cols for cols in (320, 320, 896))
    assert again["bits_per_weight"] == pytest.approx(plain["bits_per_weight"] + factors, rel=0.03)
    pruned, regained = (cell(frame, text, "factoid_qa") for text in ("wanda@0.5", LORA))
    assert regained["bits_per_weight"] == pruned["bits_per_weight"]
    assert (regained["without"], regained["base"], pruned["without"]) == ("wanda@0.5", "wanda", "")
    for claim in views.claims(frame):
        assert (claim.evidence["recovered"] == "").all(), "the paper recovers nothing"


def test_what_was_recovered_stands_hollow_where_it_was_measured_in_its_methods_colour(frame: pd.DataFrame) -> None:
    lines = {line["name"]: line for line in charts.curves(frame[frame["task"] == "factoid_qa"])}
    plain, again = lines["wanda"], lines["wanda + lora (rank=4)"]
    assert plain["line"]["color"] == again["line"]["color"]
    assert (plain["x"][0], again["x"], again["mode"]) == (0, [50], "markers"), "no line through what nobody measured"
    assert again["marker"]["symbol"] == plain["marker"]["symbol"] + "-open"
    poster = charts.overlay(frame, "wanda")["data"]
    hollow = [line for line in poster if line["marker"]["symbol"].endswith("-open")]
    assert {line["customdata"][0][1] for line in hollow} == set(TASKS)
    assert all((line["x"], line["mode"], line["customdata"][0][0]) == ([50], "markers", LORA) for line in hollow)
    beside = {line["name"]: line for line in charts.accuracy(frame, "factoid_qa")["data"]}
    assert beside["rtn + lora"]["marker"]["color"] == beside["rtn"]["marker"]["color"]


def test_a_run_that_is_shorter_is_compared_where_all_three_answered(tmp_path: Path) -> None:
    names = ("factoid_qa",)
    store = synthetic.make(tmp_path, recipes=("dense", "wanda@0.5"), task_names=names, n=120)
    synthetic.make(tmp_path, recipes=(LORA,), task_names=names, n=120)
    frame = views.current(views.scores(store), synthetic.MODEL)
    (row,) = views.recovered(store, frame).to_dict("records")
    asked = load.one(store, str(frame[frame["recipe"] == LORA]["run"].iloc[0]))
    mine = load.verdicts(store, asked)[asked.task.headline]
    short = mine.take(np.arange(50))
    ids, (dense, before, after) = recovery._shared([mine, short, mine])
    assert len(ids) == 50 == len(dense) == len(before) == len(after) and row["n"] == 120
    assert np.array_equal(dense, after)


def test_the_command_line_prints_the_same_table(store: Store, frame: pd.DataFrame, table: pd.DataFrame) -> None:
    from kick_core.cli import reproduce
    from kick_core.views.reproduced import Swept

    swept = Swept(synthetic.MODEL, 64, {(row["recipe"], row["task"]): row["run"] for row in frame.to_dict("records")})
    printed, notes = reproduce._recovery(store, swept)
    assert printed["share"].equals(table["share"]) and len(notes) == len(views.recovery_answers(table)) + 1
    row = next(row for row in printed.to_dict("records") if row["share"] == row["share"])
    cells = dict(zip(reproduce._shown(printed), reproduce._row(row), strict=True))
    assert cells["share"] == f"{row['share']:.1%}" and cells["low"] == f"{row['low']:.1%} … {row['high']:.1%}"
    assert cells["dense"] == f"{row['dense']:.3f}" and cells["word"] == row["word"]
