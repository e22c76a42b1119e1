"""On a CUDA device: the fastest forms are proven right and taken.

python -m pytest -m gpu           (skipped where torch sees no device)
"""

import dataclasses

import pytest
import torch
import transformers

from kick_core import engine
from tests.engine.engine_cases import ids, merged, options, questions
from tests.models.test_families import FAMILIES

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]


@pytest.mark.parametrize("family", ["Llama", "Gemma3Text"])
def test_nothing_departs_from_the_plan(family):
    """A trial that is wrong about a form leaves every answer right, and slow: only the plan's notes tell."""
    torch.manual_seed(0)
    window = {"sliding_window": 512} if family == "Gemma3Text" else {}
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family] | window)
    model = transformers.AutoModelForCausalLM.from_config(config).eval().to("cuda", torch.bfloat16)
    plan = dataclasses.replace(engine.plan_for(model.device), notes=[])
    prompts = [ids(5 + 11 * n % 60, n) for n in range(300)]  # more than there are slots
    texts = engine.generate(
        model, prompts, new_tokens=20, ends=frozenset({2, 3}), stops=lambda _: False, plan=plan, filler=0
    )
    assert len(merged(texts)) == len(prompts) and plan.notes == []
    if family == "Llama":  # packs want caches that can be shared
        for varied in (False, True):
            plan = dataclasses.replace(plan, varied=varied, notes=[])
            scores = merged(engine.score_options(model, questions(), options(3), plan=plan, filler=0))
            some = {
                item: score
                for batch in engine.score_options(model, questions(), options(3), plan=plan, filler=0, wanted=[3, 8])
                for item, score in batch.items()
            }
            assert some == {item: scores[item] for item in (3, 8)} and plan.notes == []


@pytest.mark.parametrize("family, window", [("Llama", 0), ("Gemma3Text", 100)])
def test_long_texts_are_written_in_pages_and_are_the_same_in_any_company(family, window):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        **FAMILIES[family] | {"max_position_embeddings": 4096} | ({"sliding_window": window} if window else {})
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval().to("cuda", torch.bfloat16)
    prompts = [ids(5 + 97 * n % 1500, n) for n in range(300)]

    def texts(which):
        plan = dataclasses.replace(engine.plan_for(model.device), paged=True, notes=[])
        found = engine.generate(
            model, [prompts[i] for i in which], new_tokens=40, ends=frozenset({2, 3}), stops=lambda _: False, plan=plan,
            filler=0,
        )  # fmt: skip
        found = dict(zip(which, merged(found), strict=True))
        assert plan.notes == []
        return found

    whole = texts(range(300))
    assert texts([17, 3, 250]) == {n: whole[n] for n in (17, 3, 250)}


def test_windows_are_read_by_kernels():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**FAMILIES["Llama"] | {"max_position_embeddings": 256})
    model = transformers.AutoModelForCausalLM.from_config(config).eval().to("cuda", torch.bfloat16)
    windows = torch.tensor([ids(256, n) for n in range(5)])
    plan = dataclasses.replace(engine.plan_for(model.device), windows=True, notes=[])
    found = [value for _, some in engine.window_logprobs(model, windows, rows=2, plan=plan) for value in some]
    wanted = [value for _, some in engine.window_logprobs(model, windows, rows=2) for value in some]
    assert found == pytest.approx(wanted, rel=0.01) and plan.notes == []
