"""The same questions, the same model, the whole program: this package's CPU seconds beside lm-evaluation-harness's.

    python -m benchmarks.lm_eval_throughput MODEL TASK LIMIT --dtype bfloat16 [--data DIR] [--harness PYTHON]

Both begin as processes of their own, without a cache, one thread each: imports, opening, tokenizing, asking, scoring
and logging all count. CPU seconds (user and system) are compared, because they are the same on a machine that others
use too; wall seconds are kept beside them. The harness is given the limit's questions only, in this package's prompts.
Every call adds or replaces one row of benchmarks/results/lm-eval-throughput.json; --docs writes the table of
docs/lm-eval.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import _machine, lm_eval
from kick_core import tasks
from kick_core.store import open_store, results

RESULTS = Path(__file__).parent / "results" / "lm-eval-throughput.json"
BEGIN, END = "<!-- throughput -->", "<!-- end of throughput -->"
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def main() -> None:
    """Time one row, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("task", nargs="?")
    parser.add_argument("limit", nargs="?", type=int)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--data", default="official")
    parser.add_argument("--harness", default=".venv-lm-eval/bin/python")
    parser.add_argument("--batch", default="8", help="the harness's --batch_size")
    parser.add_argument("--docs", action="store_true")
    args = parser.parse_args()
    row = measure(args) if args.task else None
    rows = json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []
    if row is not None:
        place = ("model", "task", "limit", "dtype")
        rows = [old for old in rows if any(old[name] != row[name] for name in place)] + [row]
        RESULTS.write_text(json.dumps({"about": _machine.about(), "rows": rows}, indent=1) + "\n")
        print(json.dumps(row))
    if args.docs:
        page = lm_eval.DOCS.read_text()
        before, after = page[: page.index(BEGIN) + len(BEGIN)], page[page.index(END) :]
        lm_eval.DOCS.write_text(f"{before}\n{table(rows)}\n{after}")


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """One row: both programs on the same questions."""
    data = str(Path(args.data).resolve()) if Path(args.data).exists() else args.data
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        model = lm_eval.folder_of(args.model, work)
        lm_eval.write_tasks([lm_eval.job(model, data, [args.task], args.limit, args.dtype)], work / "tasks")
        ours = timed(
            [
                sys.executable, "-m", "kick_core", "evaluate", model, "dense", "--task", args.task, "--data", data,
                "--limit", str(args.limit), "--prompting", "shots:5", "--dtype", args.dtype, "--device", "cpu",
                "--json", "--cache", str(work / "fresh"),
            ],
            work / "ours.json",
        )  # fmt: skip
        theirs = timed(
            lm_eval.command(
                Path(args.harness).absolute(), model, work / "tasks", work / "out", [args.task], args.dtype, args.batch
            ),
            work / "theirs.txt",
        )
        (found,) = json.loads((work / "ours.json").read_text())["results"]
        generated = sum(output.tokens for output in results.outputs(open_store(str(work / "fresh")), found["run"]))
    return {
        "model": args.model.rstrip("/").split("/")[-1], "task": args.task, "limit": args.limit, "dtype": args.dtype,
        "n": found["n"], "batch": args.batch, "ours": ours, "theirs": theirs,
    } | ({"generated": generated} if tasks.record(args.task).kind == "generate" else {})  # fmt: skip


def timed(command: list[str], out: Path) -> dict[str, float]:
    """CPU and wall seconds of a process."""
    start = time.monotonic()
    with open(out, "w") as file:
        process = subprocess.Popen(command, stdout=file, env=os.environ | ENVIRONMENT)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command[:4]} ended with {process.returncode}")
    return {"cpu": round(usage.ru_utime + usage.ru_stime, 2), "wall": round(time.monotonic() - start, 2)}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown: what is counted per second are questions, or generated tokens."""
    lines = [
        "| model | dtype | task | questions | CPU s, kick | lm-eval | a CPU s, kick | lm-eval | ratio |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in sorted(rows, key=lambda row: (row["model"], row["dtype"], row["task"], row["limit"])):
        ours, theirs = row["ours"]["cpu"], row["theirs"]["cpu"]
        count, unit = (row["generated"], "tokens") if "generated" in row else (row["n"], "questions")
        lines.append(
            f"| {row['model']} | {row['dtype']} | {row['task']} | {row['n']} | {ours:.1f} | {theirs:.1f} "
            f"| {count / ours:.2f} {unit} | {count / theirs:.2f} | {theirs / ours:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
