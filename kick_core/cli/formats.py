"""Tables on standard output: aligned for people, Markdown for papers and issues, CSV for programs."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterable, Sequence

FORMATS = TABLE, MARKDOWN, CSV, JSON = ("table", "md", "csv", "json")
"""What `--format` takes; `json` is what `--json` prints."""


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]], form: str = TABLE) -> None:
    """Print a table.

    Args:
        header: the columns' names.
        rows: cells as text.
        form: one of `FORMATS` but `json`. In CSV a cell that a spreadsheet would take for a formula gets an apostrophe.
    """
    {TABLE: _aligned, MARKDOWN: _markdown, CSV: _csv}[form](header, [list(row) for row in rows])


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    lines = [list(header), *([clean(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    for line in lines:
        cells = (
            cell.rjust(width) if numeric(cell) else cell.ljust(width)
            for cell, width in zip(line, widths, strict=True)
        )  # fmt: skip
        print("  ".join(cells).rstrip())


def numeric(cell: str) -> bool:
    """Whether a cell begins as a number does; such cells stand on the right."""
    return cell[:1].isdigit() or cell[:1] in "-+"


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    right = [all(numeric(row[column]) or row[column] in ("", "–") for row in rows) for column in range(len(header))]
    print(f"| {' | '.join(header)} |")
    print("|" + "|".join("---:" if own else "---" for own in right) + "|")
    for row in rows:
        print(f"| {' | '.join(clean(cell).replace('|', chr(92) + '|') for cell in row)} |")


def _csv(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_harmless(cell) for cell in row] for row in rows)


def _harmless(cell: str) -> str:
    """Text of a model must not become a formula; numbers stay as they are."""
    if cell[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return cell
    try:
        float(cell)
    except ValueError:
        return f"'{cell}"
    return cell


def clean(text: str) -> str:
    """Names of files and models are untrusted: no control characters reach the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)
