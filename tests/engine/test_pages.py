"""Texts of all lengths in pages: the same as in slots, in any company, with any amount of memory.

Attention over pages is written out here in torch, so that what gives out and takes back pages is tested without Triton;
`test_kernels` compares the kernels with it.
"""

import contextlib
import dataclasses
import sys
from types import SimpleNamespace

import pytest
import torch
import transformers

from kick_core import engine
from kick_core.engine import pages
from kick_core.engine.steps import SlotSteps
from tests.engine.engine_cases import ids, merged
from tests.models.test_families import FAMILIES

PLAN = engine.BatchPolicy(256, 4, 16, 16, row=32, pack=96, room=64, prompt=64, alone=16, kernels=True, paged=True)


def attend(query, keys, values, table, where, scale, window=0):
    """As `paged_attention.attend`."""
    found = []
    for row, last in enumerate(where.tolist()):
        seen = slice(max(0, last + 1 - window) if window else 0, last + 1)
        own = [t[table[row].long()].transpose(0, 1).flatten(1, 2)[None, :, seen] for t in (keys, values)]
        own = [t.repeat_interleave(query.shape[1] // keys.shape[1], 1) for t in own]
        found.append(torch.nn.functional.scaled_dot_product_attention(query[row : row + 1], *own, scale=scale))
    return torch.cat(found).transpose(1, 2)


def put(new_keys, new_values, keys, values, table, where):
    """As `paged_attention.put`."""
    for row, column in enumerate(where.tolist()):
        page = int(table[row, column // pages.PAGE])
        keys[page, :, column % pages.PAGE] = new_keys[row, :, 0]
        values[page, :, column % pages.PAGE] = new_values[row, :, 0]


def put_prompts(new_keys, new_values, keys, values, table, places):
    """As `paged_attention.put_prompts`."""
    for row, place in enumerate(places.tolist()):
        for column in range(new_keys.shape[2]):
            number, line = divmod(column, pages.PAGE)
            if number < table.shape[1] and (page := int(table[place, number])):
                keys[page, :, line], values[page, :, line] = new_keys[row, :, column], new_values[row, :, column]


@pytest.fixture
def in_torch(monkeypatch):
    plain = SimpleNamespace(attend=attend, put=put, put_prompts=put_prompts)
    monkeypatch.setitem(sys.modules, "kick_core.engine.paged_attention", plain)
    monkeypatch.setattr(engine, "paged_attention", plain, raising=False)
    nothing = SimpleNamespace(in_place=contextlib.nullcontext)
    monkeypatch.setattr("kick_core.engine.fused.FusedPatches", lambda *_: nothing)
    monkeypatch.setattr("kick_core.engine.generation.rows_matter", lambda _: True)


def made(family, **more):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family] | {"max_position_embeddings": 256} | more)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 2:
            parameter.data.mul_(4.0)
    return model


def texts(model, prompts, which, plan=PLAN, **more):
    found = engine.generate(
        model, [prompts[i] for i in which], new_tokens=12, ends=frozenset(range(2, 9)), stops=lambda _: False,
        plan=plan, filler=0, **more,
    )  # fmt: skip
    return dict(zip(which, merged(found), strict=True))


@pytest.mark.parametrize("family, more", [("Llama", {}), ("Gemma3Text", {"sliding_window": 16})])
def test_a_text_is_the_same_in_any_company_and_that_of_plain_forwards(family, more, in_torch, monkeypatch):
    model, prompts = made(family, **more), [ids(3 + 29 * n % 130, n) for n in range(12)]
    plan = dataclasses.replace(PLAN, notes=[])
    free = texts(model, prompts, range(12), dataclasses.replace(PLAN, kernels=False, paged=False, notes=[]))
    model.__dict__.pop("_kick_forms")
    counts, make_room = [], SlotSteps._make_room
    rows, read_row = [], SlotSteps._read_row
    monkeypatch.setattr(SlotSteps, "_read_row", lambda self, some, at: (rows.append(some), read_row(self, some, at))[1])
    monkeypatch.setattr(
        SlotSteps, "_make_room", lambda self, *shape: (counts.append(self.pages), make_room(self, *shape))[1]
    )
    assert texts(model, prompts, range(12), plan) == free
    assert plan.notes == [] and len(counts) == 2  # the trial's, and one for all lengths
    assert max(map(len, rows)) > 1  # prompts above `alone` tokens stand side by side
    assert {len(text.ids) for text in free.values()} > {12}
    few = [7, 2, 11, 0, 5]
    assert texts(model, prompts, few, plan) == {n: free[n] for n in few}
    assert counts[1] == 1 + sum(sorted((pages.count_of(len(p) + 12) for p in prompts), reverse=True)[:4])


def test_memory_decides_how_many_texts_are_under_way_and_no_more(in_torch, monkeypatch):
    model, prompts = made("Llama"), [ids(3 + 29 * n % 130, n) for n in range(12)]
    whole = texts(model, prompts, range(12))
    longest = max(pages.count_of(len(prompt) + 12) for prompt in prompts)
    monkeypatch.setattr("kick_core.engine.generation.pool_pages", lambda *_: 1 + longest)
    plan = dataclasses.replace(PLAN, notes=[])
    assert texts(model, prompts, range(12), plan) == whole and plan.notes == []

    following, taken = SlotSteps.next, []

    def full(steps):
        taken.append(steps.pages)
        if steps.pages > 1 + longest and len(taken) > 9:
            raise torch.OutOfMemoryError("no room")
        return following(steps)

    monkeypatch.setattr(SlotSteps, "next", full)
    monkeypatch.setattr("kick_core.engine.generation.pool_pages", lambda *_: 2 * longest)
    assert texts(model, prompts, range(12), plan) == whole
    assert set(taken) == {2 * longest, 1 + longest}
    monkeypatch.setattr(SlotSteps, "next", lambda steps: full(SimpleNamespace(pages=1 + 2 * longest)))
    with pytest.raises(torch.OutOfMemoryError):
        texts(model, prompts, range(12), plan)


def test_what_a_text_leaves_behind_is_not_read(in_torch):
    model, prompts = made("Llama"), [ids(3 + 29 * n % 130, n) for n in range(12)]
    nan = 127
    prompts = [[token if token != nan else 1 for token in prompt] for prompt in prompts]
    whole = texts(model, prompts, range(12))
    model.get_input_embeddings().weight.data[nan] = torch.nan
    prompts[5] = [*prompts[5][:-1], nan]
    spoiled = texts(model, prompts, range(12))
    assert spoiled[5].stop == "not finite"
    others = {n: text for n, text in whole.items() if n != 5 and nan not in text.ids}
    assert len(others) > 7 and {n: spoiled[n] for n in others} == others


def test_models_whose_layers_keep_something_else_take_no_pages():
    assert pages.takes_pages(made("Llama")) and pages.takes_pages(made("Gemma3Text"))
    for config in (transformers.MambaConfig(num_hidden_layers=2), transformers.Llama4TextConfig(num_hidden_layers=4)):
        config._attn_implementation = "sdpa"
        assert not pages.takes_pages(SimpleNamespace(config=config)), type(config)


@pytest.mark.parametrize(
    "context, length, columns", [(2048, 30, 2048), (131072, 30, 8192), (131072, 9000, 16384), (100, 101, 128)]
)
def test_the_width_of_the_table_follows_from_the_model_and_the_text(context, length, columns):
    config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(max_position_embeddings=context))
    assert pages.page_columns(config, length) == columns
