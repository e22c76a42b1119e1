"""What searches chose, against the cards and scores that it is told from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

from kick_core import views
from kick_core.methods import storage
from kick_core.records import BlockReport, Card, LayerReport
from kick_core.spec import parse
from kick_core.store import Store, staging, weight_artifacts
from kick_core.views import chart_style, recipe_labels, search_tables
from tests import synthetic

FOR_FACTS = "wanda@0.5,alloc=search,objective=factoid_qa"
RECIPES = ("dense", "magnitude@0.5", "wanda@0.3", "wanda@0.5", FOR_FACTS, "depth@0.3", "width@0.3", "depth@0.5")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic.make(tmp_path_factory.mktemp("searched") / "cache", recipes=RECIPES, n=30)


@pytest.fixture(scope="module")
def frame(store: Store) -> pd.DataFrame:
    return views.current(views.scores(store), synthetic.MODEL)


def test_families_differ_in_their_shares_alone(frame: pd.DataFrame) -> None:
    found = {one.title: set(one.recipes) for one in search_tables.families(frame)}
    assert found == {
        "wanda 50 %": {"wanda@0.5", FOR_FACTS},
        "blocks, channels and heads 30 %": {"depth@0.3", "width@0.3"},
    }
    assert search_tables.families(frame[frame["recipe"] != FOR_FACTS])[0].title.startswith("blocks")


def test_shares_are_the_cards(store: Store, frame: pd.DataFrame) -> None:
    family = next(one for one in search_tables.families(frame) if one.title == "wanda 50 %")
    table = search_tables.allocation(store, frame, family)
    for recipe, rows in table.groupby("recipe"):
        key = frame.loc[frame["recipe"] == recipe, "weights"].iloc[0]
        layers = weight_artifacts.card(store, key).layers
        for axis, place, value in rows[["axis", "place", "value"]].itertuples(index=False):
            own = [x for x in layers if (x.name.split(".")[0] if axis == "block" else x.name.split(".")[-1]) == place]
            assert value == pytest.approx(sum(x.zeros for x in own) / sum(x.rows * x.cols for x in own))
    assert len(table) == 2 * (4 + 3)
    go.Figure(search_tables.chart(table, family.unit))


def test_a_mixture_is_told_in_bits(tmp_path: Path) -> None:
    recipes = ("mix@5bpw", "mix@5bpw,objective=perplexity")
    store = synthetic.make(tmp_path, recipes=("dense", *recipes), task_names=["factoid_qa"], n=8, weights=False)
    frame = views.current(views.scores(store), synthetic.MODEL)
    for text in recipes:
        _mixed(store, text, frame.loc[frame["recipe"] == text, "weights"].iloc[0])
    (family,) = search_tables.families(frame)
    assert family.unit == "bits a weight" and set(family.recipes) == set(recipes)
    table = search_tables.allocation(store, frame, family)
    blocks = table[(table["recipe"] == "mix@5bpw") & (table["axis"] == "block")]
    assert blocks["value"].tolist() == pytest.approx([4.3125, 8.3125])
    go.Figure(search_tables.chart(table, family.unit))


def _mixed(store: Store, text: str, key: str) -> None:
    chosen = {"0.mlp.up_proj": "gptq@4bit,group=128", "1.mlp.up_proj": "gptq@8bit,group=128"}
    with staging.stage(store, key) as stage:
        assert stage is not None
        for block in range(2):
            stage.add(BlockReport(block, 2, (), 0.1), synthetic._masks(parse("wanda@0.5"), block))
        layers = tuple(LayerReport(name, 8, 16, 0) for name in chosen)
        stage.seal(
            Card(
                key=key, model=synthetic.MODEL, fingerprint="", recipe=text, resolved={}, calibration=None,
                dtype="bfloat16", device="cpu", blocks=2, weights=256, zeros=0, bytes=100, dense_bytes=512, seconds=1,
                created="2026-11-23T01:00:00+00:00", versions={}, layers=layers, plan={"recipes": chosen},
            )
        )  # fmt: skip


def test_what_a_search_saw_is_its_plan(store: Store, frame: pd.DataFrame) -> None:
    family = next(one for one in search_tables.families(frame) if one.title == "wanda 50 %")
    (row,) = search_tables.looked(store, frame, family).to_dict("records")
    assert (row["objective"], row["even"], row["found"], row["candidates"], row["examples"]) == (
        "factoid_qa", 0.31, 0.42, 66, 2,
    )  # fmt: skip


def test_differences_are_claimed_only_where_intervals_part(frame: pd.DataFrame) -> None:
    family = next(one for one in search_tables.families(frame) if one.title == "wanda 50 %")
    rows = frame[frame["task"] == "factoid_qa"].copy()
    for recipe, score, low, high in (("wanda@0.5", 0.3, 0.2, 0.4), (FOR_FACTS, 0.6, 0.5, 0.7)):
        rows.loc[rows["recipe"] == recipe, ["score", "low", "high"]] = (score, low, high)
    best, worst = recipe_labels.label(parse(FOR_FACTS)), recipe_labels.label(parse("wanda@0.5"))
    said = f"Factoid QA: best under {best} (60.0 %), worst under {worst} (30.0 %)"
    assert search_tables.differences(rows, family) == [f"{said}."]
    rows.loc[rows["recipe"] == FOR_FACTS, "low"] = 0.35
    assert search_tables.differences(rows, family) == [f"{said}; none of them can be told apart at this n."]
    table = search_tables.scores_of(rows, family)
    assert table["Factoid QA"].tolist() == ["30.0 % [20, 40]", "60.0 % [35, 70]"]


def test_methods_that_are_gone_make_no_family(frame: pd.DataFrame) -> None:
    old = pd.concat(
        [frame, frame.iloc[[0]].assign(recipe="of_old@0.5"), frame.iloc[[0]].assign(recipe="of_old@0.5,x=1")]
    )
    assert [one.title for one in search_tables.families(old)] == [one.title for one in search_tables.families(frame)]


def test_what_was_searched_stands_out_in_charts() -> None:
    assert (
        chart_style.method_symbol(recipe_labels.method(parse(FOR_FACTS))) == "star" == chart_style.method_symbol("mop")
    )
    assert chart_style.method_symbol("wanda") == "diamond"
    assert chart_style.method_colour(recipe_labels.method(parse(FOR_FACTS))) == chart_style.task_colour("factoid_qa")
    assert chart_style.method_colour("wanda (alloc=search,objective=<b>)") in chart_style.OTHERS
    assert storage.bits_per_weight(parse(FOR_FACTS)) == storage.bits_per_weight(replace(parse(FOR_FACTS), options=()))
