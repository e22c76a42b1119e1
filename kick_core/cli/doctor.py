"""`kick doctor`: what this machine offers, and what is missing."""

from __future__ import annotations

import os
import platform
from argparse import Namespace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from kick_core.cli import printing
from kick_core.errors import KickError
from kick_core.store import open_store
from kick_core.store.files import free_bytes
from kick_core.units import bytes_text

_PACKAGES = ("torch", "transformers", "streamlit", "datasets", "gptqmodel", "compressed-tensors", "openai", "ray")


def run(args: Namespace) -> int:
    """`kick doctor`"""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    for name in _PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    try:
        import torch

        devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        facts["cuda"] = ", ".join(devices) or "none"
    except ImportError:
        facts["cuda"] = "torch is not installed"
    try:
        store = open_store(args.cache)
        facts["cache"] = f"{store.root}, {bytes_text(free_bytes(store.root))} free"
    except KickError as error:
        facts["cache"] = str(error)
    if args.json:
        printing.document(facts)
    else:
        for name, fact in facts.items():
            print(f"{name:20}{fact}")
    return 0
