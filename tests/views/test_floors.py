"""Where dense itself may be guessing there is nothing to lose: no share of dense, no verdict, and words that say so."""

import json
import math

import pytest

from kick_core.cli import main
from kick_core.store import open_store
from kick_core.views import scores
from kick_core.views.paired import AT_FLOOR


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
