"""`kick check`: prompts word for word, what was read in the answers, and a verdict that follows from the floor."""

import json

import pytest

from kick_core import views
from kick_core.cli import main
from kick_core.store import results
from tests import synthetic


@pytest.fixture(scope="module")
def checked(tiny_folder, tmp_path_factory):
    """A random model on facts of the real world: it can only guess."""
    cache = tmp_path_factory.mktemp("checked")
    return ["check", str(tiny_folder), "--tasks", "world_facts", "world_facts_choice", "--cache", str(cache)]


def test_a_guessing_model_cannot_be_measured_and_is_shown_why(checked, capsys):
    assert main([*checked, "--json"]) == 0
    closed, choice = json.loads(capsys.readouterr().out)["checks"]
    assert [one["n"] for one in (closed, choice)] == [32, 32] and choice["floor"] == 0.25
    assert not closed["measurable"] and "nothing to lose here" in closed["because"]
    assert not choice["measurable"] and "chance" in choice["because"]
    assert "n = 32 of" in closed["size"] and "first look" in closed["size"]
    assert choice["form"] == "shots:5" and "completions" in choice["reason"]


def test_prompts_are_shown_token_for_token(checked, tiny_folder, capsys):
    from transformers import AutoTokenizer

    assert main([*checked, "--json"]) == 0
    _, choice = json.loads(capsys.readouterr().out)["checks"]
    sent = choice["answers"][0]["sent"]
    text = "".join(piece for piece, _ in sent["pieces"])
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    assert len(choice["answers"]) == 3 and text.endswith("\nAnswer:") and text.count("Answer:") == 6
    assert sent["pieces"][0] == [tokenizer.bos_token, True] and len(sent["pieces"]) == 2
    assert sent["tokens"] == len(tokenizer(text.removeprefix(tokenizer.bos_token))["input_ids"])
    assert len(sent["options"]) == 4 and all(map(all, sent["options"]))
    assert main(checked) == 0
    assert "     | <s>Question: " in capsys.readouterr().out


def test_a_model_that_knows_can_be_measured(tmp_path):
    store = synthetic.make(tmp_path, recipes=("dense",), task_names=("factoid_qa", "perplexity"), n=40)
    checks = {check.task: check for check in views.checks(store, [run.key for run in results.runs(store)])}
    assert checks["factoid_qa"].measurable and "a blind guess 0 %" in checks["factoid_qa"].because
    assert checks["perplexity"].measurable and "no floor" in checks["perplexity"].because
    assert all(answer.sent is None and answer.right is not None for answer in checks["factoid_qa"].answers)


def test_ones_own_questions_are_checked(tiny_folder, tmp_path, capsys):
    data = tmp_path / "three.csv"
    data.write_text("question,answer,options\nOne?,yes,yes|no\nTwo?,yes,yes|no\nThree?,yes,yes|no\n")
    assert main(["check", str(tiny_folder), "--data", str(data), "--cache", str(tmp_path), "--json"]) == 0
    (one,) = json.loads(capsys.readouterr().out)["checks"]
    assert one["task"] == "own_choice" and one["floor"] == 0.5 and one["n"] == 3 and not one["measurable"]
