"""`kick check MODEL`: what a model is asked, what it answers, and whether the answers can be measured at all."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from kick_core import views
from kick_core.cli import printing
from kick_core.cli.requests import sweep_job, task_names
from kick_core.cli.running import run_sweep, skipped
from kick_core.spec import DENSE
from kick_core.store import open_store
from kick_core.sweeps.request import check_job, check_tasks
from kick_core.views import CheckedAnswer, TaskCheck


def run(args: Namespace) -> int:
    """`kick check MODEL`: dense is asked a few questions per task; what is measured already is read."""
    store = open_store(args.cache)
    names = task_names(args) or check_tasks(args.model, args.data)
    job = check_job(sweep_job(args, (DENSE.text,), names))
    keys = run_sweep(job, store, partly=True)
    checks = views.checks(store, [keys.runs[name][DENSE.text] for name in names if name not in keys.skipped])
    if args.json:
        documents = [asdict(check) | {"verdict": check.verdict, "size": check.size} for check in checks]
        facts = {"model": keys.model.name, "fingerprint": keys.model.fingerprint, "checks": documents}
        printing.document(facts | ({"skipped": dict(keys.skipped)} if keys.skipped else {}))
        return skipped(keys)
    for check in checks:
        _print(check)
    return skipped(keys)


def _print(check: TaskCheck) -> None:
    print(f"{check.task}: {check.title}")
    print(f"  prompts: {check.form}" + (f" ({check.reason})" if check.reason else ""))
    for number, answer in enumerate(check.answers, 1):
        _print_answer(number, answer)
    print(f"  {check.size}")
    print(f"  This model {check.verdict}, because {check.because}.\n")


def _print_answer(number: int, answer: CheckedAnswer) -> None:
    if answer.sent:
        text = "".join(piece for piece, _ in answer.sent.pieces)
        print(f"  {number}. sent, {answer.sent.tokens:,} tokens:")
        print("\n".join(f"     | {line}" for line in printing.clean_text(text).split("\n")))
        for tokens in answer.sent.options:
            print(f"     option in {len(tokens)} tokens: {printing.clean(' '.join(map(repr, tokens)))}")
    else:
        print(f"  {number}. {printing.clean(answer.question)}")
    if answer.right is not None:
        print(f"     answer: {_line(answer.raw)}")
        read = f"read as {_line(answer.extracted)}: " if answer.extracted not in ("", answer.raw) else ""
        print(f"     {read}{'right' if answer.right else 'not right'} (gold: {_line(answer.gold)})")


def _line(text: str) -> str:
    return printing.clean(text.replace("\n", " ⏎ "))
