"""A limit on a long task of options: what is read for it, and that answers are those of the whole task."""

import torch

from kick_core import engine, evaluation, tasks
from kick_core.artifacts.loaded_model import open_for
from kick_core.evaluation import EvalSession, multiple_choice
from kick_core.spec import ModelRef
from tests.tiny import save_tiny

PLAN = engine.BatchPolicy(tokens=512, rows=4, step=16, shortest=16, row=64, pack=128, room=8)


def test_spans_cover_a_task_and_do_not_depend_on_its_end():
    whole = multiple_choice.spans(14042)
    assert [at for span in whole for at in span] == list(range(14042)) and len(whole) == 3
    assert multiple_choice.spans(3000) == [whole[0], range(1024, 3000)]
    assert multiple_choice.span_settings(1024) == {} != multiple_choice.span_settings(1025)


def test_a_limit_reads_its_own_spans_and_answers_as_the_whole_task_does(tmp_path, monkeypatch):
    monkeypatch.setattr(multiple_choice, "FIRST_SPAN", 4)
    opened = open_for(ModelRef(str(save_tiny(tmp_path / "half", dtype=torch.bfloat16))), None, "cpu")
    task = tasks.get("multiple_choice")
    examples = evaluation.examples(task, EvalSession(opened.model, opened.tokenizer, PLAN))[:20]

    def answers(limit):
        ask = EvalSession(opened.model, opened.tokenizer, PLAN)
        if limit == 5:  # tokenised ahead, for instance in another thread
            evaluation.prepare(ask, task.strict, examples[:limit], examples)
            monkeypatch.setattr(multiple_choice, "shown", None)
        batches = evaluation.outputs(ask, task.strict, examples[:limit], examples)
        outputs = {output.example: output for batch in batches for output in batch}
        return outputs, sum(len(questions.shown) for _, questions in ask.prepared.values())

    whole, read = answers(20)
    assert len(whole) == read == 20
    for limit, most in ((2, 4), (5, 16), (17, 20)):
        outputs, read = answers(limit)
        monkeypatch.undo()
        monkeypatch.setattr(multiple_choice, "FIRST_SPAN", 4)
        assert read == most and outputs == {e.id: whole[e.id] for e in examples[:limit]}
