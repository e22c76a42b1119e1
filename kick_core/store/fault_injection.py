"""Fault-injection points: tests end this process there, or fill the disk, to show that nothing is lost.

Everything that writes calls `point` between its steps. A plan says what happens: `kill:17` ends the process with
SIGKILL at its 17th point, `full:17` raises "no space left" there if it writes, `log:FILE` notes every point. Without a
plan a point costs one comparison.

A test that starts processes of its own hands them a plan in `KICK_FAULT`. It counts only beside
`KICK_FAULT_INJECTION=on`, which nothing but tests sets: one stray variable must not kill a user's program.
"""

from __future__ import annotations

import errno
import os
import signal

_plan = ""
_passed = 0


def arm(plan: str) -> None:
    """Follow a plan from now on, counting points from 1; an empty plan does nothing."""
    global _plan, _passed
    _plan, _passed = plan, 0


def point(name: str, *, writes: bool = False) -> None:
    """A point between two steps.

    Args:
        name: What `log:FILE` notes, with "writes " before it where bytes go to the disk.
        writes: Whether bytes go to the disk here, which may then be full.

    Raises:
        OSError: ENOSPC, where the plan says so.
    """
    if _plan:
        _follow(name, writes)


def _follow(name: str, writes: bool) -> None:
    global _passed
    _passed += 1
    fault, _, argument = _plan.partition(":")
    if fault == "log":
        with open(argument, "a") as file:
            file.write(f"{'writes ' * writes}{name}\n")
    elif argument == str(_passed):
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if writes:
            raise OSError(errno.ENOSPC, "No space left on device")


if os.environ.get("KICK_FAULT_INJECTION") == "on":
    arm(os.environ.get("KICK_FAULT", ""))
