"""`kick` as a user runs it, in a process of its own: its seconds, its first word, its stages beside their floors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from _shapes import seconds as clocked

HERE = Path(__file__).resolve().parent
BESIDE = ("writer", "reader")
"""Threads whose stages run beside the main thread's, by the beginnings of their names."""
ASKED = ("prefill", "options", "windows")
"""Stages in which the model is asked."""


@dataclass
class Ran:
    """One command.

    Attributes:
        words: The command, after `kick`.
        status: Its exit status.
        seconds: Wall clock, from the start of the process to its end.
        first_word: Seconds until it first said something.
        first_question: Seconds until the model was first asked something; None where it was not.
        stages: Main thread's seconds by stage; `start` before the command line, `rest` what no stage covers.
        beside: Seconds of stages in other threads, which the main thread did not wait for.
        amounts: What stages handled, e.g. {"write": {"bytes": …}}.
        said: The end of standard error.
        result: Standard output as JSON, where it is that.
        lines: The stages one by one, as they ended: "stage", "began" (seconds of the clock), "seconds", "thread".
    """

    words: list[str]
    status: int
    seconds: float
    first_word: float
    first_question: float | None
    stages: dict[str, float]
    beside: dict[str, float]
    amounts: dict[str, dict[str, int]]
    said: str
    result: Any = field(default=None, repr=False)
    lines: list[dict[str, Any]] = field(default_factory=list, repr=False)

    def facts(self) -> dict[str, Any]:
        """For the JSON file."""
        facts: dict[str, Any] = {
            "command": " ".join(self.words), "seconds": round(self.seconds, 3), "first_word": round(self.first_word, 3),
            "first_question": None if self.first_question is None else round(self.first_question, 3),
            "stages": {name: round(value, 4) for name, value in self.stages.items()},
            "beside": {name: round(value, 4) for name, value in self.beside.items()}, "amounts": self.amounts,
        }  # fmt: skip
        return facts | ({"failed": self.status, "said": self.said[-2000:]} if self.status else {})


def kick(words: Sequence[str], tree: Path = HERE.parent, environment: Mapping[str, str] | None = None) -> Ran:
    """Run one command of the package in `tree`."""
    with tempfile.TemporaryDirectory() as folder:
        record = Path(folder) / "stages.jsonl"
        command = [sys.executable, str(HERE / "_recorded_kick.py"), str(record), *words]
        others = [os.path.abspath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
        places = os.pathsep.join([str(tree), *others])
        known = {**os.environ, "PYTHONPATH": places, **(environment or {})}
        began, spawned = time.perf_counter(), time.time()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=known, cwd=tree)
        heard: list[bytes] = []
        first: list[float] = []

        def listen() -> None:
            assert process.stderr is not None
            while part := os.read(process.stderr.fileno(), 1 << 16):
                first.append(time.perf_counter() - began)
                heard.append(part)

        thread = threading.Thread(target=listen)
        thread.start()
        assert process.stdout is not None
        out = process.stdout.read()
        status = process.wait()
        wall = time.perf_counter() - began
        thread.join()
        lines = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    stages, beside, amounts = _added(lines, spawned, wall)
    try:
        result = json.loads(out)
    except ValueError:
        result = None
    said = b"".join(heard).decode(errors="replace")
    word, questions = first[0] if first else wall, [line["began"] - spawned for line in lines if line["stage"] in ASKED]
    return Ran(
        list(words), status, wall, word, min(questions, default=None), stages, beside, amounts, said, result, lines
    )


def _added(
    lines: Sequence[Mapping[str, Any]], spawned: float, wall: float
) -> tuple[dict[str, float], dict[str, float], dict[str, dict[str, int]]]:
    main: defaultdict[str, float] = defaultdict(float)
    beside: defaultdict[str, float] = defaultdict(float)
    amounts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for line in lines:
        if line["stage"] == "command":
            main["start"] = line["began"] - spawned
            continue
        for name in line.keys() - {"stage", "began", "seconds", "thread"}:
            amounts[line["stage"]][name] += line[name]
    for into, at_work in ((main, False), (beside, True)):
        for name, seconds in _own_seconds(line for line in lines if _beside(line) == at_work):
            into[name] += seconds
    main["rest"] = wall - sum(main.values())
    return dict(main), dict(beside), {name: dict(found) for name, found in amounts.items()}


def _beside(line: Mapping[str, Any]) -> bool:
    return str(line.get("thread", "")).startswith(BESIDE)


def _own_seconds(lines: Iterable[Mapping[str, Any]]) -> list[tuple[str, float]]:
    """Each stage's seconds without those of stages inside it."""
    own: list[tuple[str, float]] = []
    inside: list[tuple[float, int]] = []
    for line in sorted((x for x in lines if x["stage"] != "command"), key=lambda x: (x["began"], -x["seconds"])):
        while inside and inside[-1][0] <= line["began"]:
            inside.pop()
        if inside:
            name, seconds = own[inside[-1][1]]
            own[inside[-1][1]] = name, seconds - line["seconds"]
        inside.append((line["began"] + line["seconds"], len(own)))
        own.append((line["stage"], line["seconds"]))
    return own


@dataclass(frozen=True)
class MachineRates:
    """What this machine does a second, measured now: what floors are made of.

    Attributes:
        operations: Multiplications and additions a second of a large matrix product in the model's dtype.
        read: Bytes a second of a file in the page cache.
        write: Bytes a second of a new file, until it is on the disk.
    """

    operations: float
    read: float
    write: float


def machine_rates(device: torch.device, folder: Path, dtype: torch.dtype) -> MachineRates:
    """Measure them; a few seconds."""
    size = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times = [clocked(device, lambda: a @ b)[0] for _ in range(5)]
    data, path = os.urandom(1 << 24) * 16, folder / "rate"
    began = time.perf_counter()
    with open(path, "wb", buffering=0) as file:
        file.write(data)
        os.fsync(file.fileno())
    written = time.perf_counter()
    path.read_bytes()
    read = time.perf_counter()
    path.unlink()
    return MachineRates(2 * size**3 / min(times), len(data) / (read - written), len(data) / (written - began))


def table(ran: Ran, floors: Mapping[str, float]) -> list[str]:
    """Every stage beside its floor in seconds, the longest first."""
    lines = [f"kick {' '.join(ran.words)}: {ran.seconds:.1f} s, first word after {ran.first_word:.1f} s"]
    if ran.first_question is not None:
        lines.append(f"  first question after {ran.first_question:.1f} s")
    for title, stages in (("", ran.stages), (" (beside)", ran.beside)):
        for name, value in sorted(stages.items(), key=lambda stage: -stage[1]):
            floor = f"floor {floors[name]:8.2f}" if name in floors else ""
            lines.append(f"  {name + title:24} {value:8.2f} s  {floor}".rstrip())
    return lines
