"""Three processes want the same thing; whoever computes is killed, again and again. Aimed: others only wait.

python -m tests.reliability.rivals weights 100      one JSON object on standard output
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from kick_core.records import BlockReport, LayerReport
from kick_core.store import open_store, results, staging, weight_artifacts
from kick_core.store.staging import NextInputs
from tests.reliability.scenarios import card, note, output, run_card

BLOCKS, BATCHES, BATCH = 10, 10, 20
PACE = 0.004
"""Seconds that computing one block or batch takes."""


def make_weights(root: Path, log: Path, number: int) -> None:
    """One artifact of ten blocks, noting who begins which."""
    key = f"weights1-{number:040d}"
    with staging.stage(open_store(root), key) as stage:
        if stage is None:
            return
        for block in range(len(stage.reports()), BLOCKS):
            note(log, f"{os.getpid()} {block}")
            time.sleep(PACE)
            report = BlockReport(block, BLOCKS, (LayerReport("q", 2, 4, 4),), 0.1)
            stage.add(report, bytes([block]) * 3000, NextInputs("d", (8,), [b"next"]) if block + 1 < BLOCKS else None)
        stage.seal(card(key))


def record_outputs(root: Path, log: Path, number: int) -> None:
    """One run of ten batches of twenty outputs."""
    store, key = open_store(root), f"run1-{number:040d}"
    names = [f"e{i:03d}" for i in range(BATCHES * BATCH)]
    if results.measured(store, key):
        return
    with results.recorder(store, run_card(key)) as recorder:
        if recorder.sealed:
            return
        done = recorder.recorded(names)
        assert len(done) % BATCH == 0, "half a batch"
        left = [name for name in names if name not in done]
        for start in range(0, len(left), BATCH):
            note(log, f"{os.getpid()} {left[start]}")
            time.sleep(PACE)
            recorder.record([output(name) for name in left[start : start + BATCH]])
        recorder.seal(names)


WORK: dict[str, Callable[[Path, Path, int], None]] = {"weights": make_weights, "outputs": record_outputs}


def whole(what: str, root: Path, number: int) -> bool:
    """Whether what came of it is whole, byte by byte."""
    store = open_store(root)
    if what == "weights":
        key = f"weights1-{number:040d}"
        blocks = [weight_artifacts.block_path(store, key, block).read_bytes() for block in range(BLOCKS)]
        return not weight_artifacts.verify(store, key, deep=True) and blocks == [
            bytes([b]) * 3000 for b in range(BLOCKS)
        ]
    key = f"run1-{number:040d}"
    wanted = [output(f"e{i:03d}") for i in range(BATCHES * BATCH)]
    return not results.verify(store, key, deep=True) and results.outputs(store, key) == wanted


def child(work: Callable[[], None]) -> int:
    """A process that does the work and nothing else."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}\n".encode())
            os._exit(1)
        os._exit(0)
    return pid


def one_round(
    what: str, root: Path, base: Path, number: int, kills: int, chance: random.Random
) -> tuple[int, int, int]:
    """Three rivals and up to `kills` aimed kills: how many were killed, how many pieces were begun, how many failed."""
    log = base / f"{number}.log"
    log.touch()
    work = partial(WORK[what], root, log, number)
    alive, killed, failed, seen = {child(work) for _ in range(3)}, 0, 0, 0
    while alive:
        lines = log.read_text().splitlines()
        if killed < kills and len(lines) > seen:
            seen = len(lines)
            time.sleep(chance.random() * 3 * PACE)
            victim = int(lines[-1].split()[0])
            if victim in alive:
                os.kill(victim, signal.SIGKILL)  # one that has ended meanwhile is no kill, and is reaped below
                if os.WIFSIGNALED(os.waitpid(victim, 0)[1]):
                    killed += 1
                    alive.add(child(work))
                alive.remove(victim)
        for pid in [*alive]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                alive.remove(pid)
                failed += status != 0
        time.sleep(0.001)
    return killed, len(log.read_text().splitlines()), failed


def campaign(what: str, kills: int, base: Path) -> dict[str, int]:
    """Rounds of up to eight kills each, until there were enough."""
    chance, told = random.Random(0), Counter[str]()
    while told["kills"] < kills:
        number = told["rounds"]
        done = one_round(what, base / "cache", base, number, min(8, kills - told["kills"]), chance)
        told += Counter(kills=done[0], begun=done[1], failed=done[2], rounds=1)
        told["damaged"] += not whole(what, base / "cache", number)
    told["repeated"] = told["begun"] - told["rounds"] * BLOCKS
    return {name: told[name] for name in ("rounds", "kills", "begun", "repeated", "failed", "damaged")}


if __name__ == "__main__":
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        print(json.dumps(campaign(sys.argv[1], int(sys.argv[2]), Path(folder))))
