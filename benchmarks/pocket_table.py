"""The README's table: share of the dense score kept, from a cache that `make demo` filled.

python benchmarks/pocket_table.py [CACHE]
"""

from __future__ import annotations

import sys

from kick_core import views

RECIPES = ("magnitude@0.5", "wanda@0.4", "wanda@0.5", "sparsegpt@0.5", "wanda@2:4", "gptq@4bit", "gptq@3bit")


def table(cache: str | None) -> str:
    """A Markdown table; a cell that is not measured says so."""
    frame = views.current(views.scores(views.open_store(cache)), "pocket-11m")
    titles = views.task_titles(frame["task"].unique())
    lines = ["| recipe | " + " | ".join(titles.values()) + " |", "|---" * (len(titles) + 1) + "|"]
    for recipe in RECIPES:
        mine = frame[frame["recipe"] == recipe].set_index("task")
        cells = [f"{mine.loc[task, 'share_kept']:.0%}" if task in mine.index else "not measured" for task in titles]
        label = mine["label"].iloc[0] if len(mine) else recipe
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(sys.argv[1] if len(sys.argv) > 1 else None))
