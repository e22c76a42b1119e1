"""Every family of decoder-only models: found by looking, compressed to the exact target, propagated exactly."""

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from kick_core.compression.walk import walk
from kick_core.errors import KickError
from kick_core.models.blocks import (
    decoder_blocks,
    eager_experts,
    first_inputs,
    matrices,
    run_block,
    understood,
    watched_inputs,
)
from kick_core.spec import parse
from tests.tiny import token_ids

_COMMON = dict(
    vocab_size=128, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=64,
    bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip
_GROUPED = _COMMON | dict(intermediate_size=96, num_key_value_heads=2)
_SHORT = dict(vocab_size=128, bos_token_id=1, eos_token_id=2, pad_token_id=0)

FAMILIES = {
    "Llama": _GROUPED,
    "Mistral": _GROUPED | dict(sliding_window=8),
    "Qwen2": _GROUPED,
    "Qwen3": _GROUPED | dict(head_dim=16),
    "Gemma2": _GROUPED | dict(head_dim=16, sliding_window=8),
    "Gemma3Text": _GROUPED | dict(head_dim=16, sliding_window=8),
    "Phi3": _GROUPED,
    "GPT2": _SHORT | dict(n_embd=64, n_layer=2, n_head=4, n_positions=64),
    "GPTNeoX": _COMMON | dict(intermediate_size=96),
    "OPT": _COMMON | dict(ffn_dim=96, word_embed_proj_dim=64),
    "Falcon": _SHORT | dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4),
    "Olmo2": _GROUPED,
    "Mixtral": _GROUPED | dict(num_local_experts=4),
    "Qwen2Moe": _GROUPED
    | dict(moe_intermediate_size=48, shared_expert_intermediate_size=96, num_experts=4, num_experts_per_tok=2),
    "Qwen3Moe": _GROUPED | dict(moe_intermediate_size=48, num_experts=4, num_experts_per_tok=2, head_dim=16),
}
COUNTS = {"Phi3": 4, "GPT2": 4, "GPTNeoX": 4, "OPT": 6, "Falcon": 4, "Mixtral": 12, "Qwen2Moe": 15, "Qwen3Moe": 12}


def make(family):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**FAMILIES[family])
    return AutoModelForCausalLM.from_config(config).eval()


@torch.no_grad()
@pytest.mark.parametrize("recipe", ["wanda@0.5", "sparsegpt@2:4", "gptq@4bit,group=16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family, recipe):
    model, ids = make(family), token_ids(10, 24, vocabulary=128)
    ours = {id(m.parameter) for block in understood(model) for m in matrices(block)}
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    entering = None
    for walked in walk(model, parse(recipe), ids):
        assert len(walked.results) == COUNTS.get(family, 7)
        entering = walked.hidden if walked.hidden is not None else entering
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) != (id(parameter) in ours), name
    if recipe != "gptq@4bit,group=16":
        for block in understood(model):
            for matrix in matrices(block):
                assert int((matrix.read() == 0).sum()) == matrix.read().numel() // 2, matrix.name
    if model.config.tie_word_embeddings:
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    with eager_experts(model):
        straight = model(ids, output_hidden_states=True, use_cache=False).hidden_states[-2]
    assert torch.allclose(entering, straight, atol=1e-5)  # what enters the last block


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_is_seen_at_work(family):
    """Data-aware methods take what nobody fed for flat statistics, so an overlooked product would go unnoticed."""
    model, ids = make(family), token_ids(10, 24, vocabulary=128)
    seen = set()
    with eager_experts(model):
        hidden, calls = first_inputs(model, ids)
        for block, call in zip(understood(model), calls, strict=True):
            with watched_inputs(block, lambda names, _: seen.update(names)):
                hidden = run_block(block, hidden, call)
            assert seen == {matrix.name for matrix in matrices(block)}
            seen.clear()


def test_experts_see_just_their_own_tokens():
    model, ids = make("Mixtral"), token_ids(3, 16, vocabulary=128)
    block = decoder_blocks(model)[0]
    seen = {}
    with torch.no_grad(), eager_experts(model):
        hidden, calls = first_inputs(model, ids)
        with watched_inputs(block, lambda names, tensor: seen.update(dict.fromkeys(names, tensor))):
            run_block(block, hidden, calls[0])
    routed = [len(seen[f"mlp.experts.{e}.gate_up_proj"]) for e in range(4) if f"mlp.experts.{e}.gate_up_proj" in seen]
    assert sum(routed) == 3 * 16 * model.config.num_experts_per_tok
    assert seen["self_attn.q_proj"] is seen["self_attn.v_proj"]


def test_what_is_no_decoder_is_refused():
    model = make("Llama")
    model.model.layers = torch.nn.ModuleList()
    with pytest.raises(KickError, match="no list of 2"):
        decoder_blocks(model)
