"""The forms of a question: what is sent, how it is settled, and that another form is another run."""

import re
from dataclasses import replace

import pytest

from kick_core import evaluation, tasks
from kick_core.artifacts.loaded_model import open_for
from kick_core.errors import BadRequest, KickError
from kick_core.evaluation import open_session
from kick_core.evaluation.prompting import elicited, frame, prompts, settle
from kick_core.models.tokenization import encode
from kick_core.runs.measure import Draws, task_data
from kick_core.spec import ModelRef
from kick_core.tasks.scorers import stated

TEMPLATE = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}<|assistant|>"


@pytest.fixture
def session(tiny_folder):
    opened = open_for(ModelRef(str(tiny_folder)), None, "cpu")
    return open_session(opened.model, opened.tokenizer)


@pytest.fixture
def chat_session(session, monkeypatch):
    monkeypatch.setattr(session.tokenizer, "chat_template", TEMPLATE)
    return session


@pytest.fixture
def base_session(session, monkeypatch):
    monkeypatch.setattr(session.tokenizer, "chat_template", None)
    return session


FACTS = tasks.get("world_facts", "official")
CHOICE = tasks.get("world_facts_choice", "official")


def test_auto_takes_what_suits_the_model_and_says_why(chat_session):
    chat = settle("auto", FACTS.strict, chat_session.tokenizer)
    assert (chat.text, chat.reason) == ("chat", "the model has a chat template")
    choice = settle("auto", CHOICE.strict, chat_session.tokenizer)
    assert choice.text == "shots:5" and "completions" in choice.reason
    assert settle("chat", FACTS.strict, chat_session.tokenizer) == chat  # whoever asks first, the run says the same
    assert settle("shots:5", FACTS.strict, chat_session.tokenizer).reason == "it was requested"


def test_auto_shows_worked_examples_to_a_base_model(base_session):
    assert settle("auto", FACTS.strict, base_session.tokenizer).text == "shots:5"
    with pytest.raises(BadRequest, match="has no chat template; use --prompting shots:5"):
        settle("chat", FACTS.strict, base_session.tokenizer)


def test_what_has_one_form_keeps_it(chat_session):
    for name, data in (("perplexity", "pocket"), ("factoid_qa", "pocket"), ("multiple_choice", "official")):
        spec = tasks.get(name, data).strict
        assert settle("chat", spec, chat_session.tokenizer).text == "raw"
    assert evaluation.prompt_spec(tasks.get("factoid_qa", "official"), chat_session, "paper").prompting == "raw"


@pytest.mark.parametrize("text", ["Chat", "shots", "shots:", "shots:-1", "shots:x", "zero", "chat:3", "shots:٣"])
def test_unknown_forms_are_refused(session, text):
    with pytest.raises(BadRequest, match="auto, raw, chat or shots:K"):
        settle(text, FACTS.strict, session.tokenizer)


def test_more_shots_than_there_are_name_the_number(session):
    with pytest.raises(BadRequest, match=r"there are \d+ worked examples"):
        settle("shots:999", FACTS.strict, session.tokenizer)


def test_a_chat_prompt_is_the_template_with_the_question_in_it(chat_session):
    spec = elicited(FACTS.strict, settle("chat", FACTS.strict, chat_session.tokenizer), chat_session.tokenizer)
    (example,) = FACTS.strict.load("official")[:1]
    [(ids, shots)] = prompts(chat_session.tokenizer, spec, [example], 10_000)
    message = [{"role": "user", "content": example.meta["question"]}]
    text = chat_session.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
    assert ids == encode(chat_session.tokenizer, text) and shots is None
    assert spec.stop == () and spec.new_tokens == 64


def test_worked_examples_are_held_out_and_leave_one_by_one(base_session):
    spec = elicited(FACTS.strict, settle("shots:3", FACTS.strict, base_session.tokenizer), base_session.tokenizer)
    examples = FACTS.strict.load("official")[:3]
    before, after = frame(base_session.tokenizer, spec)
    assert before.count("Answer:") == 3 and after == "\nAnswer:"
    asked = {example.meta["question"] for example in FACTS.strict.load("official")}
    assert not any(f"Question: {question}\n" in before for question in asked)
    [(whole, three), *_] = prompts(base_session.tokenizer, spec, examples, 10_000)
    [(short, fewer), *_] = prompts(base_session.tokenizer, spec, examples, len(whole) - 1)
    assert (three, fewer) == (3, 2) and len(short) < len(whole)


def test_another_form_is_another_run_and_the_form_is_in_its_settings(chat_session):
    spec = {form: evaluation.prompt_spec(FACTS, chat_session, "strict", form) for form in ("raw", "chat", "shots:2")}
    settings = {form: chat_session.settings(one) for form, one in spec.items()}
    assert "prompting" not in settings["raw"]
    assert settings["chat"]["prompting"] == "chat" and settings["chat"]["after_question"].endswith("<|assistant|>")
    assert settings["shots:2"]["before_question"].count("Answer:") == 2
    loaded = task_data(FACTS, chat_session, "official", prompting="shots:2")
    assert loaded.spec == spec["shots:2"]


def test_the_chat_form_refuses_what_only_worked_examples_have(chat_session):
    with pytest.raises(BadRequest, match=r"few-shot seed 7: world_facts .* shows no worked examples"):
        task_data(FACTS, chat_session, "official", draws=Draws(fewshot_seed=7))
    drawn = task_data(FACTS, chat_session, "official", draws=Draws(shots=2, fewshot_seed=7))
    assert (drawn.spec.prompting, drawn.spec.fewshot_seed) == ("shots:2", 7)


def test_templates_are_given_one_date_and_no_thinking(chat_session, monkeypatch):
    dated = "{{ strftime_now('%d %B %Y') }}{% if enable_thinking %}<think>{% endif %}" + TEMPLATE
    monkeypatch.setattr(chat_session.tokenizer, "chat_template", dated)
    spec = evaluation.prompt_spec(FACTS, chat_session, "strict", "chat")
    settings = chat_session.settings(spec)
    assert settings["before_question"].startswith("01 January 2025<|user|>")
    assert (settings["date"], settings["thinking"]) == ("2025-01-01", "off")


def test_a_model_that_always_thinks_gets_room_and_its_thought_is_marked(chat_session, monkeypatch):
    monkeypatch.setattr(chat_session.tokenizer, "chat_template", TEMPLATE + "<think>\n")
    monkeypatch.setattr(type(chat_session), "context", 4096)
    spec = evaluation.prompt_spec(FACTS, chat_session, "strict", "chat")
    assert spec.new_tokens == 1024 + 64 and "1024" in chat_session.settings(spec)["thinking"]
    (example,) = FACTS.strict.load("official")[:1]
    short = replace(spec, new_tokens=4)  # no room to end the thought: nothing of it is an answer
    ((output,),) = evaluation.outputs(chat_session, short, [example], [example])
    assert output.text[0].startswith("<think>") and stated(example, output).extracted == ""


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            "{% for m in messages %}{{ m.content }} {{ m.content }}{% endfor %}",
            "does not write the user's message once",
        ),
        ("{% for m in messages %}{{ m.content | upper }}{% endfor %}", "does not write the user's message once"),
        ("{{ raise_exception('no system, please') }}", "cannot be used: no system, please"),
        ({"rag": TEMPLATE, "tool_use": TEMPLATE}, "has several chat templates (rag, tool_use) and none is the default"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_line_with_the_way_out(chat_session, monkeypatch, template, message):
    monkeypatch.setattr(chat_session.tokenizer, "chat_template", template)
    with pytest.raises(KickError, match=re.escape(message)) as error:
        chat_session.settings(evaluation.prompt_spec(FACTS, chat_session, "strict", "auto"))
    assert "--prompting shots:5" in str(error.value)


def test_options_of_a_chat_begin_without_a_space(chat_session):
    spec = evaluation.prompt_spec(CHOICE, chat_session, "strict", "chat")
    examples = CHOICE.strict.load("official")[:4]
    (batch,) = evaluation.outputs(chat_session, spec, examples, examples)
    assert len(batch) == 4 and all(len(output.logprobs) == 4 for output in batch)
