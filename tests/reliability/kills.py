"""Kill a piece of work at every place between two steps of writing, resume it, and compare bytes.

    python -m tests.reliability.kills kill weights outputs …     one JSON object on standard output

A dry run writes the places down; then one forked process after the other kills itself at the next of them (or finds
the disk full there, with `full`). It runs apart from pytest, so that what is forked is small and knows no torch.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pandas  # noqa: F401  pyarrow imports it with its first table: once here, not in every child

from kick_core.cli import arguments, verify  # noqa: F401  likewise
from kick_core.cli import main as kick
from kick_core.errors import KickError
from kick_core.store import fault_injection
from tests.reliability.scenarios import BEFORE, SCENARIOS

VOLATILE = ("timings.json", "state.json", "log.txt", "cancel", "lock", "fingerprints.json", "trials.json")
"""Times and process numbers; a killed sitting has no timing."""


def forked(plan: str, work: Callable[[], None]) -> tuple[int, str]:
    """Do the work in a child under a plan of faults: its exit status (negative: the signal) and what failed."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        status = 0
        try:
            fault_injection.arm(plan)
            work()
        except KickError as error:
            status = 3
            os.write(write, str(error).encode())
        except BaseException:
            status = 4
            os.write(write, traceback.format_exc().encode()[-4000:])
        os._exit(status)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        said = pipe.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def snapshot(root: Path) -> dict[str, bytes]:
    """Every file that counts: not locks, what was set aside, nor what `kick gc` clears away after a kill."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root)
        hidden = any(part.startswith(".") for part in name.parts)
        passing = name.parts[0] in ("locks", "quarantine", "live") or path.name in VOLATILE
        if path.is_file() and not hidden and not passing:
            found[str(name)] = path.read_bytes()
    return found


def _verified(root: Path) -> None:
    """`kick verify --deep` finds nothing: whatever a reader can see is whole."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = kick(["verify", "--deep", "--cache", str(root)])
    assert status == 0, said.getvalue()


def copied(before: Path, root: Path) -> None:
    """A copy of what a scenario begins with, hard links kept; nothing where it begins with nothing."""
    if before.exists():
        subprocess.run(["cp", "-a", before, root], check=True)


def trial(kind: str, name: str, number: int, base: Path, reference: dict[str, bytes]) -> list[str]:
    """One fault, then the same work again: what went wrong, in words."""
    root, log = base / f"{number}", base / f"{number}.log"
    copied(base / "before", root)
    work = partial(SCENARIOS[name], root, log)
    status, said = forked(f"{kind}:{number}", work)
    wrong = []
    if kind == "kill" and status != -9:
        wrong.append(f"ended with {status}, not killed: {said}")
    if kind == "full" and not (status == 0 or (status == 3 and "bytes are needed and" in said)):
        wrong.append(f"ended with {status}: {said}")
    if (root / "VERSION").exists():
        status, said = forked("", lambda: _verified(root))
        if status:
            wrong.append(f"what can be seen is not whole: {said}")
    status, said = forked("", work)
    if status:
        wrong.append(f"cannot be resumed: {status} {said}")
    if (found := snapshot(root)) != reference:
        differing = {k for k in found.keys() | reference.keys() if found.get(k) != reference.get(k)}
        wrong.append(f"other bytes after resuming: {sorted(differing)}")
    return wrong


def every_place(kind: str, name: str, base: Path) -> dict[str, Any]:
    """All places of one scenario in turn; a disk is only full where bytes are written."""
    places = base / "places"
    usual = base / "0.log"
    if name in BEFORE:
        status, said = forked("", partial(BEFORE[name], base / "before", usual))
        assert status == 0, said
    copied(base / "before", base / "0")
    status, said = forked(f"log:{places}", partial(SCENARIOS[name], base / "0", usual))
    if status:
        raise AssertionError(said)
    reference, once = snapshot(base / "0"), Counter(_lines(usual))
    listed = places.read_text().splitlines()
    wrong, most = {}, 0
    for number, place in enumerate(listed, 1):
        if kind == "full" and not place.startswith("writes "):
            continue
        if said := trial(kind, name, number, base, reference):
            wrong[f"{number} {place}"] = said
        most = max(most, (Counter(_lines(base / f"{number}.log")) - once).total())
    return {"places": len(listed), "wrong": wrong, "most_repeated": most}


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    told = {}
    memory = Path("/dev/shm")  # a kill loses nothing that the kernel was given, so there is no need to wait for a disk
    for scenario in sys.argv[2:] or SCENARIOS:
        with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
            told[scenario] = every_place(sys.argv[1], scenario, Path(folder))
    print(json.dumps(told, indent=1))
