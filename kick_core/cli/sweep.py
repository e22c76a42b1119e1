"""`kick sweep`: a whole grid of recipes and tasks, here or on a cluster; with `--plan` what it would cost."""

from __future__ import annotations

from argparse import Namespace

from kick_core.cli.requests import experiment_base, preset_job
from kick_core.errors import BadRequest
from kick_core.store import open_store
from kick_core.sweeps import experiments
from kick_core.sweeps.request import PRESETS


def run(args: Namespace) -> int:
    """`kick sweep MODEL --preset demo` or `--recipe R --task T`; with `--plan` nothing is done."""
    from kick_core.cli import jobs

    if args.attach or args.stop:
        return jobs.attach(args) if args.attach else jobs.stop(args)
    if args.model is None:
        raise BadRequest("kick sweep needs a MODEL (pocket, a folder, a hub id), or a job: --attach ID, --stop ID")
    if args.gpus_per_task is not None and not args.ray:
        raise BadRequest("--gpus-per-task is for clusters: add --ray auto or --ray HOST:PORT")
    if args.preset in experiments.NAMES and args.preset not in PRESETS:
        return _experiment(args)
    if args.plan:
        from kick_core.cli.plan import print_plans

        print_plans((preset_job(args),), open_store(args.cache), as_json=args.json)
        return 0
    if args.ray:
        return jobs.start(args)
    from kick_core.cli.running import run_sweep, skipped

    store, job = open_store(args.cache), preset_job(args)
    keys = run_sweep(job, store, args.workers, partly=True)
    recipes = tuple(recipe.text for recipe in job.parsed())
    from kick_core.cli.score_tables import print_scores  # tables take a second to import: the sweep does not wait

    print_scores(job, keys, store, recipes, "json" if args.json else args.format)
    return skipped(keys)


def _experiment(args: Namespace) -> int:
    """A preset that is several sweeps is an experiment of the paper, as `kick reproduce` runs it."""
    if args.ray:
        raise BadRequest(f"preset {args.preset} is several sweeps, and --ray runs one: name recipes and tasks")
    if args.engine != "kick" or args.device_map:
        raise BadRequest(f"--preset {args.preset} is an experiment of several sweeps: it asks the open model only")
    from kick_core.cli import reproduce

    store = open_store(args.cache)
    jobs = experiments.requests(args.preset, experiment_base(args, args.model), store)
    return reproduce.experiment(args.preset, jobs, store, workers=args.workers, plan=args.plan, as_json=args.json)
