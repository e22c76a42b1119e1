"""Open a model and its tokenizer from a checked source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers import logging as transformers_logging

from kick_core.errors import BadRequest, KickError
from kick_core.models.opener import opener
from kick_core.models.quantized import open_quantized, quantization
from kick_core.models.source import Source, opening

transformers_logging.disable_progress_bar()


def device_of(name: str) -> torch.device:
    """`auto`, `cpu`, `cuda` or `cuda:1` as a device, `all` as the first GPU. Raises BadRequest when it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device("cuda" if name == "all" else name)
    except RuntimeError as error:
        raise BadRequest(f"unknown device {name!r}: auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise BadRequest(f"device {name!r} is not supported: auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise BadRequest(f"device {name!r} was asked for, but torch sees no CUDA device here: use --device cpu")
    return device


def open_model(source: Source, dtype: str = "auto", device: str = "auto") -> PreTrainedModel:
    """The dense model, in evaluation mode. Raises KickError when weights and architecture do not match."""
    where = device_of(device)
    if quantization(source) is not None:
        with opening(source):
            return open_quantized(source, None if dtype == "auto" else getattr(torch, dtype)).to(where).eval()
    with opening(source):
        model, facts = opener(source).from_pretrained(
            source.folder,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    require_all_keys(source, facts)
    opened: PreTrainedModel = model.to(where).eval()
    return opened


def require_all_keys(source: Source, facts: Mapping[str, Iterable[object]]) -> None:
    """Raises KickError when weights and architecture do not match; `facts` is what transformers tells of loading."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found := sorted(map(str, facts[kind])):
            raise KickError(
                f"{source.folder}: {len(found)} {kind.replace('_', ' ')}, first {found[0]!r}: "
                f"these weights are not of this architecture"
            )


def open_tokenizer(source: Source) -> PreTrainedTokenizerBase:
    """The tokenizer of a model."""
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False, local_files_only=True)
    except BaseException as error:
        # a panic of the Rust reader is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise KickError(f"{source.folder}: the tokenizer cannot be opened: {_first_line(error)}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    opened: PreTrainedTokenizerBase = tokenizer
    return opened


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
