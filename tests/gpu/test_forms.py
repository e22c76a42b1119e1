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
        scores = engine.score_options(model, questions(), options(3), plan=plan, filler=0)
        assert len(merged(scores)) == len(questions()) and plan.notes == []
