"""A GGUF file as a model: decoded once into a folder in hub layout, which then is a model like any other.

llama.cpp's files hold weights in block formats of their own (Q4_1, Q4_K, ...). transformers reads them with the `gguf`
package (an extra); what is compressed and evaluated is what the file's codes stand for, in bfloat16. So a recipe with
the file's own grid changes next to nothing, and every card says what the weights were decoded from.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from kick_core.errors import BadRequest, KickError
from kick_core.keys import sha256_file
from kick_core.store.files import replace_file

SUFFIX = ".gguf"
FOLDER = "decoded"
"""Section of the cache that holds decoded models; each may be deleted and is decoded again when it is needed."""

MARK = "kick_decoded.json"
_PLAIN = ("F32", "F16", "BF16", "F64")
_LARGEST_MARK = 1 << 16


def is_gguf(name: str) -> bool:
    """Whether a model's name is the path of a GGUF file that is here."""
    return name.endswith(SUFFIX) and Path(name).expanduser().is_file()


def decoded_folder(path: Path, root: Path) -> Path:
    """Where a file's decoded model is, or would be: named by the file's content.

    The content's sum is remembered by the file's size and times, in the cache.
    """
    stat = path.stat()
    token = f"{stat.st_dev}:{stat.st_ino}:{stat.st_size}:{stat.st_mtime_ns}"
    memo = root / FOLDER / "sums.json"
    try:
        sums: dict[str, str] = json.loads(memo.read_text("utf-8"))
    except (OSError, ValueError):
        sums = {}
    if token not in sums:
        sums[token] = sha256_file(path)
        replace_file(memo, json.dumps(sums).encode())
    return root / FOLDER / sums[token][:40]


def decode(path: Path, root: Path) -> Path:
    """The folder of a GGUF file's model, decoded now if it is not there.

    Args:
        path: the GGUF file.
        root: the cache.

    Raises:
        BadRequest: the `gguf` package is missing.
        KickError: the file is damaged, or its architecture is not one that transformers reads from GGUF.
    """
    folder = decoded_folder(path, root)
    if (folder / MARK).exists():
        return folder
    staged = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
    try:
        with _read_once(path) as reader:
            _save(path, staged)
            types = _types(reader)
        (staged / MARK).write_text(json.dumps({"file": path.name, "types": types}), "utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(staged, folder)
    except KickError:
        raise
    except Exception as error:  # whatever readers of a foreign file raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise KickError(f"{path} cannot be decoded: {reason}") from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return folder


def origin(folder: Path) -> str:
    """What a folder's weights were decoded from, e.g. "GGUF Q4_1"; "" for a folder that was not decoded here."""
    types = _mark(folder).get("types")
    names = [str(name) for name in types] if isinstance(types, dict) else []
    packed = [name for name in names if name not in _PLAIN]
    return f"GGUF {', '.join((packed or names)[:3])}"[:80] if names else ""


def bits_of(folder: Path) -> int | None:
    """Bits of the file's commonest packed grid, e.g. 4 for Q4_K; None where nothing was packed."""
    types = _mark(folder).get("types")
    first = next((str(name) for name in types if name not in _PLAIN), "") if isinstance(types, dict) else ""
    digits = "".join(c for c in first.partition("_")[0] if c.isdigit())
    return int(digits) if digits else None


def _mark(folder: Path) -> dict[str, Any]:
    path = folder / MARK
    try:
        if path.stat().st_size > _LARGEST_MARK:
            return {}
        mark = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return mark if isinstance(mark, dict) else {}


@contextmanager
def _read_once(path: Path) -> Iterator[Any]:
    """The reader of a GGUF file, which is everybody's meanwhile.

    `gguf` reads a header number by number, and transformers has it read for the configuration, the tokenizer and the
    weights each: decoding a 270M with a vocabulary of 262,144 took 61 processor seconds, and takes 25 so.

    Raises:
        BadRequest: The package is missing.
        KickError: The file is no whole GGUF file.
    """
    try:
        import gguf
    except ImportError:
        raise BadRequest(
            f"{path.name} is a GGUF file, and the package that reads them is missing: pip install gguf"
        ) from None

    class Reader(gguf.GGUFReader):  # type: ignore[misc, unused-ignore]
        @property
        def data(self) -> Any:
            return self._data

        @data.setter
        def data(self, mapped: Any) -> None:
            self._data = mapped.view(np.ndarray)  # slices of a memmap cost ten times those of an array

    try:
        reader = Reader(path)
    except Exception as error:
        raise KickError(f"{path} is no whole GGUF file ({error}): download or copy it again") from error
    with _replaced(gguf, "GGUFReader", lambda *_args, **_kwargs: reader):
        yield reader


@contextmanager
def _replaced(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    space = vars(module)
    before = space[name]
    space[name] = value
    try:
        yield
    finally:
        space[name] = before


def _types(reader: Any) -> dict[str, int]:
    """Weights per storage type, the commonest first."""
    counts: Counter[str] = Counter()
    for tensor in reader.tensors:
        counts[tensor.tensor_type.name] += int(tensor.n_elements)
    return dict(counts.most_common())


def _save(path: Path, folder: Path) -> None:
    """Decode through transformers and write the model and its tokenizer in hub layout, bfloat16."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, modeling_gguf_pytorch_utils
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()  # the command has its own
    with _replaced(modeling_gguf_pytorch_utils, "tqdm", lambda tensors, **_: tensors):
        model = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.bfloat16,
            quantization_config=GgufConfig(dequantize=True),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
        )
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(
        path.parent, gguf_file=path.name, trust_remote_code=False, local_files_only=True
    )
    tokenizer.save_pretrained(folder)
