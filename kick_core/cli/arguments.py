"""The arguments of every command."""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from importlib import import_module

from kick_core import __version__
from kick_core.cli.formats import FORMATS, TABLE
from kick_core.spec import DTYPES


def _later(file: str, name: str = "run") -> Callable[[Namespace], int]:
    """A command whose file is imported when it is run: help and plans wait for nothing."""

    def command(args: Namespace) -> int:
        status: int = getattr(import_module(f"kick_core.cli.{file}"), name)(args)
        return status

    return command


_RECIPES = """recipes:
  dense                the uncompressed model
  wanda@0.5            a method and the share of weights to drop
  magnitude@2:4        keep 2 of every 4 consecutive inputs of a row
  rtn@4bit,group=64    bits, with options after commas
  wanda@0.5,alloc=search,objective=factoid_qa
                       layer allocation searched for the least error (default), perplexity or task loss
  depth@0.25           whole blocks; width: channels and heads; mop: whichever of the two hurts less
  mix@4.5bpw           every matrix in its own way, under a budget of bits per weight
"""


def parser() -> ArgumentParser:
    """The whole command line."""
    top = ArgumentParser(
        prog="kick",
        description="Compress language models, evaluate what they still know, keep every answer.",
        epilog=_RECIPES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.set_defaults(opens=False, model=None)
    top.add_argument("--version", action="version", version=f"kick {__version__}")
    commands = top.add_subparsers(metavar="COMMAND", required=True)
    _compress(commands)
    _evaluate(commands)
    _check(commands)
    _sweep(commands)
    _reproduce(commands)
    _export(commands)
    _score(commands)
    _import(commands)
    _judge(commands)
    _cache(commands)
    _packs(commands)
    _app(commands)
    return top


def _command(commands: argparse._SubParsersAction[ArgumentParser], name: str, about: str) -> ArgumentParser:
    command = commands.add_parser(
        name, help=about, description=about, epilog=_RECIPES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    place = "the cache (default: KICK_CACHE, else cache/ of a checkout or ~/.cache/kick)"
    command.add_argument("--cache", metavar="DIR", help=place)
    return command


def _format(command: ArgumentParser) -> None:
    command.add_argument(
        "--format",
        choices=FORMATS,
        default=TABLE,
        help="how tables are printed: aligned, Markdown, or CSV with every number unrounded; json is --json",
    )


def _model(command: ArgumentParser, *, needed: bool = True) -> None:
    count = None if needed else "?"
    about = "pocket, pocket-4m, a folder in hub layout, or a hub id"
    command.add_argument("model", metavar="MODEL", nargs=count, help=about)
    command.add_argument("--revision", help="of a hub model")
    command.add_argument(
        "--device",
        "--devices",
        default="auto",
        help="auto, cpu, cuda, cuda:N, or all: a sweep uses every GPU",
    )
    _opened(command)


def _opened(command: ArgumentParser) -> None:
    command.add_argument("--dtype", default="auto", help=f"one of {', '.join(DTYPES)}; auto is the model's own")
    command.add_argument(
        "--bos", default="auto", metavar="B", help="auto (as the tokenizer does), or always: texts begin with its BOS"
    )


def _calibration(command: ArgumentParser, *, windows: int | None = 128) -> None:
    group = command.add_argument_group("calibration (for methods that need data)")
    group.add_argument("--calibration", metavar="SRC", help="english, pocket, c4, wikitext2, text, JSONL or token ids")
    group.add_argument("--windows", type=int, help="number of windows" + (f" (default {windows})" if windows else ""))
    group.add_argument("--length", type=int, help="tokens per window (default: the model's context, at most 2048)")
    group.add_argument("--seed", type=int, help="which windows are drawn (default 0)")
    group.add_argument("--propagate", help="compressed (the papers' procedure) or dense")
    group.add_argument(
        "--min-tokens",
        type=int,
        metavar="N",
        help="an expert that fewer tokens reach is compressed on a flat Hessian, as without data (default 1)",
    )


def _evaluation(command: ArgumentParser) -> None:
    command.add_argument("--limit", type=int, metavar="N", help="evaluate the first N examples of each task")
    command.add_argument(
        "--data",
        default="auto",
        metavar="DATA",
        help="pocket (the pocket models' world), official (shipped facts; the benchmarks from the hub), a folder with "
        "the benchmarks' files, or a .csv or .jsonl file of your own questions; auto: pocket for pocket models",
    )
    command.add_argument(
        "--prompting",
        default="auto",
        metavar="FORM",
        help="auto (chat template, or worked examples), raw, chat or shots:K",
    )
    command.add_argument(
        "--protocol", default="strict", help="strict, or paper: LLM-KICK's released code, fault for fault"
    )


def _draws(command: ArgumentParser) -> None:
    _format(command)
    command.add_argument(
        "--task-file", metavar="FILE", help="a task of your own: a YAML or JSON file beside its data (docs/usage.md)"
    )
    command.add_argument(
        "--limit-of", action="append", default=[], dest="limits", metavar="TASK=N",
        help="the limit of one task, whatever --limit says; may be repeated",
    )  # fmt: skip
    command.add_argument("--shots", type=int, metavar="K", help="worked examples before each question")
    command.add_argument(
        "--fewshot-seed", type=int, metavar="S", help="draw which worked examples are shown (default: the first)"
    )
    command.add_argument(
        "--repeats", type=int, default=1, metavar="R", help="answers to each question of a sampled task (default 1)"
    )


def _backend(command: ArgumentParser) -> None:
    command.add_argument(
        "--engine", default="kick", metavar="E", help="inference engine: kick, or vllm[,NAME=VALUE…] (see KICK_VLLM)"
    )
    command.add_argument(
        "--device-map", metavar="auto", help="evaluate a model that no GPU holds: spread over all GPUs, memory and disk"
    )
    command.add_argument("--max-memory", default="", metavar="M", help="what a device map may take: 0=20GiB,cpu=60GiB")


def _comparison(command: ArgumentParser) -> None:
    command.add_argument("--fidelity", action="store_true", help="compare whole distributions with dense: KL, top-1")
    command.add_argument(
        "--noise-floor",
        action="store_true",
        help="evaluate dense twice, in other batches: the evaluator's own noise",
    )


def _compress(commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    command = _command(commands, "compress", "Compress a model; finished artifacts are kept and found again.")
    _model(command)
    command.add_argument("recipes", nargs="+", metavar="RECIPE")
    _calibration(command)
    command.set_defaults(command=_later("compress"), opens=True)


def _evaluate(commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    command = _command(commands, "evaluate", "Evaluate a model under recipes on tasks, and compare with dense.")
    _model(command)
    command.add_argument("recipes", nargs="+", metavar="RECIPE")
    command.add_argument("--task", action="append", default=[], dest="tasks", metavar="T", help="may be repeated")
    _evaluation(command)
    _draws(command)
    command.add_argument("--ids", metavar="A,B,…", help="only these examples of the task, a run of its own")
    command.add_argument("--subject", default="", metavar="S", help="only a subject, discipline, bucket or category")
    _backend(command)
    _comparison(command)
    _calibration(command)
    command.set_defaults(command=_later("evaluate"), opens=True)


def _check(commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    command = _command(
        commands, "check", "Show what a model is asked, what it answers, and whether that can be measured at all."
    )
    _model(command)
    command.add_argument(
        "--tasks", "--task", nargs="+", action="extend", default=[], metavar="T",
        help="default: the shipped ones, or those of --data",
    )  # fmt: skip
    _evaluation(command)
    _backend(command)
    _calibration(command)
    command.set_defaults(command=_later("check"), opens=True, fidelity=False, noise_floor=False)


def _sweep(commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    command = _command(commands, "sweep", "Run a grid of recipes and tasks; finished cells cost nothing.")
    _model(command, needed=False)
    command.add_argument(
        "--preset", help="demo, facts (real models, no network), paper, or an experiment of `kick reproduce`"
    )
    command.add_argument("--plan", action="store_true", help="run nothing; print what it would cost")
    command.add_argument("--recipe", action="append", default=[], dest="recipes", metavar="R", help="may be repeated")
    command.add_argument("--task", action="append", default=[], dest="tasks", metavar="T", help="may be repeated")
    command.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes (default: one per core for small models)",
    )
    _cluster(command)
    _evaluation(command)
    _draws(command)
    _backend(command)
    _comparison(command)
    _calibration(command, windows=None)
    command.set_defaults(command=_later("sweep"), opens=True)


def _cluster(command: ArgumentParser) -> None:
    group = command.add_argument_group(
        "on a cluster (extra ray)",
        "The sweep becomes a job that goes on without this terminal: Ctrl-C leaves it, --attach comes back.",
    )
    group.add_argument(
        "--ray", metavar="ADDRESS",
        help="HOST:PORT of a Ray cluster, or auto: RAY_ADDRESS if it is set, else all of this machine",
    )  # fmt: skip
    group.add_argument("--gpus-per-task", type=int, metavar="K", help="GPUs per recipe (default 1)")
    group.add_argument("--attach", metavar="ID", help="show a job's progress; one whose process is gone is resumed")
    group.add_argument("--stop", metavar="ID", help="stop a job; what it finished is kept")


def _reproduce(commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    command = _command(commands, "reproduce", "Run an experiment of the LLM-KICK paper, beside its published numbers.")
    command.add_argument(
        "name",
        metavar="NAME",
        help="table2, table3, calibration-size, small-dense, k-shot, disciplines, perplexity-vs-tasks, families or "
        "recovery",
    )
    command.add_argument(
        "--model", action="append", default=[], dest="models", metavar="M",
        help="pocket (the default), a folder in hub layout, or a hub id; families: may be repeated",
    )  # fmt: skip
    command.add_argument("--tuned-from", metavar="BASE", help="families: the model that --model was tuned from; kept")
    command.add_argument("--small", metavar="MODEL", help="small-dense: the smaller model, which stays dense")
    command.add_argument("--revision", help="of a hub model")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    _opened(command)
    command.add_argument("--plan", action="store_true", help="run nothing; print what it would cost")
    command.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes (default: one per core for small models)",
    )
    _evaluation(command)
    _calibration(command, windows=None)
    command.set_defaults(command=_later("reproduce"), opens=True)


def _export(commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    command = _command(commands, "export", "Write a compressed model for other programs; reloaded and compared first.")
    _model(command)
    command.add_argument("recipe", metavar="RECIPE")
    command.add_argument("folder", metavar="DIR")
    command.add_argument("--format", required=True, help="dense, gptq or compressed-tensors")
    _calibration(command)
    command.set_defaults(command=_later("export"), opens=True)


def _score(commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    command = _command(commands, "score", "Derive all verdicts again from the stored outputs; needs no model.")
    _format(command)
    command.set_defaults(command=_later("score"))


def _import(commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    command = _command(
        commands, "import-lm-eval", "Take samples that lm-evaluation-harness logged (--log_samples) into the explorer."
    )
    command.add_argument("dense", metavar="DENSE", help="samples_*.jsonl of the dense model, or a folder of them")
    command.add_argument("compressed", nargs="+", metavar="COMPRESSED", help="the same of compressed models")
    command.add_argument(
        "--recipe", action="append", default=[], dest="recipes", metavar="R",
        help="how each was compressed, in their order (default: read out of their names, e.g. wanda-0.5)",
    )  # fmt: skip
    command.add_argument("--model-name", metavar="NAME", help="what the model is called (default: its folder's name)")
    _format(command)
    command.set_defaults(command=_later("import_lm_eval"))


def _judge(commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    command = _command(commands, "judge", "Have a language model judge stored answers against dense; opens no model.")
    command.epilog = (
        "endpoint: any OpenAI-compatible one. Address and key come from the environment only:\n"
        "  OPENAI_BASE_URL and OPENAI_API_KEY, or KICK_JUDGE_BASE_URL and KICK_JUDGE_API_KEY\n"
        "  KICK_JUDGE_PRICE_IN and KICK_JUDGE_PRICE_OUT (per million tokens) add the cost to the forecast"
    )
    command.add_argument("named", metavar="RUN_OR_MODEL", help="a model as it was evaluated, or a run's key")
    command.add_argument("recipes", nargs="*", metavar="RECIPE", help="which were evaluated (a run alone needs none)")
    command.add_argument("--task", required=True, metavar="T", help="a task that is answered in free text")
    command.add_argument("--style", default="mt-bench", help="mt-bench (default), mt-bench-pairwise or llm-kick")
    command.add_argument("--judge", metavar="MODEL", help="as the endpoint calls it (default: KICK_JUDGE_MODEL)")
    command.add_argument("--repeats", type=int, default=1, metavar="K", help="verdicts on every answer (default 1)")
    command.add_argument("--limit", type=int, metavar="N", help="judge the first N examples")
    command.add_argument("--plan", action="store_true", help="forecast calls, tokens and cost, and stop there")
    command.add_argument("--concurrency", type=int, default=4, metavar="C", help="concurrent calls (default 4)")
    command.add_argument("--timeout", type=float, default=180, metavar="S", help="seconds per reply (default 180)")
    command.add_argument("--temperature", metavar="X", help="default: the style's; 'default' leaves it to the endpoint")
    command.add_argument("--max-tokens", type=int, metavar="N", help="of a verdict (default: the style's)")
    command.add_argument(
        "--as-published", action="store_true", help="bare prompts; LLM-KICK's with the compressed answer second only"
    )
    command.set_defaults(command=_later("judge"))


def _cache(commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    command = _command(commands, "list", "List what the cache holds.")
    _format(command)
    command.set_defaults(command=_later("list"))
    command = _command(commands, "show", "Show one artifact, run or judging by its key.")
    command.add_argument("key", metavar="KEY", help="a key, or the beginning of one")
    group = command.add_argument_group("samples of a run: question, gold, answer and score, one a row")
    group.add_argument("--samples", action="store_true", help="print them instead of the card")
    group.add_argument("--id", action="append", default=[], dest="ids", metavar="ID", help="this one, with its prompt")
    group.add_argument("--subject", metavar="S", help="those of a subject, discipline, bucket or category")
    group.add_argument("--limit", type=int, metavar="N", help="the first N")
    _format(command)
    command.set_defaults(command=_later("show"))
    command = _command(commands, "verify", "Check for damage; damaged artifacts are set aside and made again.")
    command.add_argument("--deep", action="store_true", help="read every byte")
    command.set_defaults(command=_later("verify"))
    command = _command(
        commands,
        "gc",
        "Free space: remove leftovers, share nested masks, then remove what is cheapest to remake.",
    )
    command.add_argument("--max-size", type=int, metavar="BYTES", help="keep at most this many bytes of weights")
    command.set_defaults(command=_later("gc"))
    command = _command(commands, "pin", "Protect an artifact from gc.")
    command.add_argument("key", metavar="KEY", help="a key, or the beginning of one")
    command.add_argument("--off", action="store_true", help="remove the protection")
    command.set_defaults(command=_later("show", "pin"))
    command = _command(commands, "report", "Write a model's results as one HTML file that works offline.")
    command.add_argument("file", metavar="FILE.html")
    command.add_argument("--model", help="which model (default: the one measured most)")
    command.add_argument(
        "--data", metavar="DATA", help="pocket, official or a folder (default: pocket where it was evaluated)"
    )
    command.add_argument("--protocol", help="strict or paper (default: the most used one)")
    command.set_defaults(command=_later("report"))
    command = _command(commands, "doctor", "Show what this machine offers and what is missing.")
    command.set_defaults(command=_later("doctor"))


def _packs(commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    command = _command(commands, "pack", "Put a model's results into one file that travels without weights.")
    command.add_argument("file", metavar="FILE.kickpack")
    command.add_argument("--model", required=True, metavar="M", help="as it was evaluated, or its fingerprint")
    command.add_argument("--recipes", nargs="+", default=[], metavar="R", help="only these, and dense (default: all)")
    command.add_argument("--tasks", nargs="+", default=[], metavar="T", help="only these (default: all)")
    command.add_argument("--limit", type=int, metavar="N", help="the first N examples of every task")
    command.add_argument(
        "--compact", action="store_true", help="keep reported verdicts, changed answers and the first 100"
    )
    command.add_argument(
        "--own-questions", action="store_true", help="pass the questions of your own files on (--data FILE)"
    )
    command.add_argument("--name", default="", help="what the model is called in the pack")
    command.add_argument("--device-name", default="", metavar="TEXT", help="what measured, in words")
    command.add_argument("--commit", metavar="ID", help="of the program that measured (default: this checkout's)")
    command.add_argument("--replace", action="store_true", help="replace a file that is there")
    command.set_defaults(command=_later("pack"))
    command = _command(commands, "unpack", "Add the results of a pack to the cache; nothing there is overwritten.")
    command.add_argument("file", metavar="FILE.kickpack")
    command.add_argument("--data", metavar="DIR", help="official data that fills in questions the pack left out")
    command.add_argument("--list", action="store_true", help="only say what the pack holds")
    command.set_defaults(command=_later("pack", "unpack"))


def _app(commands: argparse._SubParsersAction[ArgumentParser]) -> None:
    command = _command(commands, "app", "Open the explorer on 127.0.0.1.")
    command.add_argument("--port", type=int, default=8501)
    command.add_argument("--no-browser", action="store_true", help="do not open a browser window")
    command.add_argument("--read-only", action="store_true", help="view only: no jobs, no prompts")
    command.add_argument("--no-gallery", action="store_true", help="leave out the measured models that ship")
    command.add_argument("--demo", action="store_true", help="run the demo sweep of the pocket model meanwhile")
    command.add_argument(
        "--allow-host", action="append", default=[], dest="allow_hosts", metavar="NAME",
        help="answer under this name too (behind a proxy); may be repeated",
    )  # fmt: skip
    command.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="listen here instead of on 127.0.0.1")
    command.add_argument(
        "--unsafe-no-auth", action="store_true", help="listen beyond this machine though nobody has to log in"
    )
    command.set_defaults(command=_later("app"))
