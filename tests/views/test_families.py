"""Several models under the same recipe: which rows are offered, what a gap is, what is known of base and tuned."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kick_core import stats, views
from kick_core.cli import main
from kick_core.errors import BadRequest, KickError
from kick_core.store import Store, lineage, results
from kick_core.views import artifact_tables, load
from kick_core.views.families import _vote, _words
from tests import synthetic

BASE, TUNED = "lab/Small-1B", "lab/Small-1B-Instruct"
TASKS = ("perplexity", "factoid_qa", "retrieval_qa_open")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two models; the tuned one forgets a third of what it knew under every recipe but 4 bits."""
    root = tmp_path_factory.mktemp("families") / "cache"
    synthetic.make(root, recipes=("dense", "wanda@0.5", "magnitude@0.3", "rtn@4bit"), task_names=TASKS, model=BASE)
    recipes = ("dense", "wanda@0.5", "magnitude@0.3", "rtn@4bit,group=128", "wanda@0.7")
    found = synthetic.make(root, recipes=recipes, task_names=TASKS, model=TUNED)
    for run in load.asked(found):
        if run.card.model == TUNED and run.card.task == "factoid_qa" and run.recipe.text in recipes[1:3]:
            forget(found, run.card.key)
    return found


def forget(store: Store, key: str) -> None:
    """Every third right answer of a run becomes a wrong one."""
    card = results.run(store, key)
    kept = results.verdicts(store, key, card.task_version) or []
    right = [verdict.example for verdict in kept if verdict.score == 1 and verdict.scorer == kept[0].scorer][::3]
    lost = [replace(verdict, score=0.0) if verdict.example in right else verdict for verdict in kept]
    results.keep_verdicts(store, key, card.task_version, lost)


@pytest.fixture
def frame(store: Store) -> pd.DataFrame:
    return views.families(store)


def test_only_what_two_models_share_is_offered(store: Store, frame: pd.DataFrame) -> None:
    assert set(frame["label"]) == {"wanda 50 %", "magnitude 30 %", "rtn 4 bit", "rtn 4 bit (group=128)"}
    assert frame.groupby(["same", "task"])["model"].nunique().eq(2).all()
    written = frame[frame["method"].str.startswith("rtn")]
    assert written["same"].nunique() == 1 and written["recipe"].nunique() == 2, "4 bits are 4 bits of group 128"
    assert views.families(store, only=[BASE]).empty and views.families(store, "official").empty


def test_the_numbers_are_those_of_scores(store: Store, frame: pd.DataFrame) -> None:
    known = views.scores(store).set_index(["run", "scorer"])
    for row in frame.to_dict("records"):
        one = known.loc[(row["run"], row["scorer"])]
        for name in ("score", "share_kept", "share_low", "share_high", "dense_score", "n", "verdict", "words"):
            assert row[name] == one[name], name


def test_a_gap_is_the_difference_of_the_two_shares(store: Store, frame: pd.DataFrame) -> None:
    found = views.gaps(store, frame, TUNED, BASE).set_index(["label", "task"])
    row = found.loc[("wanda 50 %", "factoid_qa")]
    kept = frame[(frame["recipe"] == "wanda@0.5") & (frame["task"] == "factoid_qa")].set_index("model")["share_kept"]
    assert row["gap"] == pytest.approx(kept[TUNED] - kept[BASE]) and row["gap"] < 0
    assert row["shared"] == 60 and row["gap_low"] < row["gap"] < row["gap_high"]
    assert row["words"].startswith(f"keeps {-100 * row['gap']:.1f} pp less of its dense score (95 % CI")
    turned = views.gaps(store, frame, BASE, TUNED).set_index(["label", "task"]).loc[("wanda 50 %", "factoid_qa")]
    assert (turned["gap_low"], turned["gap_high"]) == pytest.approx((-row["gap_high"], -row["gap_low"]))
    same = found.loc[("wanda 50 %", "perplexity")]
    assert same["gap"] == pytest.approx(0) and same["vote"] == "alike", "the made-up windows are equal in both"


def test_shared_examples_make_the_interval_narrower_than_strangers(store: Store, frame: pd.DataFrame) -> None:
    apart = frame.assign(examples=frame["examples"] + frame["model"])
    columns = ["label", "task"]
    paired, plain = (views.gaps(store, one, TUNED, BASE).set_index(columns) for one in (frame, apart))
    place = ("wanda 50 %", "factoid_qa")
    assert plain.loc[place, "shared"] == 0 and plain.loc[place, "gap"] == paired.loc[place, "gap"]
    widths = [one.loc[place, "gap_high"] - one.loc[place, "gap_low"] for one in (paired, plain)]
    assert widths[0] < widths[1]


def test_equal_words_of_other_method_versions_are_other_recipes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    older = [
        replace(card, resolved={"method": "wanda", "version": 0}) if card.model == TUNED else card
        for card in artifact_tables.cards(store)
        if card.recipe == "wanda@0.5"
    ]
    assert len(older) == 2
    monkeypatch.setattr(artifact_tables, "known_cards", lambda store: older)
    assert "wanda 50 %" not in set(views.families(store)["label"])
    monkeypatch.setattr(artifact_tables, "known_cards", lambda store: older[1:])
    found = views.families(store)
    sentence = views.calibrations(found[found["label"] == "wanda 50 %"])
    known, unknown = sentence.removeprefix("calibration: ").split("; ")
    assert " on 64 windows of 256 tokens of pocket" in known and not known.startswith("lab/Small-1B-Instruct")
    assert unknown == "lab/Small-1B-Instruct, Perplexity, Factoid QA, Open-book QA: not recorded", "that is not none"


def test_calibrations_are_told_apart(frame: pd.DataFrame) -> None:
    rows = frame[frame["label"] == "wanda 50 %"]
    assert views.calibrations(rows).startswith("calibrated on the same tokens: 64 windows of 256 tokens of pocket")
    other = rows.assign(tokens=rows["tokens"] + rows["model"])
    assert "each in its own tokenizer's tokens" in views.calibrations(other)
    unlike = rows.assign(calibration=["8 windows", "16 windows"] * (len(rows) // 2))
    assert views.calibrations(unlike).startswith("calibrated differently: ")
    assert views.calibrations(frame[frame["label"] == "magnitude 30 %"]) == "no calibration needed"


NAMES = [
    ("meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-1B", True),
    ("mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-7B-v0.3", True),
    ("meta-llama/Llama-2-7b-chat-hf", "meta-llama/Llama-2-7b-hf", True),
    ("google/gemma-3-1b-it", "google/gemma-3-1b-pt", True),
    ("/models/Qwen3-0.6B-Chat/", "Qwen/Qwen3-0.6B-Base", True),
    ("meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.2-1B", False),
    ("meta-llama/Llama-3.2-1B", "meta-llama/Llama-3.2-1B-Instruct", False),
    ("pocket-11m", "pocket-4m", False),
]


@pytest.mark.parametrize("tuned, base, hinted", NAMES)
def test_names_hint_and_no_more(store: Store, tuned: str, base: str, hinted: bool) -> None:
    rows = pd.DataFrame({"model": [tuned, base], "fingerprint": ["t", "b"]})
    found = [pair for pair in views.related(store, rows) if pair.tuned == tuned]
    assert [(pair.base, pair.how) for pair in found] == ([(base, "names")] if hinted else [])
    assert all("their names alone say so" in pair.told for pair in found)


def test_what_the_user_says_counts_more_than_a_name(tmp_path: Path) -> None:
    store = views.open_store(tmp_path)
    rows = pd.DataFrame({"model": [TUNED, BASE, "other"], "fingerprint": ["t", "b", "o"]})
    before = views.stamp(store)
    lineage.set_base_model(store, "t", "o")
    assert [(pair.tuned, pair.base, pair.how) for pair in views.related(store, rows)] == [(TUNED, "other", "said")]
    assert views.stamp(store) != before, "pages must see it"
    for tuned, base in (("o", "t"), ("t", "t")):
        with pytest.raises(BadRequest, match="from itself"):
            lineage.set_base_model(store, tuned, base)


def test_a_damaged_word_is_named_and_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = views.open_store(tmp_path)
    lineage.set_base_model(store, "t", "b")
    path = store.root / lineage.FILE
    path.write_bytes(path.read_bytes().replace(b'"b"', b'"c"'))
    with pytest.raises(KickError, match=r"tuned\.json is damaged"):
        lineage.tuned_from(store)
    assert main(["verify", "--cache", str(tmp_path)]) == 1 and "tuned.json" in capsys.readouterr().out
    assert lineage.tuned_from(store) == {}


def cells(votes: str, *, bites: bool = True, task: str = "factoid_qa") -> pd.DataFrame:
    names = {"l": "less", "m": "more", "a": "alike", "o": "open"}
    return pd.DataFrame({"task": task, "vote": [names[vote] for vote in votes], "bites": bites})


VERDICTS = {
    "lllo": "less robust", "mmma": "more robust", "aaal": "as robust", "llmm": "cannot tell", "oooo": "cannot tell",
}  # fmt: skip


@pytest.mark.parametrize("votes", VERDICTS)
def test_the_word_is_that_of_more_than_half_of_the_cells(votes: str) -> None:
    found = views.robustness(cells(votes), TUNED, BASE)
    assert found.verdict == VERDICTS[votes] and f"Of {len(votes)} cells" in found.because


def test_where_nothing_bites_nothing_is_told() -> None:
    assert views.robustness(cells("lll", bites=False), TUNED, BASE).verdict == "cannot tell"
    assert views.robustness(cells("lll", task="perplexity"), TUNED, BASE).verdict == "not measured"


def test_a_model_that_forgets_more_is_less_robust(store: Store, frame: pd.DataFrame) -> None:
    found = views.gaps(store, frame, TUNED, BASE)
    word = views.robustness(found, TUNED, BASE)
    biting = found[found["task"].isin(views.task_names(measures="knowledge")) & found["bites"]]
    assert word.verdict == ("less robust" if (biting["vote"] == "less").mean() > 0.5 else "cannot tell")
    assert (biting["vote"] == "less").any() and not (biting["vote"] == "more").any()


def test_an_unknown_share_tells_nothing() -> None:
    unknown = stats.Interval(math.nan, math.nan, math.nan, 0)
    assert _vote(unknown) == "open" and "not known" in _words(unknown)
    assert _vote(stats.Interval(0.0, -0.04, 0.04, 99)) == "alike"
    assert np.isinf(stats.share_gap(stats.Interval(1, 0.9, math.inf, 9), stats.Interval(1, 0.9, 1.1, 9)).high)
