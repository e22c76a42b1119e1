"""Running a sweep in the foreground: behind a progress bar, with its warnings."""

from __future__ import annotations

import sys

from kick_core.cli import printing
from kick_core.store import Store
from kick_core.sweeps import driver
from kick_core.sweeps.request import SweepJob, foreign
from kick_core.sweeps.sweep_keys import SweepKeys


def run_sweep(job: SweepJob, store: Store, workers: int | None = 1) -> SweepKeys:
    """Do what is left of a sweep.

    Args:
        job: The sweep.
        store: The cache.
        workers: Number of processes; None as many as pay.

    Returns:
        The keys of all its cells.
    """
    keys: SweepKeys = printing.bar(driver.run(job, store, workers))
    if warning := foreign(job):
        print(f"kick: {warning}", file=sys.stderr)
    if keys.model.decoder:
        print(f"kick: {job.model} holds codes, not plain weights; decoder: {keys.model.decoder}", file=sys.stderr)
    return keys
