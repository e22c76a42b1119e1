"""`kick export MODEL RECIPE DIR --format F`: a compressed model for other programs."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from kick_core.cli import printing
from kick_core.cli.requests import sweep_job
from kick_core.cli.running import run_sweep
from kick_core.spec import parse
from kick_core.store import open_store
from kick_core.units import bytes_text


def run(args: Namespace) -> int:
    """`kick export MODEL RECIPE DIR --format F`"""
    store = open_store(args.cache)
    job = sweep_job(args, (args.recipe,))
    job.check()
    from kick_core.artifacts.builder import ArtifactBuilder
    from kick_core.artifacts.export import export, refuse_unexportable
    from kick_core.artifacts.loaded_model import open_for

    recipe = parse(args.recipe)
    builder = ArtifactBuilder(store, open_for(job.reference, store, job.device), job.calibration)
    refuse_unexportable(builder, recipe, Path(args.folder), args.format)
    run_sweep(job, store)
    written = export(builder, recipe, Path(args.folder), args.format)
    if args.json:
        printing.document(
            {
                "folder": str(written.folder),
                "format": written.format,
                "bytes": written.bytes,
                "logits_difference": written.difference,
            }
        )
    else:
        size = bytes_text(written.bytes)
        print(f"{written.folder}: {size} as {written.format}; reloaded, logits differ by {written.difference:.2g}")
    return 0
