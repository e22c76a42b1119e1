"""The paper's experiments: its numbers as it printed them, the sweeps that answer it, and what is said beside."""

import json
from dataclasses import replace

import pandas as pd
import pytest

from kick_core import views
from kick_core.artifacts.loaded_model import open_for
from kick_core.cli import main
from kick_core.errors import BadRequest
from kick_core.spec import Calibration, ModelRef, parse
from kick_core.store import open_store, results
from kick_core.sweeps import experiments
from kick_core.sweeps.grid import open_sweep
from kick_core.sweeps.request import PRESETS, SweepJob
from kick_core.sweeps.sweep_keys import ModelSizes
from kick_core.tasks import paper
from kick_core.views import reproduced
from tests import official
from tests.golden import GOLDEN
from tests.tiny import save_tiny

PRINTED = json.loads((GOLDEN / "llm_kick_tables.json").read_text())


def test_table3_is_the_papers():
    ours = {(number.task, number.recipe): number for number in paper.TABLE3}
    for task, methods in PRINTED["table3"].items():
        for method, values in methods.items():
            for level, value in enumerate(values):
                number = ours[task, f"{method}@0.{level}" if level else "dense"]
                assert (number.value, number.dense) == (value, values[0]), number
    assert len(PRINTED["table3"]) == 4 and all(len(methods) == 3 for methods in PRINTED["table3"].values())


def test_table2_is_the_papers():
    assert [number.value for number in paper.TABLE2] == PRINTED["table2"]
    assert all(number.kept is None for number in paper.TABLE2)


def test_every_printed_number_has_its_cell():
    for name, numbers in (("table2", (*paper.TABLE2, *paper.TABLE2_ITS_PROMPT)), ("table3", paper.TABLE3)):
        grid = PRESETS[name]
        assert {number.task for number in numbers} == set(grid["tasks"])
        assert {number.recipe for number in numbers} | {"dense"} == set(grid["recipes"])
    assert set(paper.CLAIMS) == set(experiments.NAMES)


@pytest.mark.parametrize("name", experiments.NAMES)
def test_every_recipe_of_an_experiment_is_one(name, store):
    data = "official" if name == "k-shot" else "pocket"
    for request in experiments.requests(name, experiments.base("pocket", data), store):
        assert request.parsed()[0].text == "dense" and request.tasks
        assert request.calibration.length == 256, "the demo's cells are shared"


def test_calibration_size_changes_only_the_number_of_windows(store):
    found = experiments.requests("calibration-size", experiments.base("pocket"), store)
    assert [request.calibration.windows for request in found] == [1, 4, 16, 64, 128]
    assert len({replace(request, calibration=Calibration()) for request in map(_hashable, found)}) == 1


def _hashable(request: SweepJob) -> SweepJob:
    return replace(request, limits=())


def test_other_models_are_asked_as_in_the_paper():
    base = experiments.base("some/model", "official")
    assert base.limit is None and base.calibration == Calibration("c4", windows=128) and base.data == "official"


def test_parity_of_the_papers_models_is_what_its_readers_computed():
    """LLaMA 13B and 7B: 49.48 % of the prunable weights for equal non-zeros, not the paper's 46.16 %."""
    linears = ((5120, 5120),) * 4 + ((13824, 5120),) * 3
    large = ModelSizes(parameters=13_015_864_320, blocks=40, matrices=linears, head=0, attention=5120, bits=16)
    small = replace(large, parameters=6_738_415_616)
    non_zeros, size = map(float, experiments.equal_ratios(large, small))
    assert non_zeros == pytest.approx(0.4948, abs=2e-4)
    kept = large.parameters - size * large.prunable
    assert 2 * kept + large.prunable / 8 == pytest.approx(2 * small.parameters, rel=1e-3)
    with pytest.raises(BadRequest, match="cannot be pruned"):
        experiments.equal_ratios(small, large)


def test_the_large_model_pruned_to_equal_non_zeros_has_them(store):
    (small, large) = experiments.requests("small-dense", experiments.base("pocket"), store)
    assert (small.model, large.model) == ("pocket-4m", "pocket")
    little = open_for(ModelRef("pocket-4m"), store, "cpu").model
    wanted = sum(p.numel() for p in little.parameters())
    request = replace(large, recipes=(large.recipes[1],), tasks=())
    assert parse(request.recipes[0]).method == "magnitude"
    builder = open_sweep(request, store).builder
    for _ in builder.make(parse(request.recipes[0])):
        pass
    builder = open_sweep(replace(request, tasks=("factoid_qa",)), store).builder
    builder.apply_recipe(parse(request.recipes[0]))
    left = sum(int((p != 0).sum()) for p in builder.opened.model.parameters())
    assert left == pytest.approx(wanted, rel=1e-3)


def test_small_dense_needs_a_smaller_model(store, tiny_folder):
    with pytest.raises(BadRequest, match="--small MODEL"):
        experiments.requests("small-dense", experiments.base(str(tiny_folder)), store)
    with pytest.raises(BadRequest, match="Did you mean 'table3'"):
        experiments.requests("tabel3", experiments.base("pocket"), store)


# --- the command line ------------------------------------------------------------------------------------------

SMALL = ("--limit", "6", "--calibration", "pocket", "--windows", "2", "--length", "16", "--workers", "1")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("experiments") / "cache"


@pytest.fixture
def reproduce(tiny_folder, cache, capsys):
    def run(*words):
        status = main(["reproduce", *words, "--model", str(tiny_folder), *SMALL, "--cache", str(cache)])
        return status, capsys.readouterr().out

    return run


def test_table2_stands_beside_what_is_measured(reproduce):
    status, out = reproduce("table2", "--json")
    found = json.loads(out)
    assert status == 0 and len(found["rows"]) == 12
    row = next(row for row in found["rows"] if (row["task"], row["recipe"]) == ("multiple_choice", "awq@8bit"))
    assert row["paper"] == 47.18 and row["paper_kept"] is None
    assert row["n"] == 6 and row["low"] <= row["score"] <= row["high"] and row["words"]
    assert any("Vicuna-7B" in line for line in found["differs"]) and any(
        "pocket world" in line for line in found["differs"]
    )
    status, again = reproduce("table2")
    assert status == 0 and "60.14" in again and "what differs:" in again


def test_calibration_size_says_what_more_windows_gain(reproduce, monkeypatch):
    monkeypatch.setattr(experiments, "WINDOWS", (1, 3))
    status, out = reproduce("calibration-size", "--json")
    rows = json.loads(out)["rows"]
    assert status == 0 and [row["windows"] for row in rows] == [1, 3] * 4
    assert [row["gain"] == "fewest windows" for row in rows] == [True, False] * 4
    assert all("could be up to" in row["gain"] or "CI" in row["gain"] for row in rows[1::2])
    status, out = reproduce("calibration-size", "--plan")
    assert status == 0 and out.count("cells, ") == out.count(" 0 tokens") == 2


def test_disciplines_split_all_examples(reproduce, monkeypatch):
    monkeypatch.setitem(PRESETS["disciplines"], "recipes", ("dense", "magnitude@0.5"))
    rows = json.loads(reproduce("disciplines", "--json")[1])["rows"]
    for recipe in ("dense", "magnitude@0.5"):
        assert sum(row["n"] for row in rows if row["recipe"] == recipe) == 6
    assert {row["discipline"] for row in rows} <= {"STEM", "humanities", "social sciences", "other"}


def test_perplexity_beside_tasks_says_how_far_each_matches(reproduce, monkeypatch):
    recipes = ("dense", "magnitude@0.1", "magnitude@0.5", "magnitude@0.7")
    monkeypatch.setitem(PRESETS["perplexity-vs-tasks"], "recipes", recipes)
    found = json.loads(reproduce("perplexity-vs-tasks", "--json")[1])
    assert len(found["rows"]) == 4 * 4
    assert any(line.startswith("perplexity matches dense up to: magnitude") for line in found["ours"])
    assert "multiple_choice: nothing to lose here: dense is at chance" in found["ours"], "the tiny model guesses"


def test_orders_of_perplexity_and_a_task_are_correlated():
    recipes = ("magnitude@0.1", "magnitude@0.5", "magnitude@0.7")
    rows = [
        {"recipe": recipe, "task": task, "kept": kept, "verdict": "matching" if kept > 0.95 else "not matching"}
        for task, shares in (("perplexity", (0.99, 0.8, 0.4)), ("multiple_choice", (0.97, 0.3, 0.5)))
        for recipe, kept in zip(recipes, shares, strict=True)
    ]
    assert reproduced.agreement(pd.DataFrame(rows)) == [
        "multiple_choice matches dense up to: magnitude 10 %; rank correlation with perplexity 0.50 over 3 recipes",
        "perplexity matches dense up to: magnitude 10 %",
    ]


def test_small_and_dense_against_large_and_sparse(tiny_folder, cache, capsys, tmp_path, monkeypatch):
    """Two tiny models of one size and a made-up parity: what is compared, and on which examples."""
    other = save_tiny(tmp_path / "other", seed=3)
    monkeypatch.setattr(experiments, "equal_ratios", lambda large, small: ("0.5", "0.6"))
    words = ["reproduce", "small-dense", "--model", str(tiny_folder), "--small", str(other), *SMALL]
    assert main([*words, "--cache", str(cache), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    choice = [row for row in rows if row["task"] == "multiple_choice"]
    assert [row["recipe"] for row in choice][:2] == ["dense", "dense"] and len(choice) == 2 + 6
    assert choice[0]["model"] == str(other) != choice[1]["model"]
    assert choice[0]["words"] == "the small dense model" and all(row["n"] == 6 for row in choice)
    assert all("could be up to" in row["words"] or "CI" in row["words"] for row in choice[1:])


def test_a_preset_of_several_sweeps_is_an_experiment(tiny_folder, cache, capsys, monkeypatch):
    monkeypatch.setattr(experiments, "WINDOWS", (1, 3))
    words = [
        "sweep",
        str(tiny_folder),
        "--preset",
        "calibration-size",
        "--plan",
        *SMALL,
        "--json",
        "--cache",
        str(cache),
    ]
    assert main(words) == 0
    assert len(json.loads(capsys.readouterr().out)["plans"]) == 2


def test_k_shot_asks_with_fewer_examples_and_leaves_the_main_runs_alone(tiny_folder, tmp_path, capsys, monkeypatch):
    """Zero shots are the bare question, five are the task itself, whose runs the tables of other commands show."""
    folder = official.mmlu(tmp_path / "mmlu", {"astronomy": 6, "virology": 5})
    monkeypatch.setattr(experiments, "SHOTS", (0, 2, 5))
    words = ["--model", str(tiny_folder), "--data", str(folder), "--calibration", "pocket", "--windows", "2"]
    words += ["--length", "16", "--cache", str(tmp_path / "cache"), "--workers", "1", "--json"]
    assert main(["reproduce", "k-shot", *words]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert [(row["recipe"], row["shots"]) for row in rows[:6]] == [
        ("dense", 0), ("dense", 2), ("dense", 5), ("wanda@0.3", 0), ("wanda@0.3", 2), ("wanda@0.3", 5)
    ]  # fmt: skip
    assert rows[0]["gain"] == "no shots" and rows[0]["n"] == 11
    store = open_store(tmp_path / "cache")
    used = {}
    for key in store.keys("results"):
        outputs = results.outputs(store, key)
        used.setdefault(results.run(store, key).settings.get("shots"), set()).update(o.shots_used for o in outputs)
    assert used == {0: {0}, 2: {2}, None: {5}}
    assert views.scores(store)["recipe"].nunique() == 5 and len(set(views.scores(store)["run"])) == 5


def test_k_shot_on_the_pocket_world_is_refused(store):
    with pytest.raises(BadRequest, match="--data official"):
        experiments.requests("k-shot", experiments.base("pocket"), store)
