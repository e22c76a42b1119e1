"""Open a model and its tokenizer from a checked source."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers import logging as transformers_logging

from kick_core.errors import BadRequest, KickError
from kick_core.models.opener import opener
from kick_core.models.quantized import open_quantized, quantization
from kick_core.models.source import Source, opening
from kick_core.models.tokenization import FORCED
from kick_core.pocket import POCKET_MODELS

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
    _send(model, where)
    opened: PreTrainedModel = model.to(where).eval()
    forget_lengths(opened)
    return opened


_SENDERS = 4
"""Threads that copy weights to a GPU: what costs is finding the pages of mapped files, one core's work each."""


def _send(model: PreTrainedModel, device: torch.device) -> None:
    """Copy a model's parameters to a GPU, several at a time; `model.to` then finds them there."""
    if device.type != "cuda":
        return
    parameters = list(model.parameters())
    with torch.cuda.device(device):
        # laid out here, so that they belong to this thread's stream
        copies = [torch.empty_like(parameter, device=device) for parameter in parameters]
        laid_out = torch.cuda.current_stream().record_event()

    def copy(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
        with torch.no_grad(), torch.cuda.stream(torch.cuda.Stream(device)):
            stream = torch.cuda.current_stream(device)
            stream.wait_event(laid_out)
            pair[0].copy_(pair[1])
            stream.synchronize()

    with ThreadPoolExecutor(_SENDERS) as pool:
        list(pool.map(copy, zip(copies, parameters, strict=True)))
    for parameter, sent in zip(parameters, copies, strict=True):
        parameter.data = sent


def forget_lengths(model: PreTrainedModel) -> None:
    """Let dynamically scaled positions follow from each text's own length.

    The library's modules keep the scale of the longest text that they have seen, so that what a text gives would follow
    from what was read before it.
    """

    def reset(module: Any, _args: Any) -> None:
        for kind in module.rope_type if isinstance(module.rope_type, dict) else ("",):
            prefix = f"{kind}_" if kind else ""
            original = getattr(module, f"{prefix}original_inv_freq").to(module.get_buffer(f"{prefix}inv_freq").device)
            module.register_buffer(f"{prefix}inv_freq", original, persistent=False)
            setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)

    for module in model.modules():
        types = getattr(module, "rope_type", None)
        if any("dynamic" in str(kind) for kind in (types.values() if isinstance(types, dict) else (types,))):
            module.register_forward_pre_hook(reset)


def require_all_keys(source: Source, facts: Mapping[str, Iterable[object]]) -> None:
    """Raises KickError when weights and architecture do not match; `facts` is what transformers tells of loading."""
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if found := sorted(map(str, facts[kind])):
            raise KickError(
                f"{source.folder}: {len(found)} {kind.replace('_', ' ')}, first {found[0]!r}: "
                f"these weights are not of this architecture"
            )


def open_tokenizer(source: Source, bos: str = "auto") -> PreTrainedTokenizerBase:
    """The tokenizer of a model.

    Args:
        source: the model's folder.
        bos: `always` begins every text with the beginning-of-sequence token (`tokenization.encode_all`).

    Raises:
        KickError: it cannot be opened; where a package is missing, the message names it.
        BadRequest: a beginning-of-sequence token is demanded of a tokenizer that names none.
    """
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source.folder, trust_remote_code=False, local_files_only=True)
    except BaseException as error:
        # a panic of the Rust reader is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = _missing_reader(source.folder) or _first_line(error)
        raise KickError(f"{source.folder}: the tokenizer cannot be opened: {reason}") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if bos == "always" or source.folder in POCKET_MODELS.values():  # their template leaves <s>, which they know, out
        if tokenizer.bos_token_id is None:
            raise BadRequest(f"--bos always: the tokenizer of {source.name} names no beginning-of-sequence token")
        setattr(tokenizer, FORCED, True)
    opened: PreTrainedTokenizerBase = tokenizer
    return opened


def _missing_reader(folder: Path) -> str:
    """What to install for a tokenizer that has no fast file; "" where nothing is missing."""
    if (folder / "tokenizer.json").exists():
        return ""
    for path in sorted((*folder.glob("*.model"), *folder.glob("*.tiktoken"), *folder.glob("tekken.json"))):
        kind, package = _reader(path)
        if importlib.util.find_spec(package.replace("-", "_")) is None:
            return f"{path.name} is a {kind} file, which the package {package} reads: pip install {package}"
    return ""


def _reader(path: Path) -> tuple[str, str]:
    """The kind of a tokenizer's file, and the package that reads it."""
    if path.name == "tekken.json":
        return "Tekken", "mistral-common"
    with path.open("rb") as file:
        line = file.readline(4096)
    if re.fullmatch(rb"[A-Za-z0-9+/]+=* \d+\s*", line):  # a token in base64, and its rank
        return "tiktoken", "tiktoken"
    return "SentencePiece", "sentencepiece"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
