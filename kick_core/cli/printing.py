"""How results and progress look on a terminal."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from kick_core.records import Card, Progress


def bar(progress: Iterable[Progress]) -> None:
    """Run a sweep behind a progress bar on standard error, with the cell, the block's loss and the time left."""
    with tqdm(unit="", file=sys.stderr, dynamic_ncols=True, bar_format=_FORMAT, mininterval=0.2) as shown:
        for at in progress:
            shown.total = max(at.total, 1e-9)
            shown.n = at.done
            words = [at.cell]
            if at.block is not None:
                words.append(f"block {at.block + 1}/{at.blocks}")
            if at.loss is not None:
                words.append(f"loss {at.loss:.2g}")
            if at.message:
                words.append(at.message)
            shown.set_postfix_str("  ".join(word for word in words if word), refresh=False)
            shown.refresh() if at.done == at.total else shown.update(0)


_FORMAT = "{percentage:3.0f}% |{bar:24}| {elapsed} < {remaining}  {postfix}"


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
    """Bits that an artifact takes a weight, of the bytes that all artifacts take on disk."""
    return 8 * stored.get(card.key, 0) / card.weights if card.weights else 0.0


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """An aligned table on standard output; numbers to the right."""
    lines = [list(header), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        print("  ".join(_aligned(cell, width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _aligned(cell: str, width: int) -> str:
    return cell.rjust(width) if cell[:1].isdigit() or cell[:1] in "-+" else cell.ljust(width)


def lines(title: str, said: Sequence[str]) -> None:
    """Sentences under a title that stands beside the first."""
    for at, line in enumerate(said):
        print(f"{title if at == 0 else ' ' * len(title)} {clean(line)}")


def clean(text: str) -> str:
    """Names of files and models are untrusted: no control characters reach the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def clean_text(text: str) -> str:
    """The same of what a model wrote, whose lines stay lines."""
    return "\n".join(clean(line) for line in text.split("\n"))


def size(count: float) -> str:
    """Bytes in words."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def blank_as(value: float, form: str, other: str = "–") -> str:
    """A number in a format, or a dash when there is none."""
    return format(value, form) if math.isfinite(value) else other
