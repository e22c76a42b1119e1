"""Whole-run tables, and which runs and scorers stand for a protocol and a kind of data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from kick_core import views
from kick_core.records import Output
from kick_core.store import Store, results
from kick_core.tasks import verdicts
from kick_core.views import load
from tests import synthetic

RECIPES = ("dense", "wanda@0.5", "magnitude@0.7")
TASKS = ("factoid_qa", "multiple_choice", "perplexity", "retrieval_qa_closed", "retrieval_qa_open")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic.make(tmp_path_factory.mktemp("whole") / "cache", recipes=RECIPES, task_names=TASKS, n=30)


def cell(store: Store, recipe: str, task: str) -> pd.Series:
    frame = views.current(views.scores(store), synthetic.MODEL)
    return frame[(frame["recipe"] == recipe) & (frame["task"] == task)].iloc[0]


@pytest.mark.parametrize("task", TASKS)
def test_tables_are_scorings_beside_denses(store: Store, task: str) -> None:
    row = cell(store, "magnitude@0.7", task)
    found = views.details(store, row["run"], row["dense_run"])
    mine, dense = (verdicts.details(store, key) for key in (row["run"], row["dense_run"]))
    assert set(found) == set(mine)
    for name, table in mine.items():
        own = pd.DataFrame(table)
        pd.testing.assert_frame_equal(found[name][list(own)].head(len(own)), own, check_dtype=False)
    assert found["health"]["dense_n"].iloc[0] == dense["health"][0]["n"]


def test_what_only_dense_said_is_a_row_too(store: Store) -> None:
    row = cell(store, "magnitude@0.7", "factoid_qa")
    there = views.details(store, row["run"], row["dense_run"])["failures"]
    turned = views.details(store, row["dense_run"], row["run"])["failures"]
    assert set(there["why"]) == set(turned["why"]) and there["count"].sum() == turned["dense_count"].sum() == 30
    assert there.set_index("why")["count"].sort_index().tolist() == (
        turned.set_index("why")["dense_count"].sort_index().tolist()
    )
    assert 0 in turned["count"].tolist()


def test_groups_end_with_micro_and_macro(store: Store) -> None:
    row = cell(store, "wanda@0.5", "multiple_choice")
    groups = views.details(store, row["run"], row["dense_run"])["by_discipline"]
    assert groups["group"].tolist()[-2:] == ["micro", "macro"]
    assert groups.set_index("group").loc["micro", "mean"] == pytest.approx(row["score"])
    assert groups.set_index("group").loc["micro", "dense_mean"] == pytest.approx(row["dense_score"])


def test_details_write_nothing(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense",), task_names=["factoid_qa"], n=8, with_verdicts=False)
    key = next(iter(store.keys("results")))
    before = sorted(tmp_path.rglob("*"))
    assert views.details(store, key)["health"]["n"].iloc[0] == 8
    assert sorted(tmp_path.rglob("*")) == before


def test_remembered_only_where_the_same_question_was_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    row = cell(store, "dense", "retrieval_qa_open")
    closed = cell(store, "dense", "retrieval_qa_closed")
    asked = results.examples(store, load.one(store, row["run"]).card.examples)
    shown = [replace(one, meta={**one.meta, "passage": f"It was {one.answers[0]}."}) for one in asked]
    monkeypatch.setattr(results, "examples", lambda *_: shown)
    inside = verdicts.details(store, row["run"], closed["run"])["context"][0]
    assert not inside["closed_book_asked"] and inside["remembered"] == 0 and inside["retrieved"]
    outputs = results.outputs(store, row["run"])

    def same(store: Store, key: str) -> dict[str, bool]:
        assert key == closed["run"]
        return {output.example: True for output in outputs if isinstance(output, Output)}

    monkeypatch.setattr(verdicts, "_known", same)
    inside = verdicts.details(store, row["run"], closed["run"])["context"][0]
    assert inside["closed_book_asked"] and inside["remembered"] and inside["retrieved"] == 0


# --- protocols and data --------------------------------------------------------------------------------------


def test_a_shared_run_counts_for_both_protocols(store: Store) -> None:
    scores = views.scores(store)
    strict, paper = (views.current(scores, synthetic.MODEL, name) for name in ("strict", "paper"))
    assert strict["run"].tolist() == paper["run"].tolist()
    assert set(strict["protocol"]) == {"strict"} and set(paper["protocol"]) == {"paper"}
    told = dict(zip(paper["task"], paper["scorer"], strict=True))
    assert told["retrieval_qa_closed"] == "exact_match_as_published" and told["perplexity"] == "perplexity"
    assert set(strict["scorer"]) == {"perplexity", "contains", "accuracy", "exact_match"}
    assert views.protocols(scores, synthetic.MODEL) == ["strict", "paper"]
    covered = views.coverage(store, synthetic.MODEL, protocol="paper")
    assert set(covered.loc[covered["task"].isin(TASKS), "state"]) == {"done"}


def test_what_the_paper_asks_otherwise_is_not_its_run(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense",), task_names=TASKS[:3], n=6, data="official")
    scores = views.scores(store)
    shared = scores.drop_duplicates("task").set_index("task")["shared"]
    assert not shared["factoid_qa"] and shared["perplexity"]
    assert views.current(scores, synthetic.MODEL, "paper")["task"].tolist() == ["perplexity"]
    covered = views.coverage(store, synthetic.MODEL, protocol="paper", data="official").set_index("task")["state"]
    assert covered["factoid_qa"] == "missing" and covered["perplexity"] == "done"


def test_pocket_and_official_data_make_no_curve(tmp_path: Path) -> None:
    made = {"recipes": RECIPES, "task_names": ["factoid_qa"]}
    synthetic.make(tmp_path, n=8, **made)
    for data in ("official", "/data/benchmarks"):
        store = synthetic.make(tmp_path, n=12, data=data, **made)
    scores = views.scores(store)
    assert views.data_kinds(scores, synthetic.MODEL) == ["pocket", "official"]
    assert set(views.current(scores, synthetic.MODEL)["data"]) == {"pocket"}
    official = views.current(scores, synthetic.MODEL, "strict", "official")
    assert len(official) == len(RECIPES) and "pocket" not in set(official["data"]) and set(official["n"]) == {12}
    covered = views.coverage(store, synthetic.MODEL, data="pocket")
    assert set(covered.loc[covered["task"] == "factoid_qa", "n"]) == {8}


def test_a_command_names_what_the_neighbours_had(store: Store) -> None:
    named = (store, synthetic.MODEL)
    assert views.command(*named, "wanda@0.5", "factoid_qa", "--fidelity") == (
        "kick sweep pocket-11m --recipe wanda@0.5 --task factoid_qa --fidelity --windows 64 --length 256"
    )
    assert views.command(*named, "magnitude@0.7", "factoid_qa", protocol="paper", data="/a b") == (
        "kick sweep pocket-11m --recipe magnitude@0.7 --task factoid_qa --protocol paper --data '/a b'"
    )
