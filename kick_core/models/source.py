"""A model's files: found by name, checked before anything opens them, hashed into its identity.

The name (a hub id, a folder, `pocket`) is only a label; two folders with the same bytes are the same model,
and a folder edited in place is another one. Everything in a model folder is untrusted input: weights are
safetensors only, a shard index may name plain files only, and no code of the folder is ever run.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from kick_core import timing
from kick_core.errors import BadRequest, KickError, nearest
from kick_core.keys import Heard, file_state, fingerprint
from kick_core.models import gguf
from kick_core.pocket import POCKET_MODELS
from kick_core.spec import Calibration, ModelRef
from kick_core.store import Store, default_root, fingerprints

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WANTED = ("*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt", "vocab.txt")
_SHARD = re.compile(r"[A-Za-z0-9_][\w.-]{0,199}\.safetensors", re.ASCII)
_LARGEST_JSON = 64 << 20
_OWN = re.compile(r"[\w|-]{1,64}", re.ASCII)
"""What the library calls attention and the like of its own; a repository with code has a slash in its name."""
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_SIZES = (
    *_LAYERS, "hidden_size", "n_embd", "d_model", "intermediate_size", "n_inner", "ffn_dim", "vocab_size",
    "num_attention_heads", "num_key_value_heads", "n_head", "head_dim", "num_experts", "num_local_experts",
    "moe_intermediate_size", "max_position_embeddings", "n_positions",
)  # fmt: skip
_CONTEXT = 2048
"""Tokens of context of a model that names none."""
ALIASES = {"pocket": "pocket-11m"}


@dataclass(frozen=True)
class Source:
    """One model on disk.

    Attributes:
        name: What the user called it, with aliases resolved.
        folder: Its files' place.
        weight_files: The safetensors files among them.
        fingerprint: Hash of every file that decides what the model answers; empty before they were read (`located`).
    """

    name: str
    folder: Path
    weight_files: tuple[Path, ...]
    fingerprint: str

    @cached_property
    def config(self) -> dict[str, Any]:
        return _json(self.folder / "config.json")

    @cached_property
    def context(self) -> int:
        """The longest sequence the model was made for, in tokens; 2048 where its config names none."""
        named = self.config.get("max_position_embeddings") or self.config.get("n_positions")
        if not named and any(isinstance(part, dict) and "model_type" in part for part in self.config.values()):
            from transformers import AutoConfig

            return context_of(AutoConfig.from_pretrained(self.folder, trust_remote_code=False, local_files_only=True))
        return named if isinstance(named, int) and named > 0 else _CONTEXT


def context_of(config: Any) -> int:
    """The longest sequence that a model was made for, in tokens.

    Args:
        config: The model's, of transformers; of several modalities the text model's counts.

    Returns:
        2048 where the config names none.
    """
    named = getattr(config.get_text_config(), "max_position_embeddings", None)
    return named if isinstance(named, int) and named > 0 else _CONTEXT


def find(ref: ModelRef, store: Store | None = None, heard: Heard | None = None) -> Source:
    """Find, check and identify a model.

    Args:
        ref: What the user called it.
        store: Remembers what files were hashed before.
        heard: Told how far hashing is, see `keys.fingerprint`.

    Raises:
        BadRequest: There is no such model.
        KickError: Its files cannot be used.
    """
    source = located(ref, store)
    return replace(source, fingerprint=_identity(source, store, heard))


def located(ref: ModelRef, store: Store | None = None) -> Source:
    """Find and check a model without reading its files whole: its fingerprint stays empty. Raises as `find` does."""
    name = ALIASES.get(ref.name, ref.name)
    if gguf.is_gguf(name):
        folder = gguf.decode(Path(name).expanduser().resolve(), default_root() if store is None else store.root)
    else:
        folder = _folder(name, ref.revision)
    _check_places(folder)
    _check_config(folder)
    weights = _weight_files(folder)
    _check_sizes(folder, weights)
    return Source(name, folder, weights, "")


def file_states(source: Source) -> tuple[str, ...]:
    """What changes whenever a file is written that the fingerprint is made of."""
    return tuple(sorted(f"{path.name} {file_state(path)}" for path in _identifying(source)))


def settled(calibration: Calibration, model: str) -> Calibration:
    """The calibration with the source that suits a model in place of `auto`.

    Args:
        calibration: as it was requested.
        model: the model's name, with aliases resolved (`Source.name`).
    """
    if calibration.source != "auto":
        return calibration
    return replace(calibration, source="pocket" if model in POCKET_MODELS else "english")


@contextmanager
def opening(source: Source) -> Iterator[None]:
    """A folder may be wrong in ways of which its readers raise anything: here it becomes one line that names it."""
    try:
        yield
    except (KickError, MemoryError):
        raise
    except Exception as error:
        if type(error).__name__ == "OutOfMemoryError":
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise KickError(f"{source.folder} cannot be opened: {reason}") from error


def _folder(name: str, revision: str | None) -> Path:
    if name in POCKET_MODELS:
        return POCKET_MODELS[name]
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if path.exists():
        raise BadRequest(
            f"model {name!r} is a file: give the folder that holds config.json and the weights, or a .gguf file"
        )
    if not _HUB_ID.fullmatch(name) or ".." in name:
        raise BadRequest(f"model {name!r} is no folder here and no hub id (owner/name)")
    return _from_hub(name, revision)


def local(name: str) -> Path | None:
    """The folder of a model whose files are on this machine; None where they are not. Fetches nothing."""
    name = ALIASES.get(name, name)
    if name in POCKET_MODELS:
        return POCKET_MODELS[name]
    path = Path(name).expanduser()
    if path.is_dir():
        return path.resolve()
    if gguf.is_gguf(name):
        folder = gguf.decoded_folder(path.resolve(), default_root())
        return folder if folder.is_dir() else None
    if path.exists() or not _HUB_ID.fullmatch(name) or ".." in name:
        return None
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(name, "config.json") if "/" in name else None
    return Path(config).parent if isinstance(config, str) else None


def own_dtype(name: str) -> str:
    """The dtype that a model's config names; "" where it names none or is not on this machine."""
    folder = local(name)
    try:
        config = json.loads((folder / "config.json").read_text("utf-8")) if folder else {}
    except (OSError, ValueError):
        return ""
    return str(config.get("dtype") or config.get("torch_dtype") or "")


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
        if path.stat().st_size > _LARGEST_JSON:
            raise ValueError(f"more than {_LARGEST_JSON >> 20} MB")
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadRequest(f"{path.parent} has no {path.name}: it is not a model folder in hub layout") from None
    except (OSError, ValueError, RecursionError) as error:
        raise KickError(f"{path} is damaged ({error})") from error
    if not isinstance(data, dict):
        raise KickError(f"{path} is damaged (a JSON object is expected)")
    return data


def _check_places(folder: Path) -> None:
    """Every file must lie in the folder: a link that leads elsewhere would let a model's author choose what is read.

    Snapshots of the hub cache link to the blobs of their own repository, two folders up.
    """
    home = folder.parent.parent if folder.parent.name == "snapshots" else folder
    for path in (*folder.iterdir(), *folder.glob("additional_chat_templates/*")):
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(home)):
            raise KickError(f"{path} is a link to a place outside its folder: put the file itself there")
        if not path.is_dir() and not path.is_file():
            raise KickError(f"{path} is no plain file, or a link to nothing")
    if (folder / "adapter_config.json").exists():
        raise KickError(f"{folder} is an adapter that names another model: merge it into its model first")


def _check_config(folder: Path) -> None:
    """What a config may not do: run code, name code to be fetched, or hold what is no number where one is expected."""
    config = _json(folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise KickError(f"{folder / 'config.json'} names no model_type")
    for name, value in _members(config):
        if name == "auto_map":
            raise KickError(f"{folder} wants to run code of its own (auto_map): such models are not opened")
        if name.endswith("_implementation") and value is not None and not _plain(value):
            raise KickError(f"{folder} wants to run code from elsewhere ({name}): such models are not opened")
        if name in _SIZES and not (value is None or isinstance(value, list) or _count(value)):
            raise KickError(f"{folder / 'config.json'}: {name} is {str(value)[:40]!r}, a whole number is expected")
    if not isinstance(config.get("quantization_config", {}), dict | None):
        raise KickError(f"{folder / 'config.json'}: quantization_config is no JSON object")


def _members(config: Any) -> Iterator[tuple[str, Any]]:
    """Every member of a config, and of the configs in it."""
    if isinstance(config, dict):
        for name, value in config.items():
            yield name, value
            yield from _members(value)


def _plain(value: Any) -> bool:
    """Whether an implementation is one of the library's own, not a repository with code."""
    each = value.values() if isinstance(value, dict) else (value,)
    return all(one is None or (isinstance(one, str) and _OWN.fullmatch(one) is not None) for one in each)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _check_sizes(folder: Path, weights: Sequence[Path]) -> None:
    """A config must not ask for more than its weights can fill: everything would be laid out before they are read."""
    tensors, room = 0, 8 * sum(path.stat().st_size for path in weights)
    for path in weights:
        tensors += _tensors(path)
    for name, value in _members(_json(folder / "config.json")):
        most = tensors if name in _LAYERS else room
        if name in _SIZES and isinstance(value, int) and value > most:
            raise KickError(
                f"{folder / 'config.json'}: {name} is {value:,}, but the weights are {tensors:,} tensors in "
                f"{room // 8:,} bytes: they are not of this config"
            )


def _weight_files(folder: Path) -> tuple[Path, ...]:
    index = folder / "model.safetensors.index.json"
    single = folder / "model.safetensors"
    if single.exists():
        return (single,)
    if not index.exists():
        other = sorted(p.name for p in folder.glob("*") if p.suffix in (".bin", ".pt", ".pth", ".gguf"))
        found = f" ({', '.join(other[:3])} found)" if other else ""
        raise BadRequest(f"{folder} holds no safetensors weights{found}: only safetensors are opened")
    named = _json(index).get("weight_map")
    if not isinstance(named, dict) or not named:
        raise KickError(f"{index} names no shard")
    for name in named.values():
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            raise KickError(
                f"{index} names {str(name)[:80]!r}: shards must be plain .safetensors names in the same folder"
            )
        if not (folder / name).is_file():
            raise KickError(f"{index} names {name}, which is not there")
    return tuple(folder / name for name in sorted(set(named.values())))


def _tensors(path: Path) -> int:
    """How many tensors a file holds. The library looks at the whole header: lengths, overlaps, gaps, types, sizes."""
    try:
        with safe_open(path, framework="np") as file:
            return len(file.keys())
    except (SafetensorError, OSError, ValueError) as error:
        raise KickError(f"{path} is no whole safetensors file ({error}): download or copy it again") from error


def _identifying(source: Source) -> set[Path]:
    """The files that decide what the model answers: weights, config, tokenizer, template."""
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
        for path in source.folder.glob(pattern)
        if path.is_file()
    ]
    return {*source.weight_files, *side}


def _identity(source: Source, store: Store | None, heard: Heard | None) -> str:
    """Hash of every file that decides what the model answers."""
    files = _identifying(source)
    if store is None:
        return fingerprint(files, heard=heard)
    memo = fingerprints.remembered(store)
    with timing.stage("fingerprint"):
        identity = fingerprint(files, memo=memo, heard=heard)
    fingerprints.remember(store, memo, files)
    return identity
