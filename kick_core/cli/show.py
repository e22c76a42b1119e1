"""`kick show KEY` and `kick pin KEY`: one artifact, run or judging by its key or the beginning of it."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from typing import Any

from kick_core.cli import printing
from kick_core.cli.formats import CSV, TABLE
from kick_core.errors import BadRequest
from kick_core.store import Store, judgments, open_store, results, weight_artifacts


def run(args: Namespace) -> int:
    """`kick show KEY`: one document in either form, it is for reading whole; a judging with all that was said."""
    store = open_store(args.cache)
    room, key = _matching(store, args.key)
    if args.samples or args.ids or args.subject or args.limit or args.format != TABLE:
        if room != "results":
            raise BadRequest(f"{key} is no run: only runs have samples")
        return _print_samples(store, key, args)
    if room == "weights":
        card = weight_artifacts.card(store, key)
        sizes = {"bits_per_weight": card.bits_per_weight, "sparsity": card.sparsity}
        printing.document(card.to_json() | sizes | {"stored_bytes": round(weight_artifacts.sizes(store).get(key, 0))})
    elif room == "judgments":
        from kick_core import views

        said = [asdict(one) for one in views.said(store, key)]
        printing.document(judgments.card(store, key).to_json() | {"said": said})
    else:
        printing.document(results.run(store, key).to_json() | {"n": results.measured(store, key)})
    return 0


def _print_samples(store: Store, key: str, args: Namespace) -> int:
    """A run's samples, chosen by id or subject; texts are cut short in tables and whole in CSV and JSON."""
    from kick_core import views

    if args.limit is not None and args.limit < 1:
        raise BadRequest(f"--limit {args.limit}: at least 1 sample is needed")
    samples = views.samples(store, key, tuple(args.ids), args.subject)[: args.limit]
    if args.json:
        printing.document({"run": key, "samples": samples})
        return 0
    if args.format == TABLE and args.ids:
        for sample in samples:
            for name in ("id", "prompt", "gold", "answer", "score", "why"):
                printing.lines(f"{name}:", str(sample[name]).split("\n"))
            print()
        return 0
    width = None if args.format == CSV else 60
    names = ("id", "subject", "question", "gold", "answer", "score", "why")
    printing.table(names, ([_cell(sample[name], width) for name in names] for sample in samples), args.format)
    return 0


def _cell(value: Any, width: int | None) -> str:
    text = "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
    line = text if width is None else " ".join(text.split())
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"


def pin(args: Namespace) -> int:
    """`kick pin KEY [--off]`: whatever space is needed, `kick gc` leaves this artifact alone."""
    store = open_store(args.cache)
    room, key = _matching(store, args.key)
    if room != "weights":
        raise BadRequest(f"{key} is a run: outputs are never removed, so there is nothing to pin")
    weight_artifacts.pin(store, key, not args.off)
    if args.json:
        printing.document({"key": key, "pinned": not args.off})
    else:
        print(f"{key}: {'no longer pinned' if args.off else 'pinned'}")
    return 0


def _matching(store: Store, prefix: str) -> tuple[str, str]:
    """The top folder and the whole key that a prefix means. Raises BadRequest when it means none or several."""
    matches = [
        (room, key)
        for room in ("weights", "results", "judgments")
        for key in store.keys(room)
        if key.startswith(prefix)
    ]
    if len(matches) != 1:
        what = "no key begins" if not matches else f"{len(matches)} keys begin"
        raise BadRequest(f"{what} with {prefix[:60]!r} in {store.root}: `kick list` shows the keys")
    return matches[0]
