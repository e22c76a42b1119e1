"""A model folder's chat template is a program of its author: it is run with little time and little memory.

Jinja's sandbox keeps it from reaching anything, but lets it loop for ever and multiply a text to any length.
"""

from __future__ import annotations

import re
import resource
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from kick_core.errors import KickError

DATE = datetime(2025, 1, 1)
"""The date that every template is given: with today's, the same question would be another prompt tomorrow."""

SECONDS = 5.0
MEMORY = 1 << 30
"""Bytes that a template may allocate beyond what the process has."""


THINKING = 1024
"""Tokens that a model may think before it answers, where its template cannot switch that off."""


class _TooLong(Exception):
    """The time is over."""


def fixed(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """What is held fixed of the tokenizer's template; part of a run's settings, empty where it reads no such thing.

    Returns:
        `date` where the template writes one; `thinking` "off" where it can be switched off.

    Raises:
        KickError: several templates without a default.
    """
    template = _source(tokenizer) if tokenizer.chat_template else ""
    facts = {}
    if "strftime_now" in template or "date_string" in template:
        facts["date"] = DATE.date().isoformat()
    if "enable_thinking" in template:
        facts["thinking"] = "off"
    return facts


def thinks(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template is one of a reasoning model and has no switch for that. Raises as `fixed` does."""
    template = _source(tokenizer) if tokenizer.chat_template else ""
    return "think>" in template and "enable_thinking" not in template


def _source(tokenizer: PreTrainedTokenizerBase) -> str:
    """The default template's text."""
    templates = tokenizer.chat_template
    if isinstance(templates, dict) and "default" not in templates:
        names = ", ".join(sorted(templates))
        raise KickError(f"{tokenizer.name_or_path} has several chat templates ({names}) and none is the default")
    return str(tokenizer.get_chat_template())


def render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Mapping[str, str]]) -> str:
    """The text of a dialogue that waits for the assistant, by the tokenizer's own template.

    Raises KickError for a template that fails, does not end, or wants too much memory.
    """
    source = _source(tokenizer)
    try:
        with _bounded():
            text: str = tokenizer.apply_chat_template(  # type: ignore[assignment]
                [dict(message) for message in messages],
                tokenize=False,
                add_generation_prompt=True,
                chat_template=_dated(source),
                date_string=DATE.strftime("%d %b %Y"),
                enable_thinking=False,
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


_NOW = re.compile(r"""strftime_now\(\s*(["'])([^"']*)\1\s*\)""")


def _dated(template: str) -> str:
    """The template with `DATE` written where it asks for today's.

    transformers hands a template plain values only, so its clock cannot be replaced from outside. Formats are literals
    in every template that we know of; a computed one gets the ISO date.
    """
    template = _NOW.sub(lambda match: repr(DATE.strftime(match[2])), template)
    if "strftime_now" in template:
        template = "{%- macro strftime_now(format) -%}" + DATE.date().isoformat() + "{%- endmacro -%}" + template
    return template


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
