"""Fidelity, the noise floor, the bootstrap and divergence as views, over a real small sweep and made-up results."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kick_core import stats, views
from kick_core.cli import main
from kick_core.records import Example
from kick_core.spec import Calibration
from kick_core.store import Store, open_store, results
from kick_core.store import fidelity as kept
from kick_core.sweeps import driver
from kick_core.sweeps.request import SweepJob
from kick_core.views import clusters, load, sentences, token_surprise
from tests import synthetic


@pytest.fixture(scope="module")
def swept(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = open_store(tmp_path_factory.mktemp("closeness") / "cache")
    request = SweepJob(
        model=str(tiny_folder), recipes=("dense", "magnitude@0.3", "magnitude@0.7"),
        tasks=("perplexity", "multiple_choice", "factoid_qa"), limit=6, calibration=Calibration(windows=2, length=16),
        device="cpu", fidelity=True, noise_floor=True,
    )  # fmt: skip
    for _ in driver.run(request, store, 1):
        pass
    return store


def test_fidelity_is_the_stored_positions(swept: Store) -> None:
    frame = views.fidelity(swept)
    assert frame["recipe"].tolist() == ["magnitude@0.3", "magnitude@0.7"]
    for row in frame.to_dict("records"):
        table = kept.positions(swept, row["key"]).to_pandas()
        assert row["tokens"] == len(table) == row["n"] * 511
        for name in ("kl", "same", "overlap"):
            each = table.groupby("window")[name].sum()
            assert row[name] == pytest.approx(table[name].mean(), rel=1e-5)
            low, high = stats.rate_of_windows(each, [511] * len(each))[1:3]
            assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((max(low, 0), min(high, 1)), rel=1e-4)
        assert row["kl_median"] <= row["kl_99"]
    assert frame["kl"].is_monotonic_increasing and frame["overlap"].is_monotonic_decreasing


def test_tokens_of_a_window_sum_to_its_perplexity(swept: Store) -> None:
    runs = {run.recipe.text: run for run in load.asked(swept) if run.task.name == "perplexity" and load.is_result(run)}
    run, dense = (runs[text].key for text in ("magnitude@0.7", "dense"))
    examples = load.examples(swept, runs["dense"].card.examples)
    tokens = {name: views.window_tokens(swept, run, dense, name) for name in list(examples)[:6]}
    for name, window in tokens.items():
        assert window is not None
        for side, key in (("variant", run), ("dense", dense)):
            (total,) = load.answer(swept, key, name).logprobs
            assert sum(getattr(token, side) for token in window) == pytest.approx(total, rel=1e-5)
        assert examples[name].prompt[0].endswith("".join(token.text for token in window))
    table = views.surprise_by_kind(swept, run, dense)
    grown = sum(token.growth for window in tokens.values() for token in window)
    assert table["n"].sum() == 6 * 511
    assert table["carried"].sum() == pytest.approx(1) if grown > 0 else table["carried"].isna().all()
    names = [token for window in tokens.values() for token in window if token.kind == "names"]
    row = table.set_index("kind").loc["names"]
    assert row["growth"] == pytest.approx(np.mean([token.growth for token in names]), rel=1e-6)
    assert views.window_tokens(swept, runs["magnitude@0.3"].key, run, "window-0000") is None, "no dense's side"


def test_pieces_of_a_text_and_their_kinds() -> None:
    spelt = {1: b"In", 2: b" 1759", 3: b" Rua", 4: b" s\xc3", 5: b"\xa3o", 6: b".", 7: b" The", 8: b" tin", 9: b" Tin"}
    texts = token_surprise.pieces(lambda ids: b"".join(spelt[i] for i in ids).decode(errors="replace"), [*spelt])
    assert texts == ["In", " 1759", " Rua", "", " são", ".", " The", " tin", " Tin"]
    kinds = dict(zip(texts, token_surprise.kinds(texts), strict=True))
    assert [kinds[text] for text in ("In", " 1759", " Rua", " são", ".", " The", " tin", " Tin")] == [
        "grammar", "numbers", "names", "other words", "punctuation", "grammar", "other words", "names"
    ]  # fmt: skip


def test_dense_texts_are_the_stored_readings(swept: Store) -> None:
    frame = views.texts(swept)
    assert frame["recipe"].tolist() == ["magnitude@0.3", "magnitude@0.7"] and set(frame["task"]) == {"factoid_qa"}
    base = next(card for card in kept.cards(swept) if card.recipe == "dense" and kept.texts(swept, card.key))
    dense = kept.readings(swept, base.key).to_pandas()
    for row in frame.to_dict("records"):
        mine = kept.readings(swept, row["key"]).to_pandas()
        assert row["n"] == len(mine) == len(dense)
        assert row["lost"] == pytest.approx((dense["logprob"] - mine["logprob"]).sum() / mine["tokens"].sum())
        whole = dense["until"] == dense["tokens"]
        assert row["faithful"] == whole.sum()
        if whole.any():
            assert row["until"] == pytest.approx(mine["until"][whole].mean())
            assert row["never"] == pytest.approx((mine["until"] == mine["tokens"])[whole].mean())
    assert frame["lost"].is_monotonic_increasing


def test_readings_of_another_form_are_not_mixed_with_dense(swept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read = [card for card in kept.cards(swept) if kept.texts(swept, card.key)]
    base = next(card for card in read if card.recipe == "dense")
    for change, rows in (
        ({"prompting": "chat"}, 0),  # read after another prompt than the one sent, by an earlier version
        ({"prompting": "chat", kept.VERSION: 2}, 2),
    ):
        other = [replace(card, settings=card.settings | change) for card in read]
        monkeypatch.setattr(kept, "cards", lambda store, other=other: other)
        assert len(views.texts(swept)) == rows
    mixed = [replace(c, settings=c.settings | change) if c.key == base.key else c for c in read]
    monkeypatch.setattr(kept, "cards", lambda store: mixed)
    assert views.texts(swept).empty


def test_a_window_that_is_not_finite_is_not_judged(swept: Store, store: Store) -> None:
    card = next(c for c in kept.cards(swept) if c.recipe == "magnitude@0.3" and kept.parts(swept, c.key))
    columns = kept.positions(swept, card.key).to_pandas()
    columns.loc[columns["window"] == columns["window"].iloc[-1], "kl"] = np.nan
    kept.keep_card(store, card)
    kept.keep_part(store, card.key, 0, 6, {name: columns[name].to_numpy() for name in columns})
    (row,) = views.fidelity(store).to_dict("records")
    assert (row["n"], row["unjudged"]) == (5, 1)
    assert row["kl"] == pytest.approx(columns["kl"].dropna().mean(), rel=1e-5)


def test_dense_again_is_noise_and_no_result(swept: Store) -> None:
    frame, noise = views.scores(swept), views.noise(swept)
    assert (frame["recipe"] == "dense").sum() == frame.loc[
        frame["recipe"] == "dense", ["task", "scorer"]
    ].drop_duplicates().shape[0]
    assert set(noise["task"]) == {"perplexity", "multiple_choice", "factoid_qa"}
    assert not set(noise["run"]) & set(frame["run"]) and not set(noise["run"]) & set(frame["dense_run"])
    choice = noise[(noise["task"] == "multiple_choice") & noise["headline"]].iloc[0]
    again, once = (
        choice["run"],
        frame[(frame["recipe"] == "dense") & (frame["task"] == "multiple_choice")]["run"].iloc[0],
    )
    scored = [load.verdicts(swept, load.one(swept, key))["accuracy"] for key in (once, again)]
    assert choice["broke"] + choice["fixed"] == (scored[0].score != scored[1].score).sum()
    assert choice["plan"] != choice["plan_again"] and choice["flips_high"] > 0
    assert f"of {choice['paired']} answers flipped" in choice["words"]
    outputs = [results.outputs(swept, key) for key in (once, again)]
    for a, b in zip(*outputs, strict=True):
        assert a.example == b.example and a.logprobs == pytest.approx(b.logprobs, abs=1e-3)


def test_noise_runs_fill_no_cell(swept: Store) -> None:
    model = views.models(swept)[0]
    again = set(views.noise(swept)["run"])
    assert len(again) == 3 and not again & set(views.coverage(swept, model)["run"])


def test_changed_answers_by_hand(swept: Store) -> None:
    row = next(
        row for row in views.scores(swept).to_dict("records")
        if (row["recipe"], row["scorer"]) == ("magnitude@0.7", "accuracy")
    )  # fmt: skip
    chosen = [
        [int(np.argmax(output.logprobs)) for output in results.outputs(swept, row[name])]
        for name in ("dense_run", "run")
    ]
    assert row["changed"] == np.mean([a != b for a, b in zip(*chosen, strict=True)])


def test_words_until_divergence(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense", "magnitude@0.5"), task_names=("factoid_qa", "multiple_choice"))
    frame = views.scores(store)
    row = frame[(frame["recipe"] == "magnitude@0.5") & (frame["task"] == "factoid_qa")].iloc[0]
    before, after = (results.outputs(store, row[name]) for name in ("dense_run", "run"))
    shared = []
    for a, b in zip(before, after, strict=True):
        one, other = a.text[0].split(), b.text[0].split()
        n = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), min(len(one), len(other)))
        shared.append(n)
    found = views.until_divergence(store, row["run"], row["dense_run"])
    assert found.value == pytest.approx(np.mean(shared)) and found.n == len(shared)
    choice = frame[(frame["recipe"] == "magnitude@0.5") & (frame["task"] == "multiple_choice")].iloc[0]
    assert math.isnan(views.until_divergence(store, choice["run"], choice["dense_run"]).value)


def test_only_graded_scores_are_resampled(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense", "magnitude@0.5"), task_names=("summarization", "factoid_qa"))
    frame = views.scores(store)
    rows = {row["task"]: row for row in frame[frame["headline"] & (frame["kind"] != "dense")].to_dict("records")}
    graded = rows["summarization"]
    found = views.bootstrap(store, graded["run"], graded["dense_run"], graded["scorer"])
    assert found is not None and found.value == pytest.approx(graded["difference"])
    # the bootstrap knows only the losses that occurred: the interval is somewhat wider
    assert graded["diff_low"] <= found.low + 0.005 and found.high <= graded["diff_high"] + 0.005
    assert graded["diff_high"] - graded["diff_low"] < 2 * (found.high - found.low)
    facts = rows["factoid_qa"]
    assert views.bootstrap(store, facts["run"], facts["dense_run"], facts["scorer"]) is None


def test_examples_on_one_passage_are_a_cluster(tmp_path: Path) -> None:
    store = synthetic.make(tmp_path, recipes=("dense", "magnitude@0.5"), task_names=("retrieval_qa_open",), n=40)
    plain = views.scores(store)
    (path,) = (store.root / "examples").glob("??/*/examples-*.parquet")
    key = path.parent.name
    examples = [
        replace(example, meta={**example.meta, "passage": f"passage {at // 4}"})
        for at, example in enumerate(results.examples(store, key))
    ]
    path.unlink()
    results.keep_examples(store, key, examples)
    clusters.numbers.cache_clear()
    clusters._of.cache_clear()
    clusters._grouping.cache_clear()
    grouped = views.scores(store)
    assert set(plain["clusters"]) == {40} and set(grouped["clusters"]) == {10}
    assert (grouped["diff_low"].dropna() <= plain["diff_low"].dropna()).all()
    assert (grouped["p"].dropna() >= plain["p"].dropna()).all()


def test_mmlu_history_questions_share_their_passages(shared: Path) -> None:
    found = []
    for name in ("european", "us", "world"):
        rows = pd.read_csv(shared / f"data/mmlu/test/high_school_{name}_history_test.csv", header=None)
        found += [Example(f"{name}-{at}", ("",), meta={"question": text}) for at, text in enumerate(rows[0])]
    names = [clusters.cluster(example.id, example.meta) for example in found]
    assert len(names) == 606 and len(set(names)) == pytest.approx(200, abs=10)
    physics = pd.read_csv(shared / "data/mmlu/test/college_physics_test.csv", header=None)[0]
    alone = [clusters.cluster(str(at), {"question": text}) for at, text in enumerate(physics)]
    assert len(set(alone)) == len(alone)


ROW = {
    "kind": "ratio", "paired": 200, "unit": "pp", "difference": -0.0099, "diff_low": -0.0144, "diff_high": -0.0054,
    "p": 2e-5, "p_holm": 2e-5, "verdict": "cannot tell", "needed": 1849.0, "higher_is_better": True,
    "dense_score": 0.459,
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {},
            "worse by 1.0 pp (95 % CI 0.5 to 1.4), p = 2e-05; cannot tell at n = 200 whether 95 % of dense is kept: "
            "about n = 1,900 would be needed",
        ),
        (
            {"diff_low": -0.03, "diff_high": 0.012, "p": 0.2, "p_holm": 0.9, "verdict": "matching"},
            "no difference shown (could be up to 3.0 pp), p = 0.2, 0.9 after Holm; "
            "matching: at least 95 % of dense is kept",
        ),
        (
            {"verdict": "not matching"},
            "worse by 1.0 pp (95 % CI 0.5 to 1.4), p = 2e-05; not matching: less than 95 % of dense is kept",
        ),
        (
            {"unit": "ratio", "difference": 0.459, "diff_low": 0.3, "diff_high": 0.6, "higher_is_better": False,
             "verdict": "not matching"},
            "worse by 100 % (95 % CI 65.4 to 131), p = 2e-05; not matching: less than 95 % of dense is kept",
        ),
        ({"unit": "", "difference": -3.0, "diff_low": -4.0, "diff_high": -2.0, "verdict": "not measured"},
         "lower by 3 (95 % CI 2 to 4), p = 2e-05"),
        ({"needed": math.inf}, "worse by 1.0 pp (95 % CI 0.5 to 1.4), p = 2e-05; cannot tell at n = 200 whether 95 % "
         "of dense is kept: it stands on the margin"),
        ({"kind": "dense", "verdict": "dense"}, "dense"),
        ({"paired": 0}, "not measured: no dense answers to the same examples"),
        ({"paired": 0, "n": 0}, "not measured: no answer could be judged"),
        ({"paired": 1, "diff_low": math.nan, "verdict": "not measured"},
         "cannot tell at n = 1 whether it differs from dense"),
    ],
)  # fmt: skip
def test_sentences(change: dict[str, object], words: str) -> None:
    assert sentences.sentence(ROW | change) == words


def test_no_row_is_a_bare_difference(swept: Store) -> None:
    frame = views.scores(swept)
    for row in frame[frame["kind"] != "dense"].to_dict("records"):
        assert any(word in row["words"] for word in ("95 % CI", "could be up to", "cannot tell", "not measured")), row


def test_the_command_line_says_the_same(swept: Store, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "evaluate", str(tiny_folder), "magnitude@0.7", "--task", "multiple_choice", "--task", "perplexity", "--limit",
        "6", "--windows", "2", "--length", "16", "--device", "cpu", "--fidelity", "--noise-floor", "--cache",
        str(swept.root),
    ]  # fmt: skip
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (close,) = found["fidelity"]
    row = views.fidelity(swept).set_index("recipe").loc["magnitude@0.7"]
    assert close["kl"] == row["kl"] and close["kl_interval"] == [row["kl_low"], row["kl_high"]]
    assert {row["task"] for row in found["noise_floor"]} == {"multiple_choice", "perplexity"}
    against = found["results"][1]["scorers"]["accuracy"]["against_dense"]
    frame = (
        views.scores(swept).set_index(["recipe", "task", "scorer"]).loc["magnitude@0.7", "multiple_choice", "accuracy"]
    )
    assert against["words"] == frame["words"] and against["changed"] == frame["changed"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "lower bound" in said and "noise floor" in said and frame["words"] in said
