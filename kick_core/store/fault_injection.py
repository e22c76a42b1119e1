"""Places at which a test lets this process die, or the disk be full, to show that nothing is lost there.

Everything that writes calls `here` between its steps. `KICK_FAULT` in the environment, read once at import, says what
happens: `kill:17` ends the process with SIGKILL at the 17th place that it comes to, `full:17` lets the disk be full
there, `log:FILE` writes down every place. Without it a place costs one comparison.
"""

from __future__ import annotations

import errno
import os
import signal

_plan = ""
_passed = 0


def arm(plan: str) -> None:
    """Follow a plan from here on; an empty one does nothing."""
    global _plan, _passed
    _plan, _passed = plan, 0


def here(place: str, *, writes: bool = False) -> None:
    """One place between two steps; `writes` where bytes go to the disk, which may be full there."""
    if _plan:
        _follow(place, writes)


def _follow(place: str, writes: bool) -> None:
    global _passed
    _passed += 1
    what, _, where = _plan.partition(":")
    if what == "log":
        with open(where, "a") as file:
            file.write(f"{place}\n")
    elif where == str(_passed):
        if what == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if writes:
            raise OSError(errno.ENOSPC, "No space left on device")


arm(os.environ.get("KICK_FAULT", ""))
