"""A model's files: found by name, checked before anything opens them, hashed into its identity.

The name (a hub id, a folder, `pocket`) is only a label; two folders with the same bytes are the same model,
and a folder edited in place is another one. Everything in a model folder is untrusted input: weights are
safetensors only, a shard index may name plain files only, and no code of the folder is ever run.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from kick_core.keys import fingerprint
from kick_core.pocket import POCKET_MODELS
from kick_core.spec import BadRequest, KickError, ModelRef, nearest
from kick_core.store import Store
from kick_core.store.files import Damaged, read_sealed_json, replace_file, seal_json

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WANTED = ("*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt", "vocab.txt")
ALIASES = {"pocket": "pocket-11m"}


@dataclass(frozen=True)
class Source:
    """One model on disk. `name` is what the user called it, with aliases resolved."""

    name: str
    folder: Path
    weight_files: tuple[Path, ...]
    fingerprint: str

    @cached_property
    def config(self) -> dict[str, Any]:
        return _json(self.folder / "config.json")

    @property
    def context(self) -> int:
        """The longest sequence the model was made for."""
        return int(self.config.get("max_position_embeddings") or self.config.get("n_positions") or 2048)


def find(ref: ModelRef, store: Store | None = None) -> Source:
    """Find and check a model. Raises BadRequest (nothing such) or KickError (files that cannot be used)."""
    name = ALIASES.get(ref.name, ref.name)
    folder = _folder(name, ref.revision)
    _check_config(folder)
    weights = _weight_files(folder)
    for path in weights:
        _check_safetensors(path)
    return Source(name, folder, weights, _identity(folder, weights, store))


def _folder(name: str, revision: str | None) -> Path:
    if name in POCKET_MODELS:
        return POCKET_MODELS[name]
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise BadRequest(f"model {name!r} is a file: give the folder that holds config.json and the weights")
    if not _HUB_ID.fullmatch(name) or ".." in name:
        raise BadRequest(f"model {name!r} is no folder here and no hub id (owner/name)")
    return _from_hub(name, revision)


def _from_hub(name: str, revision: str | None) -> Path:
    """The snapshot folder of a hub model, downloaded when it is not in the local hub cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_WANTED), local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError):
        pass
    if "/" not in name:
        raise nearest(name, (*ALIASES, *POCKET_MODELS, "a folder", "a hub id (owner/name)"), "model")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_WANTED)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise BadRequest(
            f"model {name!r} is no folder here, and the hub did not give it ({reason}). "
            f"Known without a network: {', '.join((*ALIASES, *POCKET_MODELS))}."
        ) from error


def _json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError:
        raise BadRequest(f"{path.parent} has no {path.name}: it is not a model folder in hub layout") from None
    except (OSError, ValueError) as error:
        raise KickError(f"{path} is damaged ({error})") from error
    if not isinstance(data, dict):
        raise KickError(f"{path} is damaged (a JSON object is expected)")
    return data


def _check_config(folder: Path) -> None:
    config = _json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise KickError(f"{folder / 'config.json'} names no model_type")
    if "auto_map" in config:
        raise KickError(f"{folder} wants to run code of its own (auto_map): such models are not opened")


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.exists():
        return (single,)
    if not index.exists():
        other = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".gguf"))
        found = f" ({', '.join(other[:3])} found)" if other else ""
        raise BadRequest(f"{folder} holds no safetensors weights{found}: only safetensors are opened")
    names = set(_json(index).get("weight_map", {}).values())
    for name in names:
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise KickError(f"{index} names {name!r}: shards must be plain .safetensors names in the same folder")
        if not (folder / name).exists():
            raise KickError(f"{index} names {name}, which is not there")
    if not names:
        raise KickError(f"{index} names no shard")
    return tuple(folder / name for name in sorted(names))


def _check_safetensors(path: Path) -> None:
    """The header must be sane and the file as long as the header says; reading it costs no more than that."""
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size - 8, 100 << 20):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(file.read(length))
        end = max((t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"), default=0)
        if 8 + length + end != size:
            raise ValueError(f"{size} bytes on disk, {8 + length + end} expected")
    except (ValueError, struct.error, KeyError, TypeError, AttributeError, IndexError) as error:
        raise KickError(f"{path} is no whole safetensors file ({error}): download or copy it again") from error


def _identity(folder: Path, weights: Sequence[Path], store: Store | None) -> str:
    """Hash of every file that decides what the model answers: weights, config, tokenizer, template."""
    side = [
        path
        for pattern in (
            "config.json",
            "generation_config.json",
            "*token*",
            "vocab*",
            "merges.txt",
            "*.jinja",
            "*.model",
        )
        for path in folder.glob(pattern)
        if path.is_file()
    ]
    if store is None:
        return fingerprint({*weights, *side})
    memo_path = store.root / "fingerprints.json"
    try:
        memo: dict[str, str] = read_sealed_json(memo_path)
    except (Damaged, OSError):
        memo = {}  # only a memo: what it held is hashed again
    before = len(memo)
    found = fingerprint({*weights, *side}, memo=memo)
    if len(memo) != before:
        replace_file(memo_path, seal_json(memo))
    return found
