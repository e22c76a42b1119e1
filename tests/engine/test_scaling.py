"""Positions whose scaling follows from a text's length: texts that pass the border while they are written."""

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config

from kick_core.engine import generate, plan_for
from kick_core.models.loading import forget_lengths
from tests.architectures.tiny_models import fill

_COMMON = dict(
    vocab_size=512, hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip
BORDER = 40
_FACTORS = dict(short_factor=[1.0] * 8, long_factor=[8.0] * 8, original_max_position_embeddings=BORDER)
CONFIGS = {
    "two sets of factors": Phi3Config(
        **_COMMON, max_position_embeddings=512, original_max_position_embeddings=BORDER, sliding_window=None,
        rope_parameters=dict(rope_type="longrope", rope_theta=1e4, **_FACTORS),
    ),
    "another scale for every length": LlamaConfig(
        **_COMMON, max_position_embeddings=BORDER, rope_parameters=dict(rope_type="dynamic", rope_theta=1e4, factor=4.0)
    ),
    "one scale": LlamaConfig(
        **_COMMON, max_position_embeddings=4 * BORDER, rope_parameters=dict(
            rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=BORDER
        ),
    ),
}  # fmt: skip


@torch.inference_mode()
@pytest.mark.parametrize("kind", CONFIGS)
def test_texts_that_pass_the_border_are_those_of_plain_forwards(kind):
    torch.manual_seed(0)
    model = fill(AutoModelForCausalLM.from_config(CONFIGS[kind]))
    forget_lengths(model)
    lengths = (12, BORDER - 4, BORDER - 2, BORDER - 3, BORDER + 5, 20, BORDER - 1)
    prompts = [torch.randint(6, 500, (n,), generator=torch.Generator().manual_seed(n)).tolist() for n in lengths]
    plan, texts = plan_for(torch.device("cpu")), {}
    for batch in generate(
        model, prompts, new_tokens=10, ends=frozenset(), stops=lambda ids: False, plan=plan, filler=0
    ):
        texts |= batch
    for number, prompt in enumerate(prompts):
        ids = list(prompt)
        for token in texts[number].ids:
            logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert logits.max() - logits[token] < 1e-3, (number, len(ids))
            ids.append(token)
    crossing = 5 if kind.startswith("another") else 4
    told = f"{crossing} texts asked without a cache: while they are written the model's positions rescale"
    assert (told in plan.notes) == (kind != "one scale")
