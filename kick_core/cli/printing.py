"""How results and progress look on a terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tqdm import tqdm

from kick_core.cli.formats import clean
from kick_core.cli.formats import print_table as table
from kick_core.records import Card, Progress
from kick_core.units import duration_text

__all__ = ["bar", "bits", "blank_as", "clean", "clean_text", "document", "lines", "table"]

Result = TypeVar("Result")


def bar(progress: Generator[Progress, None, Result] | Iterator[Progress]) -> Result:
    """Run work behind a progress bar on standard error: the cell, the block's loss and the time left.

    Args:
        progress: The work. Its warnings are printed above the bar.

    Returns:
        What the generator returns.
    """
    steps = iter(progress)
    with tqdm(unit="", file=sys.stderr, dynamic_ncols=True, bar_format=_FORMAT, mininterval=0.2) as shown:
        while True:
            try:
                at = next(steps)
            except StopIteration as end:
                result: Result = end.value
                return result
            if at.warning:
                tqdm.write(f"kick: {clean(at.warning)}", file=sys.stderr)
                continue
            shown.total, shown.n = max(at.total, 1e-9), at.done
            shown.set_postfix_str(_words(at), refresh=False)
            # the first word and the last at once, in between five times a second
            shown.refresh() if at.done in (0, at.total) else shown.update(0)


_FORMAT = "{percentage:3.0f}% |{bar:24}| {elapsed}  {postfix}"


def _words(at: Progress) -> str:
    block = f"block {at.block + 1}/{at.blocks}" if at.block is not None else ""
    loss = f"loss {at.loss:.2g}" if at.loss is not None else ""
    left = f"{duration_text(at.remaining)} left" if at.remaining else ""
    return "  ".join(word for word in (left, clean(at.cell), block, loss, clean(at.message)) if word)


def document(data: Any) -> None:
    """One JSON document on standard output; what was not measured is null."""
    print(json.dumps(_plain(data), indent=2, ensure_ascii=False))


def _plain(data: Any) -> Any:
    match data:
        case float() if not math.isfinite(data):
            return None
        case dict():
            return {name: _plain(value) for name, value in data.items()}
        case list() | tuple():
            return [_plain(value) for value in data]
        case _:
            return data


def bits(card: Card, stored: Mapping[str, float]) -> float:
    """Bits per weight of an artifact, by the bytes that all artifacts take on disk."""
    return 8 * stored.get(card.key, 0) / card.weights if card.weights else 0.0


def lines(title: str, said: Sequence[str]) -> None:
    """Sentences under a title that stands beside the first."""
    for at, line in enumerate(said):
        print(f"{title if at == 0 else ' ' * len(title)} {clean(line)}")


def clean_text(text: str) -> str:
    """The same of what a model wrote, whose lines stay lines."""
    return "\n".join(clean(line) for line in text.split("\n"))


def blank_as(value: float, form: str, other: str = "–") -> str:
    """A number in a format, or a dash when there is none."""
    return format(value, form) if math.isfinite(value) else other
