"""Running English text that ships for real models: one part to calibrate on, one to measure perplexity on.

Public domain: addresses of United States presidents since 1961, and Moby-Dick. `tools/english/` built it.
"""

from __future__ import annotations

import json
import lzma
from pathlib import Path

_DATA = Path(__file__).resolve().parent / "data"


def calibration_documents() -> list[str]:
    """Documents of about 1,500 words in one random order, some 570,000 tokens in all."""
    return _documents("calibration")


def held_out_documents() -> list[str]:
    """Documents of the same kind, of which none is in `calibration_documents`; some 100,000 tokens."""
    return _documents("held_out")


def _documents(name: str) -> list[str]:
    with lzma.open(_DATA / f"{name}.jsonl.xz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
