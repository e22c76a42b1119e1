"""The lean forward gives the library's bits, for every way of asking, and is taken only where it does."""

import pytest
import torch
from torch import nn

from kick_core import engine
from kick_core.engine import generation, lean, rows_matter, scoring, windows
from tests.engine.engine_cases import PLAN, ids, merged, options, questions
from tests.tiny import tiny_llama, token_ids


@pytest.fixture
def model():
    made = tiny_llama(vocabulary=128).to(torch.bfloat16)
    if rows_matter(made):
        pytest.skip("on this machine the bits of a row depend on how many rows there are")
    return made


@pytest.fixture
def library(monkeypatch):
    """Takes the lean forward away."""

    def take():
        for room in (generation, scoring, windows):
            monkeypatch.setattr(room, "lean", lambda _: None)

    return take


def test_every_distinct_token_is_computed_once():
    prompts = [[1, 2, 3], [1, 2, 4, 5], [1, 2, 3, 6, 7], [8, 2, 3]]
    laid = lean.flat(prompts, [4, 4, 8, 8])
    assert len(laid.ids) == 3 + 2 + 2 + 3
    assert [rows.cells.shape for rows in laid.rows] == [(2, 4), (2, 8)]
    told = [row for rows in laid.rows for row in rows.cells]
    for prompt, cells, last in zip(prompts, told, laid.last, strict=True):
        assert laid.ids[cells[: len(prompt)]].tolist() == prompt
        assert laid.positions[cells[: len(prompt)]].tolist() == list(range(len(prompt)))
        assert cells[len(prompt) - 1] == last
    seen = torch.cat([rows.tokens for rows in laid.rows])
    assert seen.tolist() == list(range(len(laid.ids)))
    for rows in laid.rows:
        assert rows.cells.view(-1)[rows.places].tolist() == rows.tokens.tolist()


@torch.inference_mode()
def test_states_are_the_library_s(model):
    prompts = [*(p[:16] for p in questions() if len(p) >= 16), *(p[:9] for p in questions() if len(p) >= 9)]
    small, laid = lean.lean(model), lean.flat(prompts, [16] * len(prompts))
    assert len(laid.ids) < sum(map(len, prompts))
    states = small.states(laid.ids, laid.positions, lean.causal(small, laid))
    ends = small.states(laid.ids, laid.positions, lean.causal(small, laid), laid.last)
    for row, prompt in enumerate(prompts):
        padded = torch.tensor([prompt + [0] * (16 - len(prompt))])
        straight = model(input_ids=padded, use_cache=False).logits[0, : len(prompt)]
        assert torch.equal(small.head(states[laid.rows[0].cells[row, : len(prompt)]]), straight)
        assert torch.equal(small.head(ends[row]), straight[-1])


@pytest.mark.parametrize("sampling", [None, engine.Sampling(0.8, 0.9, 40)])
def test_the_same_texts(model, library, sampling):
    prompts = [ids(3 + 29 * n % 61, n % 3) for n in range(13)]

    def texts():
        return merged(
            engine.generate(
                model, prompts, new_tokens=24, ends=frozenset(range(2, 8)), stops=lambda _: False, plan=PLAN,
                filler=0, sampling=sampling, seeds=list(range(13)) if sampling else None,
            )
        )  # fmt: skip

    found = texts()
    assert len({len(text.ids) for text in found}) > 1  # rows end at different times and leave
    library()
    assert texts() == found


@pytest.mark.parametrize("longest", [1, 3])
def test_the_same_scores(model, library, longest):
    def scores(wanted=None):
        batches = engine.score_options(model, questions(), options(longest), plan=PLAN, filler=0, wanted=wanted)
        return {item: score for batch in batches for item, score in batch.items()}

    found = scores()
    assert {item: scores([item])[item] for item in found} == found
    library()
    assert scores() == found


def test_the_same_windows(model, library):
    text, asked = token_ids(5, 24, vocabulary=128), token_ids(5, 23 * 6, vocabulary=128).view(5, 23, 6)

    def all_of():
        sums = list(engine.window_logprobs(model, text, rows=2))
        tops = [found for _, found in engine.window_scores(model, text, rows=2, top=8)]
        given = [found for _, found in engine.given_scores(model, text, asked, rows=2)]
        return sums, [side for found in (*tops, *given) for side in found]

    sums, sides = all_of()
    library()
    theirs, others = all_of()
    assert sums == theirs
    assert all(torch.equal(one, other) for one, other in zip(sides, others, strict=True))


def test_a_broken_neighbour_changes_no_bit(model):
    prompts, asked, broken = questions(), options(2), 127
    table = model.get_input_embeddings().weight.clone()
    table[broken] = float("nan")
    model.get_input_embeddings().weight = nn.Parameter(table)  # untied
    prompts = [[token if token != broken else 5 for token in prompt] for prompt in prompts]
    asked = [[[token if token != broken else 5 for token in ids] for ids in own] for own in asked]
    prompts[4] = [*prompts[4][:-1], broken]

    def scores(wanted=None):
        batches = engine.score_options(model, prompts, asked, plan=PLAN, filler=0, wanted=wanted)
        return {item: score for batch in batches for item, score in batch.items()}

    found = scores()
    assert [item for item, score in found.items() if not score.finite] == [4]
    without = scores([item for item in found if item != 4])
    assert without == {item: score for item, score in found.items() if item != 4}


def test_other_models_are_left_to_the_library(model, monkeypatch):
    assert lean.lean(tiny_llama()) is None  # float32: the bits of a row depend on how many there are
    assert lean.lean(model) is not None
    with monkeypatch.context() as large:
        large.setattr(lean, "_LARGE", sum(parameter.nbytes for parameter in model.parameters()))
        assert lean.lean(model) is None
    model.model.layers[1].mlp.down_proj = nn.Linear(128, 64, bias=True, dtype=torch.bfloat16)
    assert lean.lean(model) is None


def test_a_forward_with_other_bits_is_noticed(model, monkeypatch):
    norm = model.model.layers[0].input_layernorm
    plain = norm.forward
    monkeypatch.setattr(norm, "forward", lambda hidden: plain(hidden) * 1.5)
    assert lean.lean(model) is None
