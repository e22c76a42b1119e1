"""What a model is asked where nothing is said: the pocket world for its models, shipped facts for every other one."""

from dataclasses import replace

import pytest

from kick_core import tasks
from kick_core.errors import BadRequest
from kick_core.sweeps.request import SweepJob, data_for, foreign, preset


def test_data_follow_the_tasks_and_where_none_is_named_the_model():
    assert data_for("pocket") == data_for("pocket-4m", ("factoid_qa",)) == "pocket"
    assert data_for("/models/llama") == data_for("pocket", ("world_facts",)) == "official"
    assert data_for("/models/llama", ("factoid_qa",)) == "pocket"
    assert data_for("/models/llama", (), "pocket") == "pocket"


def test_a_model_that_never_read_the_pocket_world_is_named():
    job = SweepJob("/models/llama", ("dense",), tasks=("factoid_qa", "perplexity"))
    assert "never read" in foreign(job) and "factoid_qa ask" in foreign(job)
    assert not foreign(replace(job, model="pocket")) and not foreign(replace(job, tasks=("perplexity",)))
    assert not foreign(replace(job, data="official"))


def test_the_facts_preset_needs_no_network():
    job = preset("facts", "/models/llama")
    assert job.data == "official" and len(job.recipes) == 12
    assert all(tasks.get(name, job.data).shipped for name in job.tasks) and len(job.tasks) >= 4
    job.check()


def test_the_demo_of_a_real_model_is_not_calibrated_on_the_pocket_world():
    assert preset("demo", "/models/llama").calibration.source == "auto"


def test_a_file_of_questions_names_its_own_task(tmp_path, tiny_folder, capsys):
    from kick_core.cli import main

    path = tmp_path / "my.csv"
    path.write_text("question,answer,options\nCapital of France?,Paris,Rome|Paris\nTwo?,2,1|2\n")
    words = ["evaluate", str(tiny_folder), "dense", "--data", str(path), "--cache", str(tmp_path / "cache"), "--json"]
    assert main(words) == 0
    assert '"task": "own_choice"' in capsys.readouterr().out
    path.write_text("question,answer\nWhy?\n")
    assert main(words) == 2
    assert "line 2: the column 'answer' is missing" in capsys.readouterr().err


def test_nothing_to_evaluate_on_is_said(tiny_folder, tmp_path, capsys):
    from kick_core.cli import main

    assert main(["evaluate", str(tiny_folder), "dense", "--cache", str(tmp_path)]) == 2
    assert "name --task" in capsys.readouterr().err


def test_forms_reach_the_run(tiny_folder, tmp_path, capsys):
    from kick_core.cli import main
    from kick_core.store import open_store
    from kick_core.views import load

    words = ["evaluate", str(tiny_folder), "dense", "--task", "world_facts", "--limit", "2", "--cache", str(tmp_path)]
    assert main([*words, "--prompting", "shots:2"]) == 0 and main([*words, "--prompting", "raw"]) == 0
    forms = {run.card.settings.get("prompting", "raw") for run in load.asked(open_store(tmp_path))}
    assert forms == {"shots:2", "raw"}
    assert main([*words, "--prompting", "shout"]) == 2
    assert "auto, raw, chat or shots:K" in capsys.readouterr().err
    with pytest.raises(BadRequest):
        preset("fact", "pocket")
