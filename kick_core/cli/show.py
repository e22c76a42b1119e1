"""`kick show KEY` and `kick pin KEY`: one artifact, run or judging by its key or the beginning of it."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from kick_core.cli import printing
from kick_core.errors import BadRequest
from kick_core.store import Store, judgments, open_store, results, weight_artifacts


def run(args: Namespace) -> int:
    """`kick show KEY`: one document in either form, it is for reading whole; a judging with all that was said."""
    store = open_store(args.cache)
    room, key = _matching(store, args.key)
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
