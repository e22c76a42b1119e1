"""The tables of the pages against the store they were made from."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kick_core import methods, stats, tasks, views
from kick_core.methods import storage
from kick_core.spec import parse
from kick_core.store import Store, results
from kick_core.views import chart_style, charts, example_text, lineage_charts, load, recipe_labels, size_charts
from kick_core.views.verdict_columns import VerdictColumns
from tests import synthetic


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return synthetic.make(tmp_path_factory.mktemp("views") / "cache", recipes=synthetic.FEW)


@pytest.fixture(scope="module")
def frame(store: Store) -> pd.DataFrame:
    return views.scores(store)


def row(frame: pd.DataFrame, recipe: str, task: str, scorer: str | None = None) -> pd.Series:
    scorer = scorer or tasks.get(task).headline
    found = frame[(frame["recipe"] == recipe) & (frame["task"] == task) & (frame["scorer"] == scorer)]
    assert len(found) == 1
    return found.iloc[0]


def by_hand(store: Store, key: str, scorer: str) -> dict[str, float]:
    found = results.verdicts(store, key, results.run(store, key).task_version) or []
    return {v.example: v.score for v in found if v.scorer == scorer and v.score is not None}


@pytest.mark.parametrize("recipe", ["magnitude@0.5", "wanda@2:4", "rtn@4bit"])
def test_accuracy_is_the_stored_verdicts(store: Store, frame: pd.DataFrame, recipe: str) -> None:
    found = row(frame, recipe, "factoid_qa")
    mine, dense = (by_hand(store, found[name], "contains") for name in ("run", "dense_run"))
    assert found["score"] == pytest.approx(np.mean(list(mine.values())))
    assert (found["low"], found["high"]) == stats.wilson(sum(mine.values()), len(mine))[1:3]
    assert found["broke"] == sum(dense[name] == 1 and mine[name] == 0 for name in mine)
    assert found["fixed"] == sum(dense[name] == 0 and mine[name] == 1 for name in mine)
    assert found["share_kept"] == pytest.approx(sum(mine.values()) / sum(dense.values()))
    assert found["p"] == pytest.approx(stats.mcnemar(int(found["broke"]), int(found["fixed"])))
    assert found["verdict"] == stats.matching(found["share_low"], found["share_high"])


def test_perplexity_is_exp_of_the_token_mean(store: Store, frame: pd.DataFrame) -> None:
    found = row(frame, "magnitude@0.7", "perplexity")
    value = {}
    for name in ("run", "dense_run"):
        outputs = results.outputs(store, found[name])
        value[name] = math.exp(-sum(o.logprobs[0] for o in outputs) / sum(o.tokens for o in outputs))
    assert found["score"] == pytest.approx(value["run"])
    assert found["dense_score"] == pytest.approx(value["dense_run"])
    assert found["share_kept"] == pytest.approx(value["dense_run"] / value["run"])
    assert found["diff_low"] < found["difference"] < found["diff_high"]
    assert math.isnan(found["broke"])


def test_dense_is_the_reference(frame: pd.DataFrame) -> None:
    dense = frame[frame["kind"] == "dense"]
    assert set(dense["verdict"]) == {"dense"} and set(dense["share_kept"]) == {1.0}
    assert not dense["dense_run"].eq("").any()


def test_columns_and_order(frame: pd.DataFrame) -> None:
    assert frame["task"].drop_duplicates().tolist()[:2] == ["perplexity", "factoid_qa"]
    mine = frame[(frame["task"] == "factoid_qa") & (frame["scorer"] == "contains")]
    assert mine["recipe"].tolist() == [
        "dense", "magnitude@0.3", "magnitude@0.5", "magnitude@0.7", "rtn@4bit", "wanda@0.3", "wanda@0.5", "wanda@2:4",
    ]  # fmt: skip
    assert mine["sparsity"].tolist() == pytest.approx([0, 0.3, 0.5, 0.7, 0, 0.3, 0.5, 0.5])
    assert row(frame, "wanda@2:4", "factoid_qa")["label"] == "wanda 2:4"
    assert row(frame, "rtn@4bit", "factoid_qa")["bits"] == 4
    assert row(frame, "dense", "multiple_choice")["chance"] == 0.25


def test_measures_have_no_verdict(frame: pd.DataFrame) -> None:
    for name in ("repeated", "unique_words"):
        found = row(frame, "magnitude@0.5", "instructions", name)
        assert found["verdict"] == "not measured" and math.isnan(found["share_kept"])


def test_pairs_only_what_both_have(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense",), task_names=("factoid_qa",), n=40)
    longer = synthetic.make(tmp_path / "more", recipes=("magnitude@0.5",), task_names=("factoid_qa",), n=60)
    short, long = load.asked(store)[0], load.asked(longer)[0]
    before, after = (load.verdicts(s, r)["contains"] for s, r in ((store, short), (longer, long)))
    ids, at_before, at_after = views_pair(before, after)
    assert len(ids) == 40
    assert list(before.ids[at_before]) == list(after.ids[at_after]) == list(ids)
    shuffled = np.random.default_rng(0).permutation(60)
    moved = after.take(shuffled)
    ids, at_before, at_moved = views_pair(before, moved)
    assert len(ids) == 40 and list(before.ids[at_before]) == list(moved.ids[at_moved])


def views_pair(before: VerdictColumns, after: VerdictColumns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from kick_core.views.scores import pair

    return pair(before, after)


def test_unjudged_is_not_wrong(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense", "magnitude@0.3"), task_names=("factoid_qa",), n=30)
    run = next(one for one in load.asked(store) if one.recipe.target)
    old = results.verdicts(store, run.key, run.task.version) or []
    first = {old[0].example}
    new = [v if v.example not in first else type(v)(v.example, v.scorer, None, "", "no answer") for v in old]
    results.keep_verdicts(store, run.key, run.task.version, new)
    found = row(views.scores(store), "magnitude@0.3", "factoid_qa")
    assert (found["n"], found["unjudged"], found["paired"]) == (29, 1, 29)


def test_verdicts_are_derived_when_absent(tmp_path: Path) -> None:
    names = ("factoid_qa", "retrieval_qa_open", "perplexity")
    for folder, stored in (("with", True), ("without", False)):
        synthetic.make(
            tmp_path / folder, recipes=("dense", "magnitude@0.5"), task_names=names, n=30, with_verdicts=stored
        )
    derived = views.scores(views.open_store(tmp_path / "without"))
    stored_ = views.scores(views.open_store(tmp_path / "with"))
    assert row(derived, "dense", "factoid_qa")["score"] == row(stored_, "dense", "factoid_qa")["score"]
    assert row(derived, "magnitude@0.5", "perplexity")["score"] == pytest.approx(
        row(stored_, "magnitude@0.5", "perplexity")["score"]
    )
    store = views.open_store(tmp_path / "without")
    waiting = views.outdated(store)
    assert len(waiting) == 6
    views.rescore(store, waiting[0], keep=False)
    assert views.outdated(store) == waiting, "an explorer that is read only writes nothing"
    for key in waiting:
        views.rescore(store, key, keep=True)
    assert views.outdated(store) == []


def test_current_is_one_row_a_cell(frame: pd.DataFrame) -> None:
    found = views.current(frame, synthetic.MODEL)
    assert not found.duplicated(["recipe", "task"]).any()
    assert len(found) == len(synthetic.FEW) * len(tasks.names("pocket"))


# --- findings ----------------------------------------------------------------------------------------------


def cells(**columns: list[object]) -> pd.DataFrame:
    base = {
        "recipe": "magnitude@0.3", "label": "magnitude 30 %", "target_label": "30 %", "method": "magnitude",
        "kind": "ratio",
        "recovered": "", "sparsity": 0.3, "bits": math.nan, "task": "factoid_qa", "title": "Factoid QA", "paired": 100,
        "share_kept": 0.8, "share_low": 0.7, "share_high": 0.9, "verdict": "not matching",
    }  # fmt: skip
    size = len(next(iter(columns.values())))
    return pd.DataFrame({**{name: [value] * size for name, value in base.items()}, **columns})


def test_one_task_under_another_calibration_does_not_stand_in_the_row_of_the_first(frame: pd.DataFrame) -> None:
    before = views.current(frame, synthetic.MODEL, "strict")
    row = before[(before["kind"] == "ratio") & (before["task"] == "factoid_qa")].iloc[:1]
    other = row.assign(weights="weights1-other", run="run1-other", created="2999-01-01", score=0.5)
    after = views.current(pd.concat([frame, other]), synthetic.MODEL, "strict")
    assert sorted(after["run"]) == sorted(before["run"])
    whole = frame[frame["recipe"] == row["recipe"].iloc[0]].assign(weights="weights1-other", created="2999-01-01")
    assert (whole["task"].nunique() > 1) and set(whole["run"]) <= set(frame["run"])
    newer = views.current(pd.concat([frame, whole]), synthetic.MODEL, "strict")
    assert set(newer.loc[newer["recipe"] == row["recipe"].iloc[0], "weights"]) == {"weights1-other"}, "the newer one"


def test_claims_on_nothing() -> None:
    assert [claim.verdict for claim in views.claims(cells(task=["factoid_qa"]).iloc[:0])] == ["not measured"] * 3


def verdicts(claim: views.Claim) -> dict[str, str]:
    return {part.text: part.verdict for part in claim.parts}


def test_first_claim_is_judged_in_its_two_parts() -> None:
    lost, kept = cells(task=["factoid_qa"]), cells(task=["factoid_qa"], verdict=["matching"])
    pattern = cells(kind=["pattern"], sparsity=[0.5], target_label=["2:4"], recipe=["magnitude@2:4"])
    assert views.claims(lost)[0].verdict == "holds"
    assert views.claims(pd.concat([lost, pattern]))[0].verdict == "holds"
    mixed = views.claims(pd.concat([kept, pattern]))[0]
    assert mixed.verdict == "holds in part"
    assert verdicts(mixed) == {"Pruned 25 to 30 %": "does not hold", "N:M patterns": "holds"}
    unsure = cells(verdict=["cannot tell"])
    assert verdicts(views.claims(pd.concat([unsure, pattern]))[0])["Pruned 25 to 30 %"] == "cannot tell"


def test_second_claim_compares_equal_sizes() -> None:
    pruned = cells(sparsity=[0.5], recipe=["magnitude@0.5"], target_label=["50 %"])
    eight = cells(kind=["bits"], bits=[8.0], sparsity=[0.0], share_kept=[1.0], share_low=[0.98], share_high=[1.02])
    two = cells(kind=["bits"], bits=[2.0], sparsity=[0.0], share_kept=[0.1], share_low=[0.0], share_high=[0.2])
    found = views.claims(pd.concat([pruned, eight, two]))[1]
    assert found.verdict == "holds" and found.evidence["rival_kept"].tolist() == [1.0]
    assert views.claims(pd.concat([pruned, two]))[1].verdict == "does not hold"
    same = eight.assign(share_kept=0.85, share_low=0.8, share_high=0.9)
    assert views.claims(pd.concat([pruned, same]))[1].verdict == "cannot tell"


def test_third_claim_tells_tasks_and_sparsities_apart() -> None:
    kept = cells(sparsity=[0.5], task=["summarization"], verdict=["matching"])
    broken = cells(sparsity=[0.7], task=["summarization"])
    titles = {"title": "Summarization"}
    claim = views.claims(pd.concat([kept, broken]).assign(**titles))[2]
    assert verdicts(claim) == {"Summarization at 50 %": "holds", "Summarization above 50 %": "does not hold"}
    assert claim.verdict == "holds in part" and len(claim.evidence) == 2
    assert views.claims(broken.assign(**titles))[2].verdict == "does not hold"


def test_headline_says_but_only_when_intervals_part() -> None:
    two = cells(
        task=["perplexity", "factoid_qa"], share_kept=[0.93, 0.82], share_low=[0.92, 0.75], share_high=[0.94, 0.88],
        dense_score=[1.9, 0.98], score=[2.04, 0.8], title=["Perplexity", "Factoid QA"],
    )  # fmt: skip
    assert views.headline(two, "magnitude@0.3") == (
        "30 % of the weights pruned by magnitude: perplexity barely moves (1.90 → 2.04), "
        "but it forgets 2 of 10 answers (Factoid QA 98 % → 80 %)."
    )
    near = two.assign(share_high=[0.94, 0.93])
    assert "(1.90 → 2.04) and it forgets" in views.headline(near, "magnitude@0.3")
    assert "perplexity is not measured" in views.headline(two.iloc[1:], "magnitude@0.3")
    assert "knowledge is not measured" in views.headline(two.iloc[:1], "magnitude@0.3")
    assert "has not been measured" in views.headline(two, "wanda@0.9")
    kept = two.assign(share_kept=[1.0, 1.0])
    assert "perplexity does not move" in views.headline(kept, "magnitude@0.3")
    assert "forgets next to nothing" in views.headline(kept, "magnitude@0.3")


def test_pages_open_where_perplexity_and_knowledge_part_most() -> None:
    rows = [
        cells(recipe=[f"magnitude@{ratio}"] * 2, sparsity=[ratio] * 2, task=["perplexity", "factoid_qa"],
              share_kept=list(kept), recovered="")
        for ratio, kept in ((0.3, (0.99, 0.9)), (0.5, (0.9, 0.3)), (0.7, (0.1, 0.05)))
    ]  # fmt: skip
    assert views.widest_gap(pd.concat(rows)) == "magnitude@0.5"
    assert views.widest_gap(rows[0][rows[0]["task"] == "perplexity"]) == ""


def test_percent() -> None:
    assert [views.percent(v) for v in (0.815, 1, math.nan, math.inf)] == ["82 %", "100 %", "–", "∞"]


# --- examples ----------------------------------------------------------------------------------------------


def test_examples_agree_with_scores(store: Store, frame: pd.DataFrame) -> None:
    for task in tasks.names("pocket"):
        found = row(frame, "magnitude@0.5", task)
        table = views.examples(store, found["run"], found["dense_run"])
        assert len(table) == found["paired"]
        if task != "perplexity":
            counts = table["flip"].value_counts()
            assert [counts.get(k, 0) for k in ("broke", "fixed", "both wrong", "both right")] == [
                found[k] for k in ("broke", "fixed", "both_wrong", "both_right")
            ]
        else:
            assert set(table["flip"]) == {""}


def test_breaks_at_is_the_mildest_wrong_rung(store: Store, frame: pd.DataFrame) -> None:
    found = row(frame, "magnitude@0.5", "factoid_qa")
    table = views.examples(store, found["run"], found["dense_run"]).set_index("id")
    dense = by_hand(store, found["dense_run"], "contains")
    ladder = {s: by_hand(store, row(frame, f"magnitude@{s}", "factoid_qa")["run"], "contains") for s in (0.3, 0.5, 0.7)}
    for name, line in table.iterrows():
        expected = next((s for s, scores in ladder.items() if scores[name] == 0), math.nan)
        if dense[name] == 0:
            expected = math.nan
        assert line["breaks_at"] == expected or (math.isnan(expected) and math.isnan(line["breaks_at"]))


def test_two_runs_part_where_one_alone_broke_what_dense_has_right(store: Store, frame: pd.DataFrame) -> None:
    one, other = (row(frame, recipe, "factoid_qa") for recipe in ("magnitude@0.5", "rtn@4bit"))
    flips = [views.examples(store, line["run"], line["dense_run"]).set_index("id")["flip"] for line in (one, other)]
    broke = [set(moved[moved == "broke"].index) for moved in flips]
    assert broke[0] ^ broke[1]
    found = views.apart(store, one["run"], other["run"], one["dense_run"], one["scorer"])
    assert found == [name for name in flips[0].index if name in broke[0] ^ broke[1]]


def test_an_example_in_full(store: Store, frame: pd.DataFrame) -> None:
    found = row(frame, "magnitude@0.7", "multiple_choice")
    detail = views.example(store, found["run"], "multiple_choice-0003")
    assert detail.answers[0].recipe == "dense" and len(detail.answers) == len(synthetic.FEW)
    answer = detail.of(found["run"])
    assert answer is not None and sum(answer.probabilities) == pytest.approx(1)
    strip = [detail.of(key) for key in views.series(store, found["run"])]
    assert [a.target_label for a in strip] == ["dense", "30 %", "50 %", "70 %"]


def test_looping_answers_are_seen(store: Store, frame: pd.DataFrame) -> None:
    found = row(frame, "magnitude@0.7", "factoid_qa")
    table = views.examples(store, found["run"], found["dense_run"])
    assert table["loops"].any() and (table.loc[table["loops"], "repetition"] > 0.3).all()


def test_flips_by_discipline_add_up(store: Store, frame: pd.DataFrame) -> None:
    found = row(frame, "magnitude@0.5", "factoid_qa")
    table = views.examples(store, found["run"], found["dense_run"])
    slices = views.by(table, "discipline")
    assert slices["n"].sum() == len(table) and slices["broke"].sum() == found["broke"]
    assert slices["broke_share"].is_monotonic_decreasing


def test_csv_holds_no_formulas() -> None:
    frame = pd.DataFrame({"id": ["=1+1", "@x", "plain", "-2"], "score": [-1.0, 0.5, 1.0, 0.0]}).astype({"id": "str"})
    assert views.csv(frame).decode().splitlines()[1:] == ["'=1+1,-1.0", "'@x,0.5", "plain,1.0", "'-2,0.0"]


def test_versus_is_scores(store: Store, frame: pd.DataFrame) -> None:
    found = row(frame, "wanda@0.5", "retrieval_qa_closed")
    numbers = views.versus(views.examples(store, found["run"], found["dense_run"]))
    assert numbers.p == found["p"] and numbers.difference[:3] == (
        found["difference"], found["diff_low"], found["diff_high"],
    )  # fmt: skip


def test_pick_is_a_rule() -> None:
    ids = [f"e{i}" for i in range(50)]
    assert views.pick(ids) == views.pick(ids[::-1]) != views.pick(ids, seed=1)
    assert views.pick([]) is None


# --- the cache ---------------------------------------------------------------------------------------------


def test_weights_and_preview(store: Store) -> None:
    table = views.weights(store)
    assert len(table) == len(synthetic.FEW) - 1
    half = table[table["recipe"] == "magnitude@0.5"].iloc[0]
    assert half["bits_per_weight"] == pytest.approx(9.0) and half["share"] == pytest.approx(9 / 16)
    made = views.preview(store, synthetic.MODEL, "magnitude@0.5")
    assert made.card is not None and made.bytes == pytest.approx(half["alone"])
    planned = views.preview(store, synthetic.MODEL, "magnitude@0.4")
    assert (
        planned.card is None
        and planned.bits_per_weight == pytest.approx(10.6)
        and planned.seconds == pytest.approx(3.2)
    )
    assert math.isnan(views.preview(store, "elsewhere", "magnitude@0.4").bytes)
    assert len(views.layers(store, half["key"])) == 12


def test_coverage_tells_missing_partial_done(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense", "magnitude@0.5"), task_names=("factoid_qa",), n=20)
    synthetic.make(tmp_path, recipes=("dense",), task_names=("multiple_choice",), n=20)
    grid = views.coverage(store, synthetic.MODEL, more=["wanda@0.5"]).set_index(["recipe", "task"])["state"]
    assert grid["dense", "factoid_qa"] == "done" and grid["magnitude@0.5", "multiple_choice"] == "missing"
    assert grid["wanda@0.5", "factoid_qa"] == "missing"


def test_stamp_moves_with_results(tmp_path: Path) -> None:
    store = views.open_store(tmp_path)
    before = views.stamp(store)
    synthetic.make(tmp_path, recipes=("dense",), task_names=("factoid_qa",), n=5, weights=False)
    middle = views.stamp(store)
    synthetic.make(tmp_path, recipes=("magnitude@0.5",), task_names=("factoid_qa",), n=5, weights=False)
    assert len({before, middle, views.stamp(store)}) == 3


def test_empty_cache(tmp_path: Path) -> None:
    store = views.open_store(tmp_path)
    frame = views.scores(store)
    assert frame.empty and "share_kept" in frame
    assert views.models(store) == [] and views.weights(store).empty


def test_damaged_runs_are_left_out(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense", "magnitude@0.5"), task_names=("factoid_qa",), n=5)
    key = next(run.key for run in load.asked(store) if run.recipe.target)
    (store.folder("results", key) / "run.json").write_text("{}")
    assert views.scores(store)["recipe"].unique().tolist() == ["dense"]


def test_recipe_words() -> None:
    words = {
        text: recipe_labels.label(parse(text)) for text in ("dense", "wanda@0.5", "wanda@2:4", "rtn@4bit,group=64")
    }
    assert list(words.values()) == ["dense", "wanda 50 %", "wanda 2:4", "rtn 4 bit (group=64)"]
    assert (
        recipe_labels.method(parse("rtn@4bit,group=64")) == "rtn (group=64)" != recipe_labels.method(parse("rtn@4bit"))
    )
    joint = parse("sparsegpt@2:4+gptq@4bit")
    assert (recipe_labels.label(joint), recipe_labels.kind(joint)) == ("sparsegpt 2:4 + gptq 4 bit", "joint")
    assert (
        storage.bits_per_weight(joint) == pytest.approx(0.5 * 4 + 40 / 128 + 1)
        and recipe_labels.method(joint) == "sparsegpt+gptq"
    )
    assert tasks.names(measures="knowledge")


# --- texts and speed ---------------------------------------------------------------------------------------


def test_differences_and_heat_are_the_text_again() -> None:
    a, b = "The capital is Canberra, chosen in 1908.", "The capital is Sydney, the capital is Sydney."
    pieces = views.difference(a, b)
    assert "".join(p.text for p in pieces if p.kind != "new").replace(" ", "") == a.replace(" ", "")
    assert "".join(p.text for p in pieces if p.kind != "gone") == b
    assert "".join(w.text for w in views.heat(b + "  \n x")) == b + "  \n x"
    assert views.difference("", "") == [] and views.heat("") == []
    marked = views.shared_words(a, b)
    assert ["".join(piece.text for piece in text) for text in marked] == [a, b]
    assert [piece.text.strip() for piece in marked[1] if piece.kind == "shared"] == ["The capital is"]


def test_a_difference_is_not_a_salad() -> None:
    """Changes that only gaps separate are one change; every word stands alone."""
    pieces = views.difference("candid he damage from every", "I be seen It is")
    assert [(piece.kind, piece.text) for piece in pieces] == [
        ("gone", "candid he damage from every "), ("new", "I be seen It is"),
    ]  # fmt: skip
    assert views.likeness("rust", "pink") == 0 and views.likeness("a b c d", "a b c e") == 0.75


def test_no_torch_no_streamlit() -> None:
    code = (
        "import sys, kick_core.views, kick_core.jobs as j; j.request('pocket', ['wanda@0.5']); j.calibration('pocket');"
    )
    code += "print({'torch', 'streamlit', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- exports, survival, sizes ------------------------------------------------------------------------------


def test_exports_say_where_they_come_from(store: Store, tmp_path: Path) -> None:
    frame = views.current(views.scores(store), synthetic.MODEL)
    row = frame[(frame["recipe"] == "magnitude@0.7") & (frame["task"] == "factoid_qa")].iloc[0]
    examples = views.examples(store, row["run"], row["dense_run"])
    hostile = examples.assign(subject="=cmd|' /C calc'!A0")
    made = views.exported(store, hostile, row, "dense")
    for name, dense, after in zip(made["id"], made["answer of dense"], made["answer of magnitude@0.7"], strict=True):
        detail = views.example(store, row["run"], name)
        answers = [detail.of(row[run]) for run in ("dense_run", "run")]
        assert [dense, after] == [answer.text for answer in answers if answer]
    assert (made["prompt"] != "").all() and (made["gold"] != "").all()
    for name in ("model", "recipe", "task", "protocol", "run", "dense_run", "created"):
        assert (made[name] == str(row[name])).all()
    assert (made["against"] == "dense").all() and (made["n"] == len(examples)).all()
    assert b"'=cmd" in views.csv(made) and b",=cmd" not in views.csv(made)
    path = tmp_path / "rows.parquet"
    path.write_bytes(views.parquet(made))
    back = pd.read_parquet(path)
    assert back["id"].tolist() == examples["id"].tolist() and back["subject"].iloc[0].startswith("=cmd")


def test_survival_counts_what_no_step_broke(store: Store) -> None:
    frame = views.current(views.scores(store), synthetic.MODEL)
    row = frame[(frame["recipe"] == "magnitude@0.7") & (frame["task"] == "factoid_qa")].iloc[0]
    examples = views.examples(store, row["run"], row["dense_run"])
    lasting = views.survival(store, row["run"])
    right = examples[examples["dense_score"] == 1]
    assert lasting["target_label"].tolist() == ["dense", "30 %", "50 %", "70 %"] and lasting["share"].iloc[0] == 1
    assert lasting["left"].iloc[-1] == (right["breaks"] == "").sum()
    assert lasting["left"].is_monotonic_decreasing and (lasting["n"] == len(right)).all()


def test_the_table_of_texts_says_what_the_examples_say(store: Store) -> None:
    frame = views.current(views.scores(store), synthetic.MODEL)
    for task in ("factoid_qa", "multiple_choice"):
        row = frame[(frame["recipe"] == "magnitude@0.7") & (frame["task"] == task)].iloc[0]
        table = views.example_texts(store, row["run"], row["dense_run"], width=30).set_index("id")
        assert table.map(len).to_numpy().max() <= 30 and len(table) == row["n"]
        detail = views.example(store, row["run"], table.index[0])
        for run, column in ((row["run"], "after"), (row["dense_run"], "before")):
            answer = detail.of(run)
            whole = " ".join(example_text.said(detail, answer).split()) if answer else ""
            assert table[column].iloc[0].rstrip("…") == whole[: len(table[column].iloc[0].rstrip("…"))] != ""


@pytest.mark.parametrize("task", ["factoid_qa", "perplexity"])
def test_nothing_beats_the_frontier_at_its_size(store: Store, task: str) -> None:
    frame = views.current(views.scores(store), synthetic.MODEL)
    rows = frame[frame["task"] == task]
    best = size_charts.frontier(rows)
    sign = 1 if task == "factoid_qa" else -1
    for _, row in best.iterrows():
        smaller = rows[rows["bits_per_weight"] <= row["bits_per_weight"]]
        assert (sign * smaller["score"]).max() == sign * row["score"]
    assert (sign * best["score"]).is_monotonic_increasing


def test_marks_of_one_size_stand_side_by_side() -> None:
    sizes, values = pd.Series([9.0, 9.0, 9.0, 9.0, 4.0]), pd.Series([0.5, 0.5, 0.51, 0.9, 0.5])
    places = size_charts.apart(sizes, values, 16.5, 1.0)
    assert len(set(places[:3])) == 3 and places[:3].mean() == pytest.approx(9.0)
    assert (places[3], places[4]) == (9.0, 4.0), "what lies alone keeps its place"


def test_the_compared_recipes_are_named_at_their_points(store: Store) -> None:
    """Also on a logarithmic axis, where plotly wants an annotation's height in logarithms."""
    frame = views.current(views.scores(store), synthetic.MODEL)
    score = row(frame, "wanda@0.5", "perplexity")["score"]
    chart = size_charts.pareto(frame, "perplexity", 0, "wanda@0.5")
    assert chart["layout"]["annotations"][0]["y"] == pytest.approx(math.log10(score))


def test_what_is_asked_anew_is_calibrated_as_the_rest(store: Store) -> None:
    found = views.calibration_used(store, synthetic.MODEL, ["wanda@0.5"])
    assert found is not None and (found.windows, found.length, found.seed) == (64, 256, 0)
    assert views.calibration_used(store, "elsewhere", []) is None
    (said,) = views.calibration_of(store, views.weights(store)["key"])
    assert said == "64 windows of 256 tokens of pocket, seed 0"


def test_a_dense_run_in_another_form_of_prompting_stands_beside_no_recipe(frame: pd.DataFrame) -> None:
    dense = (frame["recipe"] == "dense") & (frame["task"] == "factoid_qa")
    chat = frame[dense].assign(prompting="chat", run="run1-chat", created="2099-01-01T00:00:00+00:00")
    both = views.current(pd.concat([frame, chat], ignore_index=True), synthetic.MODEL)
    assert "run1-chat" not in set(both["run"])
    pd.testing.assert_frame_equal(both, views.current(frame, synthetic.MODEL))


def test_numbers_asked_in_two_ways_make_no_curve(frame: pd.DataFrame) -> None:
    task = frame["task"] == "factoid_qa"
    few = frame[task & frame["recipe"].isin(("dense", "magnitude@0.3"))]
    others = few.assign(dtype="float32", run=few["run"] + "-b", created="2099-01-01T00:00:00+00:00")

    def shown(gallery: bool) -> set[str]:
        found = views.current(pd.concat([frame.assign(own=not gallery), others], ignore_index=True), synthetic.MODEL)
        return set(found[found["task"] == "factoid_qa"]["dtype"])

    assert shown(gallery=False) == {frame.loc[task, "dtype"].iloc[0]}, "the way that most recipes have"
    assert shown(gallery=True) == {"float32"}, "recipes measured here, before those of the gallery"


def test_lines_and_marks_are_seen_on_both_grounds(frame: pd.DataFrame) -> None:
    """3:1 against white and against the dark theme's ground (WCAG 2.2, 1.4.11); a see-through line would have less."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colours = [methods.card(name).colour for name in methods.names()]
    colours += [*chart_style.OTHERS, chart_style.FLUENCY, chart_style.MARKER, *charts._TIERS, *lineage_charts.COLOURS]
    for colour in colours:
        for ground in ("#ffffff", "#11151c"):
            darker, lighter = sorted((luminance(colour), luminance(ground)))
            assert round((lighter + 0.05) / (darker + 0.05), 1) >= 3, (colour, ground)
    assert not [trace for trace in charts.overlay(frame, "magnitude")["data"] if "opacity" in trace]


def test_an_excerpt_holds_the_answer_that_was_judged() -> None:
    text = "The city of Afyonkarahisar lies in the eastern part of the Aegean region, in the west of Turkey, I think."
    assert example_text.excerpt(text, 40, "Turkey · Türkiye") == "… region, in the west of Turkey…"
    assert example_text.excerpt(text, 40) == example_text.excerpt(text, 40, "Aleppo") == text[:39].rstrip() + "…"
    assert example_text.excerpt("It is\n Turkey.", 40, "Turkey") == "It is Turkey."
