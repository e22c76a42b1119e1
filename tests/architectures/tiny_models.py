"""Any causal architecture of the installed transformers library, made tiny by rules on the names of config fields.

No architecture is named here. A config's defaults are walked field by field, each size is replaced by a small one that
keeps the usual products (hidden = heads x head width), and lists with an entry per layer are thinned out so that
every kind of layer stays. Where the library refuses the result, a few other proportions are tried.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 512
LAYERS = 4
WINDOW = 16
"""Tokens of a local attention's window: prompts of the tests are longer."""

_SIZES = r"indexer_|heads?$|experts?|head_dim|top_?k|group|rank|intermediate|head_size"
"""Sizes that some configs leave open by default, and their models then miss."""

_Rule = int | None | Callable[[Any], Any]

RULES: tuple[tuple[str, _Rule], ...] = (
    (r"chunk_size_feed_forward|chunk_size_lm_head", 0),
    (r"(bos|pad|eos|sep|cls|eod|unk|mask)_(token_id|index)$", 3),  # those that matter are set below
    (r"token_(id|index)$", lambda _: VOCABULARY - 1),
    (r"vocab", lambda value: VOCABULARY if value > 512 else value),
    (r"index_topk$|indexer_budget", 8),
    (r"num_mem_blocks|compress_ratio", lambda value: min(value, 2)),
    (r"^num_experts_per_tok|top_?k(_experts)?$|^moe_(topk|k)$|_topk_blocks$", lambda value: min(value, 2)),
    (r"topk_group$", 1),
    (r"^(n|num)_(expert_)?groups?$|^n_groups$|_n_groups$|^num_expert_group$", lambda value: min(value, 2)),
    (r"(n_|num_)?(local|routed)?_?experts?(_num)?$", lambda value: min(value, 4)),
    (r"zero_expert_num", 2),
    (r"shared_experts$", lambda value: min(value, 1)),
    (r"num_kv_shared_layers$", lambda value: min(value, 2)),
    (r"first_k_dense|num_dense_layers|dense_layers$|moe_layer_start", lambda value: min(value, 1)),
    (r"moe_layer_end", LAYERS),
    (r"(period|interval|every_n_layers|pattern|layer_group_size|layers_per_attn\w*)$", lambda value: min(value, 2)),
    (r"layer_offset$", lambda value: min(value, 1)),
    (r"(_|^)(num_|n_)?(hidden_|decoder_|encoder_)?(layers?|blocks)(_per_stack)?$", LAYERS),
    (r"qk_head_dim$", 32),
    (r"head_(dim|size)(_\w+)?$|headdim$|d_head$|^dim_head$|^kv_channels$|d_kv$|nope_head|rope_head|v_head", 16),
    (r"linear_num_key_heads|num_key_value_heads|(^|_)kv_(n_)?heads|num_query_groups|key_value_heads", 2),
    (r"mamba_n_heads|n_mamba_heads|mamba_num_heads", 8),
    (r"heads?$", 4),
    (r"rotary_dim|d_rel$", 8),
    (r"lora_rank|lowrank|laurel_rank|time_step_rank|dt_rank|adapter_rank|norm_rank", 16),
    (r"state_size|d_state", 8),
    (r"mamba_d_ssm", 128),
    (r"^(linear_)?(chunk_size|block_size|mamba_chunk_size)$", 16),
    (r"attention_hidden_size$|attention_head_hidden", 64),
    (r"per_layer_input$|router_hidden_size", 16),
    (r"(window|chunk)(_size)?$|rel_extent", lambda value: WINDOW if value > 1 else value),
    (r"max_window_layers", 2),
    (r"^original_max_position", 256),
    (r"(max_)?position_embeddings$|n_positions$|n_ctx$|context_length|max_length|max_seq_len|positions$", 512),
    (r"intermediate|ffn_(dim|hidden)|(^|_)d?ff(_dim)?$|dim_ff|d_inner|n_inner|feed_forward|ffn_dim", 96),
    (
        r"(hidden_size|d_model|n_embd|emb(ed)?_dim|embedding_dim|embedding_size|embed_proj_dim|model_dim|width)(_\w+)?$",
        64,
    ),
)
"""The first rule whose pattern is found in a field's name gives its value."""

_ABSENT = object()
_MIXED = "linear_attention", "full_attention"
VARIANTS: tuple[Mapping[str, Any], ...] = (
    {},
    {"num_key_value_heads": 4},
    {"num_heads": 8},
    {"num_key_value_heads": 4, "num_heads": 8},
    {"num_hidden_layers": _ABSENT},
    {"head_dim": None},
    {"is_decoder": True, "default_language": "en_XX"},
    {"layer_types": ["conv", "full_attention"] * 2},
    {"layer_types": ["linear_attention", "full_attention"] * 2},
    {"layer_types": ["sliding_attention", "full_attention"] * 2},
    {"attn_layer_indices": [1, 3]},
    {"attention_hidden_size": 128, "attention_head_dim": 32, "layers_block_type": ["linear_attention", "hybrid"] * 2},
    {"num_hidden_layers": 32},
    {"num_hidden_layers": 16, "num_layers_per_stack": 2},
    {"indexer_kv_heads": 1},
    {"hidden_size_per_layer_input": 0, "num_kv_shared_layers": 4},
    {"rope_theta": 10000.0, "kv_n_heads": 2, "clip_qkv": 8.0},
)
"""What is tried instead where the library refuses the first proportions; fields that a config lacks are left out."""


def architectures() -> list[str]:
    """Every model type that the library offers as a causal language model, in its own order."""
    return list(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def _sizes(config: Mapping[str, Any], layers: int | None, fill_in: bool = False) -> dict[str, Any]:
    made: dict[str, Any] = {}
    chosen = _layers(config, layers)
    for name, value in config.items():
        if isinstance(value, bool) or (isinstance(value, int) and value <= 0 and not name.endswith("_id")):
            continue
        if isinstance(value, int) or (value is None and fill_in and re.search(_SIZES, name)):
            value = 8 if value is None else value
            for pattern, rule in RULES:
                if re.search(pattern, name):
                    made[name] = rule(value) if callable(rule) else rule
                    break
        elif isinstance(value, list) and layers and len(value) == layers:
            made[name] = [_entry(name, value[i]) for i in chosen]
        elif isinstance(value, list) and layers and _numbers_layers(name, value, layers):
            made[name] = [n for n in (1, 3) if n < LAYERS][: len(value)]
    return made


def _entry(name: str, value: Any) -> Any:
    return _sizes({name: value}, None).get(name, value)


def _numbers_layers(name: str, value: list[Any], layers: int) -> bool:
    numbers = all(isinstance(n, int) for n in value) and sorted(set(value)) == value
    return (
        numbers
        and bool(value)
        and value[-1] < layers
        and re.search(r"layers?$|_ids$|idxs?$|indices$", name) is not None
    )


def _layers(config: Mapping[str, Any], layers: int | None) -> list[int]:
    """Numbers of the layers that stay: one of every kind, then the first ones."""
    if not layers:
        return []
    lists = [value for value in config.values() if isinstance(value, list) and len(value) == layers]
    kinds = list(zip(*map(lambda value: map(str, value), lists), strict=True)) if lists else [()] * layers
    first = [kinds.index(kind) for kind in dict.fromkeys(kinds)][:LAYERS]
    rest = [n for n in range(layers) if n not in first]
    return sorted([*first, *rest[: LAYERS - len(first)]])


def _kwargs(config: PretrainedConfig, variant: Mapping[str, Any], fill_in: bool) -> dict[str, Any]:
    """What to make the config's class with, its own configs included."""
    plain = {name: value for name, value in config.to_dict().items() if name not in ("transformers_version",)}
    count = next(
        (v for n, v in plain.items() if re.fullmatch(r"(num_hidden|num|n|decoder)_layers?", n) and isinstance(v, int)),
        None,
    )
    made = _sizes(plain, count, fill_in)
    heads, pairs = plain.get("num_attention_heads"), plain.get("num_key_value_heads")
    if heads and heads == pairs:
        made["num_key_value_heads"] = made["num_attention_heads"]
    made |= {name: value for name, value in variant.items() if name in plain or name == "rope_theta"}
    for name in config.sub_configs:
        if isinstance(own := getattr(config, name, None), PretrainedConfig):
            made[name] = _kwargs(own, variant, fill_in) | {"model_type": own.model_type}
    made |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    return {name: value for name, value in made.items() if value is not _ABSENT}


def configs(name: str) -> Iterator[Callable[[], PretrainedConfig]]:
    """Tiny configs of an architecture, the likeliest proportions first."""
    kind = CONFIG_MAPPING[name]
    for variant in VARIANTS:
        for fill_in in (False, True):
            yield lambda variant=variant, fill_in=fill_in: kind(**_kwargs(_default(kind, variant), variant, fill_in))


def default(name: str) -> dict[str, Any]:
    """An architecture's config as the library makes it; empty where its defaults contradict themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return CONFIG_MAPPING[name]().to_dict()
        except Exception:
            return {}


def _default(kind: type[PretrainedConfig], variant: Mapping[str, Any]) -> PretrainedConfig:
    try:
        return kind()
    except Exception:  # defaults that contradict themselves
        return kind(**variant)


def fill(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Random weights that make texts depend on every matrix: the library's own are near zero in many families."""
    made = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        if parameter.dim() in (2, 3) and min(parameter.shape) > 1:
            parameter.data.copy_(torch.randn(parameter.shape, generator=made) * 1.2 / parameter.shape[-1] ** 0.5)
    for buffer in model.buffers():
        if (
            buffer.dim() == 2 and len(buffer) == VOCABULARY and not buffer.is_floating_point() and not buffer.any()
        ):  # a table of experts by token
            buffer.copy_(torch.randint(0, 4, buffer.shape, generator=made))
    return model.float().eval()


def make(name: str) -> PreTrainedModel:
    """A tiny random model of an architecture, float32. Raises ValueError with the library's reason."""
    reasons: list[str] = []
    torch.manual_seed(0)
    try:
        for config in configs(name):
            try:
                model = AutoModelForCausalLM.from_config(config())
                model = fill(model)
                ids = torch.randint(6, VOCABULARY - 10, (1, 2 * WINDOW + 3))
                with torch.no_grad():
                    logits = model(input_ids=ids).logits
                if not logits.isfinite().all():
                    raise ValueError("its logits are not finite")
                return model
            except Exception as error:
                reasons.append(_line(error))
    except Exception as error:
        reasons.append(_line(error))
    raise ValueError(reasons[0])


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1][:160]}"


def save(model: PreTrainedModel, folder: Path) -> Path:
    """Write a model in hub layout, with a tokenizer of as many words as it has tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{number}": number for number in range(3, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    return folder
