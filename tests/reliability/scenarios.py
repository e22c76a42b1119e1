"""What is done to a cache while it is killed: idempotent pieces of work through the store itself, without torch.

Each takes the cache's root and a file in which every piece of *computing* is noted, so that repeats can be counted.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from kick_core import jobs
from kick_core.jobs import worker as job_worker
from kick_core.records import BlockReport, Card, Example, LayerReport, Output, Progress, RunCard, Verdict
from kick_core.runs.finishing import Finisher, seal
from kick_core.store import Store, files, open_store, results, staging, weight_artifacts
from kick_core.store.block_writer import BlockWriter
from kick_core.store.nested_masks import sharing
from kick_core.store.staging import NextInputs

KEY = "weights1-" + "ab" * 20
RUN = "run1-" + "cd" * 20
EXAMPLES = "examples1-" + "ef" * 20
WHEN = "2026-11-23T02:00:00+00:00"
BLOCKS, BATCH = 3, 3


def note(log: Path, what: str) -> None:
    with open(log, "a") as file:
        file.write(f"{what}\n")


def card(key: str = KEY) -> Card:
    return Card(
        key=key, model="m", fingerprint="f", recipe="magnitude@0.5", resolved={}, calibration=None, dtype="float32",
        device="cpu", blocks=BLOCKS, weights=8, zeros=4, bytes=6000, dense_bytes=32, seconds=1.0, created=WHEN,
        versions={}, layers=(LayerReport("0.q", 2, 4, 4),),
    )  # fmt: skip


def run_card(key: str = RUN) -> RunCard:
    return RunCard(
        key=key, model="m", fingerprint="f", recipe="dense", weights="dense1-00", task="factoid_qa", task_version=1,
        protocol="strict", data="pocket", examples=EXAMPLES, total=12, settings={}, plan="p", dtype="float32",
        device="cpu", created=WHEN, versions={},
    )  # fmt: skip


def output(name: str) -> Output:
    return Output(name, "h", (f"the answer to {name}",), stop="eos", tokens=2, prompt_tokens=3)


def weights(root: Path, log: Path, key: str = KEY) -> None:
    """One artifact of three blocks with the inputs of the next ones, as a block walk makes it."""
    store = open_store(root)
    with staging.stage(store, key) as stage:
        if stage is None:
            return
        done = stage.reports()
        if any(stage.next_inputs(report.block) is None for report in done if report.block + 1 < BLOCKS):
            done = []
        with BlockWriter() as writer:
            for block in range(len(done), BLOCKS):
                writer.wait()
                note(log, f"block {block}")
                report = BlockReport(block, BLOCKS, (LayerReport("q", 2, 4, 4, 0.1),), 0.5, 0.25)
                writer.add(stage, report, partial(_content, block), 2000)
        stage.seal(card(key))


def _content(block: int) -> tuple[bytes, NextInputs | None]:
    """A block's bytes; the inputs of the one behind the first are kept, of others a digest."""
    if block + 1 == BLOCKS:
        return b"%d" % block * 2000, None
    return b"%d" % block * 2000, NextInputs("digest", (8,), [b"next", b"more" * 500] if block == 0 else None)


SERIES = tuple(f"weights1-{number:040d}" for number in range(5))
"""Artifacts of magnitude at 0.1 ... 0.9, whose masks are nested."""


def mask_file(number: int, block: int) -> bytes:
    """A block of one of the series: two linears, one with columns that fill no whole byte."""
    chance = np.random.default_rng(block)
    shapes = {"mlp.up": (31, 640), "self_attn.q": (40, 133)}
    kept = {name: chance.random(shape) >= 0.1 + 0.2 * number for name, shape in shapes.items()}
    return save({f"{name}.mask": np.packbits(mask, axis=1, bitorder="little") for name, mask in kept.items()})


def series(store: Store, numbers: range = range(5)) -> None:
    """Make artifacts of the series, each with files of its own."""
    for number in numbers:
        with staging.stage(store, SERIES[number]) as stage:
            if stage is not None:
                for block in range(BLOCKS):
                    report = BlockReport(block, BLOCKS, (LayerReport("mlp.up", 31, 640, 9),), 0.5)
                    stage.add(report, mask_file(number, block))
                stage.seal(replace(card(SERIES[number]), recipe=f"magnitude@0.{1 + 2 * number}", bytes=stage.bytes()))


def shared(root: Path, log: Path) -> None:
    """Nested masks go into files that their artifacts share, or come out of them again."""
    for _ in sharing.share(open_store(root)):
        pass


def three_of_five(root: Path, log: Path) -> None:
    """Three artifacts share files, two more do not yet."""
    store = open_store(root)
    series(store, range(3))
    shared(root, log)
    series(store)


def one_of_five(root: Path, log: Path) -> None:
    """One artifact is left of five that shared files."""
    store = open_store(root)
    series(store)
    shared(root, log)
    for key in SERIES[1:]:
        assert weight_artifacts.remove(store, key)


STEPS = 6


def training(root: Path, log: Path, key: str = KEY) -> None:
    """An artifact that is trained as a whole, with a state kept at every second step, and written block by block."""
    with staging.stage(open_store(root), key) as stage:
        if stage is None:
            return
        state = stage.state()
        for step in range(int(state.decode().split()[-1]) + 1 if state else 1, STEPS + 1):
            note(log, f"step {step}")
            if step % 2 == 0:
                stage.keep_state(step, b"after step %d" % step)
        for block in range(BLOCKS):
            stage.add(BlockReport(block, BLOCKS, (LayerReport("q", 2, 4, 4),), 0.0), b"%d" % block * 2000)
        stage.seal(card(key))


def outputs(root: Path, log: Path) -> None:
    """A run of nine outputs in batches of three, then extended to twelve, with its questions and verdicts."""
    store = open_store(root)
    names = [f"e{i:02d}" for i in range(12)]
    for limit in (9, 12):
        _measure(store, log, names, limit)


def _measure(store: Store, log: Path, names: list[str], limit: int) -> None:
    results.keep_examples(store, EXAMPLES, [Example(name, (f"who is {name}?",), answers=("A",)) for name in names])
    if results.measured(store, RUN) < limit:
        with results.recorder(store, run_card()) as recorder:
            rest = names[recorder.sealed : limit]
            done = recorder.recorded(rest)
            left = [name for name in rest if name not in done]
            for start in range(0, len(left), BATCH):
                note(log, f"batch of {left[start]}")
                recorder.record([output(name) for name in left[start : start + BATCH]])
            recorder.seal(rest)
            results.add_timing(store, RUN, results.Timing(len(left), 6, 1.0))
    found = [Verdict(name, "contains", 1.0, name, "right") for name in names[:limit]]
    results.keep_verdicts(store, RUN, 1, found)


def beside(root: Path, log: Path) -> None:
    """Two runs of one batch each: a thread seals the first when the second is recorded too, then the second."""
    store, names, finisher = open_store(root), [f"e{i:02d}" for i in range(BATCH)], Finisher()
    recorded = []
    for key in (RUN, RUN.replace("cd", "ef")):
        if results.measured(store, key):
            continue
        with ExitStack() as stack:
            recorder = stack.enter_context(results.recorder(store, run_card(key)))
            if not recorder.recorded(names):
                note(log, f"batch of {key}")
                recorder.record([output(name) for name in names])
            recorder.cache.close()
            recorded.append(partial(seal, recorder, names, results.Timing(BATCH, 6, 1.0), stack.pop_all()))
    for work in recorded:  # not while the other opens its database, which a kill there leaves half made
        finisher.add(work)
    finisher.wait()


@dataclass(frozen=True)
class Asked:
    model: str = "m"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def job(root: Path, log: Path) -> None:
    """A job is asked for and worked off: the pressing of the button and the worker, in one process."""

    def steps(spec: Mapping[str, Any], store: Store) -> Iterator[Progress]:
        for block in range(BLOCKS):
            key = f"weights1-{block:040d}"
            if not weight_artifacts.has(store, key):
                weights(root, log, key)
            yield Progress("cell", block + 1, BLOCKS, "", block, BLOCKS, 0.1)

    store = open_store(root)
    name = jobs.job_id(Asked())
    if not any(found.id == name and found.state == "done" for found in jobs.jobs(store)):
        jobs.start(store, Asked(), worker=("true",))  # a worker that is gone at once
        while jobs.job(store, name).active:
            time.sleep(0.01)
        job_worker.main([str(root), name], steps)


def care(root: Path, log: Path) -> None:
    """Everything else that changes a cache: pinning, setting aside, removing, making again."""
    store = open_store(root)
    weights(root, log)
    if not (store.root / "quarantine" / KEY).exists():
        weight_artifacts.pin(store, KEY)
        weight_artifacts.quarantine(store, KEY)
        weights(root, log)
    if weight_artifacts.has(store, KEY):
        weight_artifacts.pin(store, KEY, False)
        weight_artifacts.remove(store, KEY)
    weights(root, log)


def older(root: Path, log: Path) -> None:
    """A cache of layout 1 is opened."""
    open_store(root)


def downgrade(root: Path, log: Path) -> None:
    """Write a cache as the program wrote it when its layout was 1."""
    outputs(root, log)
    log.unlink()
    folder = Store(root).folder("results", RUN)
    for name in ("run.json", "timings.json"):
        content = files.read_sealed_json(folder / name)
        (folder / name).write_text(json.dumps(content.get("sittings", content)))
    (verdicts,) = folder.glob("verdicts-*")
    os.replace(verdicts, folder / (verdicts.name[: -len("-0123456789abcdef.parquet")] + ".parquet"))
    (root / "fingerprints.json").write_text("{}")
    (root / "VERSION").write_text('{"layout": 1}')


SCENARIOS: dict[str, Callable[[Path, Path], None]] = {
    "weights": weights, "training": training, "outputs": outputs, "beside": beside, "job": job, "care": care,
    "older": older, "shared": shared, "alone": shared,
}  # fmt: skip

BEFORE = {"older": downgrade, "shared": three_of_five, "alone": one_of_five}
"""What has to be there first."""
