"""`kick report FILE.html`: what was measured of a model as one HTML file that works offline."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from kick_core.cli import printing
from kick_core.errors import BadRequest, KickError, nearest
from kick_core.store import open_store
from kick_core.store.files import replace_file
from kick_core.units import bytes_text


def run(args: Namespace) -> int:
    """`kick report FILE.html`"""
    from kick_core import views

    store, file = open_store(args.cache), Path(args.file)
    scores = views.scores(store)
    models = list(scores["model"].value_counts().index)
    if not models:
        raise KickError(f"nothing is measured in {store.root}: `kick sweep pocket --preset demo` fills it")
    if args.model is not None and args.model not in models:
        raise nearest(args.model, models, "measured model")
    if file.suffix != ".html":
        raise BadRequest(f"{file} does not end in .html: the report is one HTML file")
    model = args.model or models[0]
    kinds, protocols = views.data_kinds(scores, model), views.protocols(scores, model)
    data = kinds[0] if args.data is None else views.kind_of_data(args.data)
    if data not in kinds:
        raise BadRequest(f"{model} was not asked on data {args.data!r}: it was asked on {' and '.join(kinds)}")
    protocol = args.protocol or protocols[0]
    if protocol not in protocols:
        raise BadRequest(f"{model} was not asked under protocol {protocol!r}: only {' and '.join(protocols)}")
    page = views.report(store, model, protocol, data).encode()
    replace_file(file.resolve(), page)
    if args.json:
        facts = {"file": str(file), "bytes": len(page), "model": model, "protocol": protocol, "data": data}
        printing.document(facts)
    else:
        print(f"{file}: {bytes_text(len(page))}")
    return 0
