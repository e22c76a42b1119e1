"""What every benchmark writes beside its figures: machine, versions, commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from kick_core.provenance import now, versions


def about() -> dict[str, Any]:
    """The machine and the code that a figure belongs to."""
    model = next((x.split(":")[1].strip() for x in _cpuinfo() if x.startswith("model name")), platform.processor())
    return {"when": now(), "commit": _commit(), "cpu": model, "cores": os.cpu_count(), **versions(), **_accelerator()}


def _commit() -> str:
    try:
        told = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    except OSError:  # a copy of the files, on a machine without git
        return ""
    return told.stdout.strip()


def _accelerator() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {}
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    try:
        found = {"triton": version("triton")}
    except PackageNotFoundError:
        found = {}
    return {"gpus": names, "cuda": torch.version.cuda, **found}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def write(out: Path | None, name: str, figures: dict[str, Any]) -> None:
    """Keep figures as JSON; without `out` under benchmarks/out, which is not committed."""
    path = out or Path(__file__).parent / "out" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"benchmark": name, "about": about(), **figures}, indent=1))
