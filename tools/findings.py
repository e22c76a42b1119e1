"""The numbers and pictures of docs/findings.md, its tables and the README, from measured results.

    python -m tools.findings [--cache DIR] [PACK …]       # without either: the packs of the gallery

Every `<!-- NAME -->` … `<!-- end -->` of the document is replaced by the block of that name; sentences outside of them
are the author's and stay. Pictures are static SVG beside it. Results in, the same bytes out.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from kick_core import packs, tasks, views
from kick_core.packs import gallery
from kick_core.store import open_store
from kick_core.units import score_text
from kick_core.views import charts
from kick_core.views.html_report import svg
from tools import relations

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT, README = ROOT / "docs" / "findings.md", ROOT / "README.md"
TABLES = ROOT / "docs" / "findings" / "tables.md"

ROWS = (*(f"0.{tenths}" for tenths in range(1, 8)), "2:4", "4:8", "1:2", "8 bit", "4 bit", "3 bit", "2 bit")
"""The targets of the long table; dense comes first."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: read results, fill the document, draw the pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("packs", nargs="*", type=Path, metavar="PACK", help="default: those of the gallery")
    parser.add_argument("--cache", metavar="DIR", help="results of this cache instead")
    parser.add_argument("--documents", nargs="+", type=Path, default=[DOCUMENT, TABLES, README], metavar="FILE")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        store = open_store(args.cache or folder)
        for path in args.packs or ([] if args.cache else gallery.packs()):
            packs.unpack(path, store)
        for document in args.documents:
            fill(store, document)
    return 0


def fill(store: views.Store, document: Path) -> None:
    """Replace the document's blocks, and draw its pictures beside it."""
    scores = views.scores(store)
    names = [name for name in views.models(store) if name not in views.POCKETS]
    blocks: dict[str, Callable[[], str]] = {
        "measured": lambda: _each(names, lambda name: _measured(_frame(scores, name))),
        "table": lambda: _each(names, lambda name: _table(_frame(scores, name))),
        "paper": lambda: _each(names, lambda name: _table(_paper(scores, name))),
        "short": lambda: _each(names, lambda name: _summary(_frame(scores, name), intervals=True)),
        "summary": lambda: _each(names, lambda name: _summary(_frame(scores, name), intervals=False)),
        "claims": lambda: _each(names, lambda name: _claims(_frame(scores, name))),
        "popularity": lambda: _each(names, lambda name: relations.popularity(store, _frame(scores, name))),
        "correlation": lambda: _each(names, lambda name: relations.correlation(_frame(scores, name))),
        "fidelity": lambda: _each(names, lambda name: relations.fidelity(store, _frame(scores, name))),
        "forms": lambda: _each(names, lambda name: relations.forms(scores, name)),
        "recovery": lambda: _each(names, lambda name: relations.recovery(store, _frame(scores, name))),
        "seeds": lambda: _each(names, lambda name: relations.seeds(scores, name)),
        "pocket": lambda: relations.pocket(scores, names),
        "pictures": lambda: _each(names, lambda name: _pictures(_frame(scores, name), name, document.parent)),
    }
    text = document.read_text(encoding="utf-8")
    for name in re.findall(r"<!-- ([a-z]+) -->", text):
        if name in blocks:
            print(f"{name} …", file=sys.stderr)
            text = replace_block(text, name, blocks[name]())
    document.write_text(text, encoding="utf-8")


def replace_block(text: str, name: str, block: str) -> str:
    """A document with another block of this name."""
    before, _, rest = text.partition(f"<!-- {name} -->\n")
    return f"{before}<!-- {name} -->\n{block}\n<!-- end -->{rest.partition('<!-- end -->')[2]}"


def _frame(scores: pd.DataFrame, model: str) -> pd.DataFrame:
    return views.current(scores, model, "strict")


def _paper(scores: pd.DataFrame, model: str) -> pd.DataFrame:
    """What was asked by the paper's own protocol, without the tasks that both protocols share."""
    return views.current(scores[scores["protocol"] == "paper"], model, "paper")


def _each(models: Sequence[str], block: Callable[[str], str]) -> str:
    """A block for every model, under its name."""
    return "\n\n".join(f"**{name}**\n\n{block(name)}" for name in models)


def _measured(frame: pd.DataFrame) -> str:
    first, last = frame["created"].str[:10].min(), frame["created"].str[:10].max()
    days = first if first == last else f"{first} to {last}"
    where = sorted(set(frame["dtype"] + " on " + frame["device"]))
    counts = "; ".join(
        f"{rows['title'].iloc[0]} {_asked(rows, len(where) > 1)}" for _, rows in frame.groupby("task", sort=False)
    )
    return (
        f"{frame['recipe'].nunique()} recipes, dense among them; {int(frame['n'].sum()):,} scored answers; "
        f"{', '.join(where)}, {days}. Examples a recipe, and the form of prompting: {counts}."
    )


def _asked(rows: pd.DataFrame, several: bool) -> str:
    """How many examples the recipes of a task were asked, in which form, and on what where that differs by task."""
    least, most = int(rows["n"].min()), int(rows["n"].max())
    ways = [*rows["prompting"].unique(), *(rows["device"].unique() if several else ())]
    return (f"{most:,}" if least == most else f"{least:,} to {most:,}") + f" ({', '.join(map(str, ways))})"


def _table(frame: pd.DataFrame) -> str:
    """Scores with 95 % intervals: dense, the recipes of the chosen targets, then joint and searched ones; one column a
    task. A cell of another number of examples than dense, or of another device, says so."""
    plain = frame[frame["recovered"] == ""]
    columns = {str(task): rows for task, rows in plain.groupby("task", sort=False)}
    dense = {
        task: rows.sort_values("kind", key=lambda kinds: kinds != "dense").iloc[0] for task, rows in columns.items()
    }
    heads = [f"{dense[task]['title']} ({dense[task]['n']:,})" for task in columns]
    lines = [f"| recipe | {' | '.join(heads)} |", f"|---|{'---|' * len(columns)}"]
    recipes = list(dict.fromkeys(plain["recipe"]))
    ordered = [name for target in ("dense", *ROWS) for name in recipes if _matches(name, target)]
    for recipe in dict.fromkeys([*ordered, *(name for name in recipes if "+" in name or "alloc=" in name)]):
        rows = {row["task"]: row for row in plain[plain["recipe"] == recipe].to_dict("records")}
        cells = [_cell(rows[task], dense[task]) if task in rows else "–" for task in columns]
        lines.append(f"| {views.label_of(recipe)} | {' | '.join(cells)} |")
    return "\n".join(lines)


SUMMARY = (
    "dense", "magnitude@0.3", "wanda@0.3", "sparsegpt@0.3", "wanda@0.5", "sparsegpt@0.5", "wanda@2:4", "sparsegpt@2:4",
    "rtn@4bit", "awq@4bit", "gptq@4bit", "gptq@3bit",
)  # fmt: skip
"""The rows of the short tables; options do not count."""


def _summary(frame: pd.DataFrame, intervals: bool) -> str:
    """A few recipes on what dense is not guessing at: with intervals all such tasks, without them perplexity and the
    facts that ship."""
    plain = frame[(frame["recovered"] == "") & ~frame["recipe"].str.contains("alloc=")]
    compressed = set(plain.loc[plain["kind"] != "dense", "task"]) - relations.guessing(frame)
    shown = [
        str(name)
        for name in dict.fromkeys(frame["task"])
        if name in compressed and (intervals or tasks.record(name).shipped or tasks.record(name).measures == "fluency")
    ]
    dense = {row["task"]: row for _, row in plain.iterrows() if row["kind"] == "dense"}
    heads = [dense[task]["title"] + (f" ({dense[task]['n']:,})" if intervals else "") for task in shown]
    lines = [f"| recipe | {' | '.join(heads)} |", f"|---|{'---|' * len(shown)}"]
    recipes = dict.fromkeys(plain["recipe"])
    for recipe in [name for wanted in SUMMARY for name in recipes if str(name).split(",")[0] == wanted]:
        rows = {row["task"]: row for row in plain[plain["recipe"] == recipe].to_dict("records")}
        cells = [_cell(rows[task], dense[task], intervals) if task in rows else "–" for task in shown]
        lines.append(f"| {views.label_of(recipe)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _matches(recipe: str, target: str) -> bool:
    method, _, rest = recipe.partition("@")
    if "alloc=" in rest:
        return False
    return recipe == target if target == "dense" else rest.split(",")[0] == target.replace(" ", "") and method != ""


def _cell(row: Mapping[Any, Any], dense: pd.Series, interval: bool = True) -> str:
    better = bool(row["higher_is_better"])
    score, low, high = (score_text(float(row[name]), better) for name in ("score", "low", "high"))
    if not interval:
        return score
    other = [f"{row['n']:,}"] if row["n"] != dense["n"] else []
    other += [str(row["device"])] if row["device"] != dense["device"] else []
    return f"{score} [{low.removesuffix(' %')}, {high.removesuffix(' %')}]" + (
        f" ({', '.join(other)})" if other else ""
    )


def _claims(frame: pd.DataFrame) -> str:
    """Every claim of the paper, part by part."""
    guessing = relations.guessing(frame)
    titles = frame.drop_duplicates("task").set_index("task")["title"]
    knowledge = {task for task in titles.index if tasks.record(str(task)).measures == "knowledge"}
    lines = ["| claim | part | verdict | because |", "|---|---|---|---|"]
    unknown = []
    for claim in views.claims(frame):
        heading = claim.text
        for part in claim.parts:
            verdict, because = str(part.verdict), part.because
            named = {task for task in titles.index if part.text.startswith(f"{titles[task]} ")} or knowledge
            if verdict == "not measured" and named and named <= guessing:
                verdict, because = "nothing to lose", "dense itself may be guessing"
            if verdict == "not measured":
                unknown.append(part.text)
                continue
            lines.append(f"| {heading} | {part.text} | **{verdict}** | {because} |")
            heading = ""
    if unknown:
        lines.append(f"\nNot measured: {', '.join(unknown)}.")
    lost = frame[(frame["kind"] == "dense") & frame["share_kept"].isna()]
    if len(lost):
        lines.append(f"\nNothing to lose, because dense itself may be guessing: {', '.join(lost['title'])}.")
    return "\n".join(lines)


def _pictures(frame: pd.DataFrame, model: str, folder: Path) -> str:
    """One picture for every pruning method with two sparsities or more: the share of dense that each task keeps."""
    lines = []
    stem = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")
    plain = frame[(frame["recovered"] == "") & ~frame["recipe"].str.contains("alloc=")]
    counts = plain[plain["kind"] == "ratio"].groupby("method")["recipe"].nunique()
    for method in sorted(counts[counts > 1].index):
        title = f"{model}: share of the dense score kept by every task under {method}, against sparsity"
        picture = svg.draw(charts.overlay(plain, str(method)), title)
        path = folder / f"{stem}-{method}.svg"
        style = 'xmlns="http://www.w3.org/2000/svg" style="background:#ffffff;color:#222222;font-family:sans-serif"'
        path.write_text(picture.replace("<svg ", f"<svg {style} ", 1) + "\n", encoding="utf-8")
        lines.append(f"![{title}]({path.name})")
    return "\n".join(lines) or "(no method was measured at two sparsities)"


if __name__ == "__main__":
    raise SystemExit(main())
