"""Many people at once: sessions that move sliders on a running explorer, over its own websocket protocol.

    python benchmarks/sessions.py --sessions 20 --seconds 180

Each session opens the Findings page and then moves its slider every second or so, as a browser tells it, and waits
until the script has run. Told are the seconds of a rerun, errors, and the server's memory after a third of the time
and at the end. Everything stays on 127.0.0.1; the cache is made up.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _machine
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def memory(process: subprocess.Popen[bytes]) -> int:
    """Resident bytes of the server."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


@dataclass
class InputStats:
    """What one session saw."""

    slider: str = ""
    reruns: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def session(port: int, number: int, until: float, pause: float) -> InputStats:
    """One browser's worth of traffic."""
    from websockets.sync.client import connect

    seen, chance = InputStats(), random.Random(number)
    address = f"127.0.0.1:{port}"
    try:
        with connect(
            f"ws://{address}/_stcore/stream", origin=f"http://{address}", subprotocols=["streamlit"], max_size=None
        ) as line:
            _rerun(line, None, seen)
            seen.reruns.clear()  # arriving is not a rerun
            while time.monotonic() < until:
                time.sleep(pause * (0.5 + chance.random()))
                _rerun(line, 10 * chance.randrange(1, 8), seen)
    except Exception as error:  # a session that breaks off is what is counted here
        seen.errors.append(f"{type(error).__name__}: {error}")
    return seen


def _rerun(line: Any, percent: int | None, seen: InputStats) -> None:
    """Move the slider and wait until the page has run; a page that does not show where it stands is an error."""
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

    wanted = BackMsg()
    wanted.rerun_script.query_string = "" if percent is None else f"s={percent}"
    if percent is not None:
        state = wanted.rerun_script.widget_states.widgets.add(id=seen.slider)
        state.double_array_value.data.append(percent)
    expected = f"At {50 if percent is None else percent} % sparsity"
    began, shown = time.perf_counter(), False
    line.send(wanted.SerializeToString())
    while True:
        told = ForwardMsg()
        told.ParseFromString(line.recv(timeout=60))
        kind = told.WhichOneof("type")
        if kind == "delta" and told.delta.WhichOneof("type") == "new_element":
            element = told.delta.new_element
            shown = shown or expected in element.html.body
            seen.slider = element.slider.id or seen.slider
            if element.WhichOneof("type") == "exception":
                seen.errors.append(element.exception.message)
        elif kind == "script_finished" and told.script_finished != ForwardMsg.FINISHED_EARLY_FOR_RERUN:
            break
    seen.reruns.append(time.perf_counter() - began)
    if not shown:
        seen.errors.append(f"the page does not say {expected!r}")


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--sessions", type=int, default=20)
    given.add_argument("--seconds", type=float, default=180)
    given.add_argument("--pause", type=float, default=1.0, help="seconds between two moves of one session")
    given.add_argument("--out", type=Path)
    arguments = given.parse_args()
    from tests import synthetic
    from tests.served import started

    with tempfile.TemporaryDirectory() as folder:
        synthetic.make(Path(folder) / "cache")
        with started(Path(folder) / "cache") as (port, process):
            until = time.monotonic() + arguments.seconds
            with ThreadPoolExecutor(arguments.sessions) as pool:
                asked = [
                    pool.submit(session, port, number, until, arguments.pause) for number in range(arguments.sessions)
                ]
                time.sleep(arguments.seconds / 3)
                before = memory(process)
                seen = [one.result() for one in asked]
            after = memory(process)
    reruns = np.array([one for each in seen for one in each.reruns])
    errors = [error for each in seen for error in each.errors]
    figures = {
        "sessions": arguments.sessions, "seconds": arguments.seconds, "reruns": len(reruns), "errors": len(errors),
        "first_errors": errors[:3],
        "p50_seconds": float(np.median(reruns)), "p95_seconds": float(np.quantile(reruns, 0.95)),
        "memory_after_a_third": before, "memory_at_the_end": after,
    }  # fmt: skip
    for name, value in figures.items():
        print(f"{name:24}{value}")
    _machine.write(arguments.out, "sessions", figures)


if __name__ == "__main__":
    main()
