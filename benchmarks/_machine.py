"""What every benchmark writes beside its figures: machine, versions, commit."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from kick_core.provenance import now, versions


def about() -> dict[str, Any]:
    """The machine and the code that a figure belongs to."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=Path(__file__).parent)
    model = next((x.split(":")[1].strip() for x in _cpuinfo() if x.startswith("model name")), platform.processor())
    return {"when": now(), "commit": commit.stdout.strip(), "cpu": model, "cores": os.cpu_count(), **versions()}


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def write(out: Path | None, name: str, figures: dict[str, Any]) -> None:
    """Keep figures as JSON; without `out` under benchmarks/out, which is not committed."""
    path = out or Path(__file__).parent / "out" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"benchmark": name, "about": about(), **figures}, indent=1))
