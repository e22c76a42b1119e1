"""Dense's answers read by a variant, against the plain form: one text at a time, and greedy decoding itself."""

from __future__ import annotations

import pytest
import torch

from kick_core import engine, evaluation, tasks
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import open_for
from kick_core.evaluation import EvalSession
from kick_core.evaluation.session import prompt_hash
from kick_core.records import Output
from kick_core.runs import dense_replay
from kick_core.runs import measure as runs
from kick_core.runs.dense_replay import Text
from kick_core.spec import DENSE, Calibration, ModelRef, parse
from kick_core.store import fidelity as kept
from kick_core.store import results
from tests.tiny import token_ids

PLAN = engine.BatchPolicy(tokens=512, rows=4, step=16, shortest=16)
RECIPE = parse("magnitude@0.6")


@pytest.fixture
def builder(tiny_folder, store):
    return ArtifactBuilder(store, open_for(ModelRef(str(tiny_folder)), store, "cpu"), Calibration(windows=2, length=16))


@pytest.fixture
def ask(builder):
    return EvalSession(builder.opened.model, builder.opened.tokenizer, PLAN)


def texts(count=9):
    whole = [token_ids(1, 9 + 5 * i, seed=i)[0].tolist() for i in range(count)]
    cut = [len(ids) - 1 - 3 * i // 2 % 7 for i, ids in enumerate(whole)]
    return [
        Text(f"e{i}", 0, tuple(ids[:at]), tuple(ids[at:])) for i, (ids, at) in enumerate(zip(whole, cut, strict=True))
    ]


@torch.inference_mode()
def test_log_probabilities_are_those_of_one_text_at_a_time(ask):
    for text, read in zip(texts(), dense_replay.read_all(ask, texts()), strict=True):
        ids, start = [*text.prompt, *text.answer], len(text.prompt)
        logprobs = ask.model(torch.tensor([ids])).logits[0].float().log_softmax(-1)
        answer = range(start, len(ids))
        assert read.total == pytest.approx(sum(float(logprobs[at - 1, ids[at]]) for at in answer), abs=1e-3)
        first = [at - start for at in answer if int(logprobs[at - 1].argmax()) != ids[at]]
        assert read.until == (first[0] if first else len(answer))


def test_tokens_until_divergence_are_greedy_decodings_own(ask, builder):
    """What dense writes and what the variant writes part exactly where the reading says."""
    prompts = [token_ids(1, 5 + 3 * i, seed=i)[0].tolist() for i in range(6)]

    def written():
        found = {}
        for batch in engine.generate(
            ask.model, prompts, new_tokens=10, ends=frozenset(), stops=lambda _: False, plan=PLAN, filler=0
        ):
            found |= batch
        return [found[i].ids for i in range(6)]

    dense = written()
    for _ in builder.make(RECIPE):
        pass
    variant = written()
    asked = [Text(str(i), 0, tuple(prompt), dense[i]) for i, prompt in enumerate(prompts)]
    for read, one, other in zip(dense_replay.read_all(ask, asked), dense, variant, strict=True):
        assert read.until == next((i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b), 10)
    builder.apply_recipe(DENSE)
    assert [read.until for read in dense_replay.read_all(ask, asked)] == [10] * 6


def measured(store, builder, name, limit):
    ask = evaluation.open_session(builder.opened.model, builder.opened.tokenizer)
    loaded = runs.task_data(tasks.get(name), ask)
    builder.apply_recipe(DENSE)
    dense = runs.run_card(builder, DENSE, ask, loaded)
    for _ in runs.measure(store, ask, dense, loaded, limit):
        pass
    for _ in builder.make(RECIPE):
        pass
    done = sum(dense_replay.measure(store, builder, RECIPE, ask, loaded, dense.key, limit))
    keys = [dense_replay.card(builder, recipe, ask, loaded).key for recipe in (DENSE, RECIPE)]
    return done, dense.key, [kept.readings(store, key).to_pandas() for key in keys]


def test_every_turn_is_read_once_and_the_run_can_be_extended(store, builder):
    done, dense, (base, mine) = measured(store, builder, "instructions", 3)
    said = [output for output in results.outputs(store, dense)]
    expected = [(o.example, turn) for o in said for turn, ids in enumerate(o.ids) if ids]
    assert done == 3
    for frame in (base, mine):
        assert list(zip(frame["example"], frame["turn"], strict=True)) == expected
    assert (base["tokens"] == mine["tokens"]).all()
    assert (base["until"] == base["tokens"]).all(), "dense writes what it reads"
    assert (base["logprob"] >= mine["logprob"]).mean() > 0.5, "these are dense's own words"
    assert measured(store, builder, "instructions", 3)[0] == 0
    assert measured(store, builder, "instructions", 5)[0] == 2


def test_empty_answers_and_rejected_prompts_are_no_texts(ask):
    loaded = runs.task_data(tasks.get("factoid_qa"), ask)
    example = loaded.examples[0]
    for output in (Output(example.id, "", ("",), ids=((),)), Output(example.id, "", stop="rejected")):
        assert list(dense_replay._texts(ask, loaded, [example], [output])) == []
    (text,) = dense_replay._texts(ask, loaded, [example], [Output(example.id, "", ("x",), ids=((7, 9),))])
    assert text.answer == (7, 9) and text.prompt[0] == ask.tokenizer.bos_token_id


def test_answers_are_read_after_the_prompt_that_was_sent(ask):
    loaded = runs.task_data(tasks.get("world_facts", "official"), ask, "official", prompting="shots:2")
    examples = loaded.examples[:3]
    outputs = [output for batch in evaluation.outputs(ask, loaded.spec, examples) for output in batch]
    shown = dense_replay._texts(ask, loaded, examples, outputs)
    assert [prompt_hash(text.prompt) for text in shown] == [output.prompt_hash for output in outputs]
