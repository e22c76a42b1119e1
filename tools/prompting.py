"""Which form of a question suits a model, and what compression does to its answers: the blocks of docs/real-models.md.

    python -m tools.prompting MODEL … [--limit 100] [--cache DIR] [--dtype float32] [--windows 16] [--document FILE]

Asks dense every shipped task in every form, and compressed models the closed book; what the cache holds is read. The
block of a model replaces `<!-- its name -->` … `<!-- end -->` of the document; sentences outside are the author's.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from kick_core import tasks, views
from kick_core.cli.running import run_sweep
from kick_core.errors import BadRequest
from kick_core.evaluation.prompting import Prompting, settle
from kick_core.spec import DENSE
from kick_core.store import Store, open_store
from kick_core.sweeps.request import SweepJob, preset
from kick_core.units import score_text
from kick_core.views import TaskCheck
from tools.findings import ROOT, replace_block

DOCUMENT = ROOT / "docs" / "real-models.md"
FORMS = ("auto", "raw", "chat", "shots:5")
RECIPES = (DENSE.text, "wanda@0.3", "wanda@0.5", "gptq@4bit,group=64")
ASKED, ANSWERS, WIDTH = 40, 10, 110
"""Questions that compressed models are asked, how many are shown, and the characters of each answer that are."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line: ask, and write a block per model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--limit", type=int, default=100, help="examples per task")
    parser.add_argument("--tasks", nargs="+", metavar="T", help="default: those of kick sweep --preset facts")
    parser.add_argument("--cache", metavar="DIR")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--windows", type=int, default=16, help="of calibration, 512 tokens each")
    parser.add_argument("--propagate", choices=("compressed", "dense"), default="dense", help="as in kick sweep")
    parser.add_argument("--document", type=Path, default=DOCUMENT, metavar="FILE")
    args = parser.parse_args(arguments)
    store = open_store(args.cache)
    for model in args.models:
        job = preset("facts", model)
        calibration = replace(job.calibration, windows=args.windows, propagate=args.propagate)
        names = tuple(args.tasks or job.tasks)
        job = replace(job, tasks=names, limit=args.limit, dtype=args.dtype, calibration=calibration)
        name = Path(model).name.removesuffix(".gguf")
        block = f"## {name}\n\n{_forms(store, job)}\n\n{_answers(store, job)}"
        text = args.document.read_text("utf-8")
        args.document.write_text(replace_block(text, name, block), "utf-8")
    return 0


def _forms(store: Store, job: SweepJob) -> str:
    """The dense table: every task in every form that the model can be asked in, and what `auto` took."""
    checks = {form: _checks(store, replace(job, recipes=(DENSE.text,), prompting=form)) for form in FORMS}
    chosen = {check.run: check for check in checks["auto"]}
    rows = {check.run: check for form in FORMS for check in checks[form]}
    order = [task for task in tasks.names() if task in job.tasks]
    lines = ["| task | form | n | floor | dense | this model … |", "|---|---|---|---|---|---|"]
    for check in sorted(rows.values(), key=lambda check: order.index(check.task)):
        form = f"**{check.form}**" if check.run in chosen else check.form
        lines.append(f"| {check.title} | {form} | {check.n} | {_floor(check)} | {_score(check)} | {_verdict(check)} |")
    lines.append("\nBold is what `auto` takes:")
    # a run keeps why it was asked in this form the first time, which may be that somebody requested it
    tokenizer: Any = SimpleNamespace(chat_template=bool(checks["chat"]))
    titles: dict[Prompting, list[str]] = {}
    for check in checks["auto"]:
        titles.setdefault(settle("auto", tasks.get(check.task, job.data).strict, tokenizer), []).append(check.title)
    lines += [f"- {form.text} for {', '.join(names)}: {form.reason}." for form, names in titles.items()]
    if not checks["chat"]:
        lines.append("- chat is refused: the model has no chat template.")
    return "\n".join(lines)


def _checks(store: Store, job: SweepJob) -> list[TaskCheck]:
    """The checks of one form; none where the model cannot be asked in it."""
    try:
        keys = run_sweep(job, store)
    except BadRequest as error:
        print(f"{job.prompting}: {error}", file=sys.stderr)
        return []
    return views.checks(store, [keys.runs[task][DENSE.text] for task in job.tasks])


def _floor(check: TaskCheck) -> str:
    return "none" if math.isnan(check.floor) else score_text(check.floor, True)


def _score(check: TaskCheck) -> str:
    better = tasks.get(check.task, tasks.OFFICIAL).higher_is_better
    value, low, high = (score_text(number, better) for number in (check.score.value, check.score.low, check.score.high))
    return value if math.isnan(check.score.low) else f"{value} [{low}, {high}]"


def _verdict(check: TaskCheck) -> str:
    because = check.because.partition(": ")[2] or check.because
    return "can be measured" if check.measurable else f"cannot be measured: {because}"


def _answers(store: Store, job: SweepJob) -> str:
    """The first questions, in the task's fixed random order, that dense answers right, and everyone's answers."""
    keys = run_sweep(replace(job, recipes=RECIPES, tasks=("world_facts",), limit=ASKED), store)
    samples = {recipe: views.samples(store, keys.runs["world_facts"][recipe]) for recipe in RECIPES}
    common = min(map(len, samples.values()))
    runs = {recipe: rows[:common] for recipe, rows in samples.items()}
    right = [row["id"] for row in runs[DENSE.text] if row["score"] == 1][:ANSWERS]
    answers = {recipe: {row["id"]: row for row in rows} for recipe, rows in runs.items()}
    scores = ", ".join(
        f"{views.label_of(name)} {sum(row['score'] or 0 for row in rows):.0f}" for name, rows in runs.items()
    )
    lines = [f"Right of {common} closed-book questions: {scores}. The first {len(right)} that dense has right:", ""]
    for name in right:
        row = answers[DENSE.text][name]
        lines += [f"**{row['question']}** ({row['gold'].partition(' · ')[0]})", "", "| | | |", "|---|---|---|"]
        for recipe in RECIPES:
            own = answers[recipe][name]
            lines.append(f"| {views.label_of(recipe)} | {'✓' if own['score'] == 1 else '✗'} | {_cell(own['answer'])} |")
        lines.append("")
    return "\n".join(lines).rstrip()


def _cell(answer: str) -> str:
    text = " ".join(answer.replace("|", "\\|").replace("<", "&lt;").split())
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


if __name__ == "__main__":
    sys.exit(main())
