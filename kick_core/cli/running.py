"""Running a sweep in the foreground: behind a progress bar, with its warnings."""

from __future__ import annotations

import sys

from kick_core.cli import printing
from kick_core.errors import KickError
from kick_core.store import Store
from kick_core.sweeps import driver
from kick_core.sweeps.request import SweepJob, foreign, skipped_text
from kick_core.sweeps.sweep_keys import SweepKeys


def skipped(keys: SweepKeys) -> int:
    """Say which tasks were left out; the exit status that this makes."""
    if not keys.skipped:
        return 0
    print(f"kick: {printing.clean(skipped_text(keys.skipped))}", file=sys.stderr)
    return 1


def run_sweep(job: SweepJob, store: Store, workers: int | None = 1, *, partly: bool = False) -> SweepKeys:
    """Do what is left of a sweep.

    Args:
        job: The sweep.
        store: The cache.
        workers: Number of processes; None as many as pay.
        partly: Whether tasks may be left out whose data cannot be read; the keys then say which.

    Returns:
        The keys of all its cells.

    Raises:
        KickError: For a task that was left out, unless `partly`.
    """
    keys: SweepKeys = printing.bar(driver.run(job, store, workers))
    if keys.skipped and not partly:
        raise KickError(skipped_text(keys.skipped))
    if warning := foreign(job):
        print(f"kick: {warning}", file=sys.stderr)
    if keys.model.decoder:
        print(f"kick: {job.model} holds codes, not plain weights; decoder: {keys.model.decoder}", file=sys.stderr)
    if bos := keys.model.unused_bos:
        print(
            f"kick: the tokenizer of {job.model} names {bos} as the beginning of a text but does not add it: texts "
            f"other than chats begin without it (--bos always puts it there)",
            file=sys.stderr,
        )
    return keys
