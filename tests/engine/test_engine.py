"""The engine against the plain form, one prompt at a time, for every family; and the same answers in any company."""

import dataclasses
import inspect
import math
import random

import pytest
import torch

import kick_core
from kick_core import engine
from kick_core.engine.steps import SlotSteps, takes_slots
from kick_core.errors import BadRequest
from tests.engine.engine_cases import PLAN, ids, merged, options, questions
from tests.models.test_families import FAMILIES, make
from tests.tiny import token_ids

WINDOWS = {"Mistral", "Gemma2", "Gemma3Text"}
"""Families with layers that see a window of the text alone."""


@pytest.fixture(scope="module")
def models():
    made = {}

    def get(family):
        if family not in made:
            made[family] = make(family)
            for parameter in made[family].parameters():
                if parameter.dim() == 2:
                    parameter.data.mul_(4.0)  # weights large enough for a wrong mask to show
        return made[family]

    return get


@torch.no_grad()
def plain(model, prompt, asked):
    """One forward per option, nothing shared."""
    after = model(torch.tensor([prompt])).logits[0, -1].float().log_softmax(-1)
    sums = []
    for option in asked:
        logprobs = model(torch.tensor([[*prompt, *option]])).logits[0].float().log_softmax(-1)
        sums.append(sum(float(logprobs[len(prompt) - 1 + n, token]) for n, token in enumerate(option)))
    return sums, after


@pytest.mark.parametrize("longest, varied", [(1, False), (4, False), (4, True)])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_one_prompt_at_a_time(models, family, longest, varied):
    model, prompts, asked = models(family), questions(), options(longest)
    plan = engine.BatchPolicy(512, 4, 16, 16, 32, 96, 8, varied=varied)
    found = merged(engine.score_options(model, prompts, asked, plan=plan, filler=0))
    for prompt, mine, score in zip(prompts, asked, found, strict=True):
        sums, after = plain(model, prompt, mine)
        assert score.logprobs == pytest.approx(sums, abs=1e-4)
        assert score.argmax == int(after.argmax()) and score.top == pytest.approx(float(after.max()), abs=1e-4)
        assert score.entropy == pytest.approx(-float((after * after.exp()).sum()), abs=1e-4)
        assert score.rank == tuple(int((after > after[o[0]]).sum()) + 1 for o in mine)
        assert score.finite
    assert engine.why_padded(model) == "" and not plan.notes
    assert engine.sees_windows(model) == (family in WINDOWS)


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_text_equals_generate(models, family):
    model, shared = models(family), ids(19, 100)
    prompts = [[*shared[: 19 * (n % 2)], *ids(3 + 7 * n % 23, n)] for n in range(9)]
    found = merged(
        engine.generate(
            model, prompts, new_tokens=10, ends=frozenset({2}), stops=lambda _: False, plan=PLAN, filler=0,
            beginnings=[shared[:8], shared],
        )
    )  # fmt: skip
    for prompt, mine in zip(prompts, found, strict=True):
        row = torch.tensor([prompt])
        text = model.generate(
            row, attention_mask=torch.ones_like(row), max_new_tokens=10, do_sample=False, eos_token_id=2, pad_token_id=0
        )[0, len(prompt) :].tolist()
        text = text[: text.index(2)] if 2 in text else text
        assert list(mine.ids) == text
        assert mine.stop == ("eos" if len(text) < 10 else "limit")


def scores(model, prompts, asked, wanted=None, plan=PLAN):
    batches = engine.score_options(model, prompts, asked, plan=plan, filler=0, wanted=wanted)
    return {item: score for batch in batches for item, score in batch.items()}


@pytest.mark.parametrize(
    "family, varied", [("Llama", False), ("Llama", True), ("GPTNeoX", False), ("Gemma3Text", False)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_score_does_not_depend_on_what_else_is_wanted(family, varied, dtype):
    model, prompts, asked = make(family).to(dtype), questions(), options(3)
    plan = dataclasses.replace(PLAN, varied=varied)
    at_once = scores(model, prompts, asked, plan=plan)
    assert set(at_once) == set(range(len(prompts)))
    order = random.Random(0).sample(range(len(prompts)), len(prompts))
    alone = {item: scores(model, prompts, asked, [item], plan)[item] for item in order}
    extended = scores(model, prompts, asked, range(5), plan) | scores(
        model, prompts, asked, range(5, len(prompts)), plan
    )
    stopped = engine.score_options(model, prompts, asked, plan=plan, filler=0)
    resumed = next(stopped)
    resumed |= scores(model, prompts, asked, set(range(len(prompts))) - set(resumed), plan)
    for found in (alone, extended, resumed):
        assert set(found) == set(at_once)
        for item, score in at_once.items():
            if dtype == torch.bfloat16:
                assert found[item] == score
            else:
                assert found[item].argmax == score.argmax
                assert found[item].logprobs == pytest.approx(score.logprobs, abs=1e-5)


@pytest.mark.parametrize("recipe", ["dense", "magnitude@0.1"])
def test_how_options_are_asked_does_not_depend_on_the_weights(recipe):
    """In bfloat16 this model's logits lie 1/4 apart: right forms differ by that, under one recipe more than others."""
    model, tokenizer = kick_core.load("pocket", recipe)
    assert len(list(kick_core.evaluate(model, tokenizer, "multiple_choice", limit=8))) == 8
    (form,) = (form for (kind, _), form in model.__dict__["_kick_forms"].items() if kind == "options")
    assert form == "in packs"


def text_forwards(model, length, new_tokens):
    """Texts of one prompt by an unasked model: tokens that its forwards read, and what was noted."""
    read, plan = [], engine.plan_for(torch.device("cpu"))
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    for _ in engine.generate(
        model, [ids(length, 1)], new_tokens=new_tokens, ends=frozenset(), stops=lambda ids: False, plan=plan, filler=0
    ):
        pass
    hook.remove()
    return sum(read), plan.notes


def test_options_are_tried_on_a_part_of_a_long_prompt():
    model, read, plan = make("Llama"), [], engine.plan_for(torch.device("cpu"))
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    scores = dict(
        pair
        for batch in engine.score_options(model, [ids(1000, 1)], [[[5], [6]]], plan=plan, filler=0)
        for pair in batch.items()
    )
    hook.remove()
    with torch.no_grad():
        wanted = model(torch.tensor([ids(1000, 1)])).logits[0, -1].log_softmax(-1)[[5, 6]]
    assert torch.tensor(scores[0].logprobs).allclose(wanted, atol=1e-4) and not plan.notes
    assert 1000 <= sum(read) < 2.5 * 1000


def test_the_first_text_of_a_process_reads_little_more_than_its_prompt():
    read, notes = text_forwards(make("Llama"), 400, 16)
    assert 400 + 15 <= read < 1.5 * (400 + 15) and not notes


def test_a_shared_beginning_is_read_once_and_no_padding():
    model, read, shared = make("Llama"), [], ids(30, 0)
    prompts, plan = [[*shared, *ids(1 + n, n)] for n in range(12)], dataclasses.replace(PLAN, rows=16, notes=[])

    def texts(beginnings):
        batches = engine.generate(
            model, prompts, new_tokens=1, ends=frozenset(), stops=lambda _: False, plan=plan, filler=0,
            beginnings=beginnings,
        )  # fmt: skip
        return {i: text for batch in batches for i, text in batch.items()}

    apart = texts([])  # the form is known from here on
    model.register_forward_pre_hook(
        lambda _, args, kwargs: read.append(kwargs["input_ids"].shape[1]) or (args, kwargs), with_kwargs=True
    )
    assert texts([shared]) == apart and not plan.notes
    assert sum(read) == 30 + sum(1 + n for n in range(12))


def test_a_form_is_tried_beyond_every_length_that_the_config_names():
    model = make("Llama")
    model.config.reach = 100

    def forget(_, args, kwargs):
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.layers[0].is_initialized and cache.layers[0].keys.shape[-2] > 100:
            kwargs["input_ids"] = kwargs["input_ids"] * 0
        return args, kwargs

    model.register_forward_pre_hook(forget, with_kwargs=True)
    assert not text_forwards(model, 80, 4)[1]
    assert any("texts asked without a cache" in note for note in text_forwards(model, 240, 4)[1])


@pytest.mark.parametrize("family", ["Llama", "GPT2", "Gemma3Text"])
@pytest.mark.parametrize("sampling", [None, engine.Sampling(0.8, 0.9, 40)])
def test_a_text_does_not_depend_on_its_neighbours(family, sampling):
    model, shared = make(family).to(torch.bfloat16), ids(9, 100)
    prompts = [[*shared[: 9 * (n % 2)], *ids(3 + 7 * n % 23, n)] for n in range(9)]

    def texts(which):
        batches = engine.generate(
            model, [prompts[i] for i in which], new_tokens=9, ends=frozenset(range(2, 20)), stops=lambda _: False,
            plan=PLAN, filler=0, sampling=sampling, seeds=[100 + i for i in which] if sampling else None,
            beginnings=[shared],
        )  # fmt: skip
        return {which[i]: text for batch in batches for i, text in batch.items()}

    at_once = texts(range(9))
    assert len({len(text.ids) for text in at_once.values()}) > 1  # some rows end early and leave
    assert texts([8, 3, 0, 5, 1, 2, 7, 6, 4]) == at_once
    assert {i: text for n in range(9) for i, text in texts([n]).items()} == at_once


@pytest.mark.parametrize("sampling", [None, engine.Sampling(0.7)])
@torch.inference_mode()
def test_steps_of_one_shape_write_the_same_text(models, sampling):
    """The form that CUDA graphs are recorded of: the cache read as a whole, all rows to the end, filled up."""
    model, prompts = models("Llama"), sorted((ids(3 + 7 * n % 23, n) for n in range(5)), key=len)
    uniforms = torch.rand(8, 12, generator=torch.Generator().manual_seed(1))
    found = []
    for whole, rows, room in ((True, 8, 48), (False, 5, 40)):
        assert takes_slots(model)
        steps = SlotSteps(model, PLAN, 0, sampling.choose if sampling else None, whole=whole)
        for _ in range(2):  # the second batch uses the memory of the first
            steps.begin(prompts, rows, room, 12, uniforms[:rows])
            found.append([steps.next()[:5] for _ in range(12)])
    assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.parametrize("family", ["Llama", "GPT2", "OPT", "Qwen3Moe", "Gemma3Text"])
def test_where_rows_matter_every_shape_is_fixed(models, family, monkeypatch):
    """The form that accelerators use: batches and packs filled up with copies. The same answers come out, and which
    shapes a prompt meets does not depend on the others."""
    model, prompts = models(family), [ids(3 + 7 * n % 23, n) for n in range(9)]

    def answers(which):
        texts = engine.generate(
            model, [prompts[i] for i in which], new_tokens=10, ends=frozenset(range(2, 20)), stops=lambda _: False,
            plan=PLAN, filler=0,
        )  # fmt: skip
        wanted = scores(model, questions(), options(3), which)
        windows = engine.window_logprobs(model, token_ids(len(which), 20, vocabulary=128), rows=4)
        return (
            {which[i]: text for batch in texts for i, text in batch.items()},
            wanted,
            [v for _, vs in windows for v in vs],
        )

    free = answers(range(9))
    for module in ("generation", "padded", "scoring", "windows"):
        monkeypatch.setattr(f"kick_core.engine.{module}.rows_matter", lambda _: True)
    shapes, forward = set(), model.forward

    def watched(*args, **kwargs):
        shapes.add(tuple(kwargs["input_ids"].shape))
        return forward(*args, **kwargs)

    watched.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(model, "forward", watched)
    fixed = answers(range(9))
    assert fixed[0] == free[0] and fixed[2] == pytest.approx(free[2], abs=1e-3)
    for item, score in free[1].items():
        assert fixed[1][item].logprobs == pytest.approx(score.logprobs, abs=1e-4)
    met = set(shapes)
    for item in range(9):
        answers([item])
    assert shapes == met


@pytest.mark.parametrize("family", ["Llama", "Gemma3Text"])
def test_where_a_few_rows_are_needed_no_more_are_filled(family, monkeypatch):
    """A library that multiplies fewer than four rows otherwise: a step has four rows at least, never a full batch."""
    model, prompts = make(family).to(torch.bfloat16), [ids(3 + 7 * n % 23, n) for n in range(9)]
    plan = engine.BatchPolicy(tokens=1024, rows=16, step=16, shortest=16, row=32, pack=96, room=8, prompt=64)

    def texts(which):
        batches = engine.generate(
            model, [prompts[i] for i in which], new_tokens=9, ends=frozenset(range(2, 20)), stops=lambda _: False,
            plan=plan, filler=0,
        )  # fmt: skip
        return {which[i]: text for batch in batches for i, text in batch.items()}

    free, scored = texts(range(9)), scores(model, questions(), options(3), plan=plan)
    monkeypatch.setattr("kick_core.engine.batching._least_rows", lambda *_: 4)
    rows, forward = [], model.forward

    def watched(*args, **kwargs):
        if kwargs["input_ids"].shape[1] == 1:
            rows.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    watched.__signature__ = inspect.signature(forward)
    monkeypatch.setattr(model, "forward", watched)
    assert texts(range(9)) == free and min(rows[-3:]) == 4
    rows.clear()
    assert texts([3]) == {3: free[3]} and set(rows) == {4}
    assert scores(model, questions(), options(3), plan=plan) == scored


def test_sampling_draws_from_the_distribution_that_it_says():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -9.0]])
    uniforms = (torch.arange(4000) + 0.5) / 4000

    def shares(sampling):
        drawn = sampling.choose(logits.expand(4000, -1), uniforms)
        return torch.bincount(drawn, minlength=5) / 4000

    assert torch.allclose(shares(engine.Sampling(2.0)), (logits[0] / 2).softmax(-1), atol=1e-3)
    two = logits[0, :2].softmax(-1)
    assert torch.allclose(shares(engine.Sampling(1.0, top_k=2))[:2], two, atol=1e-3)
    # 0.64 and 0.24: the second one is needed to reach 0.7, the third is not
    assert torch.allclose(shares(engine.Sampling(1.0, top_p=0.7))[:2], two, atol=1e-3)
    assert shares(engine.Sampling(1.0, top_p=0.5)).tolist() == [1, 0, 0, 0, 0]
    assert engine.Sampling(1.0).choose(logits, torch.tensor([1 - 2**-24])).item() in (3, 4)
    for wrong in ({"temperature": 0}, {"temperature": 1, "top_p": 0}, {"temperature": 1, "top_k": -1}):
        with pytest.raises(BadRequest, match="temperature must be above 0"):
            engine.Sampling(**wrong)


def test_sampling_needs_a_seed_for_every_prompt(models):
    with pytest.raises(BadRequest, match="1 seeds for 2 prompts"):
        next(
            engine.generate(
                models("Llama"), [[5], [6]], new_tokens=2, ends=frozenset(), stops=lambda _: False, plan=PLAN,
                filler=0, sampling=engine.Sampling(1.0), seeds=[1],
            )
        )  # fmt: skip


class Small:
    """A model whose memory holds so many rows."""

    def __init__(self, model, monkeypatch, rows):
        self.seen, self.rows, forward = [], rows, model.forward

        def limited(*args, **kwargs):
            rows = len(kwargs["input_ids"])
            self.seen.append(rows)
            if rows > self.rows:
                raise torch.OutOfMemoryError("no room")
            return forward(*args, **kwargs)

        limited.__signature__ = inspect.signature(forward)
        monkeypatch.setattr(model, "forward", limited)


def asked_all(model, plan, windows):
    prompts = [ids(3 + 7 * n % 23, n) for n in range(9)]
    texts = engine.generate(
        model, prompts, new_tokens=5, ends=frozenset({2}), stops=lambda _: False, plan=plan, filler=0
    )
    return (
        scores(model, questions(), options(3), plan=plan),
        {i: text for batch in texts for i, text in batch.items()},
        [value for _, values in engine.window_logprobs(model, windows, rows=4, plan=plan) for value in values],
        [at for at, _ in engine.window_scores(model, windows, rows=4, plan=plan)],
        merged(engine.text_logprobs(model, prompts, prompts[::-1], plan=plan, filler=0)),
    )


@pytest.mark.parametrize("family", ["Llama", "Gemma3Text"])
def test_out_of_memory_halves_and_goes_on(family, monkeypatch):
    model, windows = make(family), token_ids(5, 20, vocabulary=128)
    roomy, tight = (engine.BatchPolicy(512, 4, 16, 16, 64, 32, 96, 8) for _ in range(2))
    expected = asked_all(model, roomy, windows)
    Small(model, monkeypatch, 2 if family == "Llama" else 8)
    found = asked_all(model, tight, windows)
    assert roomy.notes == [] or "memory" not in roomy.notes[0]
    if family == "Llama":
        assert "out of memory with 4 rows, went on with 2" in tight.notes
        assert found[3] == [0, 2, 4]
    assert found[1] == expected[1]
    assert found[2] == pytest.approx(expected[2], abs=1e-4)
    for item, score in expected[0].items():
        assert found[0][item].logprobs == pytest.approx(score.logprobs, abs=1e-5)


@pytest.mark.parametrize("family", ["Llama", "Gemma3Text"])
def test_logits_that_are_not_finite_are_told(family):
    model, prompts = make(family), [ids(5, n) for n in range(3)]
    model.get_output_embeddings().weight.data[3] = float("nan")
    assert not any(score.finite for score in scores(model, questions(), options(1)).values())
    texts = engine.generate(model, prompts, new_tokens=4, ends=frozenset(), stops=lambda _: False, plan=PLAN, filler=0)
    assert merged(texts) == [engine.Generated((), "not finite")] * 3


@pytest.mark.parametrize("family", ["Llama", "GPT2"])
def test_one_prompt_that_is_not_finite_spoils_no_other(family):
    model, prompts, asked = make(family), questions(), options(1)
    broken = 127
    model.get_input_embeddings().weight = torch.nn.Parameter(model.get_input_embeddings().weight.clone())  # untied
    model.get_input_embeddings().weight.data[broken] = float("nan")
    prompts = [[token if token != broken else 5 for token in prompt] for prompt in prompts]
    expected = scores(model, prompts, asked)
    assert all(score.finite for score in expected.values())
    prompts[4] = [*prompts[4][:-1], broken]
    found = scores(model, prompts, asked)
    for item, score in found.items():
        assert score.finite == (item != 4)
        if item != 4:
            assert score.logprobs == pytest.approx(expected[item].logprobs, abs=1e-4)
    texts = merged(
        engine.generate(
            model, [prompts[4], *prompts[:4], *prompts[5:12]], new_tokens=4, ends=frozenset(), plan=PLAN, filler=0,
            stops=lambda _: False,
        )
    )  # fmt: skip
    assert [text.stop for text in texts[:1]] == ["not finite"]
    assert sum(text.stop == "not finite" for text in texts[1:]) == sum(broken in text.ids for text in texts[1:])


@torch.no_grad()
def test_windows_hold_the_likeliest_tokens_and_the_rest(models):
    model, windows = models("Qwen3"), token_ids(5, 20, vocabulary=128)
    seen = 0
    for first, found in engine.window_scores(model, windows, rows=2, top=7):
        part = windows[first : first + len(found.tokens)]
        exact = model(part).logits[:, :-1].log_softmax(-1)
        assert torch.allclose(found.tokens, exact.gather(-1, part[:, 1:, None])[..., 0], atol=1e-5)
        assert torch.equal(found.ids.long(), exact.topk(7, -1).indices)
        assert torch.allclose(found.logprobs.exp().sum(-1) + found.rest.exp(), torch.ones(part.shape[0], 19), atol=1e-5)
        seen += len(part)
    assert seen == 5
    sums = [value for _, values in engine.window_logprobs(model, windows, rows=2) for value in values]
    exact = -torch.nn.functional.cross_entropy(
        model(windows).logits[:, :-1].flatten(0, 1), windows[:, 1:].flatten(), reduction="none"
    )
    assert sums == pytest.approx(exact.view(5, 19).sum(-1).tolist(), abs=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("family", ["Llama", "Gemma3Text", "GPT2"])
def test_a_given_text_has_its_log_probability(models, family):
    model, prompts = models(family), [ids(3 + 5 * n, n) for n in range(6)]
    texts = [ids(1 + 6 * n % 20, 50 + n) for n in range(5)] + [[]]
    found = merged(engine.text_logprobs(model, prompts, texts, plan=PLAN, filler=0))
    for prompt, text, score in zip(prompts, texts, found, strict=True):
        assert score.total == pytest.approx(plain(model, prompt, [text])[0][0], abs=1e-4)
        assert len(score.tokens) == len(text) and math.fsum(score.tokens) == pytest.approx(score.total, abs=1e-5)


def test_stop_strings_are_found_however_they_are_cut(tiny_folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    stopped = engine.stopper(tokenizer, ("\n", "Q:", "é"))
    assert not engine.stopper(tokenizer, ())([5])
    for text in ("The river.\nNext", "the soap Q: what", "a café here", "\n\n leading space is not an end"):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        for n in range(1, len(tokens) + 1):
            seen = tokenizer.decode(tokens[max(0, n - 8) : n]).lstrip()
            before = tokenizer.decode(tokens[max(0, n - 9) : n - 1]).lstrip() if n > 1 else ""
            ends = any(stop in seen for stop in ("\n", "Q:", "é"))
            if not any(stop in before for stop in ("\n", "Q:", "é")):  # nothing is asked after the end
                assert stopped(tokens[:n]) == ends, (text, n)
