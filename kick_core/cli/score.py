"""`kick score`: verdicts derived again from the stored outputs; needs no model."""

from __future__ import annotations

from argparse import Namespace

from kick_core import tasks
from kick_core.cli import printing
from kick_core.cli.formats import TABLE
from kick_core.store import open_store, results
from kick_core.tasks import verdicts
from kick_core.units import count_text


def run(args: Namespace) -> int:
    """`kick score`"""
    store = open_store(args.cache)
    cards = results.runs(store)
    counts = {card.key: len(verdicts.score(store, card.key)) for card in cards}
    if args.json:
        printing.document({"verdicts": counts})
    elif args.format == TABLE:
        print(f"{count_text(sum(counts.values()), 'verdict')} on {count_text(len(counts), 'run')}")
    else:
        versions = {card.key: str(tasks.of_run(card).version) for card in cards}
        rows = ((c.key, c.model, c.recipe, c.task, versions[c.key], str(counts[c.key])) for c in cards)
        printing.table(("run", "model", "recipe", "task", "version", "verdicts"), rows, args.format)
    return 0
