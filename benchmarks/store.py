"""How fast outputs are recorded durably, whether all come back, and how long a finished run takes to open.

    python benchmarks/store.py --records 1000000 --batch 100

Records look like answers: 20 to 60 words each, no two alike. The rate counts whole batches that were committed with
`synchronous=FULL`, as runs record them; nothing is ever evicted, which is checked by reading every record back.
Seconds are of the wall and, where it says so, of the processor: on a busy machine only the latter can be repeated.
"""

from __future__ import annotations

import argparse
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import _machine

from kick_core.records import Example, Output, RunCard, Verdict
from kick_core.store import Store, open_store, results

WORDS = (
    "the", "a", "of", "to", "in", "city", "river", "who", "wrote", "was", "born", "year", "glass", "hall", "old",
)  # fmt: skip


def output(number: int) -> Output:
    """One answer; the same for the same number."""
    draw = random.Random(number)
    text = " ".join(draw.choices(WORDS, k=draw.randrange(20, 60)))
    return Output(f"e{number:07d}", f"{number:016x}", (f"{text} {number}",), stop="eos", tokens=40, prompt_tokens=90)


def card(name: str, total: int) -> RunCard:
    return RunCard(
        key=f"run1-{name:0>40}", model="m", fingerprint="f", recipe="dense", weights="dense1-00", task="factoid_qa",
        task_version=1, protocol="strict", data="pocket", examples=f"examples1-{name:0>40}", total=total, settings={},
        plan="p", dtype="float32", device="cpu", created=_machine.now(), versions={},
    )  # fmt: skip


def batches(count: int, size: int) -> Iterator[list[Output]]:
    for start in range(0, count, size):
        yield [output(number) for number in range(start, min(start + size, count))]


def record(store: Store, count: int, size: int) -> dict[str, float]:
    """Record without sealing, then read every record back from the database."""
    spent, worked, kept = 0.0, 0.0, 0
    with results.recorder(store, card("a", count)) as recorder:
        for batch in batches(count, size):
            began, at = time.perf_counter(), time.process_time()
            recorder.record(batch)
            spent, worked = spent + time.perf_counter() - began, worked + time.process_time() - at
        began = time.perf_counter()
        for batch in batches(count, 10_000):
            found = [recorder._get(one.example) for one in batch]
            kept += sum(one == other for one, other in zip(batch, found, strict=True))
        reading = time.perf_counter() - began
        bytes_ = sum(path.stat().st_size for path in store.live(card("a", count).key).iterdir())
    return {
        "records": count, "batch": size, "kept_and_equal": kept, "records_per_second": count / spent,
        "records_per_cpu_second": count / worked,
        "read_per_second": count / reading, "bytes_per_record": bytes_ / count,
    }  # fmt: skip


def opening(store: Store, count: int) -> dict[str, float]:
    """A finished run with its questions and verdicts: sealing it, then what a page does to show it."""
    made, names = card("b", count), [f"e{number:07d}" for number in range(count)]
    results.keep_examples(store, made.examples, [Example(n, (f"who is {n}, and why?",), answers=("A",)) for n in names])
    with results.recorder(store, made) as recorder:
        for batch in batches(count, 500):
            recorder.record(batch)
        began = time.perf_counter()
        recorder.seal(names)
        sealing = time.perf_counter() - began
    results.keep_verdicts(store, made.key, 1, [Verdict(name, "contains", 1.0, "x", "right") for name in names])
    figures = {"examples": float(count), "seal_seconds": sealing}
    for what, read in (
        ("outputs", lambda: results.outputs(store, made.key)),
        ("verdicts", lambda: results.verdicts(store, made.key, 1)),
        ("examples", lambda: results.examples(store, made.examples)),
    ):
        began, at = time.perf_counter(), time.process_time()
        assert len(read() or ()) == count
        figures[f"open_{what}_seconds"] = time.perf_counter() - began
        figures[f"open_{what}_cpu_seconds"] = time.process_time() - at
    return figures


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--records", type=int, default=1_000_000)
    given.add_argument("--batch", type=int, default=100)
    given.add_argument("--examples", type=int, default=16_000)
    given.add_argument("--out", type=Path)
    arguments = given.parse_args()
    folder = Path(tempfile.mkdtemp(dir=Path(__file__).parent))  # on the disk that results would be on, not in memory
    try:
        store = open_store(folder)
        figures = {
            "opening": opening(store, arguments.examples),
            "recording": record(store, arguments.records, arguments.batch),
        }
    finally:
        shutil.rmtree(folder)
    for part in figures.values():
        for name, value in part.items():
            print(f"{name:24}{value:,.3f}")
    _machine.write(arguments.out, "store", figures)


if __name__ == "__main__":
    main()
