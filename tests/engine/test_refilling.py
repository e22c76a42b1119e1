"""Slots of one shape that are filled again while others go on: the same texts as each prompt alone, in fewer steps."""

import pytest
import torch
import transformers

from kick_core import engine
from kick_core.engine.steps import SlotSteps
from tests.engine.engine_cases import ids
from tests.models.test_families import FAMILIES, make

PLAN = engine.BatchPolicy(tokens=256, rows=4, step=16, shortest=16, row=32, pack=96, room=64, prompt=64, alone=16)
NAN = 127


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr("kick_core.engine.generation.rows_matter", lambda _: True)
    model = make("Llama").to(torch.bfloat16)
    model.get_input_embeddings().weight.data[NAN] = torch.nan
    return model


def texts(model, prompts, which, sampling=None, plan=PLAN):
    batches = engine.generate(
        model, [prompts[i] for i in which], new_tokens=12, ends=frozenset(range(2, 12)), stops=lambda _: False,
        plan=plan, filler=0, sampling=sampling, seeds=[100 + i for i in which] if sampling else None,
    )  # fmt: skip
    return {which[i]: text for batch in batches for i, text in batch.items()}


def one_step_ahead(steps):
    """`next` as on CUDA: the next step begins before the tokens of the last one are looked at."""

    def sent():
        steps._advance()
        return steps.tokens.tolist()

    tokens = steps.waiting or sent()
    steps.waiting = sent() if steps.left else None
    steps.spoiled |= -1 in tokens
    return tokens


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("sampling", [None, engine.Sampling(0.8, 0.9, 40)])
def test_a_text_is_the_same_whatever_slot_it_gets_and_when(model, sampling, ahead, monkeypatch):
    prompts = [ids(3 + 7 * n % 40, n) for n in range(14)]
    prompts = [[token if token != NAN else 1 for token in prompt] for prompt in prompts]
    prompts[5] = [*prompts[5][:-1], NAN]  # leaves NaN in its slot
    if ahead:  # from the trial of the form on
        monkeypatch.setattr(SlotSteps, "next", one_step_ahead)
    alone = {n: texts(model, prompts, [n], sampling)[n] for n in range(14)}
    assert alone[5].stop == "not finite" and {len(text.ids) for text in alone.values()} > {12}
    admitted, admit = [], SlotSteps.admit
    monkeypatch.setattr(SlotSteps, "admit", lambda self, *given: (admitted.append(given[0]), admit(self, *given))[1])
    assert texts(model, prompts, list(range(14)), sampling) == alone
    assert texts(model, prompts, [9, 2, 5, 13, 0, 7, 3, 1], sampling) == {
        n: alone[n] for n in (9, 2, 5, 13, 0, 7, 3, 1)
    }
    assert admitted and any(len(places) < 4 for places in admitted)


def test_out_of_memory_goes_on_with_half_the_slots_and_loses_nothing(model, monkeypatch):
    prompts, plan = [ids(3 + 7 * n % 40, n) for n in range(9)], engine.BatchPolicy(256, 4, 16, 16, room=64, prompt=64)
    whole, following = texts(model, prompts, list(range(9))), SlotSteps.next
    asked = []

    def full(steps):
        asked.append(len(steps.ids))
        if len(steps.ids) == 4 and len(asked) > 6:
            raise torch.OutOfMemoryError("no room")
        return following(steps)

    monkeypatch.setattr(SlotSteps, "next", full)
    assert texts(model, prompts, list(range(9)), plan=plan) == whole
    assert plan.notes == ["out of memory with 4 rows, went on with 2"]


@pytest.mark.parametrize(("window", "rooms"), [(100, {64}), (256, {64, 128})])
def test_texts_that_a_window_holds_are_written_in_slots(window, rooms, monkeypatch):
    torch.manual_seed(0)
    config = transformers.Gemma3TextConfig(**FAMILIES["Gemma3Text"] | {"sliding_window": window})
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    prompts = [ids(3 + 9 * n, n) for n in range(11)]
    free = texts(model, prompts, range(11))
    monkeypatch.setattr("kick_core.engine.generation.rows_matter", lambda _: True)
    model.__dict__.pop("_kick_forms")
    taken, make_room = set(), SlotSteps._make_room
    monkeypatch.setattr(
        SlotSteps, "_make_room", lambda self, rows, room: (taken.add(room), make_room(self, rows, room))[1]
    )
    assert texts(model, prompts, range(11)) == free
    assert taken == rooms
