"""What trials of forms came to is kept in the cache: a later command asks a model it knows at once."""

import pytest

from kick_core.cli import main
from kick_core.engine import forms
from kick_core.store import results, trials

ASKED = ("--task", "world_facts", "--task", "world_facts_choice", "--limit", "6")


@pytest.fixture
def tried(monkeypatch):
    """The forms that are tried from here on."""
    names, plain = [], forms._answers
    monkeypatch.setattr(forms, "_answers", lambda right, form: (names.append(form), plain(right, form))[1])
    return names


def test_a_form_is_tried_once_for_all_commands(store, tried, monkeypatch):
    def evaluate(recipe):
        assert main(["evaluate", "pocket-4m", recipe, *ASKED, "--cache", str(store.root)]) == 0

    evaluate("dense")
    first = tried[:]
    assert len(first) > 1
    evaluate("magnitude@0.5")
    assert tried == first

    answers = {run.key: results.outputs(store, run.key) for run in results.runs(store)}
    (store.root / trials.FILE).write_text("{")  # a damaged memo is only a memo
    monkeypatch.setattr(forms, "_engine_sum", lambda: "another engine")
    evaluate("magnitude@0.3")
    assert len(tried) > len(first) and trials._all(store)
    assert {run: results.outputs(store, run) for run in answers} == answers
