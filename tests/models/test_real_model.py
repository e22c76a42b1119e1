"""A model that knows something: what it is asked, what it answers, and what the check makes of it."""

import json

import pytest
import torch

from kick_core import evaluation, tasks
from kick_core.artifacts.loaded_model import open_for
from kick_core.cli import main
from kick_core.evaluation import open_session
from kick_core.spec import ModelRef
from kick_core.store import open_store
from tools.real_model import MEMBER, MODELS

pytestmark = pytest.mark.real
FILE = MODELS / MEMBER.rpartition("/")[2]
if not FILE.exists():
    pytest.skip("no real model in models/: `make real` installs it", allow_module_level=True)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One cache for all: the file is decoded once."""
    return tmp_path_factory.mktemp("cache")


def test_the_check_says_what_can_be_measured(cache, capsys):
    names = ["world_facts", "world_facts_choice", "world_facts_letters"]
    words = ["check", str(FILE), "--dtype", "float32", "--limit", "24", "--json", "--cache", str(cache), "--tasks"]
    assert main([*words, *names]) == 0
    checks = {check["task"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert [checks[name]["form"] for name in names] == ["chat", "shots:5", "raw"]
    assert [checks[name]["measurable"] for name in names] == [True, True, False]
    sent = "".join(piece for piece, _ in checks["world_facts"]["answers"][0]["sent"]["pieces"])
    assert sent.startswith("<|im_start|>system\n") and sent.endswith("<|im_start|>assistant\n")


def test_answers_are_those_of_the_library(cache):
    opened = open_for(ModelRef(str(FILE), dtype="float32"), open_store(cache), "cpu")
    task, session = tasks.get("world_facts", "official"), open_session(opened.model, opened.tokenizer)
    examples = task.strict.load("official")[:6]
    spec = evaluation.prompt_spec(task, session, "strict", "chat")
    answers = {one.example: one for batch in evaluation.outputs(session, spec, examples, examples) for one in batch}
    for example in examples:
        prompt = opened.tokenizer.apply_chat_template(
            [{"role": "user", "content": example.meta["question"]}],
            add_generation_prompt=True,
            return_tensors="pt",
            return_dict=True,
        )
        with torch.no_grad():
            ids = opened.model.generate(**prompt, max_new_tokens=64, do_sample=False)
        text = opened.tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True)
        assert answers[example.id].text == (text.strip(),)
