"""A prompt of one's own: what may be asked, and that the answers are those of the evaluation's engine."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from kick_core import engine, evaluation, jobs
from kick_core.artifacts.builder import ArtifactBuilder
from kick_core.artifacts.loaded_model import open_for
from kick_core.errors import BadRequest
from kick_core.evaluation import EvalSession
from kick_core.models.tokenization import encode
from kick_core.spec import Calibration, ModelRef, parse
from kick_core.store import open_store
from kick_core.sweeps import playground

MODEL = "pocket-4m"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"prompt": "  "}, "a prompt of 2 characters"),
        ({"prompt": "x" * 8001}, "a prompt of 8001 characters"),
        ({"new_tokens": 0}, "0 new tokens"),
        ({"temperature": 2.5}, "temperature 2.5"),
        ({"recipes": ()}, "one or more"),
        ({"recipes": ("dense", "dense")}, "each named once"),
        ({"recipes": ("melt@0.5",)}, "melt"),
    ],
)
def test_what_cannot_be_asked_is_refused(more: dict[str, object], said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        playground.PromptJob(**{"model": MODEL, "recipes": ("dense",), "prompt": "Who?", **more})  # type: ignore[arg-type]


def test_a_request_survives_its_file() -> None:
    wanted = jobs.prompt(MODEL, ["dense", "wanda@0.5"], "Who?", weights=("", "weights1-0"), temperature=0.7)
    again = playground.PromptJob.from_json(wanted.to_json())
    assert again == wanted and jobs.job_id(again) == jobs.job_id(wanted)


def greedy(ask: EvalSession, prompt: str, count: int) -> str:
    ids = encode(ask.tokenizer, prompt)
    texts = engine.generate(
        ask.model, [ids], new_tokens=count, ends=ask.ends, stops=lambda _: False, plan=ask.plan, filler=ask.filler
    )
    (text,) = (text for batch in texts for text in batch.values())  # a slow machine tells of parts of a batch too
    return str(ask.tokenizer.decode(list(text.ids), skip_special_tokens=True))


def test_answers_come_word_by_word_and_are_the_engines(tmp_path: Path) -> None:
    """In float32; in half precision a prompt read alone and one in a batch may part at a near-tie."""
    store, prompt = open_store(tmp_path), "Q: What is the capital of Staern?\nA:"
    few = Calibration("pocket", windows=2, length=32)
    builder = ArtifactBuilder(store, open_for(ModelRef(MODEL, dtype="float32"), store), few)
    ask = evaluation.open_session(builder.opened.model, builder.opened.tokenizer)
    expected = {}
    for recipe in ("dense", "magnitude@0.5"):
        for _ in builder.make(parse(recipe)):
            pass
        expected[recipe] = greedy(ask, prompt, 12)
    key = builder.key(parse("magnitude@0.5"))
    wanted = playground.PromptJob(
        MODEL, tuple(expected), prompt, ("", key), new_tokens=12, calibration=few, dtype="float32"
    )
    steps = list(playground.run(wanted, store))
    for recipe, text in expected.items():
        said = [step.answer for step in steps if step.cell == recipe and step.answer is not None]
        assert said[-1] == text and said[0] == ""
        assert len(said) > 2 and all(len(a) <= len(b) for a, b in pairwise(said))
    assert steps[-1].done == steps[-1].total
    assert not any(step.message == "compressing" for step in steps), "the named artifact was worn, not made again"


def test_a_temperature_follows_its_seed(tmp_path: Path) -> None:
    store = open_store(tmp_path)

    def said(seed: int) -> str:
        asked = playground.PromptJob(MODEL, ("dense",), "The river", new_tokens=16, temperature=1.5, seed=seed)
        return str([step.answer for step in playground.run(asked, store) if step.answer is not None][-1])

    assert said(1) == said(1) != said(2)


def test_a_prompt_too_long_for_the_model_says_so(tmp_path: Path) -> None:
    asked = playground.PromptJob(MODEL, ("dense",), "word " * 700, new_tokens=64)
    with pytest.raises(BadRequest, match="has room for 512"):
        list(playground.run(asked, open_store(tmp_path)))
