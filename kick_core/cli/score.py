"""`kick score`: verdicts derived again from the stored outputs; needs no model."""

from __future__ import annotations

from argparse import Namespace

from kick_core.cli import printing
from kick_core.store import open_store, results
from kick_core.tasks import verdicts
from kick_core.units import count_text


def run(args: Namespace) -> int:
    """`kick score`"""
    store = open_store(args.cache)
    counts = {card.key: len(verdicts.score(store, card.key)) for card in results.runs(store)}
    if args.json:
        printing.document({"verdicts": counts})
    else:
        print(f"{count_text(sum(counts.values()), 'verdict')} on {count_text(len(counts), 'run')}")
    return 0
