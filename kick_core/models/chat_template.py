"""A model folder's chat template is a program of its author: it is run with little time and little memory.

Jinja's sandbox keeps it from reaching anything, but lets it loop for ever and multiply a text to any length.
"""

from __future__ import annotations

import resource
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from kick_core.errors import KickError

SECONDS = 5.0
MEMORY = 1 << 30
"""Bytes that a template may allocate beyond what the process has."""


class _TooLong(Exception):
    """The time is over."""


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
    """The text of a dialogue that waits for the assistant, by the tokenizer's own template.

    Raises KickError for a template that fails, does not end, or wants too much memory.
    """
    try:
        with _bounded():
            text: str = tokenizer.apply_chat_template(  # type: ignore[assignment]
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=True
            )
    except _TooLong:
        reason = f"it was not done after {SECONDS:.0f} seconds"
    except MemoryError:
        reason = f"it wants more than {MEMORY >> 20} MB"
    except Exception as error:  # whatever a program of somebody else's raises
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    else:
        return text
    raise KickError(f"the chat template of {tokenizer.name_or_path} cannot be used: {reason}")


@contextmanager
def _bounded() -> Iterator[None]:
    """A deadline, where there is a main thread to interrupt, and a limit on memory, where the system has one."""
    alarm = threading.current_thread() is threading.main_thread()
    limit = _limit_memory()
    if alarm:
        handler = signal.signal(signal.SIGALRM, _ring)
        left, _ = signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        if alarm:
            signal.setitimer(signal.ITIMER_REAL, left)
            signal.signal(signal.SIGALRM, handler)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_AS, limit)


def _limit_memory() -> tuple[int, int] | None:
    """Set the limit; what it was before, or None where it stays."""
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = used + MEMORY
        if soft != resource.RLIM_INFINITY and soft < wanted:
            return None
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
        return soft, hard
    except (OSError, ValueError):
        return None


def _ring(number: int, frame: object) -> None:
    raise _TooLong
