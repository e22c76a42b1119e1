"""kick_core: compress causal language models, ask them knowledge-intensive tasks, keep every answer.

The public names load on first use, so that planning and the pages never wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.4.1"

_PUBLIC = {
    "BadRequest": "kick_core.errors",
    "Calibration": "kick_core.spec",
    "CompressedMatrix": "kick_core.methods",
    "IntGrid": "kick_core.spec",
    "KeepNofM": "kick_core.spec",
    "KickError": "kick_core.errors",
    "ModelRef": "kick_core.spec",
    "Recipe": "kick_core.spec",
    "Unstructured": "kick_core.spec",
    "compress": "kick_core.compression.walk",
    "compress_matrix": "kick_core.compression.walk",
    "evaluate": "kick_core.evaluation",
    "load": "kick_core.artifacts.builder",
}

__all__ = [
    "BadRequest",
    "Calibration",
    "CompressedMatrix",
    "IntGrid",
    "KeepNofM",
    "KickError",
    "ModelRef",
    "Recipe",
    "Unstructured",
    "compress",
    "compress_matrix",
    "evaluate",
    "load",
]

if TYPE_CHECKING:
    from kick_core.artifacts.builder import load
    from kick_core.compression.walk import compress, compress_matrix
    from kick_core.errors import BadRequest, KickError
    from kick_core.evaluation import evaluate
    from kick_core.methods import CompressedMatrix
    from kick_core.spec import Calibration, IntGrid, KeepNofM, ModelRef, Recipe, Unstructured


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'kick_core' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
