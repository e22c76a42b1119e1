"""Following instructions over two turns (LLM-KICK's instruction following; MT-Bench and Vicuna-80).

The pocket instructions ask for things that can be checked without a judge: words that must stand in the
answer, its beginning, its length, its number of lines. The second turn is asked after the model's own first.
"""

from __future__ import annotations

import re
from typing import Any

from kick_core.records import Example, Output
from kick_core.tasks import Judged, Task
from kick_core.tasks._pocket import meta, rows
from kick_core.tasks._scorers import form_of, repeated, stands_in, unique_words


def _load(data: str) -> tuple[Example, ...]:
    return tuple(
        Example(
            row["id"],
            tuple(row["turns"]),
            answers=tuple(row["references"]),
            meta=meta(row, "category", "checks"),
        )
        for row in rows("instructions", data)
    )


def _edge(text: str) -> str:
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def met(check: dict[str, Any], text: str) -> bool:
    """Whether an answer meets one check. Raises ValueError for an unknown kind."""
    value = check["value"]
    match check["kind"]:
        case "contains":
            return stands_in(text, value if isinstance(value, list) else [value])
        case "not_contains":
            return not stands_in(text, value if isinstance(value, list) else [value])
        case "starts_with":
            return _edge(text).startswith(_edge(value))
        case "ends_with":
            return _edge(text).endswith(_edge(value))
        case "max_words":
            return 0 < len(text.split()) <= value
        case "min_words":
            return len(text.split()) >= value
        case "lines":
            return len([line for line in text.splitlines() if line.strip()]) == value
        case kind:
            raise ValueError(f"unknown check {kind!r}")


def followed(example: Example, output: Output) -> Judged:
    """Share of the checks of both turns that the answers meet."""
    results: list[tuple[str, bool]] = []
    for turn, checks in enumerate(example.meta["checks"]):
        text = output.text[turn] if turn < len(output.text) else ""
        results += [(f"turn {turn + 1} {c['kind']} {c['value']}", bool(text.strip()) and met(c, text)) for c in checks]
    failed = [name for name, good in results if not good]
    why = "right" if not failed else form_of(output) or "wrong"
    return Judged(1 - len(failed) / len(results), f"failed: {'; '.join(failed)}" if failed else "", why)


TASK = Task(
    name="instructions",
    title="Instructions",
    about="two-turn instructions; share of the checkable demands that the answers meet",
    version=1,
    kind="dialogue",
    load=_load,
    scorers={"followed": followed, "repeated": repeated, "unique_words": unique_words},
    headline="followed",
    new_tokens=48,
)
