"""`kick evaluate MODEL RECIPE... --task T...`."""

from __future__ import annotations

from argparse import Namespace

from kick_core.cli.formats import JSON
from kick_core.cli.requests import sweep_job, task_names
from kick_core.cli.running import run_sweep, skipped
from kick_core.errors import BadRequest
from kick_core.spec import parse
from kick_core.store import open_store
from kick_core.sweeps.request import AUTO


def run(args: Namespace) -> int:
    """`kick evaluate MODEL RECIPE... --task T...`: dense is evaluated too, for the comparison."""
    store = open_store(args.cache)
    recipes = tuple(parse(text).text for text in args.recipes)
    if not (names := task_names(args)):
        raise BadRequest(
            f"nothing to evaluate on{'' if args.data == AUTO else f' {args.data}'}: name --task, or give a file of "
            "your own questions with --data, .csv or .jsonl"
        )
    job = sweep_job(args, tuple(dict.fromkeys(("dense", *recipes))), names)
    keys = run_sweep(job, store, partly=True)
    from kick_core.cli.score_tables import print_scores  # tables take a second to import: the sweep does not wait

    print_scores(job, keys, store, recipes, JSON if args.json else args.format)
    return skipped(keys)
