"""`kick pack FILE` and `kick unpack FILE`: results that travel without weights."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from kick_core import packs, provenance
from kick_core.cli import printing
from kick_core.errors import BadRequest
from kick_core.store import open_store
from kick_core.store.files import replace_file
from kick_core.units import bytes_text


def run(args: Namespace) -> int:
    """`kick pack FILE --model M`: one model's results as one file."""
    file = Path(args.file)
    if file.suffix != packs.SUFFIX:
        raise BadRequest(f"{file} does not end in {packs.SUFFIX}: that is what a pack's name ends in")
    if file.exists() and not args.replace:
        raise BadRequest(f"{file} is there already: name another file, or replace it with --replace")
    commit = provenance.commit() if args.commit is None else args.commit
    selection = packs.Selection(
        args.model, tuple(args.recipes), tuple(args.tasks), args.limit, args.compact, args.own_questions,
        args.name, args.device_name, commit,
    )  # fmt: skip
    header, data = packs.build(open_store(args.cache), selection)
    replace_file(file.resolve(), data)
    if args.json:
        printing.document({"file": str(file), "bytes": len(data), **_document(header)})
        return 0
    print(f"{file}: {bytes_text(len(data))}, {bytes_text(len(data) / len(header.recipes))} a recipe")
    _describe(header)
    return 0


def unpack(args: Namespace) -> int:
    """`kick unpack FILE`: add a pack's results to the cache; `--list` only says what is in it."""
    file = Path(args.file)
    if args.list:
        header = packs.read_header(file)
        printing.document(_document(header)) if args.json else _describe(header)
        return 0
    store = open_store(args.cache)
    done = packs.unpack(file, store, args.data)
    if args.json:
        about = {"file": str(file), "added": done.added, "same": done.same, "notes": list(done.notes)}
        printing.document(about | _document(done.header))
        return 0
    there = f", {done.same} were there already" if done.same else ""
    print(f"{store.root}: {done.added} runs of {printing.clean(done.header.model)} added{there}")
    for note in done.notes:
        print(printing.clean(note))
    return 0


def _document(header: packs.Header) -> dict[str, object]:
    return {name: value for name, value in asdict(header).items() if name != "sections"}


def _describe(header: packs.Header) -> None:
    first, last = header.measured
    days = first if first == last else f"{first} to {last}"
    commit = f", commit {header.commit}" if header.commit else ""
    print(
        printing.clean(
            f"{header.model}: {header.runs} runs, {header.outputs:,} outputs; {len(header.recipes)} recipes on "
            f"{', '.join(header.tasks)}; measured {days} on {', '.join(header.devices)}{commit}"
        )
    )
    for sentence in header.left_out:
        print(printing.clean(sentence))
