"""kick_core: compress causal language models, ask them knowledge-intensive tasks, keep every answer.

The public names load on first use, so that planning and the pages never wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "BadRequest": "kick_core.spec",
    "Calibration": "kick_core.spec",
    "CompressedMatrix": "kick_core.methods",
    "IntGrid": "kick_core.spec",
    "KeepNofM": "kick_core.spec",
    "KickError": "kick_core.spec",
    "ModelRef": "kick_core.spec",
    "Recipe": "kick_core.spec",
    "Unstructured": "kick_core.spec",
    "compress": "kick_core.compression",
    "compress_matrix": "kick_core.compression",
    "evaluate": "kick_core.evaluation",
    "load": "kick_core.workshop",
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
    from kick_core.compression import compress, compress_matrix
    from kick_core.evaluation import evaluate
    from kick_core.methods import CompressedMatrix
    from kick_core.spec import BadRequest, Calibration, IntGrid, KeepNofM, KickError, ModelRef, Recipe, Unstructured
    from kick_core.workshop import load


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'kick_core' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
