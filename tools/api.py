"""docs/api.md from the docstrings of the public names: `python -m tools.api` writes it, `--check` only compares."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import kick_core
from kick_core import records

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"
RESULTS = (records.BlockReport, records.Card, records.Output)
"""What the public functions yield."""
CHAPTERS: tuple[tuple[str, Callable[[Any], bool]], ...] = (
    ("Functions", inspect.isfunction),
    ("Recipes, models and calibration", lambda value: value.__module__ == "kick_core.spec"),
    ("Results", lambda value: value in RESULTS or value is kick_core.CompressedMatrix),
    ("Errors", lambda value: isinstance(value, type) and issubclass(value, Exception)),
)
_SECTION = re.compile(r"(Args|Attributes|Returns|Yields|Raises):")
_ENTRY = re.compile(r"    (\w+): (.*)")


def page() -> str:
    """The whole page, as Markdown."""
    values = [getattr(kick_core, name) for name in kick_core.__all__] + list(RESULTS)
    lines = [
        "# The Python interface",
        "",
        "Generated from the docstrings by `make docs`; do not edit. Import these names from `kick_core`, but",
        "`BlockReport`, `Card` and `Output` from `kick_core.records`. [usage.md](usage.md) has examples.",
    ]
    for title, belongs in CHAPTERS:
        lines += ["", f"## {title}"]
        for value in filter(belongs, values):
            lines += ["", *entry(value)]
    return "\n".join(lines) + "\n"


def entry(value: Any) -> Iterator[str]:
    """One name: its signature, and its docstring with the sections as lists."""
    yield f"### `{value.__name__}`"
    if inspect.isfunction(value) or dataclasses.is_dataclass(value):
        yield from ("", "```python", signature(value), "```")
    yield ""
    for line in (inspect.getdoc(value) or "").splitlines():
        if heading := _SECTION.fullmatch(line):
            yield from (f"**{heading[1]}**", "")
        elif item := _ENTRY.fullmatch(line):
            yield f"- `{item[1]}`: {item[2]}"
        else:
            yield line.replace("        ", "  ", 1) if line.startswith("        ") else line.strip()


def signature(value: Any) -> str:
    """As in the source, one parameter per line where it is long. Annotations are strings, as the sources defer them."""
    words: list[str] = []
    for p in inspect.signature(value).parameters.values():
        words += ["*"] if p.kind is p.KEYWORD_ONLY and "*" not in words else []
        words.append(f"{p.name}: {p.annotation}" + ("" if p.default is p.empty else f" = {p.default!r}"))
    result = f" -> {value.__annotations__['return']}" if inspect.isfunction(value) else ""
    short = f"{value.__name__}({', '.join(words)}){result}"
    if len(short) <= 100:
        return short
    return "\n".join([f"{value.__name__}(", *(f"    {word}," for word in words), f"){result}"])


def main() -> int:
    """Exit status 1 where `--check` finds that the page is not current."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
        print(f"{PAGE} is not current: run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
