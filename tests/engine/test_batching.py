"""How prompts are laid out: batches, packs, shared prefixes, and what happens when memory runs out."""

import itertools
import random

import pytest
import torch
from transformers import DynamicCache

from kick_core import engine
from kick_core.engine import batching
from kick_core.engine.batching import in_parts
from kick_core.engine.packing import shared_prefixes
from tests.engine.engine_cases import PLAN, ids, options, questions
from tests.models.test_families import make


def test_one_row_that_does_not_fit_is_an_error_and_nothing_is_lost():
    def ask(part, rows):
        if "large" in part:
            raise torch.OutOfMemoryError("no room")
        return part

    plan, found = engine.BatchPolicy(64, 4), []
    with pytest.raises(torch.OutOfMemoryError):
        for part in in_parts(["a", "b", "c", "d", "e", "large", "f"], 4, ask, plan):
            found += part
    assert found == ["a", "b", "c", "d", "e"]
    assert plan.notes == ["out of memory with 4 rows, went on with 2", "out of memory with 2 rows, went on with 1"]


@pytest.mark.parametrize(("differ", "least"), [((), 1), ((1,), 2), ((1, 2, 3), 4), ((5,), 8), ((33,), 0)])
def test_how_many_rows_a_product_needs_is_tried_out(differ, least, monkeypatch):
    def linear(rows, weight):
        return torch.full((len(rows), len(weight)), float(len(rows) in differ))

    monkeypatch.setattr(torch.nn.functional, "linear", linear)
    assert batching._least_rows.__wrapped__(torch.bfloat16, 64) == least


def test_caches_have_the_tokens_that_fit_into_their_bytes():
    plan, model = engine.BatchPolicy(tokens=512, rows=4, cache=1 << 20), make("Llama")
    config = model.config
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4
    assert batching.cache_tokens(model, plan) == (1 << 20) // token > 512
    assert batching.cache_tokens(model, engine.BatchPolicy(tokens=512, rows=4)) == 512


def cut_best(prompts, toll):
    """The most that is saved when all prompts below a node of the prefix tree come together or none."""

    def saved(group, depth):
        together = (len(group) - 1) * depth - toll if len(group) > 1 else 0
        parts = {}
        for prompt in group:
            parts.setdefault(prompt[depth] if len(prompt) - 1 > depth else id(prompt), []).append(prompt)
        apart = sum(saved(part, depth + 1) for part in parts.values() if len(part) > 1 and len(part[0]) - 1 > depth)
        return max(together, apart, 0)

    return saved(prompts, 0)


def test_prefixes_are_shared_where_it_pays_most():
    draw = random.Random(3)
    for _ in range(200):
        prompts = [[draw.randrange(2) for _ in range(draw.randrange(1, 9))] for _ in range(draw.randrange(1, 12))]
        toll = draw.randrange(4)
        groups = shared_prefixes(prompts, toll)
        assert sorted(i for _, items in groups for i in items) == list(range(len(prompts)))
        for prefix, items in groups:
            assert len({tuple(prompts[i][:prefix]) for i in items}) == 1
            assert all(prefix < len(prompts[i]) for i in items)
        saved = sum((len(items) - 1) * prefix - toll for prefix, items in groups if prefix)
        assert saved >= cut_best(prompts, toll)


def test_every_question_has_one_place():
    model = make("Llama")
    prompts, asked = [*questions(), ids(50, 77)], [*options(4), [ids(2, 1)]]
    layout = engine.pack_layout(prompts, asked, PLAN)
    assert sorted(i for row in layout.rows for i in row.items) == list(range(len(prompts)))
    for row in layout.rows:
        spans = [
            (start, start + len(prompts[i]) - row.prefix + sum(len(o) - 1 for o in asked[i]))
            for i, start in zip(row.items, row.starts, strict=True)
        ]
        assert all(end <= after for (_, end), (after, _) in itertools.pairwise(spans))
        assert spans[-1][1] <= row.length and row.room % PLAN.room == 0 and row.prefix <= row.room
    names = {
        engine.plan_hash(model, some, asked[: len(some)], plan)
        for some in (prompts, prompts[:5], prompts[::-1])
        for plan in (PLAN, engine.BatchPolicy(512, 4, row=64))
    }
    assert len(names) == 6
    assert engine.plan_hash(model, prompts, asked, PLAN) in names  # the same again, whatever the weights


def test_batches_have_few_shapes():
    found = engine.batches([1, 16, 17, 33, 200, 16], PLAN)
    assert [(b.items, b.rows, b.length) for b in found] == [
        ((0, 1, 5), 4, 16), ((2,), 4, 32), ((3,), 4, 48), ((4,), 2, 208)
    ]  # fmt: skip


def test_models_that_cannot_be_packed_say_why():
    chunked = make("Gemma3Text")
    chunked.config.attention_chunk_size = 8
    chunked.config.layer_types = ["chunked_attention"] * 2  # what such a layer sees is no window
    assert "the cache cannot be shared" in engine.why_padded(chunked)
    model = make("Llama")
    model.config._attn_implementation = "flex_attention"
    assert "flex_attention" in engine.why_padded(model)
    assert len(DynamicCache(config=model.config).layers) == 2
