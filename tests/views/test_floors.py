"""Where dense itself may be guessing there is nothing to lose: no share of dense, no verdict, and words that say so."""

import json
import math

import pytest

from kick_core import views
from kick_core.cli import main
from kick_core.store import open_store
from kick_core.views import charts, scores
from kick_core.views.paired import AT_CHANCE, AT_FLOOR
from tests import synthetic


@pytest.fixture(scope="module")
def measured(tiny_folder, tmp_path_factory):
    """A random model knows nothing: its open answers score 0, its choices one in four."""
    cache = tmp_path_factory.mktemp("floors")
    words = ["evaluate", str(tiny_folder), "magnitude@0.5", "--limit", "24", "--cache", str(cache)]
    assert main([*words, "--task", "world_facts", "--task", "world_facts_choice", "--task", "perplexity_english"]) == 0
    return scores(open_store(cache))


def test_no_share_is_drawn_of_a_guess(measured):
    rows = measured[measured["headline"] & measured["task"].isin(["world_facts", "world_facts_choice"])]
    assert len(rows) == 4 and set(rows["verdict"]) == {AT_FLOOR}
    assert rows[["share_kept", "share_low", "share_above"]].isna().all().all()
    assert all("nothing to lose here" in words for words in rows["words"])
    assert set(rows.loc[rows["task"] == "world_facts_choice", "chance"]) == {0.25}


def test_perplexity_has_no_floor(measured):
    (row,) = measured[(measured["task"] == "perplexity_english") & (measured["kind"] != "dense")].to_dict("records")
    assert row["share_kept"] > 0 and row["verdict"] != AT_FLOOR


def test_json_says_null_not_a_share(tiny_folder, tmp_path, capsys):
    words = ["evaluate", str(tiny_folder), "magnitude@0.5", "--limit", "12", "--cache", str(tmp_path), "--json"]
    assert main([*words, "--task", "world_facts"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["results"]
    against = one["scorers"]["stated"]["against_dense"]
    assert against["share_kept"] is None and against["share_above_chance"] is None


def test_the_share_above_chance_stands_beside_the_raw_one():
    import numpy as np

    from kick_core import stats

    before, after = np.repeat([1.0, 0.0], [150, 50]), np.repeat([1.0, 0.0], [100, 100])
    raw = stats.clustered_ratio(before, after, np.arange(200))
    above = stats.share_above_chance(before, after, 0.25)
    assert raw.value == pytest.approx(2 / 3) and above.value == pytest.approx(0.5)
    assert not math.isnan(above.low) and above.low < 0.5 < above.high


KNOWLEDGE = ("factoid_qa", "multiple_choice", "retrieval_qa_closed")


@pytest.fixture(scope="module")
def guessing(tmp_path_factory):
    """A model that knows nothing but writes and reads well, under every kind of recipe."""
    with pytest.MonkeyPatch.context() as patch:
        quality = synthetic.quality
        patch.setattr(synthetic, "quality", lambda task, recipe: 0.0 if task in KNOWLEDGE else quality(task, recipe))
        return synthetic.make(tmp_path_factory.mktemp("guessing"), recipes=synthetic.FEW, n=40)


def test_no_claim_counts_a_cell_without_anything_to_lose(guessing):
    frame = views.current(scores(guessing), synthetic.MODEL)
    assert set(frame.loc[frame["task"].isin(KNOWLEDGE), "verdict"]) == {AT_FLOOR}
    knowledge, bits, context = views.claims(frame)
    assert knowledge.evidence.empty and knowledge.verdict == "not measured"
    assert len(bits.evidence) and len(context.evidence)
    assert not bits.evidence["task"].isin(KNOWLEDGE).any() and not context.evidence["task"].isin(KNOWLEDGE).any()


def test_headline_charts_and_report_say_so_and_draw_no_share(guessing):
    frame = views.current(scores(guessing), synthetic.MODEL)
    assert AT_CHANCE in views.headline(frame, "wanda@0.5") and "forgets" not in views.headline(frame, "wanda@0.5")
    drawn = {trace["customdata"][0][1] for trace in charts.overlay(frame, "wanda")["data"]}
    assert drawn and not drawn & set(KNOWLEDGE)
    page = views.report(guessing, synthetic.MODEL)
    assert AT_CHANCE in page and "keeps –" not in page and "dense scores 0" not in page


def test_what_recovery_brought_back_of_nothing_is_not_told(guessing):
    from kick_core.views import recovery

    frame = views.current(scores(guessing), synthetic.MODEL)
    frame.loc[frame["recipe"] == "wanda@0.5", "without"] = "wanda@0.3"
    words = recovery.recovered(guessing, frame).set_index("task")["word"]
    assert set(words[list(KNOWLEDGE)]) == {AT_FLOOR} and words["perplexity"] != AT_FLOOR


def test_two_models_that_guess_are_not_compared(guessing, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(synthetic, "quality", lambda task, recipe: 0.0 if task in KNOWLEDGE else 0.9)
        for model in ("pocket-11m", "pocket-4m"):
            store = synthetic.make(tmp_path, recipes=("dense", "wanda@0.5"), n=24, model=model, weights=False)
    tasks = set(views.families(store)["task"])
    assert tasks and not tasks & set(KNOWLEDGE)
