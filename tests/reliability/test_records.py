"""Every record that was acknowledged comes back, however many there are: nothing is ever evicted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kick_core.store import Store, results
from tests.reliability import scenarios

ROOT = Path(__file__).resolve().parents[2]


def test_nothing_is_evicted(store: Store) -> None:
    names = [f"e{i:05d}" for i in range(3000)]
    with results.recorder(store, scenarios.run_card()) as recorder:
        for start in range(0, len(names), 100):
            recorder.record([scenarios.output(name) for name in names[start : start + 100]])
        assert recorder.cache.eviction_policy == "none" and recorder.cache.cull_limit == 0
        assert recorder.recorded(names) == set(names)
        (synchronous,) = recorder.cache._sql("PRAGMA synchronous").fetchone()
        assert synchronous == 2, "an acknowledged batch is on the disk"
        recorder.seal(names)
    assert results.outputs(store, scenarios.RUN) == [scenarios.output(name) for name in names]


def test_another_openers_settings_do_not_stay(store: Store) -> None:
    """diskcache keeps its settings in the file, and any program that opens it changes them for all: not here."""
    import diskcache

    with pytest.raises(KeyboardInterrupt), results.recorder(store, scenarios.run_card()) as recorder:
        recorder.record([scenarios.output("e00")])
        raise KeyboardInterrupt
    diskcache.Cache(str(store.live(scenarios.RUN)), eviction_policy="least-recently-used", size_limit=1000).close()
    with results.recorder(store, scenarios.run_card()) as recorder:
        names = [f"e{i:03d}" for i in range(300)]
        recorder.record([scenarios.output(name) for name in names])
        assert recorder.recorded(["e00", *names]) == {"e00", *names}


@pytest.mark.soak
def test_a_million_records(tmp_path: Path) -> None:
    out = tmp_path / "store.json"
    subprocess.run([sys.executable, "benchmarks/store.py", "--out", str(out)], cwd=ROOT, check=True)
    figures = json.loads(out.read_text())["recording"]
    assert figures["kept_and_equal"] == figures["records"] == 1_000_000
